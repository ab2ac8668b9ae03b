//! One message: claim, work under supervision, and one write that ends it.
//!
//! A lease of 60 s is renewed every 15 s together with the message's invisibility, so a killed worker's task is claimed
//! again about a minute later by the same message's next delivery. Losing the lease stops the work at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aws_config::SdkConfig;
use aws_lambda_events::event::sqs::SqsMessage;
use reelay_core::{
    adapters::{
        AwsError,
        jobs::JobsTable,
        lease::{Claim, Fenced, Lease, claim},
        queue::TaskQueues,
        tasks,
    },
    batch::Redeliver,
    config::Env,
    domain::{
        failure::{Failure, FailureCode, Stage},
        id::{JobId, WorkerId},
        job::{HEARTBEAT, Job, LEASE, MAX_ATTEMPTS, Status},
        message::Task,
        plan::Limits,
        spec::Priority,
        task::{TaskId, TaskState},
        time::UtcTime,
    },
};
use tokio::sync::watch;

use crate::{
    cage::Tools,
    error::TaskError,
    stages::{Attempt, Made, Progress, Workbench},
    transfer::Transfer,
};

/// How often the job is looked at, and progress is stored at most.
const TICK: Duration = Duration::from_secs(1);
/// With more tasks than this, each stores its progress more rarely: all of them write to the same item.
const TASKS_A_TICK: u32 = 50;
/// How long before Lambda's own limit the work is stopped, so that the end can still be written.
const DEADLINE_MARGIN: Duration = Duration::from_secs(15);
/// A message stays invisible a little longer than its lease, so that it finds the lease run out.
const VISIBILITY_SLACK: Duration = Duration::from_secs(5);
/// How long a second message about a task that is being worked on waits: until the work must be over. The first message
/// is what brings a killed worker's task back, and a wait that is long keeps this one out of the dead-letter queue.
const BUSY_WAIT: Duration = Duration::from_mins(15);
/// The wait after a first passing fault; it grows fourfold with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);

/// The worker.
#[derive(Debug)]
pub(crate) struct Worker {
    bench: Workbench,
    queues: TaskQueues,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handled {
    /// It is not needed any more.
    Done,
    /// It comes back after this wait.
    Again(Duration),
}

/// A message as its queue knows it.
#[derive(Debug, Clone, Copy)]
struct Receipt<'a> {
    priority: Priority,
    handle: &'a str,
}

/// What a running attempt tells its supervisor, and what the supervisor has told the job.
#[derive(Debug)]
struct Watch {
    seen: watch::Receiver<Progress>,
    /// Frames of this task that the job's count has.
    reported: AtomicU64,
}

