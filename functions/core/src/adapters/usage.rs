//! What an account uses of its quota: the jobs that are not over, and the bytes that are stored for it.
//!
//! Two items say the same thing from two sides, and only ever change together, in one transaction:
//!
//! | table | item | holds |
//! |---|---|---|
//! | accounts | `usage#<account>`, `usage` | `in_flight`, a *set* of `<job>#<generation>`; `stored_bytes` |
//! | jobs | `<job>`, `usage` | `counted_bytes`, `settled_generation`: what of the account's figures is this job's |
//!
//! A job is reserved in the transaction that creates it, on condition that it fits, so of any number of creations at once
//! exactly as many pass as there is room for. Later changes are not steps but aims: [`Usage::settle`] reads what is
//! counted for a job and moves it to what its state asks for, on condition that the count is still what was read. So it
//! can be repeated, come late or be left out, and the next call makes it right: `notify` calls it for each end of a job,
//! `sweep` for ends that `notify` missed. Those it finds by the job's own item, which is in the index over open jobs, as
//! [`RESERVED`], until the job is settled.
//!
//! A job counts its source's declared size from its creation, and its outputs from their publication. A job that ends
//! without an accepted source counts nothing, and neither does a deleted one. A source that its retention has deleted
//! counts until the job is. Jobs without a `usage` item, of before there was one, count nothing at all.

use aws_sdk_dynamodb::types::{
    AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update, builders::UpdateBuilder,
};

use super::{
    AwsError,
    accounts::AccountsTable,
    dynamo::{self, Item, n, s},
    jobs::JobsTable,
};
use crate::domain::{
    id::{AccountId, JobId},
    job::{Job, Status},
    limits::{AccountQuota, Exceeded},
    time::UtcTime,
};

/// Sort key, in both tables.
pub const USAGE: &str = "usage";
/// What the index over open jobs calls a job whose place is still taken.
pub const RESERVED: &str = "RESERVED";
/// How often a change is tried that others come before.
const TRIES: u32 = 5;

/// Partition key of an account's figures.
#[must_use]
pub fn usage_pk(account: &AccountId) -> String {
    format!("usage#{account}")
}

/// The accounts' figures.
#[derive(Debug, Clone)]
pub struct Usage {
    accounts: AccountsTable,
    jobs: JobsTable,
}

/// What is counted for a job.
struct Counted {
    bytes: u64,
    settled_generation: u32,
}

impl Usage {
    /// Over these tables.
    #[must_use]
    pub fn new(accounts: AccountsTable, jobs: JobsTable) -> Self {
        Self { accounts, jobs }
    }

    /// What is written beside a new job: its place and its bytes, on condition that there is room. When the first of
    /// these is refused, [`exceeded`] tells by what.
    pub fn reserve(&self, job: &Job, quota: AccountQuota) -> Result<Vec<TransactWriteItem>, AwsError> {
        let marker = Item::from([
            ("job_id".into(), s(job.job_id.as_str())),
            ("item".into(), s(USAGE)),
            ("account_id".into(), s(job.account_id.as_str())),
            ("counted_bytes".into(), n(job.size_bytes)),
            ("settled_generation".into(), n(0)),
            ("open_state".into(), s(RESERVED)),
            ("updated_at".into(), s(job.created_at.to_string())),
        ]);
        let put = Put::builder()
            .table_name(self.jobs.name())
            .set_item(Some(marker))
            .condition_expression("attribute_not_exists(job_id)")
            .build()
            .map_err(built)?;
        let place = self.place(job, job.size_bytes, quota)?;
        Ok(vec![place, TransactWriteItem::builder().put(put).build()])
    }

