//! The index over unfinished jobs, and the one change of state that is nobody else's: PENDING to EXPIRED.

use reelay_core::{
    adapters::{
        AwsError, call_error,
        dynamo::{self, Item, Write, outcome, s},
        jobs::{JOB, JobsTable},
    },
    domain::{
        id::{AccountId, JobId},
        job::{Job, Status},
        keys::SourceKey,
        time::UtcTime,
    },
};
use serde::Deserialize;

/// Index over unfinished jobs, by their last change.
const OPEN_BY_UPDATE: &str = "open-updated";
/// Most jobs of a page.
const PAGE: i32 = 200;

/// An unfinished job, as far as the index has it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct OpenJob {
    pub(crate) job_id: JobId,
    pub(crate) account_id: AccountId,
    /// Its last change.
    pub(crate) updated_at: UtcTime,
}

impl OpenJob {
    /// Where its source lies.
    pub(crate) fn source_key(&self) -> SourceKey {
        SourceKey {
            account: self.account_id.clone(),
            job: self.job_id.clone(),
        }
    }
}

/// A page of unfinished jobs.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) jobs: Vec<OpenJob>,
    /// Where the next page begins, when there is one.
    pub(crate) next: Option<Item>,
}

/// Reads a page of the jobs in a state that have not changed since `before`, the stalest first.
///
/// The index lags behind the table a little: whoever acts on an entry reads the job itself, or writes on condition.
pub(crate) async fn open_jobs(
    jobs: &JobsTable,
    state: &str,
    before: UtcTime,
    start: Option<Item>,
) -> Result<Page, AwsError> {
    let output = jobs
        .client()
        .query()
        .table_name(jobs.name())
        .index_name(OPEN_BY_UPDATE)
        .key_condition_expression("open_state = :state AND updated_at < :before")
        .expression_attribute_values(":state", s(state))
        .expression_attribute_values(":before", s(before.to_string()))
        .limit(PAGE)
        .set_exclusive_start_key(start)
        .send()
        .await
        .map_err(|error| call_error("Query", &error))?;
    let next = output.last_evaluated_key;
    let entries = output.items.unwrap_or_default().into_iter().map(dynamo::from_item);
    let mut page = Page { jobs: Vec::new(), next };
    for entry in entries {
        match entry {
            Ok(job) => page.jobs.push(job),
            Err(error) => tracing::error!(%error, code = error.code(), "an entry of the index was left out"),
        }
    }
    Ok(page)
}

/// Ends a job whose upload never came, on condition that it is as it was read.
///
/// Returns whether this call did it.
pub(crate) async fn expire(jobs: &JobsTable, job: &Job, now: UtcTime) -> Result<bool, AwsError> {
    let result = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression("SET #status = :expired, completed_at = :now, updated_at = :now REMOVE open_state")
        .condition_expression("#status = :pending AND upload_expires_at = :window")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":expired", s(Status::Expired.as_str()))
        .expression_attribute_values(":pending", s(Status::Pending.as_str()))
        .expression_attribute_values(":window", s(job.upload_expires_at.to_string()))
        .expression_attribute_values(":now", s(now.to_string()))
        .send()
        .await;
    Ok(matches!(outcome("UpdateItem", result)?, Write::Done(_)))
}
