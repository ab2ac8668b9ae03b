//! The jobs table: its layout, and the reads and writes that more than one function needs.
//!
//! Partition key `job_id`, sort key `item`:
//!
//! | item | holds |
//! |---|---|
//! | `job` | the [`Job`] |
//! | `plan#<generation>` | the [`Plan`] of a source that is cut into chunks |
//! | `task#<generation>#plan`, `...#encode#<chunk>`, `...#assemble` | a task's state, lease and attempts, and what it made |
//! | `output#<generation>-<attempt>#<id>` | an [`Output`] of one attempt |
//! | `metrics` | what the job really used |
//! | `mail#<generation>` | whether the owner was told |
//! | `usage` | what of the job is counted against its account; see [`usage`](super::usage) |

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    types::{Put, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, TransactWriteItem},
};
use serde::de::DeserializeOwned;

use super::{
    AwsError, call_error,
    dynamo::{self, Item, Refusal, Write, n, outcome, s, value},
};
use crate::domain::{
    failure::Failure,
    id::{AccountId, JobId},
    job::{Job, Metrics, Output, Status},
    magic::Kind,
    plan::Plan,
    spec::Priority,
    task::{TaskId, TaskItem, TaskState},
    time::UtcTime,
};

/// Sort key of the job item.
pub const JOB: &str = "job";
/// Sort key of the metrics item.
pub const METRICS: &str = "metrics";
/// Index over the jobs of an account, by creation.
const BY_ACCOUNT: &str = "account-created";

/// Most jobs that are read for one page of a list: about what one query of DynamoDB returns at most.
pub const MAX_READ: usize = 500;
/// Jobs that are read at once when not all of them count.
const STEP: usize = 100;

/// Sort key of a generation's plan.
#[must_use]
pub fn plan_item(generation: u32) -> String {
    format!("plan#{generation}")
}

/// A task that no worker has claimed yet.
#[must_use]
pub fn new_task(job_id: &JobId, generation: u32, task: TaskId, state: TaskState, now: UtcTime) -> Item {
    Item::from([
        ("job_id".into(), s(job_id.as_str())),
        ("item".into(), s(task.item(generation))),
        ("state".into(), s(state.as_str())),
        ("attempts".into(), n(0)),
        ("sent_ms".into(), n(now.epoch_ms())),
        ("updated_at".into(), s(now.to_string())),
    ])
}

/// Sort-key prefix of an attempt's outputs.
#[must_use]
pub fn output_prefix(generation: u32, attempt: u32) -> String {
    format!("output#{generation}-{attempt}#")
}

/// The jobs table.
#[derive(Debug, Clone)]
pub struct JobsTable {
    client: Client,
    name: String,
}

/// A page of jobs, newest first.
#[derive(Debug, Default)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins, when there may be more.
    pub last: Option<(JobId, UtcTime)>,
    /// Jobs that were read for it.
    pub read: usize,
    /// What that cost, in DynamoDB's read capacity units.
    pub read_units: f64,
}

/// Which jobs of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In this state only.
    pub status: Option<Status>,
    /// Of this kind only; jobs whose upload was not accepted yet have none.
    pub kind: Option<Kind>,
    /// Of this priority only.
    pub priority: Option<Priority>,
    /// Created later than this.
    pub created_after: Option<UtcTime>,
    /// Created earlier than this.
    pub created_before: Option<UtcTime>,
}

impl JobFilter {
    /// The first and the last time of creation, as the index has them; `None` when no time is between them.
    fn range(&self) -> Option<(String, String)> {
        let first = self.created_after.map_or(0, |time| time.epoch_ms().saturating_add(1));
        let last = self
            .created_before
            .map_or(i64::MAX, |time| time.epoch_ms().saturating_sub(1));
        let text = |ms| UtcTime::from_epoch_ms(ms).to_string();
        (first <= last).then(|| (text(first), text(last)))
    }

    /// What must be equal to what.
    fn equals(&self) -> Vec<(&'static str, &'static str)> {
        let status = self.status.map(|status| ("status", status.as_str()));
        let kind = self.kind.map(|kind| ("kind", kind.as_str()));
        let priority = self.priority.map(|priority| ("priority", priority.as_str()));
        [status, kind, priority].into_iter().flatten().collect()
    }

    fn is_selective(&self) -> bool {
        !self.equals().is_empty()
    }
}

