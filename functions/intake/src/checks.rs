//! What an uploaded object must be before any work is spent on it: its length, its hash if one was declared, its kind.

use reelay_core::domain::{
    failure::{Failure, FailureCode, Stage},
    job::Job,
    magic::{self, Kind},
};

use crate::store::Upload;

/// Checks length and first bytes against what the job declared; returns the content's kind.
pub(crate) fn check(job: &Job, upload: &Upload, max_source_bytes: u64) -> Result<Kind, Failure> {
    let size_bytes = upload.size_bytes;
    let fail = |code, message: String| Err(Failure::new(code, Stage::Intake, 0, message));
    if size_bytes == 0 {
        return fail(FailureCode::EmptySource, "the uploaded file is empty".into());
    }
    if size_bytes != job.size_bytes || size_bytes > max_source_bytes {
        let declared = job.size_bytes;
        let message = format!("the uploaded file has {size_bytes} bytes, {declared} were declared");
        return fail(FailureCode::SizeMismatch, message);
    }
    if let (Some(declared), Some(found)) = (&job.sha256, &upload.sha256)
        && declared != found
    {
        let message = "the uploaded file has another SHA-256 than was declared";
        return fail(FailureCode::ChecksumMismatch, message.into());
    }
    let Some(kind) = magic::detect(&upload.head) else {
        return fail(
            FailureCode::UnsupportedFormat,
            "the uploaded file is not in a known media format".into(),
        );
    };
    if !kind.agrees_with(&job.content_type) {
        return fail(
            FailureCode::TypeMismatch,
            format!("the uploaded file is not {}", job.content_type),
        );
    }
    if kind != Kind::Video {
        return fail(
            FailureCode::UnsupportedFormat,
            "the uploaded file is not a video".into(),
        );
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reelay_core::domain::{
        create::CreateJob,
        id::{AccountId, JobId},
        job::PinnedSource,
        time::UtcTime,
    };

    use super::*;

    fn upload(size_bytes: u64, head: &[u8], sha256: Option<&str>) -> Upload {
        Upload {
            pinned: PinnedSource {
                version_id: "v".into(),
                etag: "e".into(),
            },
            size_bytes,
            head: head.to_vec(),
            sha256: sha256.map(Into::into),
        }
    }

    fn code(declared: &str, size_bytes: u64, head: &[u8]) -> Result<Kind, FailureCode> {
        let body = format!(r#"{{"filename":"a.mp4","size_bytes":52,"content_type":"{declared}"}}"#);
        let new = serde_json::from_str::<CreateJob>(&body).unwrap().validate(100).unwrap();
        let now = UtcTime::from_epoch_ms(0);
        let job = Job::pending(JobId::generate(), AccountId::generate(), new, now, Duration::ZERO);
        let upload = upload(size_bytes, head, None);
        check(&job, &upload, 100).map_err(|failure| failure.code)
    }

    #[test]
    fn each_mismatch_has_its_code() {
        let mp4 = b"\0\0\0\x20ftypisom\0\0\x02\0";
        assert_eq!(code("video/mp4", 52, mp4), Ok(Kind::Video));
        assert_eq!(code("application/octet-stream", 52, mp4), Ok(Kind::Video));
        assert_eq!(code("video/mp4", 0, b""), Err(FailureCode::EmptySource));
        assert_eq!(code("video/mp4", 51, mp4), Err(FailureCode::SizeMismatch));
        assert_eq!(
            code("video/mp4", 52, b"plain text, fifty-two"),
            Err(FailureCode::UnsupportedFormat)
        );
        assert_eq!(
            code("video/mp4", 52, b"\x89PNG\r\n\x1a\n"),
            Err(FailureCode::TypeMismatch)
        );
        assert_eq!(
            code("application/octet-stream", 52, b"%PDF-1.7"),
            Err(FailureCode::UnsupportedFormat)
        );
    }

    #[test]
    fn another_hash_is_another_file() {
        let declared = "ab".repeat(32);
        let body = format!(r#"{{"filename":"a.mp4","size_bytes":52,"sha256":"{declared}"}}"#);
        let new = serde_json::from_str::<CreateJob>(&body).unwrap().validate(100).unwrap();
        let now = UtcTime::from_epoch_ms(0);
        let job = Job::pending(JobId::generate(), AccountId::generate(), new, now, Duration::ZERO);
        let mp4 = b"\0\0\0\x20ftypisom\0\0\x02\0";
        let code = |sha256: Option<&str>| check(&job, &upload(52, mp4, sha256), 100).map_err(|failure| failure.code);
        assert_eq!(code(Some(&declared)), Ok(Kind::Video));
        assert_eq!(code(None), Ok(Kind::Video), "the worker compares it");
        assert_eq!(code(Some(&"cd".repeat(32))), Err(FailureCode::ChecksumMismatch));
    }
}
