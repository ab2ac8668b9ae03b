//! Failed logins make the next one wait, longer each time, and never lock anybody out.
//!
//! Failures are counted three times: for an address *from one source*, for a source whatever address it tries, and for an
//! address from anywhere. The first two decide whether a login is looked at. The third decides nothing by itself, else
//! anyone could lock anyone out from afar; but once it is high, a source has no free tries left after its first failure.
//! So whoever knows the password and comes from a source that has not failed gets in at once, however many others are
//! guessing, and somebody with many sources gets one guess from each and then waits like everybody.
//!
//! A login is counted as a failure *before* its password is looked at, in one conditional write, and taken back when the
//! password was right. So of many guesses at once no more pass than of as many one after the other: the free ones, and
//! then one in each wait. Whether the address has an account plays no part, and it is stored as a digest.
//!
//! | `pk` | `sk` | |
//! |---|---|---|
//! | `throttle#<digest>` | `failures` | `failures`, `next_ms` (no login before), `expires_at` |

use std::time::Duration;

use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use sha2::{Digest, Sha256};

use super::{
    AwsError,
    accounts::AccountsTable,
    dynamo::{Item, Write, n, outcome, s},
};
use crate::domain::{
    limits::{FAILURES_FORGOTTEN_AFTER, wait_after},
    time::UtcTime,
};

/// How long a login that is beyond the free ones keeps others from starting, until it is known how it ended.
const HOLD: Duration = Duration::from_secs(3);
/// From so many times the free failures on, an address is being guessed at from many sources.
const HOT_FACTOR: u32 = 10;

/// How many failures cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeFailures {
    /// For one address from one source.
    pub of_address: u32,
    /// For one source.
    pub of_source: u32,
}

/// Counts failed logins.
#[derive(Debug, Clone)]
pub struct LoginThrottle {
    table: AccountsTable,
    free: FreeFailures,
}

/// A login that may be looked at. It counts as failed until [`LoginThrottle::succeeded`].
#[derive(Debug)]
pub struct Attempt {
    pair: Counted,
    source: Counted,
    address: String,
}

#[derive(Debug)]
struct Counted {
    pk: String,
    /// With this one.
    failures: u32,
    /// What is stored belongs to a time that is forgotten.
    stale: bool,
    free: u32,
}

/// Whether a login may be looked at.
#[derive(Debug)]
pub enum Turn {
    /// It may.
    Now(Attempt),
    /// Not before so many seconds.
    After(u32),
}

fn key(kind: &str, parts: &[&str]) -> String {
    let mut digest = Sha256::new().chain_update(kind);
    for part in parts {
        digest.update([0]);
        digest.update(part);
    }
    format!("throttle#{}", hex::encode(&digest.finalize()[..16]))
}

fn number(item: &Item, name: &str) -> i64 {
    let value = item.get(name).and_then(|value| value.as_n().ok()?.parse().ok());
    value.unwrap_or(0)
}

impl LoginThrottle {
    /// Counts in this table.
    #[must_use]
    pub fn new(table: AccountsTable, free: FreeFailures) -> Self {
        Self { table, free }
    }

    /// Asks for a login's turn. The address is what somebody typed, normalised or not.
    pub async fn begin(&self, address: &str, source: &str, now: UtcTime) -> Result<Turn, AwsError> {
        let address = address.trim().to_lowercase();
        let pair = key("address and source", &[&address, source]);
        let pair = match self.count(pair, self.free.of_address, now).await? {
            Ok(counted) => counted,
            Err(wait) => return Ok(Turn::After(wait)),
        };
        match self.count(key("source", &[source]), self.free.of_source, now).await? {
            Ok(source) => Ok(Turn::Now(Attempt { pair, source, address })),
            Err(wait) => {
                self.take_back(&pair).await?;
                Ok(Turn::After(wait))
            }
        }
    }

    /// The password was right: what this source did wrong with this address is forgotten. What it did wrong with others
    /// is not, else an account of one's own would be the way around the limit.
    pub async fn succeeded(&self, attempt: &Attempt) -> Result<(), AwsError> {
        self.forget(&attempt.pair).await?;
        self.take_back(&attempt.source).await
    }

    /// The password was wrong, or there is no such account.
    pub async fn failed(&self, attempt: &Attempt, now: UtcTime) -> Result<(), AwsError> {
        let from_anywhere = self.add(&key("address", &[&attempt.address]), now).await?;
        let hot = wait_after(from_anywhere, self.free.of_address.saturating_mul(HOT_FACTOR));
        self.note(&attempt.pair, hot, now).await?;
        self.note(&attempt.source, Duration::ZERO, now).await
    }

