//! One message: claim, work under supervision, and one write that ends it.
//!
//! A lease of 60 s is renewed every 15 s together with the message's invisibility, so a killed worker's task is claimed
//! again about a minute later by the same message's next delivery. Losing the lease stops the work at once.

use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_lambda_events::event::sqs::SqsMessage;
use reelay_core::{
    adapters::{AwsError, jobs::JobsTable, queue::TaskQueues},
    batch::Redeliver,
    config::Env,
    domain::{
        failure::{Failure, FailureCode, Stage},
        id::{JobId, WorkerId},
        job::{HEARTBEAT, Job, LEASE, MAX_ATTEMPTS, Metrics},
        message::Task,
        spec::Priority,
        time::UtcTime,
    },
};
use tokio::sync::watch;

use crate::{
    cage::Tools,
    error::TaskError,
    stages::{Attempt, Made, Progress, Workbench},
    store::{self, Claim, Fenced, Lease},
    transfer::Transfer,
};

/// How often progress is stored at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
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
    pub(crate) bench: Workbench,
    pub(crate) queues: TaskQueues,
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

impl Worker {
    /// Builds the worker from the function's environment.
    pub(crate) fn from_env(env: &mut Env, sdk: &SdkConfig) -> Option<Self> {
        let jobs = env.required("JOBS_TABLE");
        let sources = env.required("SOURCE_BUCKET");
        let outputs = env.required("OUTPUT_BUCKET");
        let high = env.required("HIGH_QUEUE_URL");
        let low = env.required("LOW_QUEUE_URL");
        let scratch_bytes = env.required("SCRATCH_BYTES");
        let memory_mib = env.required::<u64>("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
        let tools = env.required::<Tools>("PATH");
        Some(Self {
            bench: Workbench {
                jobs: JobsTable::new(sdk, jobs?),
                tools: tools?,
                transfer: Transfer::new(sdk, sources?, outputs?),
                scratch_bytes: scratch_bytes?,
                memory_bytes: memory_mib? << 20,
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
            Ok(Task::Plan { job_id, generation }) => {
                let result = self.plan(&job_id, generation, receipt, deadline).await;
                result.unwrap_or_else(|error| {
                    tracing::error!(%error, code = error.code(), %job_id, "a task could not be claimed or ended");
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

    async fn plan(
        &self,
        job_id: &JobId,
        generation: u32,
        receipt: Receipt<'_>,
        deadline: Instant,
    ) -> Result<Handled, AwsError> {
        let jobs = &self.bench.jobs;
        match store::claim(jobs, job_id, generation, WorkerId::generate(), UtcTime::now()).await? {
            Claim::Won(lease, job) => Ok(self.run(&lease, &job, receipt, deadline).await),
            Claim::Busy => Ok(Handled::Again(BUSY_WAIT)),
            Claim::Exhausted => {
                let message = format!("{MAX_ATTEMPTS} attempts did not finish");
                let failure = Failure::new(FailureCode::AttemptsExhausted, Stage::Encode, MAX_ATTEMPTS, message);
                store::fail_exhausted(jobs, job_id, generation, &failure, UtcTime::now()).await?;
                Ok(Handled::Done)
            }
            Claim::Over => Ok(Handled::Done),
        }
    }

    async fn run(&self, lease: &Lease, job: &Job, receipt: Receipt<'_>, deadline: Instant) -> Handled {
        let started = Instant::now();
        let (progress, seen) = watch::channel(None);
        let deadline = deadline.checked_sub(DEADLINE_MARGIN).unwrap_or(deadline);
        let attempt = Attempt {
            bench: &self.bench,
            lease,
            job,
            progress,
            deadline,
        };
        let result = tokio::select! {
            result = Box::pin(attempt.work()) => result,
            stopped = self.supervise(lease, receipt, seen) => Err(stopped),
            () = tokio::time::sleep_until(deadline.into()) => Err(TaskError::permanent(
                FailureCode::LimitTime,
                Stage::Encode,
                "the work took longer than one invocation may",
            )),
        };
        let ended = match result {
            Ok(made) => self.complete(lease, job, &made, started).await,
            Err(error) => self.give_up(lease, error).await,
        };
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, code = error.code(), job_id = %lease.job_id, "a task's end could not be stored");
            // The lease is still ours, and has to run out before anybody can claim the task again.
            Handled::Again(LEASE + VISIBILITY_SLACK)
        })
    }

    /// Renews lease and invisibility and stores progress until the lease is lost; returns only then.
    async fn supervise(
        &self,
        lease: &Lease,
        receipt: Receipt<'_>,
        mut seen: watch::Receiver<Option<Progress>>,
    ) -> TaskError {
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        // The claim itself was the first renewal of the lease, but not of the message's invisibility.
        let mut renewed = Instant::now();
        let mut next_beat = renewed;
        loop {
            ticks.tick().await;
            let now = UtcTime::now();
            if Instant::now() >= next_beat {
                match lease.renew(&self.bench.jobs, now).await {
                    Ok(Fenced::Held) => {
                        renewed = Instant::now();
                        next_beat = renewed + HEARTBEAT;
                    }
                    Ok(Fenced::Lost) => return TaskError::Stopped,
                    Err(error) if renewed.elapsed() >= LEASE => return TaskError::aws(Stage::Encode, error),
                    Err(error) => tracing::warn!(%error, "the lease could not be renewed yet"),
                }
                if let Err(error) = self.hide(receipt, LEASE + VISIBILITY_SLACK).await {
                    tracing::warn!(%error, "the message's visibility could not be extended");
                }
            }
            if seen.has_changed().unwrap_or(false) {
                let Some(progress) = *seen.borrow_and_update() else {
                    continue;
                };
                let Progress {
                    frames_done,
                    fps,
                    phase,
                } = progress;
                match lease.progress(&self.bench.jobs, frames_done, fps, phase, now).await {
                    Ok(Fenced::Held) => {}
                    Ok(Fenced::Lost) => return TaskError::Stopped,
                    Err(error) => tracing::warn!(%error, "progress could not be stored"),
                }
            }
        }
    }

    async fn complete(&self, lease: &Lease, job: &Job, made: &Made, started: Instant) -> Result<Handled, AwsError> {
        let seconds = started.elapsed().as_secs_f64();
        let metrics = self.metrics(job, made, seconds);
        let fenced = lease
            .complete(&self.bench.jobs, &made.outputs, &metrics, UtcTime::now())
            .await?;
        tracing::info!(
            job_id = %lease.job_id, attempt = lease.attempt, processing_seconds = seconds,
            cpu_seconds = metrics.cpu_seconds, peak_memory_mb = metrics.peak_memory_mb,
            speed_ratio = metrics.speed_ratio, published = fenced == Fenced::Held, "task done"
        );
        Ok(Handled::Done)
    }

    fn metrics(&self, job: &Job, made: &Made, seconds: f64) -> Metrics {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let mb = |bytes: u64| bytes as f64 / 1_000_000.0;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let gib = self.bench.memory_bytes as f64 / f64::from(1 << 30);
        Metrics {
            processing_seconds: round(seconds),
            cpu_seconds: round(made.usage.cpu_seconds),
            peak_cpu_percent: round(made.usage.peak_cpu_percent),
            peak_memory_mb: round(mb(made.usage.peak_memory_bytes)),
            source_bytes: job.size_bytes,
            output_bytes: made.outputs.iter().map(|output| output.size_bytes).sum(),
            billed_gb_seconds: round(gib * seconds),
            speed_ratio: round(made.media_seconds / seconds.max(0.001)),
        }
    }

    async fn give_up(&self, lease: &Lease, error: TaskError) -> Result<Handled, AwsError> {
        let now = UtcTime::now();
        let attempt = lease.attempt;
        tracing::warn!(
            job_id = %lease.job_id, attempt, code = error.code(), retryable = error.is_retryable(),
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
            // The message stays: it backs up whoever holds the lease now, and finds nothing to do otherwise.
            TaskError::Stopped => return Ok(Handled::Again(VISIBILITY_SLACK)),
        };
        lease.fail(&self.bench.jobs, &failure, now).await?;
        Ok(Handled::Done)
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

/// Three decimals.
fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
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
