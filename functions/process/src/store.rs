//! The task's lease and every write under it.
//!
//! The task item counts attempts and holds the lease; a claim raises the count, so the count is also the fence: each
//! later write is on condition that the count is still the claimant's. The job item carries the same number.

use aws_sdk_dynamodb::types::{
    Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update, builders::UpdateBuilder,
};
use reelay_core::{
    adapters::{
        AwsError,
        dynamo::{self, Item, Write, flag, n, outcome, s, value},
        jobs::{JOB, JobsTable, METRICS, output_prefix, plan_task_item},
    },
    domain::{
        failure::Failure,
        id::{JobId, WorkerId},
        job::{Job, LEASE, MAX_ATTEMPTS, Metrics, Output, Phase, Status},
        probe::SourceInfo,
        time::UtcTime,
    },
};

const READY: &str = "READY";
const RUNNING: &str = "RUNNING";
const DONE: &str = "DONE";
const GIVEN_UP: &str = "FAILED";

/// A held claim.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) job_id: JobId,
    pub(crate) generation: u32,
    pub(crate) attempt: u32,
    worker: WorkerId,
}

/// What came of asking for a task.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It is ours; the job as it now stands.
    Won(Lease, Box<Job>),
    /// Another worker holds it.
    Busy,
    /// It was claimed as often as it may be, and no claim finished it.
    Exhausted,
    /// There is nothing to do any more.
    Over,
}

/// Whether a write under a lease took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fenced {
    Held,
    /// The lease went to another worker, or the job ended. Whoever sees this stops.
    Lost,
}

/// Claims a generation's plan task.
pub(crate) async fn claim(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    worker: WorkerId,
    now: UtcTime,
) -> Result<Claim, AwsError> {
    let result = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job_id.as_str()))
        .key("item", s(plan_task_item(generation)))
        .update_expression(
            "SET #state = :running, #owner = :worker, lease_expires_ms = :expires, updated_at = :now \
             ADD attempts :one",
        )
        .condition_expression(
            "attempts < :max AND (#state = :ready OR (#state = :running AND lease_expires_ms < :now_ms))",
        )
        .expression_attribute_names("#state", "state")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_values(":running", s(RUNNING))
        .expression_attribute_values(":ready", s(READY))
        .expression_attribute_values(":worker", s(worker.as_str()))
        .expression_attribute_values(":expires", n(now.plus(LEASE).epoch_ms()))
        .expression_attribute_values(":now", s(now.to_string()))
        .expression_attribute_values(":now_ms", n(now.epoch_ms()))
        .expression_attribute_values(":one", n(1))
        .expression_attribute_values(":max", n(MAX_ATTEMPTS))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    let task = match outcome("UpdateItem", result)? {
        Write::Done(output) => output.attributes.unwrap_or_default(),
        Write::Refused(None) => return Ok(Claim::Over),
        // A lost answer: the claim that stands in the way is this very one.
        Write::Refused(Some(old)) if text(&old, "owner") == Some(worker.as_str()) => old,
        Write::Refused(Some(old)) => return Ok(refused(&old, now)),
    };
    let attempt = number(&task, "attempts")
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(MAX_ATTEMPTS);
    let lease = Lease {
        job_id: job_id.clone(),
        generation,
        attempt,
        worker,
    };
    start_job(jobs, lease, now).await
}

/// Why a claim was refused, from the task as it stands.
fn refused(task: &Item, now: UtcTime) -> Claim {
    let lease_ms = number(task, "lease_expires_ms").unwrap_or(0) - now.epoch_ms();
    match text(task, "state") {
        Some(RUNNING) if lease_ms >= 0 => Claim::Busy,
        Some(READY | RUNNING) => Claim::Exhausted,
        _ => Claim::Over,
    }
}

/// Brings the job item under the claim.
async fn start_job(jobs: &JobsTable, lease: Lease, now: UtcTime) -> Result<Claim, AwsError> {
    let result = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(lease.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression(
            "SET #status = :running, open_state = :running, phase = :probing, attempts = :attempt, \
             frames_done = :zero, started_at = if_not_exists(started_at, :now), updated_at = :now",
        )
        .condition_expression(
            "generation = :generation AND (#status = :queued OR (#status = :running AND attempts <= :attempt))",
        )
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":running", s(Status::InProgress.as_str()))
        .expression_attribute_values(":queued", s(Status::Queued.as_str()))
        .expression_attribute_values(":probing", s(Phase::Probing.as_str()))
        .expression_attribute_values(":attempt", n(lease.attempt))
        .expression_attribute_values(":generation", n(lease.generation))
        .expression_attribute_values(":zero", n(0))
        .expression_attribute_values(":now", s(now.to_string()))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    match outcome("UpdateItem", result)? {
        Write::Done(output) => {
            let job = dynamo::from_item(output.attributes.unwrap_or_default())?;
            Ok(Claim::Won(lease, Box::new(job)))
        }
        Write::Refused(_) => Ok(Claim::Over),
    }
}

