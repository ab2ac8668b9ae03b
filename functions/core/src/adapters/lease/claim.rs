//! Claiming a task. The task item counts attempts and holds the lease; a claim raises the count, so owner and count are
//! the fence that every later write carries.

use crate::{
    adapters::{
        AwsError,
        dynamo::{self, Item, Write, n, outcome, s, undisturbed},
        jobs::{JOB, JobsTable},
    },
    domain::{
        id::{JobId, WorkerId},
        job::{Job, LEASE, MAX_ATTEMPTS, Phase, Status},
        task::{TaskId, TaskItem, TaskState},
        time::UtcTime,
    },
};
use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::Lease;

/// What came of asking for a task.
#[derive(Debug)]
pub enum Claim {
    /// It is ours; the job as it now stands.
    Won(Lease, Box<Job>),
    /// Another worker holds it.
    Busy,
    /// It was claimed as often as it may be, and no claim finished it.
    Exhausted,
    /// There is nothing to do: it is over, or its time has not come.
    Over,
}

/// Claims a task of a generation.
pub async fn claim(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    task: TaskId,
    worker: WorkerId,
    now: UtcTime,
) -> Result<Claim, AwsError> {
    let result = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job_id.as_str()))
        .key("item", s(task.item(generation)))
        .update_expression(
            "SET #state = :running, #owner = :worker, lease_expires_ms = :expires, started_ms = :now_ms, \
             updated_at = :now ADD attempts :one",
        )
        .condition_expression(
            "attempts < :max AND (#state = :ready OR (#state = :running AND lease_expires_ms < :now_ms))",
        )
        .expression_attribute_names("#state", "state")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_values(":running", s(TaskState::Running.as_str()))
        .expression_attribute_values(":ready", s(TaskState::Ready.as_str()))
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
    let item = match outcome("UpdateItem", result)? {
        Write::Done(output) => output.attributes.unwrap_or_default(),
        Write::Refused(None) => return Ok(Claim::Over),
        // A lost answer: the claim that stands in the way is this very one.
        Write::Refused(Some(old)) if owner(&old) == Some(worker.as_str()) => old,
        Write::Refused(Some(old)) => return Ok(refused(&dynamo::from_item(old)?, now)),
    };
    let item: TaskItem = dynamo::from_item(item)?;
    let lease = Lease {
        job_id: job_id.clone(),
        generation,
        task,
        attempt: item.attempts,
        frames_before: item.frames_done,
        worker,
    };
    let job = match task {
        TaskId::Plan => start_job(jobs, &lease, now).await?,
        TaskId::Encode(_) | TaskId::Assemble => running_job(jobs, &lease, now).await?,
    };
    Ok(job.map_or(Claim::Over, |job| Claim::Won(lease, Box::new(job))))
}

fn owner(item: &Item) -> Option<&str> {
    item.get("owner")?.as_s().ok().map(String::as_str)
}

/// Why a claim was refused, from the task as it stands.
fn refused(task: &TaskItem, now: UtcTime) -> Claim {
    match task.state {
        TaskState::Running if task.lease_expires_ms >= now.epoch_ms() => Claim::Busy,
        TaskState::Ready | TaskState::Running => Claim::Exhausted,
        TaskState::Blocked | TaskState::Done | TaskState::Failed => Claim::Over,
    }
}

/// Brings the job item under the claim of its plan task. `None` when the job wants no work any more.
async fn start_job(jobs: &JobsTable, lease: &Lease, now: UtcTime) -> Result<Option<Job>, AwsError> {
    let update = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(lease.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression(
            "SET #status = :running, open_state = :running, phase = :probing, attempts = :attempt, \
             started_at = if_not_exists(started_at, :now), updated_at = :now",
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
        .expression_attribute_values(":now", s(now.to_string()))
        .return_values(ReturnValue::AllNew);
    match undisturbed("UpdateItem", || update.clone().send()).await? {
        Write::Done(output) => dynamo::from_item(output.attributes.unwrap_or_default()).map(Some),
        Write::Refused(_) => Ok(None),
    }
}

/// The job of a task that follows the plan, when it still runs in this generation.
async fn running_job(jobs: &JobsTable, lease: &Lease, now: UtcTime) -> Result<Option<Job>, AwsError> {
    let job = jobs.job(&lease.job_id).await?;
    let job = job.filter(|job| job.status == Status::InProgress && job.generation == lease.generation);
    if let Some(job) = &job
        && job.attempts < lease.attempt
    {
        raise_attempts(jobs, lease, now).await?;
    }
    Ok(job)
}

/// The job shows the most attempts that any of its tasks needed.
async fn raise_attempts(jobs: &JobsTable, lease: &Lease, now: UtcTime) -> Result<(), AwsError> {
    let update = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(lease.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression("SET attempts = :attempt, updated_at = :now")
        .condition_expression("generation = :generation AND #status = :running AND attempts < :attempt")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":running", s(Status::InProgress.as_str()))
        .expression_attribute_values(":attempt", n(lease.attempt))
        .expression_attribute_values(":generation", n(lease.generation))
        .expression_attribute_values(":now", s(now.to_string()));
    // Refused: another task needed as many, or the job is over, which the first write under the lease will tell.
    undisturbed("UpdateItem", || update.clone().send()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: TaskState, lease_expires_ms: i64) -> TaskItem {
        TaskItem {
            item: TaskId::Plan.item(1),
            state,
            attempts: 1,
            lease_expires_ms,
            started_ms: 0,
            sent_ms: 0,
            took_ms: 0,
            frames_done: 0,
            result: None,
            cost: None,
            updated_at: UtcTime::from_epoch_ms(0),
        }
    }

    #[test]
    fn a_refused_claim_tells_why() {
        let now = UtcTime::from_epoch_ms(10_000);
        assert!(matches!(refused(&task(TaskState::Running, 15_000), now), Claim::Busy));
        assert!(matches!(
            refused(&task(TaskState::Running, 9_000), now),
            Claim::Exhausted
        ));
        assert!(matches!(refused(&task(TaskState::Ready, 0), now), Claim::Exhausted));
        for over in [TaskState::Blocked, TaskState::Done, TaskState::Failed] {
            assert!(matches!(refused(&task(over, 0), now), Claim::Over), "{over:?}");
        }
    }
}
