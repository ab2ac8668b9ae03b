//! Claims, leases and every write under them.
//!
//! A worker claims a task for [`LEASE`] and renews the claim; each write under it is on condition that the claim is still
//! its own. Whoever finds that it is not stops at once: another worker has the task, or the job is over.

mod claim;
mod fan_in;
mod planned;

use crate::{
    adapters::{
        AwsError,
        dynamo::{self, Item, Write, flag, n, s, undisturbed, value},
        jobs::{JOB, JobsTable, METRICS, output_prefix},
    },
    domain::{
        failure::Failure,
        id::{JobId, WorkerId},
        job::{LEASE, Metrics, Output, Phase, Status},
        probe::SourceInfo,
        task::{TaskId, TaskState},
        time::UtcTime,
    },
};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem, Update, builders::UpdateBuilder};

pub use claim::{Claim, claim};

/// On what condition a worker writes to the job.
const JOB_RUNS: &str = "#status = :running AND generation = :generation";

/// A held claim.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The job.
    pub job_id: JobId,
    /// The generation that the task belongs to.
    pub generation: u32,
    /// The task.
    pub task: TaskId,
    /// Which claim of it this is, from 1.
    pub attempt: u32,
    /// Most frames that earlier attempts at the task have told of. Only what comes after them is added to the job's.
    pub frames_before: u64,
    worker: WorkerId,
}

/// Whether a write under a lease took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// It did: the claim is ours.
    Held,
    /// The lease went to another worker, or the job ended. Whoever sees this stops.
    Lost,
}

impl Lease {
    /// Renews the lease, and notes how many frames the task has got to.
    pub async fn renew(&self, jobs: &JobsTable, frames: u64, now: UtcTime) -> Result<Fenced, AwsError> {
        let update = self
            .task_update(
                jobs,
                "SET lease_expires_ms = :expires, frames_done = :frames, updated_at = :now",
                now,
            )
            .expression_attribute_values(":expires", n(now.plus(LEASE).epoch_ms()))
            .expression_attribute_values(":frames", n(frames.max(self.frames_before)));
        self.send(jobs, update).await
    }

    /// Gives the task back for another attempt.
    pub async fn release(&self, jobs: &JobsTable, now: UtcTime) -> Result<Fenced, AwsError> {
        let update = self
            .task_update(
                jobs,
                "SET #state = :ready, sent_ms = :now_ms, updated_at = :now REMOVE #owner",
                now,
            )
            .expression_attribute_values(":now_ms", n(now.epoch_ms()))
            .expression_attribute_values(":ready", s(TaskState::Ready.as_str()));
        self.send(jobs, update).await
    }

    /// Stores what the probe found, and that encoding begins.
    pub async fn probed(
        &self,
        jobs: &JobsTable,
        info: &SourceInfo,
        frames: u64,
        estimated_seconds: u64,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let update = self
            .job_update(
                jobs,
                "SET source_info = :info, frames_total = :frames, phase = :phase, \
                 estimated_processing_seconds = :estimated, updated_at = :now",
                now,
            )
            .expression_attribute_values(":info", value(info)?)
            .expression_attribute_values(":frames", n(frames))
            .expression_attribute_values(":estimated", n(estimated_seconds))
            .expression_attribute_values(":phase", s(Phase::Encoding.as_str()));
        self.send(jobs, update).await
    }

    /// Adds newly encoded frames to the job's. On condition that the job runs in this generation: a refusal is how a
    /// worker hears of a cancel.
    pub async fn progress(
        &self,
        jobs: &JobsTable,
        more_frames: u64,
        fps: f64,
        phase: Phase,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let update = self
            .job_update(
                jobs,
                "SET fps = :fps, phase = :phase, updated_at = :now ADD frames_done :more",
                now,
            )
            .expression_attribute_values(":more", n(more_frames))
            .expression_attribute_values(":fps", n(fps))
            .expression_attribute_values(":phase", s(phase.as_str()));
        self.send(jobs, update).await
    }

    /// Whether the job still wants this work.
    pub async fn check(&self, jobs: &JobsTable) -> Result<Fenced, AwsError> {
        let job = jobs.job(&self.job_id).await?;
        let wanted = job.is_some_and(|job| job.status == Status::InProgress && job.generation == self.generation);
        Ok(if wanted { Fenced::Held } else { Fenced::Lost })
    }

    /// Publishes: task, job, pointer, outputs and metrics change in one transaction, or not at all.
    pub async fn complete(
        &self,
        jobs: &JobsTable,
        outputs: &[Output],
        metrics: &Metrics,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let task = self
            .task_update(jobs, "SET #state = :done, updated_at = :now REMOVE #owner", now)
            .expression_attribute_values(":done", s(TaskState::Done.as_str()));
        let job = self
            .job_update(
                jobs,
                "SET #status = :completed, published_attempt = :attempt, playable = :true, \
                 frames_done = frames_total, completed_at = :now, updated_at = :now \
                 REMOVE open_state, phase, fps",
                now,
            )
            .expression_attribute_values(":attempt", n(self.attempt))
            .expression_attribute_values(":completed", s(Status::Completed.as_str()))
            .expression_attribute_values(":true", flag(true));
        let mut items = vec![update_item(task)?, update_item(job)?];
        items.push(self.new_item(jobs, METRICS, dynamo::to_item(metrics)?)?);
        let prefix = output_prefix(self.generation, self.attempt);
        for output in outputs {
            items.push(self.new_item(jobs, &format!("{prefix}{}", output.id), dynamo::to_item(output)?)?);
        }
        let fenced = transact(jobs, items).await?;
        self.read_back(jobs, fenced, Status::Completed).await
    }

