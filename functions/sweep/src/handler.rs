//! One run: every unfinished job is looked at, as far as the time goes, the stalest first of each state.
//!
//! Any number of runs may meet: each write is on condition of what was read, and a second message or event finds nothing
//! to do. A job that cannot be repaired is logged and does not keep the others from it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use aws_config::SdkConfig;
use futures_util::{StreamExt, stream};
use reelay_core::{
    adapters::{
        AwsError,
        accounts::AccountsTable,
        deletion::DELETED,
        dynamo::Item,
        jobs::JobsTable,
        queue::TaskQueues,
        tasks,
        usage::{RESERVED, Usage},
    },
    config::Env,
    domain::{
        failure::{Failure, FailureCode, Stage},
        job::{Job, MAX_ATTEMPTS, Status},
        message::Task,
        spec::Priority,
        task::TaskId,
        time::UtcTime,
    },
};

use crate::{
    decide::{self, RESEND_AFTER, RESEND_WHEN_IDLE_AFTER, Repair},
    removal::Storage,
    sources::Sources,
    store::{self, OpenJob, Page},
};

/// How long before Lambda's own limit no further job is begun.
const LAST_BEGIN: Duration = Duration::from_secs(10);
/// How long before it all work is dropped: the next run does it.
const LAST_WORK: Duration = Duration::from_secs(2);
/// Jobs at the same time. The work is waiting for answers.
const JOBS_AT_ONCE: usize = 8;
/// The event of an upload comes within seconds; for so long nothing is asked.
const EVENT_AFTER: Duration = Duration::from_mins(2);

/// A job's end is settled within seconds by whoever follows the table's stream; for so long it is left to that.
const SETTLED_AFTER: Duration = Duration::from_mins(2);

/// What is looked through, one after the other.
#[derive(Debug, Clone, Copy)]
enum Stock {
    /// Jobs that have tasks, in this state.
    Tasks(Status),
    /// Jobs that wait for their upload.
    Awaited,
    /// Jobs whose place in their account is taken.
    Places,
    /// Jobs that their owners deleted.
    Deleted,
}

/// What the handler works with.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) accounts: AccountsTable,
    pub(crate) jobs: JobsTable,
    pub(crate) usage: Usage,
    pub(crate) queues: TaskQueues,
    pub(crate) sources: Sources,
    pub(crate) storage: Storage,
    /// How long after its window an upload may still arrive.
    pub(crate) upload_grace: Duration,
}

/// Which queues had no message waiting when the run began.
#[derive(Debug, Clone, Copy)]
struct Idle {
    high: bool,
    low: bool,
}

impl Idle {
    fn of(self, priority: Priority) -> bool {
        match priority {
            Priority::High => self.high,
            Priority::Low => self.low,
        }
    }
}

/// What a run did.
#[derive(Debug, Default)]
struct Tally {
    seen: Cell<u32>,
    repaired: Cell<u32>,
    failed: Cell<u32>,
    left: Cell<u32>,
}

fn count(cell: &Cell<u32>, more: u32) {
    cell.set(cell.get().saturating_add(more));
}

impl Sweep {
    /// Reads the configuration.
    pub(crate) fn read(env: &mut Env, sdk: &SdkConfig) -> Option<Self> {
        let (accounts, jobs) = (env.required("ACCOUNTS_TABLE"), env.required("JOBS_TABLE"));
        let (sources, outputs) = (env.required::<String>("SOURCE_BUCKET"), env.required("OUTPUT_BUCKET"));
        let (high, low) = (env.required("HIGH_QUEUE_URL"), env.required("LOW_QUEUE_URL"));
        let (intake, grace) = (env.required("INTAKE_FUNCTION"), env.required("UPLOAD_GRACE_SECONDS"));
        let (accounts, jobs) = (AccountsTable::new(sdk, accounts?), JobsTable::new(sdk, jobs?));
        Some(Self {
            usage: Usage::new(accounts.clone(), jobs.clone()),
            accounts,
            jobs,
            queues: TaskQueues::new(sdk, high?, low?),
            storage: Storage::new(sdk, sources.clone()?, outputs?),
            sources: Sources::new(sdk, sources?, intake?),
            upload_grace: Duration::from_secs(grace?),
        })
    }