impl Lease {
    /// Renews the lease.
    pub(crate) async fn renew(&self, jobs: &JobsTable, now: UtcTime) -> Result<Fenced, AwsError> {
        let update = self.task_update(jobs, "SET lease_expires_ms = :expires, updated_at = :now", now);
        let update = update.expression_attribute_values(":expires", n(now.plus(LEASE).epoch_ms()));
        self.send(jobs, update).await
    }

    /// Gives the task back for another attempt.
    pub(crate) async fn release(&self, jobs: &JobsTable, now: UtcTime) -> Result<Fenced, AwsError> {
        let update = self.task_update(jobs, "SET #state = :ready, updated_at = :now REMOVE #owner", now);
        self.send(jobs, update.expression_attribute_values(":ready", s(READY)))
            .await
    }

    /// Stores what the probe found, and that encoding begins.
    pub(crate) async fn probed(
        &self,
        jobs: &JobsTable,
        info: &SourceInfo,
        frames: u64,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let update = self
            .job_update(
                jobs,
                "SET source_info = :info, frames_total = :frames, phase = :phase, updated_at = :now",
                now,
            )
            .expression_attribute_values(":info", value(info)?)
            .expression_attribute_values(":frames", n(frames))
            .expression_attribute_values(":phase", s(Phase::Encoding.as_str()));
        self.send(jobs, update).await
    }

    /// Stores how far encoding has come. One attempt counts its frames from zero, and only the holder of the fence
    /// writes, so the value is set and not added: a repeated write changes nothing.
    pub(crate) async fn progress(
        &self,
        jobs: &JobsTable,
        frames_done: u64,
        fps: f64,
        phase: Phase,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let update = self
            .job_update(
                jobs,
                "SET frames_done = :done, fps = :fps, phase = :phase, updated_at = :now",
                now,
            )
            .expression_attribute_values(":done", n(frames_done))
            .expression_attribute_values(":fps", n(fps))
            .expression_attribute_values(":phase", s(phase.as_str()));
        self.send(jobs, update).await
    }

    /// Publishes: task, job, pointer, outputs and metrics change in one transaction, or not at all.
    pub(crate) async fn complete(
        &self,
        jobs: &JobsTable,
        outputs: &[Output],
        metrics: &Metrics,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let task = self
            .task_update(jobs, "SET #state = :done, updated_at = :now REMOVE #owner", now)
            .expression_attribute_values(":done", s(DONE));
        let job = self
            .job_update(
                jobs,
                "SET #status = :completed, published_attempt = :attempt, playable = :true, \
                 frames_done = frames_total, completed_at = :now, updated_at = :now \
                 REMOVE open_state, phase, fps",
                now,
            )
            .expression_attribute_values(":completed", s(Status::Completed.as_str()))
            .expression_attribute_values(":true", flag(true));
        let mut items = vec![update_item(task)?, update_item(job)?];
        items.push(self.new_item(jobs, METRICS, dynamo::to_item(metrics)?)?);
        let prefix = output_prefix(self.generation, self.attempt);
        for output in outputs {
            items.push(self.new_item(jobs, &format!("{prefix}{}", output.id), dynamo::to_item(output)?)?);
        }
        self.transact(jobs, items, Status::Completed).await
    }

    /// Fails the job.
    pub(crate) async fn fail(&self, jobs: &JobsTable, failure: &Failure, now: UtcTime) -> Result<Fenced, AwsError> {
        let task = self
            .task_update(jobs, "SET #state = :given_up, updated_at = :now REMOVE #owner", now)
            .expression_attribute_values(":given_up", s(GIVEN_UP));
        let job = failing(self.job_update(jobs, FAILING, now), failure)?;
        self.transact(jobs, vec![update_item(task)?, update_item(job)?], Status::Failed)
            .await
    }

