//! Objects to files and back: in parallel ranges and parts, each tried again by itself.

mod compose;

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    primitives::{ByteStream, Length},
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use reelay_core::{
    adapters::{AwsError, call_error},
    domain::job::PinnedSource,
};
use sha2::{Digest as _, Sha256};

pub(crate) use self::compose::MIN_PART_BYTES;
use crate::range::ReadObject;

/// Size of a range and of a part. S3's own advice is 8 to 16 MB; 10,000 parts of it hold 160 GB.
const PIECE_BYTES: u64 = 16 << 20;
/// Pieces in flight.
const PARALLEL: usize = 4;
/// Tries of a range whose body breaks off: the SDK's own retries end with the headers.
const BODY_TRIES: u32 = 3;
/// How long one try of a piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a read may take to begin; one whose body stalls later, the SDK ends by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Moves objects.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    client: Client,
    source_bucket: String,
    output_bucket: String,
}

/// A bucket of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bucket {
    /// What was uploaded.
    Source,
    /// What was made, whole or in part.
    Output,
}

/// An object that does not change while it is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ObjectRef {
    /// Where it is.
    pub(crate) bucket: Bucket,
    /// Its key.
    pub(crate) key: String,
    /// The version to read; the newest without.
    pub(crate) version_id: Option<String>,
    /// The entity tag that it must have.
    pub(crate) etag: Option<String>,
    /// Its size.
    pub(crate) size_bytes: u64,
}

impl ObjectRef {
    /// A pinned source.
    pub(crate) fn source(key: String, pinned: &PinnedSource, size_bytes: u64) -> Self {
        Self {
            bucket: Bucket::Source,
            key,
            version_id: Some(pinned.version_id.clone()),
            etag: Some(pinned.etag.clone()),
            size_bytes,
        }
    }
}

/// A file that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
}

impl Transfer {
    pub(crate) fn new(config: &SdkConfig, source_bucket: String, output_bucket: String) -> Self {
        let config = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(timeouts(PIECE_TIMEOUT))
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .build();
        Self {
            client: Client::from_conf(config),
            source_bucket,
            output_bucket,
        }
    }

    /// Reads the bytes from `start` up to `end` of an object, which has them all.
    pub(crate) async fn read_range(&self, object: &ObjectRef, start: u64, end: u64) -> Result<Bytes, AwsError> {
        let chunks = self.read_chunks(object, start, end).await?;
        Ok(match <[Bytes; 1]>::try_from(chunks) {
            Ok([chunk]) => chunk,
            Err(chunks) => chunks.concat().into(),
        })
    }

