//! What intake reads of an upload, and the one write that queues a job.

use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};
use aws_sdk_s3::{Client, types::ChecksumMode};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reelay_core::{
    adapters::{
        AwsError, call_error,
        dynamo::{Write, flag, n, outcome, s, value},
        jobs::{JOB, JobsTable, new_task},
    },
    domain::{
        job::{Job, PinnedSource, Status},
        magic::{HEAD_BYTES, Kind},
        task::{TaskId, TaskState},
        time::UtcTime,
    },
};

/// Uploaded objects.
#[derive(Debug)]
pub(crate) struct Uploads {
    client: Client,
}

/// An uploaded object, as far as intake looks at it.
pub(crate) struct Upload {
    pub(crate) pinned: PinnedSource,
    pub(crate) size_bytes: u64,
    pub(crate) head: Vec<u8>,
    /// SHA-256 of the whole, in hex, when S3 has compared one at the upload.
    pub(crate) sha256: Option<String>,
}

impl Uploads {
    pub(crate) fn new(config: &aws_config::SdkConfig) -> Self {
        Self {
            client: Client::new(config),
        }
    }

    /// Looks at one version of an object, the newest when none is named. `None` when it is gone.
    pub(crate) async fn look(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
    ) -> Result<Option<Upload>, AwsError> {
        let head = self
            .client
            .head_object()
            .bucket(bucket)
            .key(key)
            .set_version_id(version_id.map(Into::into))
            .checksum_mode(ChecksumMode::Enabled);
        let head = match head.send().await {
            Ok(head) => head,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(aws_sdk_s3::operation::head_object::HeadObjectError::is_not_found) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(call_error("HeadObject", &error)),
        };
        let size_bytes = head
            .content_length
            .and_then(|length| u64::try_from(length).ok())
            .unwrap_or(0);
        let pinned = PinnedSource {
            version_id: head.version_id.unwrap_or_default(),
            etag: head.e_tag.unwrap_or_default(),
        };
        let mut upload = Upload {
            pinned,
            size_bytes,
            head: Vec::new(),
            // That of an upload in parts is one of the parts' hashes, with their count behind it, and is no base64.
            sha256: head
                .checksum_sha256
                .and_then(|text| BASE64_STANDARD.decode(text).ok())
                .map(hex::encode),
        };
        if size_bytes > 0 {
            let output = self
                .client
                .get_object()
                .bucket(bucket)
                .key(key)
                .set_version_id(Some(upload.pinned.version_id.clone()).filter(|id| !id.is_empty()))
                .if_match(&upload.pinned.etag)
                .range(format!("bytes=0-{}", HEAD_BYTES - 1))
                .send()
                .await
                .map_err(|error| call_error("GetObject", &error))?;
            let bytes = output.body.collect().await.map_err(|error| AwsError::Call {
                operation: "GetObject",
                aws_code: error.to_string(),
                retryable: true,
            })?;
            upload.head = bytes.into_bytes().to_vec();
        }
        Ok(Some(upload))
    }
}

/// Moves a job from PENDING to QUEUED with its source pinned, and makes its plan task, in one transaction.
///
/// Returns whether this call did it.
pub(crate) async fn queue(
    jobs: &JobsTable,
    job: &Job,
    upload: &Upload,
    kind: Kind,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let built = |error: aws_sdk_dynamodb::error::BuildError| AwsError::Item(error.into());
    let update = Update::builder()
        .table_name(jobs.name())
        .key("job_id", s(job.job_id.as_str()))
        .key("item", s(JOB))
        .update_expression(
            "SET #status = :queued, open_state = :queued, #source = :source, kind = :kind, queued_at = :now, \
             updated_at = :now, sha256_checked = :checked",
        )
        .condition_expression("#status = :pending AND generation = :generation")
        .expression_attribute_names("#status", "status")
        .expression_attribute_names("#source", "source")
        .expression_attribute_values(":queued", s(Status::Queued.as_str()))
        .expression_attribute_values(":pending", s(Status::Pending.as_str()))
        .expression_attribute_values(":generation", n(job.generation))
        .expression_attribute_values(":source", value(&upload.pinned)?)
        .expression_attribute_values(":checked", flag(upload.sha256.is_some() && upload.sha256 == job.sha256))
        .expression_attribute_values(":kind", value(&kind)?)
        .expression_attribute_values(":now", s(now.to_string()))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(built)?;
    let task = new_task(&job.job_id, job.generation, TaskId::Plan, TaskState::Ready, now);
    let put = Put::builder()
        .table_name(jobs.name())
        .set_item(Some(task))
        .condition_expression("attribute_not_exists(job_id)")
        .build()
        .map_err(built)?;
    let result = jobs
        .client()
        .transact_write_items()
        .transact_items(TransactWriteItem::builder().update(update).build())
        .transact_items(TransactWriteItem::builder().put(put).build())
        .send()
        .await;
    Ok(matches!(outcome("TransactWriteItems", result)?, Write::Done(_)))
}
