//! Uploads in parts: begun, signed, listed, completed and aborted. Bytes go from the client to S3 alone.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_s3::{
    config::Builder,
    error::ProvideErrorMetadata,
    operation::head_object::HeadObjectError,
    types::{CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_types::timeout::TimeoutConfig;

use super::{
    AwsError, call_error,
    objects::{Bucket, SignedRequest, signing},
};
use crate::domain::{keys::SourceKey, upload::StoredPart};

/// S3's code for an upload that is not, or no longer, under way.
const NO_SUCH_UPLOAD: &str = "NoSuchUpload";
/// What S3 says when a part is not the one that was listed a moment ago.
const CHANGED: [&str; 3] = ["EntityTooSmall", "InvalidPart", "InvalidPartOrder"];
/// How long S3 may take to put an upload together. It needs longer the more parts there are.
const COMPLETE_LIMIT: Duration = Duration::from_secs(20);

/// What came of the wish to complete an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// The object is there.
    Done,
    /// There is no such upload: it was completed or aborted before.
    Gone,
    /// A part was sent again meanwhile.
    Changed,
}

impl Bucket {
    /// Begins an upload in parts; returns S3's name for it.
    pub async fn begin_parts(&self, key: &SourceKey, content_type: &str) -> Result<String, AwsError> {
        let output = self
            .client()
            .create_multipart_upload()
            .bucket(self.name())
            .key(key.to_string())
            .content_type(content_type)
            .send()
            .await
            .map_err(|error| call_error("CreateMultipartUpload", &error))?;
        output
            .upload_id
            .ok_or_else(|| AwsError::Item("an upload without a name was begun".into()))
    }

    /// Signs one part of exactly this length.
    pub async fn sign_part(
        &self,
        key: &SourceKey,
        upload_id: &str,
        part_number: u32,
        size_bytes: u64,
        lifetime: Duration,
    ) -> Result<SignedRequest, AwsError> {
        let request = self
            .client()
            .upload_part()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload_id)
            .part_number(i32::try_from(part_number).unwrap_or(i32::MAX))
            .content_length(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .presigned(signing(lifetime)?)
            .await
            .map_err(|error| call_error("UploadPart", &error))?;
        Ok(SignedRequest {
            url: request.uri().to_owned(),
            headers: BTreeMap::from([("content-length", size_bytes.to_string())]),
        })
    }

    /// All parts that S3 has, in their order; `None` when there is no such upload.
    pub async fn parts(&self, key: &SourceKey, upload_id: &str) -> Result<Option<Vec<StoredPart>>, AwsError> {
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let page = self
                .client()
                .list_parts()
                .bucket(self.name())
                .key(key.to_string())
                .upload_id(upload_id)
                .set_part_number_marker(marker)
                .send()
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) if error.code() == Some(NO_SUCH_UPLOAD) => return Ok(None),
                Err(error) => return Err(call_error("ListParts", &error)),
            };
            marker = page.next_part_number_marker.filter(|_| page.is_truncated == Some(true));
            parts.extend(page.parts.unwrap_or_default().into_iter().map(|part| {
                StoredPart {
                    part_number: part
                        .part_number
                        .and_then(|number| u32::try_from(number).ok())
                        .unwrap_or(0),
                    etag: part.e_tag.unwrap_or_default(),
                    size_bytes: part.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                }
            }));
            if marker.is_none() {
                return Ok(Some(parts));
            }
        }
    }

    /// Puts these parts together to an object of so many bytes.
    pub async fn complete_parts(
        &self,
        key: &SourceKey,
        upload_id: &str,
        parts: &[StoredPart],
        size_bytes: u64,
    ) -> Result<Completion, AwsError> {
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(i32::try_from(part.part_number).unwrap_or(i32::MAX))
                .e_tag(&part.etag)
                .build()
        });
        let list = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        let timeouts = TimeoutConfig::builder()
            .read_timeout(COMPLETE_LIMIT)
            .operation_attempt_timeout(COMPLETE_LIMIT)
            .operation_timeout(COMPLETE_LIMIT)
            .build();
        let result = self
            .client()
            .complete_multipart_upload()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload_id)
            .multipart_upload(list)
            .mpu_object_size(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .customize()
            .config_override(Builder::new().timeout_config(timeouts))
            .send()
            .await;
        match result {
            Ok(_) => Ok(Completion::Done),
            Err(error) => match error.code() {
                Some(NO_SUCH_UPLOAD) => Ok(Completion::Gone),
                Some(code) if CHANGED.contains(&code) => Ok(Completion::Changed),
                _ => Err(call_error("CompleteMultipartUpload", &error)),
            },
        }
    }

    /// Ends an upload and has S3 forget its parts. Returns whether there was one.
    pub async fn abort_parts(&self, key: &SourceKey, upload_id: &str) -> Result<bool, AwsError> {
        let request = self
            .client()
            .abort_multipart_upload()
            .bucket(self.name())
            .key(key.to_string())
            .upload_id(upload_id);
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(NO_SUCH_UPLOAD) => Ok(false),
            Err(error) => Err(call_error("AbortMultipartUpload", &error)),
        }
    }

    /// Whether there is an object with this key. Only who may list the bucket is told when there is none.
    pub async fn has(&self, key: &SourceKey) -> Result<bool, AwsError> {
        let request = self.client().head_object().bucket(self.name()).key(key.to_string());
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(false),
            Err(error) => Err(call_error("HeadObject", &error)),
        }
    }
}
