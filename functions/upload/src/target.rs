//! Where a source goes: what a client is told, and signed for.

use std::{collections::BTreeMap, time::Duration};

use reelay_core::{
    adapters::AwsError,
    domain::{
        job::{Job, Status},
        time::UtcTime,
        upload::Parts,
    },
    http::{ApiError, Code},
};
use serde::Serialize;

use crate::routes::AppState;

/// Parts that are signed with a new job, so that an upload can begin without another request.
const FIRST_PARTS: u32 = 10;

/// Where the source of a job goes.
#[derive(Debug, Serialize)]
#[serde(tag = "method", rename_all = "UPPERCASE")]
pub(crate) enum UploadTarget {
    Put(PutTarget),
    Multipart(PartsTarget),
}

#[derive(Debug, Serialize)]
pub(crate) struct PutTarget {
    url: String,
    /// The request must carry exactly these: they are part of the signature.
    headers: BTreeMap<&'static str, String>,
    expires_at: UtcTime,
}

#[derive(Debug, Serialize)]
pub(crate) struct PartsTarget {
    upload_id: String,
    part_size_bytes: u64,
    part_count: u32,
    /// The first ones; the rest is signed on demand.
    parts: Vec<PartTarget>,
    expires_at: UtcTime,
}

/// Where a part goes.
#[derive(Debug, Serialize)]
pub(crate) struct PartTarget {
    pub(crate) part_number: u32,
    pub(crate) size_bytes: u64,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) expires_at: UtcTime,
}

pub(crate) fn upload_over(job: &Job) -> ApiError {
    let detail = match (job.status, &job.multipart) {
        (Status::Pending, None) => "the source of this job is sent by one PUT".to_owned(),
        (Status::Pending, Some(_)) => "the upload has expired".to_owned(),
        (status, _) => format!("the job is {}", status.as_str()),
    };
    ApiError::new(Code::UploadOver).detail(detail)
}

impl AppState {
    /// How long a URL may live that is signed now: as long as any, and no longer than the upload.
    pub(crate) fn lifetime(&self, job: &Job, now: UtcTime) -> Option<Duration> {
        if job.status != Status::Pending || now >= job.upload_expires_at {
            return None;
        }
        let left = Duration::from_secs_f64(job.upload_expires_at.seconds_since(now));
        // S3 counts whole seconds.
        Some(left.min(self.url_lifetime).max(Duration::from_secs(1)))
    }

    /// The upload target of a job, signed anew; `None` when nothing may be sent any more.
    pub(crate) async fn target(&self, job: &Job, now: UtcTime) -> Result<Option<UploadTarget>, AwsError> {
        let Some(lifetime) = self.lifetime(job, now) else {
            return Ok(None);
        };
        if let (Some(multipart), Some(parts)) = (&job.multipart, job.parts()) {
            let first: Vec<u32> = (1..=parts.count().min(FIRST_PARTS)).collect();
            return Ok(Some(UploadTarget::Multipart(PartsTarget {
                upload_id: multipart.upload_id.clone(),
                part_size_bytes: parts.part_size_bytes,
                part_count: parts.count(),
                parts: self
                    .sign(job, &multipart.upload_id, parts, &first, lifetime, now)
                    .await?,
                expires_at: job.upload_expires_at,
            })));
        }
        let sha256 = job.sha256.as_deref();
        let signed = self
            .sources
            .sign_upload(&job.source_key(), job.size_bytes, &job.content_type, sha256, lifetime)
            .await?;
        Ok(Some(UploadTarget::Put(PutTarget {
            url: signed.url,
            headers: signed.headers,
            expires_at: job.upload_expires_at,
        })))
    }

    /// Signs parts of an upload that is under way. Their numbers must be parts of it.
    pub(crate) async fn part_targets(
        &self,
        job: &Job,
        numbers: &[u32],
        now: UtcTime,
    ) -> Result<Vec<PartTarget>, ApiError> {
        let (Some(multipart), Some(parts), Some(lifetime)) = (&job.multipart, job.parts(), self.lifetime(job, now))
        else {
            return Err(upload_over(job));
        };
        let targets = self.sign(job, &multipart.upload_id, parts, numbers, lifetime, now);
        Ok(targets.await?)
    }

    async fn sign(
        &self,
        job: &Job,
        upload_id: &str,
        parts: Parts,
        numbers: &[u32],
        lifetime: Duration,
        now: UtcTime,
    ) -> Result<Vec<PartTarget>, AwsError> {
        let key = job.source_key();
        let mut targets = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(size_bytes) = parts.length(*number) else {
                continue;
            };
            let signed = self
                .sources
                .sign_part(&key, upload_id, *number, size_bytes, lifetime)
                .await?;
            targets.push(PartTarget {
                part_number: *number,
                size_bytes,
                url: signed.url,
                headers: signed.headers,
                expires_at: now.plus(lifetime),
            });
        }
        Ok(targets)
    }
}