    /// An update of the task item under the fence.
    fn task_update(&self, jobs: &JobsTable, expression: &str, now: UtcTime) -> UpdateBuilder {
        Update::builder()
            .table_name(jobs.name())
            .key("job_id", s(self.job_id.as_str()))
            .key("item", s(plan_task_item(self.generation)))
            .update_expression(expression)
            .condition_expression("#state = :running AND #owner = :worker AND attempts = :attempt")
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":running", s(RUNNING))
            .expression_attribute_values(":worker", s(self.worker.as_str()))
            .expression_attribute_values(":attempt", n(self.attempt))
            .expression_attribute_values(":now", s(now.to_string()))
    }

    /// An update of the job item under the fence.
    fn job_update(&self, jobs: &JobsTable, expression: &str, now: UtcTime) -> UpdateBuilder {
        Update::builder()
            .table_name(jobs.name())
            .key("job_id", s(self.job_id.as_str()))
            .key("item", s(JOB))
            .update_expression(expression)
            .condition_expression("#status = :running AND generation = :generation AND attempts = :attempt")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":running", s(Status::InProgress.as_str()))
            .expression_attribute_values(":generation", n(self.generation))
            .expression_attribute_values(":attempt", n(self.attempt))
            .expression_attribute_values(":now", s(now.to_string()))
    }

    async fn send(&self, jobs: &JobsTable, update: UpdateBuilder) -> Result<Fenced, AwsError> {
        let update = update.build().map_err(|error| AwsError::Item(error.into()))?;
        let result = jobs
            .client()
            .update_item()
            .table_name(update.table_name)
            .set_key(Some(update.key))
            .update_expression(update.update_expression)
            .set_condition_expression(update.condition_expression)
            .set_expression_attribute_names(update.expression_attribute_names)
            .set_expression_attribute_values(update.expression_attribute_values)
            .send()
            .await;
        Ok(match outcome("UpdateItem", result)? {
            Write::Done(_) => Fenced::Held,
            Write::Refused(_) => Fenced::Lost,
        })
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

    /// Sends the transaction that ends the job. A refusal is read back: when the job already is what this attempt was
    /// to make of it, an answer was lost and the write took place.
    async fn transact(
        &self,
        jobs: &JobsTable,
        items: Vec<TransactWriteItem>,
        target: Status,
    ) -> Result<Fenced, AwsError> {
        let result = jobs
            .client()
            .transact_write_items()
            .set_transact_items(Some(items))
            .send()
            .await;
        match outcome("TransactWriteItems", result)? {
            Write::Done(_) => Ok(Fenced::Held),
            Write::Refused(_) => {
                let job = jobs.job(&self.job_id).await?;
                let ours = job.is_some_and(|job| {
                    job.status == target && job.generation == self.generation && job.attempts == self.attempt
                });
                Ok(if ours { Fenced::Held } else { Fenced::Lost })
            }
        }
    }
}

const FAILING: &str = "SET #status = :failed, #error = :error, completed_at = :now, updated_at = :now \
                       REMOVE open_state, phase, fps";

fn failing(update: UpdateBuilder, failure: &Failure) -> Result<UpdateBuilder, AwsError> {
    Ok(update
        .expression_attribute_names("#error", "error")
        .expression_attribute_values(":failed", s(Status::Failed.as_str()))
        .expression_attribute_values(":error", value(failure)?))
}

/// Fails a job whose attempts are used up and whose last lease has run out. No lease is held, so the conditions are what
/// task and job are themselves.
pub(crate) async fn fail_exhausted(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    failure: &Failure,
    now: UtcTime,
) -> Result<Fenced, AwsError> {
    let update = |item: &str, expression: &str| {
        Update::builder()
            .table_name(jobs.name())
            .key("job_id", s(job_id.as_str()))
            .key("item", s(item))
            .update_expression(expression)
            .expression_attribute_values(":now", s(now.to_string()))
    };
    let task = update(
        &plan_task_item(generation),
        "SET #state = :given_up, updated_at = :now REMOVE #owner",
    )
    .condition_expression("attempts >= :max AND (#state = :ready OR lease_expires_ms < :now_ms)")
    .expression_attribute_names("#state", "state")
    .expression_attribute_names("#owner", "owner")
    .expression_attribute_values(":given_up", s(GIVEN_UP))
    .expression_attribute_values(":ready", s(READY))
    .expression_attribute_values(":max", n(MAX_ATTEMPTS))
    .expression_attribute_values(":now_ms", n(now.epoch_ms()));
    let job = update(JOB, FAILING)
        .condition_expression("generation = :generation AND #status IN (:queued, :running)")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":queued", s(Status::Queued.as_str()))
        .expression_attribute_values(":running", s(Status::InProgress.as_str()))
        .expression_attribute_values(":generation", n(generation));
    let result = jobs
        .client()
        .transact_write_items()
        .transact_items(update_item(task)?)
        .transact_items(update_item(failing(job, failure)?)?)
        .send()
        .await;
    Ok(match outcome("TransactWriteItems", result)? {
        Write::Done(_) => Fenced::Held,
        Write::Refused(_) => Fenced::Lost,
    })
}

fn update_item(update: UpdateBuilder) -> Result<TransactWriteItem, AwsError> {
    let update = update.build().map_err(|error| AwsError::Item(error.into()))?;
    Ok(TransactWriteItem::builder().update(update).build())
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: &str, lease_expires_ms: i64) -> Item {
        Item::from([
            ("state".into(), s(state)),
            ("lease_expires_ms".into(), n(lease_expires_ms)),
        ])
    }

    #[test]
    fn a_refused_claim_tells_why() {
        let now = UtcTime::from_epoch_ms(10_000);
        assert!(matches!(refused(&task(RUNNING, 15_000), now), Claim::Busy));
        assert!(matches!(refused(&task(RUNNING, 9_000), now), Claim::Exhausted));
        assert!(matches!(refused(&task(READY, 0), now), Claim::Exhausted));
        assert!(matches!(refused(&task(DONE, 0), now), Claim::Over));
        assert!(matches!(refused(&task(GIVEN_UP, 0), now), Claim::Over));
    }
}