    /// Counts a login that begins; the seconds to wait when it may not.
    async fn count(&self, pk: String, free: u32, now: UtcTime) -> Result<Result<Counted, u32>, AwsError> {
        let result = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .key("pk", s(&pk))
            .key("sk", s("failures"))
            .update_expression("ADD failures :one SET next_ms = :hold, expires_at = :expires")
            .condition_expression(
                "attribute_not_exists(pk) OR expires_at <= :now OR failures < :free OR next_ms <= :now_ms",
            )
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":free", n(free))
            .expression_attribute_values(":now", n(now.epoch_seconds()))
            .expression_attribute_values(":now_ms", n(now.epoch_ms()))
            .expression_attribute_values(":hold", n(now.plus(HOLD).epoch_ms()))
            .expression_attribute_values(":expires", n(now.plus(FAILURES_FORGOTTEN_AFTER).epoch_seconds()))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match outcome("UpdateItem", result)? {
            Write::Done(output) => {
                let old = output.attributes.unwrap_or_default();
                // Time to live deletes late.
                let stale = !old.is_empty() && number(&old, "expires_at") <= now.epoch_seconds();
                let before = if stale { 0 } else { number(&old, "failures") };
                Ok(Ok(Counted {
                    pk,
                    failures: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1),
                    stale,
                    free,
                }))
            }
            Write::Refused(old) => {
                let next_ms = old.map_or(0, |old| number(&old, "next_ms"));
                let wait_ms = (next_ms - now.epoch_ms()).max(1);
                Ok(Err(
                    u32::try_from(wait_ms.saturating_add(999) / 1_000).unwrap_or(u32::MAX)
                ))
            }
        }
    }

    /// Notes when the next login may begin. `least` is a wait whatever the count.
    async fn note(&self, counted: &Counted, least: Duration, now: UtcTime) -> Result<(), AwsError> {
        let wait = wait_after(counted.failures, counted.free).max(least);
        if wait.is_zero() && !counted.stale {
            return Ok(());
        }
        // With the free tries used up, only the wait decides.
        let failures = if least.is_zero() {
            counted.failures
        } else {
            counted.failures.max(counted.free)
        };
        let set_failures = counted.stale || failures != counted.failures;
        let mut update = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .key("pk", s(&counted.pk))
            .key("sk", s("failures"))
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":next", n(now.plus(wait).epoch_ms()));
        if set_failures {
            update = update
                .update_expression("SET next_ms = :next, failures = :failures")
                .expression_attribute_values(":failures", n(failures));
        } else {
            update = update
                .update_expression("SET next_ms = :next")
                .condition_expression("failures >= :failures")
                .expression_attribute_values(":failures", n(failures));
        }
        // Refused: a success in between has cleared it.
        outcome("UpdateItem", update.send().await).map(|_| ())
    }

    /// Counts a failure from anywhere; returns how many there are.
    async fn add(&self, pk: &str, now: UtcTime) -> Result<u32, AwsError> {
        let update = |expression: &str, condition: &str| {
            self.table
                .client()
                .update_item()
                .table_name(self.table.name())
                .key("pk", s(pk))
                .key("sk", s("failures"))
                .update_expression(expression)
                .condition_expression(condition)
                .expression_attribute_values(":one", n(1))
                .expression_attribute_values(":now", n(now.epoch_seconds()))
                .expression_attribute_values(":expires", n(now.plus(FAILURES_FORGOTTEN_AFTER).epoch_seconds()))
                .return_values(ReturnValue::UpdatedNew)
        };
        let more = update(
            "ADD failures :one SET expires_at = :expires",
            "attribute_not_exists(pk) OR expires_at > :now",
        );
        let mut written = outcome("UpdateItem", more.send().await)?;
        if matches!(written, Write::Refused(_)) {
            let anew = update("SET failures = :one, expires_at = :expires", "expires_at <= :now");
            written = outcome("UpdateItem", anew.send().await)?;
        }
        Ok(match written {
            Write::Done(output) => {
                let failures = number(&output.attributes.unwrap_or_default(), "failures");
                u32::try_from(failures).unwrap_or(u32::MAX)
            }
            // Somebody else began anew at the same moment.
            Write::Refused(_) => 1,
        })
    }

    async fn forget(&self, counted: &Counted) -> Result<(), AwsError> {
        self.set(
            counted,
            "SET failures = :zero, next_ms = :zero",
            "attribute_exists(pk)",
            0,
        )
        .await
    }

    async fn take_back(&self, counted: &Counted) -> Result<(), AwsError> {
        self.set(
            counted,
            "SET next_ms = :zero ADD failures :less",
            "failures > :zero",
            -1,
        )
        .await
    }

    async fn set(&self, counted: &Counted, expression: &str, condition: &str, less: i32) -> Result<(), AwsError> {
        let mut update = self
            .table
            .client()
            .update_item()
            .table_name(self.table.name())
            .key("pk", s(&counted.pk))
            .key("sk", s("failures"))
            .update_expression(expression)
            .condition_expression(condition)
            .expression_attribute_values(":zero", n(0));
        if less != 0 {
            update = update.expression_attribute_values(":less", n(less));
        }
        // Refused: there is nothing to take back any more.
        outcome("UpdateItem", update.send().await).map(|_| ())
    }
}