    /// Fails the job.
    pub async fn fail(&self, jobs: &JobsTable, failure: &Failure, now: UtcTime) -> Result<Fenced, AwsError> {
        let task = self
            .task_update(jobs, "SET #state = :given_up, updated_at = :now REMOVE #owner", now)
            .expression_attribute_values(":given_up", s(TaskState::Failed.as_str()));
        let job = self
            .job_update(
                jobs,
                "SET #status = :failed, #error = :error, playable = :false, completed_at = :now, updated_at = :now \
                 REMOVE open_state, phase, fps",
                now,
            )
            .expression_attribute_names("#error", "error")
            .expression_attribute_values(":failed", s(Status::Failed.as_str()))
            .expression_attribute_values(":false", flag(false))
            .expression_attribute_values(":error", value(failure)?);
        let fenced = transact(jobs, vec![update_item(task)?, update_item(job)?]).await?;
        self.read_back(jobs, fenced, Status::Failed).await
    }

    /// A refused transaction is read back: when the job already is what this attempt was to make of it, an answer was
    /// lost and the write took place.
    async fn read_back(&self, jobs: &JobsTable, fenced: Fenced, target: Status) -> Result<Fenced, AwsError> {
        if fenced == Fenced::Held {
            return Ok(Fenced::Held);
        }
        let job = jobs.job(&self.job_id).await?;
        let ours = job.is_some_and(|job| {
            job.status == target
                && job.generation == self.generation
                && match target {
                    Status::Completed => job.published_attempt == Some(self.attempt),
                    _ => job.error.is_some_and(|error| error.attempt == self.attempt),
                }
        });
        Ok(if ours { Fenced::Held } else { Fenced::Lost })
    }

    /// An update of the task item under the fence.
    fn task_update(&self, jobs: &JobsTable, expression: &str, now: UtcTime) -> UpdateBuilder {
        Update::builder()
            .table_name(jobs.name())
            .key("job_id", s(self.job_id.as_str()))
            .key("item", s(self.task.item(self.generation)))
            .update_expression(expression)
            .condition_expression("#state = :running AND #owner = :worker AND attempts = :attempt")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":running", s(TaskState::Running.as_str()))
            .expression_attribute_values(":worker", s(self.worker.as_str()))
            .expression_attribute_values(":attempt", n(self.attempt))
            .expression_attribute_values(":now", s(now.to_string()))
    }

    /// An update of the job item, on condition that it runs in the lease's generation.
    fn job_update(&self, jobs: &JobsTable, expression: &str, now: UtcTime) -> UpdateBuilder {
        Update::builder()
            .table_name(jobs.name())
            .key("job_id", s(self.job_id.as_str()))
            .key("item", s(JOB))
            .update_expression(expression)
            .condition_expression(JOB_RUNS)
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":running", s(Status::InProgress.as_str()))
            .expression_attribute_values(":generation", n(self.generation))
            .expression_attribute_values(":now", s(now.to_string()))
    }

    async fn send(&self, jobs: &JobsTable, update: UpdateBuilder) -> Result<Fenced, AwsError> {
        let update = update.build().map_err(|error| AwsError::Item(error.into()))?;
        let update = jobs
            .client()
            .update_item()
            .table_name(update.table_name)
            .set_key(Some(update.key))
            .update_expression(update.update_expression)
            .set_condition_expression(update.condition_expression)
            .set_expression_attribute_names(update.expression_attribute_names)
            .set_expression_attribute_values(update.expression_attribute_values);
        let write = undisturbed("UpdateItem", || update.clone().send()).await?;
        Ok(fenced(&write))
    }

    /// A new item of this job, on condition that there is none.
    fn new_item(&self, jobs: &JobsTable, sort_key: &str, mut item: Item) -> Result<TransactWriteItem, AwsError> {
        item.insert("job_id".into(), s(self.job_id.as_str()));
        item.insert("item".into(), s(sort_key));
        let put = Put::builder()
            .table_name(jobs.name())
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(job_id)")
            .build()
            .map_err(|error| AwsError::Item(error.into()))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

/// Sends a transaction. All workers of a job write to the same job item, so it may meet others.
async fn transact(jobs: &JobsTable, items: Vec<TransactWriteItem>) -> Result<Fenced, AwsError> {
    let transaction = jobs.client().transact_write_items().set_transact_items(Some(items));
    let write = undisturbed("TransactWriteItems", || transaction.clone().send()).await?;
    Ok(fenced(&write))
}

fn fenced<T>(write: &Write<T>) -> Fenced {
    match write {
        Write::Done(_) => Fenced::Held,
        Write::Refused(_) => Fenced::Lost,
    }
}

fn update_item(update: UpdateBuilder) -> Result<TransactWriteItem, AwsError> {
    let update = update.build().map_err(|error| AwsError::Item(error.into()))?;
    Ok(TransactWriteItem::builder().update(update).build())
}
