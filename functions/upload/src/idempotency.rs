//! `Idempotency-Key`: a request that is sent again creates nothing more, and is answered like the first one.
//!
//! What is stored of a request is a fingerprint and the job that it created, in the same transaction as that job. So
//! there is no moment at which one is there without the other, and two clients at once cannot both have created one.

use std::time::Duration;

use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use axum::http::{HeaderMap, HeaderName};
use reelay_core::{
    adapters::{
        AwsError, call_error,
        dynamo::{self, Item, n, s},
        jobs::JobsTable,
    },
    domain::{
        create::FieldError,
        id::{AccountId, JobId},
        time::UtcTime,
    },
    http::ApiError,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_hours(24);
/// Longest key.
const MAX_KEY_CHARS: usize = 255;
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Sort key of what is stored. Its partition is not that of a job, so nothing that reads jobs sees it.
const ITEM: &str = "idempotency";

/// A request that names a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    partition: String,
    fingerprint: String,
}

/// What is known of a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is the first with its key, or the first within a day.
    Nothing,
    /// It created this job.
    Job(JobId),
    /// Another request has its key.
    Other,
}

#[derive(Debug, Deserialize)]
struct Record {
    fingerprint: String,
    created_job: JobId,
    expires_at: i64,
}

impl Request {
    /// The request of an account, if it names a key.
    ///
    /// `operation` stands for method and path: the same route has several of them.
    pub(crate) fn read(
        headers: &HeaderMap,
        account: &AccountId,
        operation: &str,
        body: &[u8],
    ) -> Result<Option<Self>, ApiError> {
        let Some(key) = headers.get(HEADER) else {
            return Ok(None);
        };
        let key = key
            .to_str()
            .ok()
            .filter(|key| (1..=MAX_KEY_CHARS).contains(&key.len()))
            .ok_or_else(|| {
                let message = format!("the header Idempotency-Key must have 1 to {MAX_KEY_CHARS} ASCII characters");
                ApiError::fields(vec![FieldError::new("", message)])
            })?;
        Ok(Some(Self {
            partition: format!("request#{}", digest(&[account.as_str(), key].map(str::as_bytes))),
            fingerprint: digest(&[operation.as_bytes(), body]),
        }))
    }

    /// The write that claims the key for a job, on condition that nobody has it, or not any more.
    pub(crate) fn claim(&self, jobs: &JobsTable, job_id: &JobId, now: UtcTime) -> Result<TransactWriteItem, AwsError> {
        let item = Item::from([
            ("job_id".to_owned(), s(&self.partition)),
            ("item".to_owned(), s(ITEM)),
            ("fingerprint".to_owned(), s(&self.fingerprint)),
            ("created_job".to_owned(), s(job_id.as_str())),
            ("expires_at".to_owned(), n(now.plus(KEPT).epoch_seconds())),
        ]);
        let put = Put::builder()
            .table_name(jobs.name())
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(job_id) OR expires_at <= :now")
            .expression_attribute_values(":now", n(now.epoch_seconds()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| AwsError::Item(error.into()))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

/// Looks for what a request created when it came before.
pub(crate) async fn find(jobs: &JobsTable, request: &Request, now: UtcTime) -> Result<Found, AwsError> {
    let output = jobs
        .client()
        .get_item()
        .table_name(jobs.name())
        .key("job_id", s(&request.partition))
        .key("item", s(ITEM))
        .consistent_read(true)
        .send()
        .await
        .map_err(|error| call_error("GetItem", &error))?;
    let record: Option<Record> = output.item.map(dynamo::from_item).transpose()?;
    // Time to live is only garbage collection.
    let record = record.filter(|record| record.expires_at > now.epoch_seconds());
    Ok(match record {
        None => Found::Nothing,
        Some(record) if record.fingerprint == request.fingerprint => Found::Job(record.created_job),
        Some(_) => Found::Other,
    })
}

/// One text for several, which no others share: each is preceded by its length.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn request(account: &AccountId, key: &str, body: &str) -> Request {
        let headers = HeaderMap::from_iter([(HEADER, key.parse().unwrap())]);
        Request::read(&headers, account, "POST /jobs", body.as_bytes())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_key_is_one_accounts_and_a_fingerprint_one_bodys() {
        let (ada, bob) = (AccountId::generate(), AccountId::generate());
        let first = request(&ada, "k", "{}");
        assert_eq!(first, request(&ada, "k", "{}"));
        assert_ne!(first.partition, request(&bob, "k", "{}").partition);
        assert_ne!(first.partition, request(&ada, "K", "{}").partition);
        let other = request(&ada, "k", "{ }");
        assert!(first.partition == other.partition && first.fingerprint != other.fingerprint);
    }

    #[test]
    fn a_key_has_bounds() {
        let account = AccountId::generate();
        assert_eq!(
            Request::read(&HeaderMap::new(), &account, "POST /jobs", b"").unwrap(),
            None
        );
        for bad in [String::new(), "k".repeat(256), "ü".to_owned()] {
            let bad = HeaderValue::from_bytes(bad.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(HEADER, bad)]);
            assert!(
                Request::read(&headers, &account, "POST /jobs", b"").is_err(),
                "{headers:?}"
            );
        }
    }
}
