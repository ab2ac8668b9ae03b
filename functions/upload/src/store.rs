//! The writes by which an owner changes the course of a job.

use aws_sdk_dynamodb::{
    error::BuildError,
    types::{Put, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update},
};
use reelay_core::{
    adapters::{
        AwsError,
        dynamo::{self, Item, Write, flag, n, s, undisturbed},
        jobs::{JOB, JobsTable, new_task},
    },
    domain::{
        id::{AccountId, JobId},
        job::{Job, Status},
        task::{TaskId, TaskState},
        time::UtcTime,
    },
};

/// Cancels a job that is not over, whichever generation of it runs.
///
/// One write on condition that the job is this account's and may be cancelled, without a read before it. So whoever
/// publishes, fails or starts the job comes either before it, and it is refused, or after it and is refused itself.
///
/// Returns the job as it then stands: CANCELLED, by this call or an earlier one, or over in another way. `None` when the
/// account has no such job.
pub(crate) async fn cancel(
    jobs: &JobsTable,
    account: &AccountId,
    job_id: &JobId,
    now: UtcTime,
) -> Result<Option<Job>, AwsError> {
    let mut update = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job_id.as_str()))
        .key("item", s(JOB))
        .update_expression(
            "SET #status = :cancelled, playable = :false, completed_at = :now, updated_at = :now \
             REMOVE open_state, phase, fps, published_attempt",
        )
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":cancelled", s(Status::Cancelled.as_str()))
        .expression_attribute_values(":false", flag(false))
        .expression_attribute_values(":account", s(account.as_str()))
        .expression_attribute_values(":now", s(now.to_string()))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let mut open = Vec::new();
    for (index, status) in Status::Cancelled.predecessors().iter().enumerate() {
        let name = format!(":from{index}");
        update = update.expression_attribute_values(&name, s(status.as_str()));
        open.push(name);
    }
    let update = update.condition_expression(format!("account_id = :account AND #status IN ({})", open.join(", ")));
    let item = match undisturbed("UpdateItem", || update.clone().send()).await? {
        Write::Done(output) => output.attributes,
        Write::Refused(old) => old,
    };
    let job: Option<Job> = item.map(dynamo::from_item).transpose()?;
    Ok(job.filter(|job| job.account_id == *account && job.deleted_at.is_none()))
}

/// Cancels a job that waits for its upload, and only that one. Returns the job as it then stands.
pub(crate) async fn cancel_pending(jobs: &JobsTable, job: &Job, now: UtcTime) -> Result<Option<Job>, AwsError> {
    let update = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression("SET #status = :cancelled, completed_at = :now, updated_at = :now REMOVE open_state")
        .condition_expression("#status = :pending")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":cancelled", s(Status::Cancelled.as_str()))
        .expression_attribute_values(":pending", s(Status::Pending.as_str()))
        .expression_attribute_values(":now", s(now.to_string()))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let item = match undisturbed("UpdateItem", || update.clone().send()).await? {
        Write::Done(output) => output.attributes,
        Write::Refused(old) => old,
    };
    item.map(dynamo::from_item).transpose()
}

/// What came of a retry.
#[derive(Debug)]
pub(crate) enum Retry {
    /// The next generation has begun.
    Begun,
    /// The job is not what was read any more.
    Changed,
    /// The account has no place for it; its figures as they stood.
    NoPlace(Option<Item>),
}

/// Begins a job's next generation, makes its plan task and takes its place in the account, in one transaction, on
/// condition that status and generation still are what was read. The first of `place` is the one that may be refused.
pub(crate) async fn retry(
    jobs: &JobsTable,
    read: &Job,
    next: &Job,
    place: Vec<TransactWriteItem>,
    now: UtcTime,
) -> Result<Retry, AwsError> {
    let built = |error: BuildError| AwsError::Item(error.into());
    let update = Update::builder()
        .table_name(jobs.name())
        .key("job_id", s(next.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression(
            "SET #status = :queued, open_state = :queued, generation = :next, attempts = :zero, frames_done = :zero, \
             tasks_total = :zero, tasks_remaining = :zero, playable = :false, queued_at = :now, updated_at = :now \
             REMOVE #error, completed_at, started_at, phase, fps, published_attempt",
        )
        .condition_expression(
            "#status = :read AND generation = :generation AND attribute_exists(#source) AND \
             attribute_not_exists(deleted_at)",
        )
        .expression_attribute_names("#status", "status")
        .expression_attribute_names("#error", "error")
        .expression_attribute_names("#source", "source")
        .expression_attribute_values(":queued", s(next.status.as_str()))
        .expression_attribute_values(":next", n(next.generation))
        .expression_attribute_values(":zero", n(0))
        .expression_attribute_values(":false", flag(false))
        .expression_attribute_values(":now", s(now.to_string()))
        .expression_attribute_values(":read", s(read.status.as_str()))
        .expression_attribute_values(":generation", n(read.generation))
        .build()
        .map_err(built)?;
    let put = Put::builder()
        .table_name(jobs.name())
        .set_item(Some(new_task(
            &next.job_id,
            next.generation,
            TaskId::Plan,
            TaskState::Ready,
            now,
        )))
        .condition_expression("attribute_not_exists(job_id)")
        .build()
        .map_err(built)?;
    let mut items = vec![
        TransactWriteItem::builder().update(update).build(),
        TransactWriteItem::builder().put(put).build(),
    ];
    let before_place = items.len();
    items.extend(place);
    Ok(match dynamo::transact(jobs.client(), items).await? {
        None => Retry::Begun,
        Some(refusal) if refusal.index == before_place => Retry::NoPlace(refusal.old),
        Some(_) => Retry::Changed,
    })
}
