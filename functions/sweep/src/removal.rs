//! Removes what a deleted job consists of: its objects at once, and once more when nobody can be writing any; then its
//! items. Every step can be done again, so a run that was cut off is gone on with by the next one.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use reelay_core::{
    adapters::{AwsError, call_error, deletion, objects::Bucket},
    domain::{
        job::Job,
        keys::{OUTPUTS, SOURCES, WORK},
        time::UtcTime,
    },
};

use crate::{handler::Sweep, store::OpenJob};

/// How long after its deletion a job's worker may go on writing, if it is frozen and does not notice: no invocation
/// lasts longer than 15 minutes.
const LAST_WRITE: Duration = Duration::from_mins(16);

/// The buckets that hold a job's objects.
#[derive(Debug)]
pub(crate) struct Storage {
    sources: Bucket,
    outputs: Bucket,
}

impl Storage {
    /// The buckets of these names.
    pub(crate) fn new(config: &SdkConfig, sources: String, outputs: String) -> Self {
        Self {
            sources: Bucket::new(config, sources),
            outputs: Bucket::new(config, outputs),
        }
    }

    /// Removes every version of every object of a job, and its upload in parts. Returns how many versions there were.
    async fn remove(&self, job: &Job) -> Result<usize, AwsError> {
        if let Some(multipart) = &job.multipart {
            self.sources
                .abort_parts(&job.source_key(), &multipart.upload_id)
                .await?;
        }
        let below = |area: &str| format!("{area}/{}/{}/", job.account_id, job.job_id);
        Ok(remove_below(&self.sources, &below(SOURCES)).await?
            + remove_below(&self.outputs, &below(OUTPUTS)).await?
            + remove_below(&self.outputs, &below(WORK)).await?)
    }
}

/// Removes every version below a prefix, delete markers too. Each page is read anew: what was removed is not listed.
async fn remove_below(bucket: &Bucket, prefix: &str) -> Result<usize, AwsError> {
    let mut removed = 0;
    loop {
        let list = bucket
            .client()
            .list_object_versions()
            .bucket(bucket.name())
            .prefix(prefix);
        let page = list
            .send()
            .await
            .map_err(|error| call_error("ListObjectVersions", &error))?;
        let versions = page
            .versions()
            .iter()
            .map(|version| (version.key(), version.version_id()));
        let markers = page
            .delete_markers()
            .iter()
            .map(|marker| (marker.key(), marker.version_id()));
        let mut identifiers = Vec::new();
        for (key, version_id) in versions.chain(markers) {
            let identifier = ObjectIdentifier::builder()
                .key(key.unwrap_or_default())
                .set_version_id(version_id.map(Into::into))
                .build()
                .map_err(|error| AwsError::Item(error.into()))?;
            identifiers.push(identifier);
        }
        if identifiers.is_empty() {
            return Ok(removed);
        }
        let count = identifiers.len();
        let delete = Delete::builder()
            .set_objects(Some(identifiers))
            .quiet(true)
            .build()
            .map_err(|error| AwsError::Item(error.into()))?;
        let answer = bucket
            .client()
            .delete_objects()
            .bucket(bucket.name())
            .delete(delete)
            .send()
            .await
            .map_err(|error| call_error("DeleteObjects", &error))?;
        if let Some(error) = answer.errors().first() {
            return Err(AwsError::Call {
                operation: "DeleteObjects",
                aws_code: error.code().unwrap_or("Unknown").to_owned(),
                retryable: true,
            });
        }
        removed += count;
    }
}

impl Sweep {
    /// A job that was deleted. Returns the number of steps that were done.
    pub(crate) async fn remove(&self, open: &OpenJob, now: UtcTime) -> Result<u32, AwsError> {
        let Some(job) = deletion::marked(&self.jobs, &open.job_id).await? else {
            return Ok(0);
        };
        let is_last = now >= last_write(&job, self.upload_grace);
        if job.objects_removed_at.is_some() && !is_last {
            return Ok(0);
        }
        let versions = self.storage.remove(&job).await?;
        self.usage.release(&job).await?;
        if is_last {
            deletion::remove_items(&self.jobs, &job.job_id).await?;
        } else {
            deletion::note_removed(&self.jobs, &job.job_id, now).await?;
        }
        tracing::info!(job_id = %job.job_id, versions, is_last, "a deleted job was removed");
        Ok(1)
    }
}

/// When nothing of a deleted job can be written any more: neither by a worker nor by an upload that has begun in time.
fn last_write(job: &Job, upload_grace: Duration) -> UtcTime {
    let deleted_at = job.deleted_at.unwrap_or(job.updated_at);
    deleted_at
        .plus(LAST_WRITE)
        .max(job.upload_expires_at.plus(upload_grace))
}