    /// Does one run.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(crate) async fn run(&self, deadline: Instant) -> Result<(), AwsError> {
        let tally = Tally::default();
        let before = |margin| deadline.checked_sub(margin).unwrap_or(deadline);
        let work = self.all(before(LAST_BEGIN), &tally);
        let result = tokio::time::timeout_at(before(LAST_WORK).into(), work).await;
        let (jobs, repairs) = (tally.seen.get(), tally.repaired.get());
        let (failed, left) = (tally.failed.get(), tally.left.get());
        tracing::info!(jobs, repairs, failed, left, in_time = result.is_ok(), "sweep done");
        result.unwrap_or(Ok(()))
    }

    async fn all(&self, last_begin: Instant, tally: &Tally) -> Result<(), AwsError> {
        let idle = Idle {
            high: self.is_idle(Priority::High).await,
            low: self.is_idle(Priority::Low).await,
        };
        let queued_for = if idle.high || idle.low {
            RESEND_WHEN_IDLE_AFTER
        } else {
            RESEND_AFTER
        };
        // What somebody waits for comes first, and what costs most to ask for last.
        for (stock, quiet) in [
            (Stock::Tasks(Status::InProgress), Duration::ZERO),
            (Stock::Tasks(Status::Queued), queued_for),
            (Stock::Awaited, EVENT_AFTER),
            (Stock::Places, SETTLED_AFTER),
            (Stock::Deleted, Duration::ZERO),
        ] {
            let mut start = None;
            while Instant::now() < last_begin {
                let Page { jobs, next } = self.page(stock, quiet, start).await?;
                stream::iter(jobs)
                    .for_each_concurrent(JOBS_AT_ONCE, async |open| {
                        self.one(stock, &open, idle, last_begin, tally).await;
                    })
                    .await;
                start = next;
                if start.is_none() {
                    break;
                }
            }
        }
        let removed = self.remove_accounts(last_begin).await?;
        count(&tally.repaired, removed);
        Ok(())
    }

    async fn page(&self, stock: Stock, quiet: Duration, start: Option<Item>) -> Result<Page, AwsError> {
        let quiet_ms = i64::try_from(quiet.as_millis()).unwrap_or(i64::MAX);
        let before = UtcTime::from_epoch_ms(UtcTime::now().epoch_ms() - quiet_ms);
        let state = match stock {
            Stock::Tasks(status) => status.as_str(),
            Stock::Awaited => Status::Pending.as_str(),
            Stock::Places => RESERVED,
            Stock::Deleted => DELETED,
        };
        store::open_jobs(&self.jobs, state, before, start).await
    }

    /// What cannot be asked counts as busy: then messages are taken for lost later, and that is all.
    async fn is_idle(&self, priority: Priority) -> bool {
        self.queues.is_idle(priority).await.unwrap_or_else(|error| {
            tracing::warn!(%error, code = error.code(), "a queue's length is not known");
            false
        })
    }

    async fn one(&self, stock: Stock, open: &OpenJob, idle: Idle, last_begin: Instant, tally: &Tally) {
        let now = UtcTime::now();
        if Instant::now() >= last_begin {
            return count(&tally.left, 1);
        }
        let result = match stock {
            Stock::Tasks(_) => self.tasks(open, idle, now).await,
            Stock::Awaited => self.awaited(open, now).await,
            Stock::Places => self.place(open, now).await,
            Stock::Deleted => self.remove(open, now).await,
        };
        count(&tally.seen, 1);
        match result {
            Ok(repairs) => count(&tally.repaired, repairs),
            Err(error) => {
                count(&tally.failed, 1);
                tracing::error!(%error, code = error.code(), job_id = %open.job_id, "a job could not be repaired");
            }
        }
    }

    /// A job that waits for its upload. Returns the number of repairs.
    async fn awaited(&self, open: &OpenJob, now: UtcTime) -> Result<u32, AwsError> {
        if !decide::is_turn(&open.job_id, now) {
            return Ok(0);
        }
        let key = open.source_key();
        if let Some(upload) = self.sources.find(&key).await? {
            self.sources.announce(&key, &upload, now).await?;
            tracing::warn!(job_id = %open.job_id, "an upload is there whose event has not come");
            return Ok(1);
        }
        // The window of an upload ends after the job was made, so most jobs need not be read.
        if now <= open.updated_at.plus(self.upload_grace) {
            return Ok(0);
        }
        let Some(job) = self.jobs.job(&open.job_id).await? else {
            return Ok(0);
        };
        let over = now > job.upload_expires_at.plus(self.upload_grace);
        if !over {
            return Ok(0);
        }
        // Before the job expires: afterwards, nobody would look for the upload any more.
        if let Some(multipart) = &job.multipart
            && !self.sources.abort(&key, &multipart.upload_id).await?
            && let Some(upload) = self.sources.find(&key).await?
        {
            // It was completed at this very moment.
            self.sources.announce(&key, &upload, now).await?;
            return Ok(1);
        }
        let expired = store::expire(&self.jobs, &job, now).await?;
        if expired {
            tracing::info!(job_id = %job.job_id, "job expired");
        }
        Ok(u32::from(expired))
    }

    /// A job that has its place in its account. Returns the number of repairs.
    async fn place(&self, open: &OpenJob, now: UtcTime) -> Result<u32, AwsError> {
        if !decide::is_turn(&open.job_id, now) {
            return Ok(0);
        }
        let job = self.jobs.job(&open.job_id).await?;
        let Some(job) = job.filter(|job| job.status.is_terminal()) else {
            return Ok(0);
        };
        let settled = self.usage.settle(&job).await?;
        if settled {
            tracing::warn!(job_id = %job.job_id, status = job.status.as_str(), "a place was given back that nobody had");
        }
        Ok(u32::from(settled))
    }

    /// A job that has tasks. Returns the number of repairs.
    async fn tasks(&self, open: &OpenJob, idle: Idle, now: UtcTime) -> Result<u32, AwsError> {
        let job = self.jobs.job(&open.job_id).await?;
        let Some(job) = job.filter(|job| matches!(job.status, Status::Queued | Status::InProgress)) else {
            return Ok(0);
        };
        let tasks = self.jobs.tasks(&job.job_id, &TaskId::prefix(job.generation)).await?;
        let mut done = 0;
        for repair in decide::decide(&job, &tasks, idle.of(job.priority), now) {
            done += u32::from(self.carry_out(&job, repair, now).await?);
        }
        Ok(done)
    }

    /// Returns whether this run did it, and not somebody else in the meantime.
    async fn carry_out(&self, job: &Job, repair: Repair, now: UtcTime) -> Result<bool, AwsError> {
        let Job { job_id, generation, .. } = job;
        let (jobs, generation) = (&self.jobs, *generation);
        let (task, what, done) = match repair {
            Repair::Resend { task, before_ms } => {
                let done = tasks::resend(jobs, job_id, generation, task, before_ms, now).await?;
                (task, "a lost message was sent again", done)
            }
            Repair::Reopen(task) => {
                let done = tasks::reopen(jobs, job_id, generation, task, now).await?;
                (task, "a task whose worker is gone was reopened", done)
            }
            Repair::Revoke { task, attempt } => {
                let done = tasks::revoke(jobs, job_id, generation, task, attempt, now).await?;
                (task, "a straggler was given to another worker", done)
            }
            Repair::Unblock => {
                let done = tasks::unblock_assemble(jobs, job_id, generation, now).await?;
                (TaskId::Assemble, "the joining of finished chunks was begun", done)
            }
            Repair::GiveUp(task) => return self.give_up(job, task, now).await,
            Repair::Miscounted => {
                tracing::error!(%job_id, generation, code = "tasks_miscounted", remaining = job.tasks_remaining,
                    "all chunks are done, and the job counts otherwise");
                return Ok(false);
            }
        };
        if done {
            tracing::warn!(%job_id, generation, %task, "{what}");
            let message = Task::new(job_id.clone(), generation, task);
            self.queues.send(job.priority, &job.account_id, &message).await?;
        }
        Ok(done)
    }

    async fn give_up(&self, job: &Job, task: TaskId, now: UtcTime) -> Result<bool, AwsError> {
        let stage = match task {
            TaskId::Plan | TaskId::Encode(_) => Stage::Encode,
            TaskId::Assemble => Stage::Publish,
        };
        let message = format!("{MAX_ATTEMPTS} attempts did not finish");
        let failure = Failure::new(FailureCode::AttemptsExhausted, stage, MAX_ATTEMPTS, message);
        let done = tasks::fail_exhausted(&self.jobs, &job.job_id, job.generation, task, &failure, now).await?;
        if done {
            tracing::warn!(job_id = %job.job_id, generation = job.generation, %task, "job failed: no attempt is left");
        }
        Ok(done)
    }
}
