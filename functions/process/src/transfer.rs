//! Objects to files and back: in parallel ranges and parts, each tried again by itself.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    primitives::{ByteStream, Length},
    types::{CompletedMultipartUpload, CompletedPart},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::{
    adapters::{AwsError, call_error},
    domain::job::PinnedSource,
};
use sha2::{Digest as _, Sha256};

/// Size of a range and of a part. S3's own advice is 8 to 16 MB; 10,000 parts of it hold 160 GB.
const PIECE_BYTES: u64 = 16 << 20;
/// Pieces in flight.
const PARALLEL: usize = 4;
/// Tries of a range whose body breaks off: the SDK's own retries end with the headers.
const BODY_TRIES: u32 = 3;
/// How long one try of a piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_mins(1);

/// Moves objects.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    client: Client,
    source_bucket: String,
    output_bucket: String,
}

/// A file that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
}

impl Transfer {
    pub(crate) fn new(config: &SdkConfig, source_bucket: String, output_bucket: String) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(2))
            .operation_attempt_timeout(PIECE_TIMEOUT)
            .build();
        let config = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .build();
        Self {
            client: Client::from_conf(config),
            source_bucket,
            output_bucket,
        }
    }

    /// Reads a pinned source into a file.
    pub(crate) async fn fetch(
        &self,
        key: &str,
        source: &PinnedSource,
        size_bytes: u64,
        path: &Path,
    ) -> Result<(), AwsError> {
        let file = Arc::new(File::create(path).map_err(|error| local("GetObject", &error))?);
        stream::iter((0..size_bytes).step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX)))
            .map(|start| self.fetch_piece(key, source, start, (start + PIECE_BYTES).min(size_bytes), &file))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await
    }

    async fn fetch_piece(
        &self,
        key: &str,
        source: &PinnedSource,
        start: u64,
        end: u64,
        file: &Arc<File>,
    ) -> Result<(), AwsError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.read_range(key, source, start, end).await {
                Ok(bytes) => {
                    let file = Arc::clone(file);
                    let write = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, start));
                    return write
                        .await
                        .map_err(io::Error::other)
                        .and_then(|result| result)
                        .map_err(|error| local("GetObject", &error));
                }
                Err(error) if tries >= BODY_TRIES || !error.is_retryable() => return Err(error),
                Err(error) => tracing::warn!(%error, tries, "a range is read again"),
            }
        }
    }

    async fn read_range(&self, key: &str, source: &PinnedSource, start: u64, end: u64) -> Result<Vec<u8>, AwsError> {
        let output = self
            .client
            .get_object()
            .bucket(&self.source_bucket)
            .key(key)
            .version_id(&source.version_id)
            .if_match(&source.etag)
            .range(format!("bytes={start}-{}", end - 1))
            .send()
            .await
            .map_err(|error| call_error("GetObject", &error))?;
        let broken = |aws_code: &str| AwsError::Call {
            operation: "GetObject",
            aws_code: aws_code.to_owned(),
            retryable: true,
        };
        let bytes = output
            .body
            .collect()
            .await
            .map_err(|_| broken("BodyBrokenOff"))?
            .into_bytes();
        if u64::try_from(bytes.len()).ok() != Some(end - start) {
            return Err(broken("BodyTooShort"));
        }
        Ok(bytes.into())
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
            let body = piece(path, 0, stored.size_bytes).await?;
            self.client
                .put_object()
                .bucket(&self.output_bucket)
                .key(key)
                .content_type(content_type)
                .body(body)
                .send()
                .await
                .map_err(|error| call_error("PutObject", &error))?;
        } else {
            self.store_parts(path, key, content_type, stored.size_bytes).await?;
        }
        Ok(stored)
    }

    async fn store_parts(&self, path: &Path, key: &str, content_type: &str, size_bytes: u64) -> Result<(), AwsError> {
        let created = self
            .client
            .create_multipart_upload()
            .bucket(&self.output_bucket)
            .key(key)
            .content_type(content_type)
            .send()
            .await
            .map_err(|error| call_error("CreateMultipartUpload", &error))?;
        let upload_id = created.upload_id.unwrap_or_default();
        let result = self.fill_parts(path, key, &upload_id, size_bytes).await;
        if result.is_err() {
            // Best effort: what this leaves behind, the bucket's lifecycle rule removes.
            let abort = self
                .client
                .abort_multipart_upload()
                .bucket(&self.output_bucket)
                .key(key);
            let _ = abort.upload_id(&upload_id).send().await;
        }
        result
    }

    async fn fill_parts(&self, path: &Path, key: &str, upload_id: &str, size_bytes: u64) -> Result<(), AwsError> {
        let starts = (0..size_bytes).step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX));
        let parts: Vec<CompletedPart> = stream::iter(starts.zip(1_i32..))
            .map(async |(start, number)| {
                let body = piece(path, start, PIECE_BYTES.min(size_bytes - start)).await?;
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
                Ok::<_, AwsError>(part.set_checksum_crc32(output.checksum_crc32).build())
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        self.client
            .complete_multipart_upload()
            .bucket(&self.output_bucket)
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await
            .map_err(|error| call_error("CompleteMultipartUpload", &error))?;
        Ok(())
    }
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
