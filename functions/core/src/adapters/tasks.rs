//! What others than its own worker may write of a task. No lease is held here, so the condition of each write is what
//! the task itself is; a claim, a heartbeat or an end that comes first makes it a refusal and not a fault.
//!
//! Each returns whether this very call did it: whoever made a task READY is the one that sends its message.

use aws_sdk_dynamodb::{
    operation::update_item::builders::UpdateItemFluentBuilder,
    types::{TransactWriteItem, Update, builders::UpdateBuilder},
};

use super::{
    AwsError,
    dynamo::{Write, flag, n, s, undisturbed, value},
    jobs::{JOB, JobsTable},
};
use crate::domain::{
    failure::Failure,
    id::JobId,
    job::{MAX_ATTEMPTS, Status},
    task::{TaskId, TaskState},
    time::UtcTime,
};

/// Fails a task that was claimed as often as it may be and that nobody works on any more, and its job with it, in one
/// transaction.
///
/// `false` when the task is claimed or over, or the job is over or in another generation.
pub async fn fail_exhausted(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    task: TaskId,
    failure: &Failure,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let update = |item: String, expression: &str| {
        Update::builder()
            .table_name(jobs.name())
            .key("job_id", s(job_id.as_str()))
            .key("item", s(item))
            .update_expression(expression)
            .expression_attribute_values(":now", s(now.to_string()))
    };
    let task = update(
        task.item(generation),
        "SET #state = :given_up, updated_at = :now REMOVE #owner",
    )
    .condition_expression(
        "attempts >= :max AND (#state = :ready OR (#state = :running AND lease_expires_ms < :now_ms))",
    )
    .expression_attribute_names("#state", "state")
    .expression_attribute_names("#owner", "owner")
    .expression_attribute_values(":given_up", s(TaskState::Failed.as_str()))
    .expression_attribute_values(":ready", s(TaskState::Ready.as_str()))
    .expression_attribute_values(":running", s(TaskState::Running.as_str()))
    .expression_attribute_values(":max", n(MAX_ATTEMPTS))
    .expression_attribute_values(":now_ms", n(now.epoch_ms()));
    let job = update(
        JOB.to_owned(),
        "SET #status = :failed, #error = :error, playable = :false, completed_at = :now, updated_at = :now \
         REMOVE open_state, phase, fps",
    )
    .condition_expression("generation = :generation AND #status IN (:queued, :running)")
    .expression_attribute_names("#status", "status")
    .expression_attribute_names("#error", "error")
    .expression_attribute_values(":failed", s(Status::Failed.as_str()))
    .expression_attribute_values(":error", value(failure)?)
    .expression_attribute_values(":false", flag(false))
    .expression_attribute_values(":queued", s(Status::Queued.as_str()))
    .expression_attribute_values(":running", s(Status::InProgress.as_str()))
    .expression_attribute_values(":generation", n(generation));
    let transaction = jobs
        .client()
        .transact_write_items()
        .transact_items(item_of(task)?)
        .transact_items(item_of(job)?);
    let write = undisturbed("TransactWriteItems", || transaction.clone().send()).await?;
    Ok(matches!(write, Write::Done(_)))
}

fn item_of(update: UpdateBuilder) -> Result<TransactWriteItem, AwsError> {
    let update = update.build().map_err(|error| AwsError::Item(error.into()))?;
    Ok(TransactWriteItem::builder().update(update).build())
}

/// Lets the assemble task of a generation begin. The caller has seen that no encode task is left; that never changes
/// back within a generation.
pub async fn unblock_assemble(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let write = update(jobs, job_id, generation, TaskId::Assemble)
        .update_expression("SET #state = :ready, sent_ms = :now_ms, updated_at = :now")
        .condition_expression("#state = :blocked")
        .expression_attribute_values(":blocked", s(TaskState::Blocked.as_str()))
        .expression_attribute_values(":now", s(now.to_string()))
        .expression_attribute_values(":now_ms", n(now.epoch_ms()));
    done(write).await
}

/// Takes a task from a worker whose lease has run out, when it may be tried once more.
pub async fn reopen(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    task: TaskId,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let write = update(jobs, job_id, generation, task)
        .update_expression("SET #state = :ready, sent_ms = :now_ms, updated_at = :now REMOVE #owner")
        .condition_expression("#state = :running AND lease_expires_ms < :now_ms AND attempts < :max")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_values(":running", s(TaskState::Running.as_str()))
        .expression_attribute_values(":max", n(MAX_ATTEMPTS))
        .expression_attribute_values(":now", s(now.to_string()))
        .expression_attribute_values(":now_ms", n(now.epoch_ms()));
    done(write).await
}

/// Notes that a task's message is sent once more, when the last one was sent before `before_ms`, in milliseconds since
/// 1970. The time of the task's last change stays: it tells how long the task has been waiting.
pub async fn resend(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    task: TaskId,
    before_ms: i64,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let write = update(jobs, job_id, generation, task)
        .update_expression("SET sent_ms = :now_ms")
        .condition_expression("#state = :ready AND sent_ms < :before")
        .expression_attribute_values(":before", n(before_ms))
        .expression_attribute_values(":now_ms", n(now.epoch_ms()));
    done(write).await
}

/// Takes a task from the worker of one attempt, whose lease holds, so that another one tries it. The fence is broken with
/// that: the worker stops at its next write.
pub async fn revoke(
    jobs: &JobsTable,
    job_id: &JobId,
    generation: u32,
    task: TaskId,
    attempt: u32,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let write = update(jobs, job_id, generation, task)
        .update_expression("SET #state = :ready, sent_ms = :now_ms, updated_at = :now REMOVE #owner")
        .condition_expression("#state = :running AND attempts = :attempt AND attempts < :max")
        .expression_attribute_names("#owner", "owner")
        .expression_attribute_values(":running", s(TaskState::Running.as_str()))
        .expression_attribute_values(":attempt", n(attempt))
        .expression_attribute_values(":max", n(MAX_ATTEMPTS))
        .expression_attribute_values(":now", s(now.to_string()))
        .expression_attribute_values(":now_ms", n(now.epoch_ms()));
    done(write).await
}

/// An update of a task, whose state every condition here names.
fn update(jobs: &JobsTable, job_id: &JobId, generation: u32, task: TaskId) -> UpdateItemFluentBuilder {
    jobs.client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job_id.as_str()))
        .key("item", s(task.item(generation)))
        .expression_attribute_names("#state", "state")
        .expression_attribute_values(":ready", s(TaskState::Ready.as_str()))
}

async fn done(write: UpdateItemFluentBuilder) -> Result<bool, AwsError> {
    let write = undisturbed("UpdateItem", || write.clone().send()).await?;
    Ok(matches!(write, Write::Done(_)))
}
