//! Rate windows: how many requests a caller has made in the running window, as one item of the accounts table.
//!
//! A request is one write: it adds one to the window's item, on condition that the count is below the limit. DynamoDB
//! decides such writes one after the other, so of any number of requests at once exactly `limit` pass, and a request that
//! is refused counts for nothing. The window is part of the key, so that a new one begins by itself; a count in one item
//! for all time would need a second write to start again, and so would a leaky bucket, whose level is the larger of two
//! values, which an update expression cannot say.
//!
//! Two things follow. Around the end of a window a caller may make up to twice the limit in one window's length. And a
//! write whose answer got lost is sent again by the SDK and counts twice: never too few.
//!
//! | `pk` | `sk` | |
//! |---|---|---|
//! | `rate#<class>#<subject>` | begin of the window, seconds since 1970 | `taken`, `expires_at` |

use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValue;

use super::{
    AwsError,
    accounts::AccountsTable,
    dynamo::{Write, n, outcome, s},
};
use crate::domain::{
    limits::{Class, Quota, Standing},
    time::UtcTime,
};

/// How long after its end a window is kept. Nobody reads it then; this is for clocks that differ.
const KEPT: Duration = Duration::from_mins(5);

/// Counts a request of this subject: an account's id or a source address.
pub async fn take(
    table: &AccountsTable,
    class: Class,
    subject: &str,
    quota: Quota,
    now: UtcTime,
) -> Result<Standing, AwsError> {
    let (start, left_seconds) = quota.window(now);
    let left = Duration::from_secs(left_seconds.into());
    let result = table
        .client()
        .update_item()
        .table_name(table.name())
        .key("pk", s(format!("rate#{}#{subject}", class.as_str())))
        .key("sk", s(start.to_string()))
        .update_expression("ADD taken :one SET expires_at = :expires")
        .condition_expression("attribute_not_exists(taken) OR taken < :limit")
        .expression_attribute_values(":one", n(1))
        .expression_attribute_values(":limit", n(quota.limit))
        .expression_attribute_values(":expires", n(now.plus(left + KEPT).epoch_seconds()))
        .return_values(ReturnValue::UpdatedNew)
        .send()
        .await;
    let taken = match outcome("UpdateItem", result)? {
        Write::Done(output) => {
            let taken = output.attributes.as_ref().and_then(|item| item.get("taken"));
            let taken = taken.and_then(|taken| taken.as_n().ok()?.parse().ok());
            Some(taken.unwrap_or(quota.limit))
        }
        Write::Refused(_) => None,
    };
    Ok(Standing {
        class,
        quota,
        admitted: taken.is_some(),
        remaining: quota.limit.saturating_sub(taken.unwrap_or(quota.limit)),
        resets_in_seconds: left_seconds,
    })
}
