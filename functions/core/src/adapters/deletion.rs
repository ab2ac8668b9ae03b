//! Deleting a job: a mark on it, by which it is gone at once for everybody who reads jobs, and which the sweep finds when
//! it removes what the job consists of. The mark and that work are one write, so neither is ever without the other.

use std::time::Instant;

use aws_sdk_dynamodb::{
    operation::update_item::builders::UpdateItemFluentBuilder,
    types::{ConditionCheck, Delete, ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};

use super::{
    AwsError, call_error,
    dynamo::{self, Item, Write, flag, s, transact, undisturbed},
    jobs::{JOB, JobFilter, JobsTable},
};
use crate::domain::{
    id::{AccountId, JobId},
    job::{Job, Status},
    time::UtcTime,
};

/// What a deleted job has in the index over unfinished ones.
pub const DELETED: &str = "DELETED";
/// Tries of a mark whose job changes its state at the same time.
const TRIES: u32 = 4;
/// Jobs of an account that are read at once.
const PAGE: usize = 100;
/// Items that go in one transaction, beside the check of the job: DynamoDB takes 100.
const ITEMS_AT_ONCE: usize = 99;

/// Deletes a job of an account: ends it when it is not over, so that its workers stop, and marks it.
///
/// Returns whether the account has such a job, or had it until it was deleted a moment ago.
pub async fn mark(jobs: &JobsTable, account: &AccountId, job_id: &JobId, now: UtcTime) -> Result<bool, AwsError> {
    for _ in 0..TRIES {
        for update in [open(jobs), over(jobs)] {
            let update = update
                .key("job_id", s(job_id.as_str()))
                .key("item", s(JOB))
                .expression_attribute_values(":account", s(account.as_str()))
                .expression_attribute_values(":now", s(now.to_string()))
                .expression_attribute_values(":deleted", s(DELETED));
            match undisturbed("UpdateItem", || update.clone().send()).await? {
                Write::Done(_) => return Ok(true),
                Write::Refused(None) => return Ok(false),
                Write::Refused(Some(old)) if old.get("account_id") != Some(&s(account.as_str())) => return Ok(false),
                Write::Refused(Some(old)) if old.contains_key("deleted_at") => return Ok(true),
                // It is over, or has been retried since.
                Write::Refused(Some(_)) => {}
            }
        }
    }
    Err(AwsError::Conflict {
        operation: "UpdateItem",
    })
}

/// Deletes every job of an account, as far as the time goes. Returns whether none is left.
pub async fn mark_all(jobs: &JobsTable, account: &AccountId, until: Instant) -> Result<bool, AwsError> {
    let mut after = None;
    loop {
        let page = jobs.page(account, &JobFilter::default(), PAGE, after.as_ref()).await?;
        for job in page.jobs {
            if Instant::now() >= until {
                return Ok(false);
            }
            mark(jobs, account, &job.job_id, UtcTime::now()).await?;
        }
        after = page.last;
        if after.is_none() {
            return Ok(true);
        }
    }
}

/// The mark of a job that is not over, and its end.
fn open(jobs: &JobsTable) -> UpdateItemFluentBuilder {
    let update = base(jobs)
        .update_expression(
            "SET #status = :cancelled, playable = :false, completed_at = :now, deleted_at = :now, \
             open_state = :deleted, updated_at = :now REMOVE phase, fps, published_attempt",
        )
        .expression_attribute_values(":cancelled", s(Status::Cancelled.as_str()))
        .expression_attribute_values(":false", flag(false));
    on_status(update, "")
}

/// The mark of a job that is over.
fn over(jobs: &JobsTable) -> UpdateItemFluentBuilder {
    let update = base(jobs).update_expression("SET deleted_at = :now, open_state = :deleted, updated_at = :now");
    on_status(update, "NOT ")
}

fn base(jobs: &JobsTable) -> UpdateItemFluentBuilder {
    jobs.client()
        .update_item()
        .table_name(jobs.name())
        .expression_attribute_names("#status", "status")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
}

fn on_status(mut update: UpdateItemFluentBuilder, negation: &str) -> UpdateItemFluentBuilder {
    let mut names = Vec::new();
    for (index, status) in Status::Cancelled.predecessors().iter().enumerate() {
        let name = format!(":open{index}");
        update = update.expression_attribute_values(&name, s(status.as_str()));
        names.push(name);
    }
    let names = names.join(", ");
    update.condition_expression(format!(
        "account_id = :account AND attribute_not_exists(deleted_at) AND {negation}#status IN ({names})"
    ))
}

/// Reads a job that is marked as deleted; `None` for all others.
pub async fn marked(jobs: &JobsTable, job_id: &JobId) -> Result<Option<Job>, AwsError> {
    let job: Option<Job> = jobs.item(job_id, JOB).await?.map(dynamo::from_item).transpose()?;
    Ok(job.filter(|job| job.deleted_at.is_some()))
}

/// Notes that a deleted job's objects are gone, but for those that somebody may still be writing.
pub async fn note_removed(jobs: &JobsTable, job_id: &JobId, now: UtcTime) -> Result<(), AwsError> {
    let update = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job_id.as_str()))
        .key("item", s(JOB))
        .update_expression("SET objects_removed_at = :now")
        .condition_expression("attribute_exists(deleted_at)")
        .expression_attribute_values(":now", s(now.to_string()));
    // Refused when another run has removed the job altogether.
    undisturbed("UpdateItem", || update.clone().send()).await.map(|_| ())
}

/// Removes all items of a deleted job, itself last: as long as it is there, the sweep comes back for the rest.
pub async fn remove_items(jobs: &JobsTable, job_id: &JobId) -> Result<(), AwsError> {
    let built = |error: aws_sdk_dynamodb::error::BuildError| AwsError::Item(error.into());
    let key = |item: &str| Item::from([("job_id".to_owned(), s(job_id.as_str())), ("item".to_owned(), s(item))]);
    let mut pages = jobs
        .client()
        .query()
        .table_name(jobs.name())
        .key_condition_expression("job_id = :job")
        .projection_expression("#item")
        .expression_attribute_names("#item", "item")
        .expression_attribute_values(":job", s(job_id.as_str()))
        .consistent_read(true)
        .into_paginator()
        .items()
        .send();
    let mut names = Vec::new();
    while let Some(item) = pages.next().await {
        let item = item.map_err(|error| call_error("Query", &error))?;
        names.extend(item.get("item").and_then(|name| name.as_s().ok()).cloned());
    }
    names.retain(|name| name != JOB);
    for some in names.chunks(ITEMS_AT_ONCE) {
        // Whatever happens meanwhile, nothing of a job goes that is not deleted.
        let check = ConditionCheck::builder()
            .table_name(jobs.name())
            .set_key(Some(key(JOB)))
            .condition_expression("attribute_exists(deleted_at)")
            .build()
            .map_err(built)?;
        let mut writes = vec![TransactWriteItem::builder().condition_check(check).build()];
        for name in some {
            let delete = Delete::builder()
                .table_name(jobs.name())
                .set_key(Some(key(name)))
                .build()
                .map_err(built)?;
            writes.push(TransactWriteItem::builder().delete(delete).build());
        }
        if transact(jobs.client(), writes).await?.is_some() {
            return Ok(());
        }
    }
    let delete = Delete::builder()
        .table_name(jobs.name())
        .set_key(Some(key(JOB)))
        .condition_expression("attribute_exists(deleted_at)")
        .build()
        .map_err(built)?;
    // Refused when another run was faster.
    let writes = vec![TransactWriteItem::builder().delete(delete).build()];
    transact(jobs.client(), writes).await.map(|_| ())
}