    /// The same, in chunks as they came.
    async fn read_chunks(&self, object: &ObjectRef, start: u64, end: u64) -> Result<Vec<Bytes>, AwsError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_read(object, start, end).await {
                Err(error) if tries < BODY_TRIES && error.is_retryable() => {
                    tracing::warn!(%error, tries, "a range is read again");
                }
                result => return result,
            }
        }
    }

    async fn try_read(&self, object: &ObjectRef, start: u64, end: u64) -> Result<Vec<Bytes>, AwsError> {
        let bucket = match object.bucket {
            Bucket::Source => &self.source_bucket,
            Bucket::Output => &self.output_bucket,
        };
        let mut output = self
            .client
            .get_object()
            .bucket(bucket)
            .key(&object.key)
            .set_version_id(object.version_id.clone())
            .set_if_match(object.etag.clone())
            .range(format!("bytes={start}-{}", end - 1))
            .customize()
            .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeouts(ANSWER_TIMEOUT)))
            .send()
            .await
            .map_err(|error| call_error("GetObject", &error))?;
        let mut chunks = Vec::new();
        let mut left_bytes = end - start;
        while let Some(chunk) = output.body.next().await {
            let chunk = chunk.map_err(|_| broken("BodyBrokenOff"))?;
            left_bytes = left_bytes
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| broken("BodyTooLong"))?;
            chunks.push(chunk);
        }
        if left_bytes > 0 {
            return Err(broken("BodyTooShort"));
        }
        Ok(chunks)
    }

    /// Reads a small object of the output bucket.
    pub(crate) async fn read_output(&self, key: &str) -> Result<Bytes, AwsError> {
        let output = self
            .client
            .get_object()
            .bucket(&self.output_bucket)
            .key(key)
            .send()
            .await
            .map_err(|error| call_error("GetObject", &error))?;
        let body = output.body.collect().await;
        body.map(aws_sdk_s3::primitives::AggregatedBytes::into_bytes)
            .map_err(|_| broken("BodyBrokenOff"))
    }

    /// Whether an object of the output bucket is still there. S3 answers 403 for a missing one to whoever may not list.
    pub(crate) async fn exists(&self, key: &str) -> Result<bool, AwsError> {
        let head = self
            .client
            .head_object()
            .bucket(&self.output_bucket)
            .key(key)
            .send()
            .await;
        match head {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_response().map(|response| response.status().as_u16()) {
                Some(403 | 404) => Ok(false),
                _ => Err(call_error("HeadObject", &error)),
            },
        }
    }

    /// Stores bytes that are at hand.
    pub(crate) async fn store_bytes(&self, bytes: Vec<u8>, key: &str, content_type: &str) -> Result<Stored, AwsError> {
        let stored = Stored {
            size_bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(&bytes)),
        };
        self.put(key, content_type, bytes.into()).await?;
        Ok(stored)
    }

    async fn put(&self, key: &str, content_type: &str, body: ByteStream) -> Result<(), AwsError> {
        self.client
            .put_object()
            .bucket(&self.output_bucket)
            .key(key)
            .content_type(content_type)
            .body(body)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call_error("PutObject", &error))
    }

    /// Stores a file, in parts when it is large.
    pub(crate) async fn store(&self, path: &Path, key: &str, content_type: &str) -> Result<Stored, AwsError> {
        let hashed = path.to_owned();
        let stored = tokio::task::spawn_blocking(move || digest(&hashed))
            .await
            .map_err(io::Error::other)
            .and_then(|result| result)
            .map_err(|error| local("PutObject", &error))?;
        if stored.size_bytes <= PIECE_BYTES {
            self.put(key, content_type, piece(path, 0, stored.size_bytes).await?)
                .await?;
        } else {
            let upload = self.begin(key, content_type).await?;
            let parts = self.fill(path, key, &upload, stored.size_bytes).await;
            self.finish(key, &upload, parts).await?;
        }
        Ok(stored)
    }

    async fn fill(
        &self,
        path: &Path,
        key: &str,
        upload_id: &str,
        size_bytes: u64,
    ) -> Result<Vec<CompletedPart>, AwsError> {
        let starts = (0..size_bytes).step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX));
        stream::iter(starts.zip(1_i32..))
            .map(async |(start, number)| {
                let body = piece(path, start, PIECE_BYTES.min(size_bytes - start)).await?;
                self.upload_part(key, upload_id, body, number).await
            })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    /// Begins an upload in parts.
    async fn begin(&self, key: &str, content_type: &str) -> Result<String, AwsError> {
        let created = self
            .client
            .create_multipart_upload()
            .bucket(&self.output_bucket)
            .key(key)
            .content_type(content_type)
            .send()
            .await
            .map_err(|error| call_error("CreateMultipartUpload", &error))?;
        Ok(created.upload_id.unwrap_or_default())
    }

    async fn upload_part(
        &self,
        key: &str,
        upload_id: &str,
        body: ByteStream,
        number: i32,
    ) -> Result<CompletedPart, AwsError> {
        let output = self
            .client
            .upload_part()
            .bucket(&self.output_bucket)
            .key(key)
            .upload_id(upload_id)
            .part_number(number)
            .body(body)
            .send()
            .await
            .map_err(|error| call_error("UploadPart", &error))?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(output.e_tag);
        Ok(part.set_checksum_crc32(output.checksum_crc32).build())
    }

    /// Ends an upload in parts: with all of them, or not at all.
    async fn finish(
        &self,
        key: &str,
        upload_id: &str,
        parts: Result<Vec<CompletedPart>, AwsError>,
    ) -> Result<(), AwsError> {
        let result = match parts {
            Ok(parts) => {
                let upload = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
                self.client
                    .complete_multipart_upload()
                    .bucket(&self.output_bucket)
                    .key(key)
                    .upload_id(upload_id)
                    .multipart_upload(upload)
                    .send()
                    .await
                    .map(|_| ())
                    .map_err(|error| call_error("CompleteMultipartUpload", &error))
            }
            Err(error) => Err(error),
        };
        if result.is_err() {
            // Best effort: what this leaves behind, the bucket's lifecycle rule removes.
            let abort = self
                .client
                .abort_multipart_upload()
                .bucket(&self.output_bucket)
                .key(key);
            let _ = abort.upload_id(upload_id).send().await;
        }
        result
    }
}

impl ReadObject for Transfer {
    fn read<'a>(&'a self, object: &'a ObjectRef, range: Range<u64>) -> BoxFuture<'a, Result<Vec<Bytes>, AwsError>> {
        self.read_chunks(object, range.start, range.end).boxed()
    }
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(attempt)
        .build()
}

fn broken(aws_code: &str) -> AwsError {
    AwsError::Call {
        operation: "GetObject",
        aws_code: aws_code.to_owned(),
        retryable: true,
    }
}

fn read_file(path: &Path, offset: u64, bytes: u64) -> io::Result<Bytes> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    let mut buffer = vec![0; length];
    File::open(path)?.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.into())
}

async fn piece(path: &Path, start: u64, length: u64) -> Result<ByteStream, AwsError> {
    ByteStream::read_from()
        .path(path)
        .offset(start)
        .length(Length::Exact(length))
        .build()
        .await
        .map_err(|error| local("UploadPart", &io::Error::other(error)))
}

fn local(operation: &'static str, error: &io::Error) -> AwsError {
    AwsError::Call {
        operation,
        aws_code: format!("Local{:?}", error.kind()),
        retryable: true,
    }
}

fn digest(path: &Path) -> io::Result<Stored> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        size_bytes += read as u64;
    }
    Ok(Stored {
        size_bytes,
        sha256: hex::encode(hash.finalize()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_over_the_whole_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let stored = digest(file.path()).unwrap();
        // FIPS 180-4's own example.
        assert_eq!(
            stored.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(stored.size_bytes, 3);
    }
}