fn index_key(account: &AccountId, (job_id, created_at): &(JobId, UtcTime)) -> Item {
    Item::from([
        ("job_id".to_owned(), s(job_id.as_str())),
        ("item".to_owned(), s(JOB)),
        ("account_id".to_owned(), s(account.as_str())),
        ("created_at".to_owned(), s(created_at.to_string())),
    ])
}

/// The place that a key of the index stands for.
fn place_of(key: &Item) -> Result<(JobId, UtcTime), AwsError> {
    let text = |name: &str| key.get(name).and_then(|value| value.as_s().ok());
    let job_id = text("job_id").and_then(|text| text.parse().ok());
    let created_at = text("created_at").and_then(|text| text.parse().ok());
    job_id
        .zip(created_at)
        .ok_or_else(|| AwsError::Item("a key of the index is of another shape".into()))
}

/// What kept a job from being created: one of the writes that were to be made with it.
#[derive(Debug)]
pub struct Refused {
    /// Which of them.
    pub index_in_beside: usize,
    /// The item that made its condition fail, when the condition asked for it.
    pub old: Option<Item>,
}

impl JobsTable {
    /// The table of this name.
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self {
            client: Client::new(config),
            name,
        }
    }

    /// The client, for the writes of a function's own use case.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a job, consistently. One that was deleted does not exist any more.
    pub async fn job(&self, job_id: &JobId) -> Result<Option<Job>, AwsError> {
        let job: Option<Job> = self.item(job_id, JOB).await?.map(dynamo::from_item).transpose()?;
        Ok(job.filter(|job| job.deleted_at.is_none()))
    }

    /// Reads what a job used.
    pub async fn metrics(&self, job_id: &JobId) -> Result<Option<Metrics>, AwsError> {
        self.item(job_id, METRICS).await?.map(dynamo::from_item).transpose()
    }

    /// Reads one item of a job, consistently.
    pub async fn item(&self, job_id: &JobId, item: &str) -> Result<Option<Item>, AwsError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.name)
            .key("job_id", s(job_id.as_str()))
            .key("item", s(item))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| call_error("GetItem", &error))?;
        Ok(output.item)
    }

    /// Reads the published outputs of a job: those of the attempt that its pointer names, none without a pointer.
    pub async fn outputs(&self, job: &Job) -> Result<Vec<Output>, AwsError> {
        match job.published_attempt {
            Some(attempt) => self.items(&job.job_id, &output_prefix(job.generation, attempt)).await,
            None => Ok(Vec::new()),
        }
    }

    /// Reads the tasks of a generation whose sort keys begin like this, chunks in their order.
    pub async fn tasks(&self, job_id: &JobId, prefix: &str) -> Result<Vec<TaskItem>, AwsError> {
        self.items(job_id, prefix).await
    }

    /// Reads a generation's plan.
    pub async fn plan(&self, job_id: &JobId, generation: u32) -> Result<Option<Plan>, AwsError> {
        let item = self.item(job_id, &plan_item(generation)).await?;
        item.map(dynamo::from_item).transpose()
    }

    /// Reads the items of a job whose sort keys begin like this, consistently and in their order.
    async fn items<T: DeserializeOwned>(&self, job_id: &JobId, prefix: &str) -> Result<Vec<T>, AwsError> {
        let mut pages = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression("job_id = :job AND begins_with(#item, :prefix)")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":job", s(job_id.as_str()))
            .expression_attribute_values(":prefix", s(prefix))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut items = Vec::new();
        while let Some(item) = pages.next().await {
            items.push(dynamo::from_item(item.map_err(|error| call_error("Query", &error))?)?);
        }
        Ok(items)
    }

    /// Reads a page of an account's jobs that pass a filter, newest first, after the given one.
    ///
    /// Times are a range of the index. Whatever else is asked is looked for in what was read, and a page reads
    /// [`MAX_READ`] jobs at most: it may be short, or empty, and not be the last one.
    pub async fn page(
        &self,
        account: &AccountId,
        filter: &JobFilter,
        limit: usize,
        after: Option<&(JobId, UtcTime)>,
    ) -> Result<JobPage, AwsError> {
        let mut page = JobPage::default();
        let Some((first, last)) = filter.range() else {
            return Ok(page);
        };
        let mut start = after.map(|place| index_key(account, place));
        loop {
            let left = limit - page.jobs.len();
            // One more than is wanted would be read in vain; but when some do not count, small steps take long.
            let step = if filter.is_selective() { left.max(STEP) } else { left };
            let step = step.min(MAX_READ - page.read);
            let mut query = self
                .client
                .query()
                .table_name(&self.name)
                .index_name(BY_ACCOUNT)
                .key_condition_expression("account_id = :account AND created_at BETWEEN :first AND :last")
                .expression_attribute_values(":account", s(account.as_str()))
                .expression_attribute_values(":first", s(&first))
                .expression_attribute_values(":last", s(&last))
                .scan_index_forward(false)
                .limit(i32::try_from(step).unwrap_or(i32::MAX))
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(start);
            let mut conditions = vec!["attribute_not_exists(deleted_at)".to_owned()];
            for (name, value) in filter.equals() {
                conditions.push(format!("#{name} = :{name}"));
                query = query
                    .expression_attribute_names(format!("#{name}"), name)
                    .expression_attribute_values(format!(":{name}"), s(value));
            }
            let output = query
                .filter_expression(conditions.join(" AND "))
                .send()
                .await
                .map_err(|error| call_error("Query", &error))?;
            page.read += usize::try_from(output.scanned_count).unwrap_or(0);
            page.read_units += output
                .consumed_capacity
                .and_then(|used| used.capacity_units)
                .unwrap_or(0.0);
            let end = output.last_evaluated_key;
            for item in output.items.unwrap_or_default() {
                page.jobs.push(dynamo::from_item(item)?);
            }
            if page.jobs.len() >= limit {
                let is_more = end.is_some() || page.jobs.len() > limit;
                page.jobs.truncate(limit);
                let last = page.jobs.last().filter(|_| is_more);
                page.last = last.map(|job| (job.job_id.clone(), job.created_at));
                return Ok(page);
            }
            let Some(end) = end else { return Ok(page) };
            if page.read >= MAX_READ {
                page.last = Some(place_of(&end)?);
                return Ok(page);
            }
            start = Some(end);
        }
    }

    /// Fails a job that no worker has, and only that one: on condition that it still waits for its upload.
    ///
    /// Returns the job as it stood when it was past that already.
    pub async fn fail_pending(&self, job_id: &JobId, failure: &Failure, now: UtcTime) -> Result<Write<()>, AwsError> {
        let result = self
            .client
            .update_item()
            .table_name(&self.name)
            .key("job_id", s(job_id.as_str()))
            .key("item", s(JOB))
            .update_expression(
                "SET #status = :failed, #error = :error, completed_at = :now, updated_at = :now REMOVE open_state",
            )
            .condition_expression("#status = :pending")
            .expression_attribute_names("#status", "status")
            .expression_attribute_names("#error", "error")
            .expression_attribute_values(":failed", s(Status::Failed.as_str()))
            .expression_attribute_values(":pending", s(Status::Pending.as_str()))
            .expression_attribute_values(":error", value(failure)?)
            .expression_attribute_values(":now", s(now.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        Ok(match outcome("UpdateItem", result)? {
            Write::Done(_) => Write::Done(()),
            Write::Refused(item) => Write::Refused(item),
        })
    }

    /// Stores a new job, on condition that its id is new, and with it, in one transaction, whatever else must be true or
    /// come about then. What of that was refused is returned; nothing is stored in that case.
    pub async fn create(&self, job: &Job, beside: Vec<TransactWriteItem>) -> Result<Option<Refused>, AwsError> {
        let mut item = dynamo::to_item(job)?;
        item.insert("item".into(), s(JOB));
        // The sparse index over open jobs has an entry exactly as long as this attribute is there.
        item.insert("open_state".into(), s(job.status.as_str()));
        item.insert("schema_version".into(), n(1));
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(job_id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| AwsError::Item(error.into()))?;
        let mut items = vec![TransactWriteItem::builder().put(put).build()];
        items.extend(beside);
        let Some(refusal) = dynamo::transact(&self.client, items).await? else {
            return Ok(None);
        };
        let Refusal { index, old } = refusal;
        match index.checked_sub(1) {
            Some(index_in_beside) => Ok(Some(Refused { index_in_beside, old })),
            // The id is random: an item that has it is this one, stored by a try whose answer was lost.
            None if old.is_some_and(|old| old.get("account_id") == Some(&s(job.account_id.as_str()))) => Ok(None),
            None => Err(AwsError::Conflict {
                operation: "TransactWriteItems",
            }),
        }
    }

    /// Puts an item, on condition that there is none with its key. Returns the one that is, and stays.
    pub async fn put_new(&self, item: Item) -> Result<Option<Item>, AwsError> {
        let result = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(job_id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        Ok(match outcome("PutItem", result)? {
            Write::Done(_) => None,
            Write::Refused(old) => Some(old.unwrap_or_default()),
        })
    }
}
