//! Audit entries: one item each, readable by account and by day without a scan.
//!
//! | `pk` | `sk` | |
//! |---|---|---|
//! | `audit#<account>`, `audit#none` for an address without one | `<time>#<request>-<random>` | the [`Entry`], `audit_day`, `expires_at` |
//!
//! By account is the table's own order. By day is the sparse index `audit-day`, which only these items are in: one
//! partition a day, which takes a thousand entries a second, five times what the API's own throttle lets through.
//! A key per day in the table itself would put every write of the stack into one partition, and each account's entries
//! all over it.

use std::time::Duration;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use uuid::Uuid;

use super::{
    AwsError,
    accounts::AccountsTable,
    call_error,
    dynamo::{self, Item, n, outcome, s},
};
use crate::domain::{audit::Entry, id::AccountId, time::UtcTime};

/// Index over the entries of a day.
const BY_DAY: &str = "audit-day";
/// Stands for an account where there is none.
const NOBODY: &str = "none";
/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

/// The audit entries.
#[derive(Debug, Clone)]
pub struct AuditLog {
    table: AccountsTable,
    retention: Duration,
}

/// Where a page of entries ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
}

/// A page of entries, newest first.
#[derive(Debug, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The last one, when there may be more.
    pub last: Option<Place>,
}

fn pk(account: Option<&AccountId>) -> String {
    format!("audit#{}", account.map_or(NOBODY, AccountId::as_str))
}

impl AuditLog {
    /// Keeps entries in this table for so long.
    #[must_use]
    pub fn new(table: AccountsTable, retention_days: u32) -> Self {
        Self {
            table,
            retention: Duration::from_secs(u64::from(retention_days) * DAY_SECONDS),
        }
    }

    /// Stores an entry.
    pub async fn record(&self, entry: &Entry) -> Result<(), AwsError> {
        let mut item = dynamo::to_item(entry)?;
        // Two entries of a moment must not be one.
        let random = Uuid::new_v4().simple().to_string();
        item.insert("pk".into(), s(pk(entry.account_id.as_ref())));
        item.insert("sk".into(), s(format!("{}#{}", entry.at, &random[..16])));
        item.insert("audit_day".into(), s(&entry.at.to_string()[..10]));
        item.insert("expires_at".into(), n(entry.at.plus(self.retention).epoch_seconds()));
        let result = self
            .table
            .client()
            .put_item()
            .table_name(self.table.name())
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        // The key is random: an item that has it is this very write, whose answer was lost.
        outcome("PutItem", result).map(|_| ())
    }

    /// Reads an account's entries of a time, newest first, before a place.
    pub async fn of_account(
        &self,
        account: &AccountId,
        span: (UtcTime, UtcTime),
        limit: i32,
        before: Option<&Place>,
    ) -> Result<Page, AwsError> {
        let query = self
            .query(span, limit)
            .key_condition_expression("pk = :partition AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":partition", s(pk(Some(account))))
            .set_exclusive_start_key(before.map(|place| start(place, None)));
        page(query).await
    }

    /// Reads the entries of one day, `2026-11-26`, within a time.
    pub async fn of_day(
        &self,
        day: &str,
        span: (UtcTime, UtcTime),
        limit: i32,
        before: Option<&Place>,
    ) -> Result<Page, AwsError> {
        let query = self
            .query(span, limit)
            .index_name(BY_DAY)
            .key_condition_expression("audit_day = :partition AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":partition", s(day))
            .set_exclusive_start_key(before.map(|place| start(place, Some(day))));
        page(query).await
    }

    fn query(&self, (from, to): (UtcTime, UtcTime), limit: i32) -> QueryFluentBuilder {
        self.table
            .client()
            .query()
            .table_name(self.table.name())
            .expression_attribute_values(":from", s(from.to_string()))
            // `$` comes after the `#` that follows the time.
            .expression_attribute_values(":to", s(format!("{to}$")))
            .scan_index_forward(false)
            .limit(limit)
    }
}

fn start(place: &Place, day: Option<&str>) -> Item {
    let mut key = Item::from([("pk".into(), s(&place.pk)), ("sk".into(), s(&place.sk))]);
    if let Some(day) = day {
        key.insert("audit_day".into(), s(day));
    }
    key
}

async fn page(query: QueryFluentBuilder) -> Result<Page, AwsError> {
    let output = query.send().await.map_err(|error| call_error("Query", &error))?;
    let text = |key: &Item, name: &str| key.get(name).and_then(|value| value.as_s().ok()).cloned();
    let last = output.last_evaluated_key.and_then(|key| {
        Some(Place {
            pk: text(&key, "pk")?,
            sk: text(&key, "sk")?,
        })
    });
    let now = UtcTime::now().epoch_seconds();
    // Time to live deletes late.
    let lives = |item: &Item| {
        let expires = item.get("expires_at").and_then(|value| value.as_n().ok()?.parse().ok());
        expires.is_none_or(|expires: i64| expires > now)
    };
    let items = output.items.unwrap_or_default().into_iter().filter(lives);
    Ok(Page {
        entries: items.map(dynamo::from_item).collect::<Result<_, _>>()?,
        last,
    })
}