impl Worker {
    /// Builds the worker from the function's environment.
    pub(crate) fn from_env(env: &mut Env, sdk: &SdkConfig) -> Option<Self> {
        let jobs = env.required("JOBS_TABLE");
        let sources = env.required("SOURCE_BUCKET");
        let outputs = env.required("OUTPUT_BUCKET");
        let high = env.required("HIGH_QUEUE_URL");
        let low = env.required("LOW_QUEUE_URL");
        let scratch_bytes = env.required("SCRATCH_BYTES");
        let memory_mib = env.required::<u32>("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
        let tools = env.required::<Tools>("PATH");
        let chunk_seconds = env.required("CHUNK_SECONDS");
        let single_seconds = env.required("SINGLE_SECONDS");
        let max_tasks = env.required("MAX_TASKS");
        let stall_seconds = env.required("TASK_STALL_SECONDS");
        let compose_min_bytes = env.required("COMPOSE_MIN_BYTES");
        Some(Self {
            bench: Workbench {
                jobs: JobsTable::new(sdk, jobs?),
                tools: tools?,
                transfer: Transfer::new(sdk, sources?, outputs?),
                scratch_bytes: scratch_bytes?,
                memory_mib: memory_mib?,
                limits: Limits {
                    chunk_seconds: chunk_seconds?,
                    single_seconds: single_seconds?,
                    max_tasks: max_tasks?,
                },
                stall: Duration::from_secs(stall_seconds?),
                compose_min_bytes: compose_min_bytes?,
            },
            queues: TaskQueues::new(sdk, high?, low?),
        })
    }

    /// Handles one message. [`Redeliver`] leaves it in the queue: it comes back after a wait, and goes to the dead-letter
    /// queue when it comes back too often.
    pub(crate) async fn message(&self, message: &SqsMessage, deadline: Instant) -> Result<(), Redeliver> {
        let arn = message.event_source_arn.as_deref().unwrap_or_default();
        let Some(priority) = self.queues.priority_of(arn) else {
            tracing::error!("a message came from a queue that is not ours");
            return Err(Redeliver);
        };
        let receipt = Receipt {
            priority,
            handle: message.receipt_handle.as_deref().unwrap_or_default(),
        };
        let handled = match Task::from_body(message.body.as_deref().unwrap_or_default()) {
            Ok(task) => {
                let (job_id, generation, task) = task.into_parts();
                let result = self.task(&job_id, generation, task, receipt, deadline).await;
                result.unwrap_or_else(|error| {
                    tracing::error!(%error, code = error.code(), %job_id, %task, "a task could not be claimed or ended");
                    Handled::Again(backoff(receive_count(message), arn))
                })
            }
            Err(error) => {
                tracing::error!(%error, code = error.code(), "a message cannot be read");
                Handled::Again(backoff(receive_count(message), arn))
            }
        };
        match handled {
            Handled::Done => Ok(()),
            Handled::Again(wait) => {
                if let Err(error) = self.hide(receipt, wait).await {
                    tracing::warn!(%error, "a message comes back later than it should");
                }
                Err(Redeliver)
            }
        }
    }

    async fn task(
        &self,
        job_id: &JobId,
        generation: u32,
        task: TaskId,
        receipt: Receipt<'_>,
        deadline: Instant,
    ) -> Result<Handled, AwsError> {
        let jobs = &self.bench.jobs;
        match claim(jobs, job_id, generation, task, WorkerId::generate(), UtcTime::now()).await? {
            Claim::Won(lease, job) => Ok(self.run(&lease, &job, receipt, deadline).await),
            Claim::Busy => self.again_if_wanted(job_id, generation, BUSY_WAIT).await,
            Claim::Exhausted => {
                let message = format!("{MAX_ATTEMPTS} attempts did not finish");
                let failure = Failure::new(FailureCode::AttemptsExhausted, Stage::Encode, MAX_ATTEMPTS, message);
                tasks::fail_exhausted(jobs, job_id, generation, task, &failure, UtcTime::now()).await?;
                Ok(Handled::Done)
            }
            Claim::Over => Ok(Handled::Done),
        }
    }

    async fn run(&self, lease: &Lease, job: &Job, receipt: Receipt<'_>, deadline: Instant) -> Handled {
        let (progress, seen) = watch::channel(Progress::default());
        let watch = Watch {
            seen,
            reported: AtomicU64::new(lease.frames_before),
        };
        let deadline = deadline.checked_sub(DEADLINE_MARGIN).unwrap_or(deadline);
        let attempt = Attempt {
            bench: &self.bench,
            lease,
            job,
            progress,
            started: Instant::now(),
            deadline,
        };
        let result = tokio::select! {
            result = Box::pin(attempt.work()) => result,
            stopped = self.supervise(lease, job, receipt, &watch) => Err(stopped),
            () = tokio::time::sleep_until(deadline.into()) => Err(TaskError::permanent(
                FailureCode::LimitTime,
                Stage::Encode,
                "the work took longer than one invocation may",
            )),
        };
        let ended = match result {
            Ok(made) => self.end(&attempt, made, watch.reported.load(Ordering::Relaxed)).await,
            Err(error) => self.give_up(lease, error).await,
        };
        ended.unwrap_or_else(|error| {
            tracing::error!(
                %error, code = error.code(), job_id = %lease.job_id, task = %lease.task,
                "a task's end could not be stored"
            );
            // The lease is still ours, and has to run out before anybody can claim the task again.
            Handled::Again(LEASE + VISIBILITY_SLACK)
        })
    }

    /// Renews lease and invisibility, stores progress and looks at the job until the lease is lost or the job is over;
    /// returns only then.
    async fn supervise(&self, lease: &Lease, job: &Job, receipt: Receipt<'_>, watch: &Watch) -> TaskError {
        let jobs = &self.bench.jobs;
        let every = TICK * job.tasks_total.div_ceil(TASKS_A_TICK).max(1);
        let mut seen = watch.seen.clone();
        let mut ticks = tokio::time::interval(TICK);
        // The claim itself was the first renewal of the lease, but not of the message's invisibility.
        let mut renewed = Instant::now();
        let mut next_beat = renewed;
        let mut next_progress = renewed;
        loop {
            ticks.tick().await;
            let now = UtcTime::now();
            let tell = Instant::now() >= next_progress && seen.has_changed().unwrap_or(false);
            let progress = *seen.borrow();
            if Instant::now() >= next_beat || tell {
                match lease.renew(jobs, progress.frames_done, now).await {
                    Ok(Fenced::Held) => renewed = Instant::now(),
                    Ok(Fenced::Lost) => return TaskError::Stopped,
                    Err(error) if renewed.elapsed() >= LEASE => return TaskError::aws(Stage::Encode, error),
                    Err(error) => tracing::warn!(%error, "the lease could not be renewed yet"),
                }
            }
            if Instant::now() >= next_beat {
                next_beat = Instant::now() + HEARTBEAT;
                if let Err(error) = self.hide(receipt, LEASE + VISIBILITY_SLACK).await {
                    tracing::warn!(%error, "the message's visibility could not be extended");
                }
            }
            let looked = if tell {
                next_progress = Instant::now() + every;
                seen.mark_unchanged();
                self.tell(lease, progress, &watch.reported, now).await
            } else {
                // A cancel is to be heard of within two seconds, also where nothing moves.
                lease.check(jobs).await
            };
            match looked {
                Ok(Fenced::Held) => {}
                Ok(Fenced::Lost) => return TaskError::Stopped,
                Err(error) => tracing::warn!(%error, "the job could not be looked at or told of progress"),
            }
        }
    }

    /// Adds to the job's count what it has not got yet of this task.
    async fn tell(
        &self,
        lease: &Lease,
        progress: Progress,
        reported: &AtomicU64,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let before = reported.load(Ordering::Relaxed);
        let more = progress.frames_done.saturating_sub(before);
        let fenced = lease
            .progress(&self.bench.jobs, more, progress.fps, progress.phase, now)
            .await?;
        if fenced == Fenced::Held {
            reported.store(before + more, Ordering::Relaxed);
        }
        Ok(fenced)
    }

    /// The one write, or few, by which what was made becomes true.
    async fn end(&self, attempt: &Attempt<'_>, made: Made, reported: u64) -> Result<Handled, AwsError> {
        let (lease, job, jobs) = (attempt.lease, attempt.job, &self.bench.jobs);
        let now = UtcTime::now();
        let fenced = match &made {
            Made::Published { outputs, metrics } => lease.complete(jobs, outputs, metrics, now).await?,
            Made::Chunk { result, makes_playable } => {
                let fenced = lease.finish_chunk(jobs, result, reported, *makes_playable, now).await?;
                if fenced == Fenced::Held {
                    self.assemble_when_last(lease, job).await;
                }
                fenced
            }
            Made::Planned { plan, kept, cost } => {
                let plan = lease.store_plan(jobs, (**plan).clone()).await?;
                lease.store_tasks(jobs, &plan, kept, now).await?;
                if lease.open_fan_in(jobs, &plan, kept, now).await? == Fenced::Held {
                    self.send_tasks(lease, job).await?;
                }
                lease.finish_plan(jobs, cost, now).await?
            }
        };
        let seconds = attempt.started.elapsed().as_secs_f64();
        tracing::info!(
            job_id = %lease.job_id, task = %lease.task, attempt = lease.attempt, seconds,
            made = made.name(), held = fenced == Fenced::Held, "task ended"
        );
        Ok(Handled::Done)
    }

    /// Sends every encode task that still waits.
    async fn send_tasks(&self, lease: &Lease, job: &Job) -> Result<(), AwsError> {
        let prefix = TaskId::encode_prefix(lease.generation);
        let tasks = self.bench.jobs.tasks(&lease.job_id, &prefix).await?;
        let waiting = tasks.iter().filter(|task| task.state == TaskState::Ready);
        let messages: Vec<Task> = waiting
            .filter_map(|task| Some(Task::new(lease.job_id.clone(), lease.generation, task.id()?)))
            .collect();
        self.queues.send_all(job.priority, &job.account_id, &messages).await?;
        if messages.is_empty() {
            self.assemble_when_last(lease, job).await;
        }
        Ok(())
    }

    /// Lets the assembly begin when no encode task is left. What fails here, the sweep makes good.
    async fn assemble_when_last(&self, lease: &Lease, job: &Job) {
        let jobs = &self.bench.jobs;
        let begin = async {
            let remaining = jobs.job(&lease.job_id).await?.map(|job| job.tasks_remaining);
            if remaining == Some(0)
                && tasks::unblock_assemble(jobs, &lease.job_id, lease.generation, UtcTime::now()).await?
            {
                let task = Task::new(lease.job_id.clone(), lease.generation, TaskId::Assemble);
                self.queues.send(job.priority, &job.account_id, &task).await?;
            }
            Ok::<_, AwsError>(())
        };
        if let Err(error) = begin.await {
            tracing::error!(%error, code = error.code(), job_id = %lease.job_id, "the assembly waits for the sweep");
        }
    }

    async fn give_up(&self, lease: &Lease, error: TaskError) -> Result<Handled, AwsError> {
        let now = UtcTime::now();
        let attempt = lease.attempt;
        tracing::warn!(
            job_id = %lease.job_id, task = %lease.task, attempt, code = error.code(), retryable = error.is_retryable(),
            error = &error as &dyn std::error::Error, "attempt ended"
        );
        let failure = match error {
            TaskError::Permanent(failure) => Failure { attempt, ..*failure },
            TaskError::Transient { stage, .. } if attempt >= MAX_ATTEMPTS => {
                let message = format!("{attempt} attempts met a passing fault");
                Failure::new(FailureCode::AttemptsExhausted, stage, attempt, message)
            }
            TaskError::Transient { .. } => {
                lease.release(&self.bench.jobs, now).await?;
                return Ok(Handled::Again(backoff(attempt, lease.job_id.as_str())));
            }
            // The message backs up whoever holds the lease now.
            TaskError::Stopped => {
                let (job_id, generation) = (&lease.job_id, lease.generation);
                return self.again_if_wanted(job_id, generation, VISIBILITY_SLACK).await;
            }
        };
        lease.fail(&self.bench.jobs, &failure, now).await?;
        Ok(Handled::Done)
    }

    /// The message of a job that is over, or in another generation, is not needed any more.
    async fn again_if_wanted(&self, job_id: &JobId, generation: u32, wait: Duration) -> Result<Handled, AwsError> {
        let job = self.bench.jobs.job(job_id).await?;
        let wanted = job.is_some_and(|job| job.status == Status::InProgress && job.generation == generation);
        Ok(if wanted { Handled::Again(wait) } else { Handled::Done })
    }

    async fn hide(&self, receipt: Receipt<'_>, time: Duration) -> Result<(), AwsError> {
        self.queues.set_visibility(receipt.priority, receipt.handle, time).await
    }
}

/// How often a message was received, this time included.
fn receive_count(message: &SqsMessage) -> u32 {
    let count = message.attributes.get("ApproximateReceiveCount");
    count.and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Grows fourfold from one time to the next, with up to half as much again by what it is for, so that tasks that failed
/// together do not come back together.
fn backoff(times: u32, what: &str) -> Duration {
    let base = FIRST_BACKOFF * 4_u32.pow(times.saturating_sub(1).min(4));
    let spread: u32 = what.bytes().map(u32::from).sum::<u32>() % 50;
    base + base * spread / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_between_attempts_grows_and_is_spread() {
        let jobs: Vec<_> = (0..20).map(|_| JobId::generate()).collect();
        for job in &jobs {
            assert!(backoff(2, job.as_str()) > backoff(1, job.as_str()));
            assert!((FIRST_BACKOFF..FIRST_BACKOFF * 2).contains(&backoff(1, job.as_str())));
        }
        let mut waits: Vec<_> = jobs.iter().map(|job| backoff(1, job.as_str())).collect();
        waits.dedup();
        assert!(waits.len() > 1);
    }
}