    /// The same for the next generation of a job, whose source is counted already.
    pub fn reserve_again(
        &self,
        next: &Job,
        quota: AccountQuota,
        now: UtcTime,
    ) -> Result<Vec<TransactWriteItem>, AwsError> {
        // A job of before there was a count begins to have one here.
        let marker = self
            .marker_update(&next.job_id)
            .update_expression(
                "SET open_state = :reserved, updated_at = :now, account_id = :account, \
                 counted_bytes = if_not_exists(counted_bytes, :zero), \
                 settled_generation = if_not_exists(settled_generation, :zero)",
            )
            .condition_expression("attribute_not_exists(released)")
            .expression_attribute_values(":reserved", s(RESERVED))
            .expression_attribute_values(":account", s(next.account_id.as_str()))
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":now", s(now.to_string()));
        Ok(vec![self.place(next, 0, quota)?, update_item(marker)?])
    }

    fn place(&self, job: &Job, bytes: u64, quota: AccountQuota) -> Result<TransactWriteItem, AwsError> {
        let mut condition = "(attribute_not_exists(in_flight) OR size(in_flight) < :places)".to_owned();
        let mut update = self
            .account_update(&job.account_id)
            .update_expression("ADD in_flight :job, stored_bytes :bytes")
            .expression_attribute_values(":job", members(&job.job_id, job.generation - 1, job.generation))
            .expression_attribute_values(":bytes", n(bytes))
            .expression_attribute_values(":places", n(quota.jobs_in_flight))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if quota.stored_bytes > 0 && bytes > 0 {
            // Below zero when the source alone is too large; then no figure is.
            let room = i128::from(quota.stored_bytes) - i128::from(bytes);
            condition += " AND (stored_bytes <= :room OR (attribute_not_exists(stored_bytes) AND :zero <= :room))";
            update = update
                .expression_attribute_values(":room", n(room))
                .expression_attribute_values(":zero", n(0));
        }
        update_item(update.condition_expression(condition))
    }

    /// Makes the account's figures say of a job what its state, as it was read, asks for.
    ///
    /// Returns whether there was something to do.
    pub async fn settle(&self, job: &Job) -> Result<bool, AwsError> {
        let over = job.status.is_terminal();
        let generation = if over { job.generation } else { job.generation - 1 };
        let bytes = match job.status {
            Status::Pending | Status::Queued | Status::InProgress => job.size_bytes,
            Status::Failed | Status::Cancelled if job.source.is_some() => job.size_bytes,
            Status::Failed | Status::Cancelled | Status::Expired => 0,
            Status::Completed => {
                let metrics = self.jobs.metrics(&job.job_id).await?;
                job.size_bytes + metrics.map_or(0, |metrics| metrics.output_bytes)
            }
        };
        let more = if over { " REMOVE open_state" } else { "" };
        self.bring(job, bytes, generation, more).await
    }

    /// Gives back all that a job uses, for good: whatever its end, or an event about it, it counts nothing from then on.
    /// Called before a job's items are deleted.
    ///
    /// Returns whether there was something to do.
    pub async fn release(&self, job: &Job) -> Result<bool, AwsError> {
        self.bring(job, 0, job.generation, ", released = :true REMOVE open_state")
            .await
    }

    /// Moves what is counted for a job to these bytes, and gives back the places of its generations up to this one.
    async fn bring(&self, job: &Job, bytes: u64, generation: u32, more: &str) -> Result<bool, AwsError> {
        let releases = more.contains(":true");
        for _ in 0..TRIES {
            let Some(item) = self.jobs.item(&job.job_id, USAGE).await? else {
                return Ok(false);
            };
            if item.contains_key("released") {
                return Ok(false);
            }
            let counted = Counted::read(&item);
            // What was read of the job is older than what was settled since.
            if counted.settled_generation > generation && !releases {
                return Ok(false);
            }
            if counted.bytes == bytes && counted.settled_generation == generation && !releases {
                return Ok(false);
            }
            let settled = counted.settled_generation.max(generation);
            let mut marker = self
                .marker_update(&job.job_id)
                .update_expression(format!(
                    "SET counted_bytes = :bytes, settled_generation = :settled{more}"
                ))
                .condition_expression(
                    "counted_bytes = :counted AND settled_generation = :before AND attribute_not_exists(released)",
                )
                .expression_attribute_values(":bytes", n(bytes))
                .expression_attribute_values(":settled", n(settled))
                .expression_attribute_values(":counted", n(counted.bytes))
                .expression_attribute_values(":before", n(counted.settled_generation));
            if releases {
                marker = marker.expression_attribute_values(":true", dynamo::flag(true));
            }
            let by = i128::from(bytes) - i128::from(counted.bytes);
            let mut figures = self
                .account_update(&job.account_id)
                .condition_expression("attribute_exists(pk)")
                .expression_attribute_values(":by", n(by));
            figures = if settled > counted.settled_generation {
                figures
                    .update_expression("ADD stored_bytes :by DELETE in_flight :jobs")
                    .expression_attribute_values(":jobs", members(&job.job_id, counted.settled_generation, settled))
            } else {
                figures.update_expression("ADD stored_bytes :by")
            };
            let items = vec![update_item(marker)?, update_item(figures)?];
            match dynamo::transact(self.jobs.client(), items).await? {
                None => return Ok(true),
                // The account is gone, and its figures with it.
                Some(refusal) if refusal.index == 1 => return Ok(false),
                // Another call was first: what is left to do is read anew.
                Some(_) => {}
            }
        }
        Err(AwsError::Conflict {
            operation: "TransactWriteItems",
        })
    }

    fn account_update(&self, account: &AccountId) -> UpdateBuilder {
        Update::builder()
            .table_name(self.accounts.name())
            .key("pk", s(usage_pk(account)))
            .key("sk", s(USAGE))
    }

    fn marker_update(&self, job_id: &JobId) -> UpdateBuilder {
        Update::builder()
            .table_name(self.jobs.name())
            .key("job_id", s(job_id.as_str()))
            .key("item", s(USAGE))
    }
}

/// What a reservation was refused by, from the account's figures as they stood.
#[must_use]
pub fn exceeded(old: Option<&Item>, quota: AccountQuota) -> Exceeded {
    let in_flight = old.and_then(|old| old.get("in_flight")?.as_ss().ok());
    let places = usize::try_from(quota.jobs_in_flight).unwrap_or(usize::MAX);
    if in_flight.map_or(0, Vec::len) >= places {
        Exceeded::Jobs {
            limit: quota.jobs_in_flight,
        }
    } else {
        Exceeded::Bytes {
            limit: quota.stored_bytes,
        }
    }
}

impl Counted {
    fn read(item: &Item) -> Self {
        let number = |name: &str| item.get(name).and_then(|value| value.as_n().ok()?.parse::<u64>().ok());
        let settled = number("settled_generation").unwrap_or(0);
        Self {
            bytes: number("counted_bytes").unwrap_or(0),
            settled_generation: u32::try_from(settled).unwrap_or(u32::MAX),
        }
    }
}

/// A job's generations after one and up to another, as members of the set.
fn members(job_id: &JobId, after: u32, up_to: u32) -> AttributeValue {
    AttributeValue::Ss(
        (after + 1..=up_to)
            .map(|generation| format!("{job_id}#{generation}"))
            .collect(),
    )
}

fn update_item(update: UpdateBuilder) -> Result<TransactWriteItem, AwsError> {
    let update = update.build().map_err(built)?;
    Ok(TransactWriteItem::builder().update(update).build())
}

fn built(error: aws_sdk_dynamodb::error::BuildError) -> AwsError {
    AwsError::Item(error.into())
}
