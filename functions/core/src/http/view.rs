//! Jobs as the API shows them.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::{
    failure::Failure,
    id::JobId,
    job::{Job, Metrics, Phase, Status},
    magic::Kind,
    spec::{Priority, Spec},
    time::UtcTime,
};

/// A job as its owner sees it.
#[derive(Debug, Serialize)]
pub struct JobView {
    id: JobId,
    status: Status,
    phase: Option<Phase>,
    progress_percent: f64,
    tasks_total: u32,
    tasks_done: u32,
    playable: bool,
    priority: Priority,
    kind: Option<Kind>,
    filename: String,
    title: Option<String>,
    description: Option<String>,
    metadata: Option<Map<String, Value>>,
    size_bytes: u64,
    content_type: String,
    duration_seconds: Option<f64>,
    spec: Spec,
    estimated_processing_seconds: u64,
    generation: u32,
    attempts: u32,
    created_at: UtcTime,
    queued_at: Option<UtcTime>,
    started_at: Option<UtcTime>,
    completed_at: Option<UtcTime>,
    updated_at: UtcTime,
    error: Option<Failure>,
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<UploadView>,
}

/// How the source of a job that waits for it is to come. URLs are signed when they are asked for.
#[derive(Debug, Serialize)]
#[serde(tag = "method", rename_all = "UPPERCASE")]
enum UploadView {
    Put {
        expires_at: UtcTime,
    },
    Multipart {
        upload_id: String,
        part_size_bytes: u64,
        part_count: u32,
        expires_at: UtcTime,
    },
}

impl UploadView {
    fn new(job: &Job) -> Option<Self> {
        if job.status != Status::Pending {
            return None;
        }
        let expires_at = job.upload_expires_at;
        Some(match (&job.multipart, job.parts()) {
            (Some(multipart), Some(parts)) => Self::Multipart {
                upload_id: multipart.upload_id.clone(),
                part_size_bytes: parts.part_size_bytes,
                part_count: parts.count(),
                expires_at,
            },
            _ => Self::Put { expires_at },
        })
    }
}

impl JobView {
    /// Shows a job, with what it used once that is known.
    #[must_use]
    pub fn new(job: Job, metrics: Option<Metrics>) -> Self {
        Self {
            upload: UploadView::new(&job),
            progress_percent: job.progress_percent(),
            tasks_done: job.tasks_done(),
            tasks_total: job.tasks_total,
            duration_seconds: job
                .source_info
                .as_ref()
                .map(|info| info.duration_seconds)
                .or(job.declared_duration_seconds),
            id: job.job_id,
            status: job.status,
            phase: job.phase,
            playable: job.playable,
            priority: job.priority,
            kind: job.kind,
            filename: job.filename,
            title: job.title,
            description: job.description,
            metadata: job.metadata,
            size_bytes: job.size_bytes,
            content_type: job.content_type,
            spec: job.spec,
            estimated_processing_seconds: job.estimated_processing_seconds,
            generation: job.generation,
            attempts: job.attempts,
            created_at: job.created_at,
            queued_at: job.queued_at,
            started_at: job.started_at,
            completed_at: job.completed_at,
            updated_at: job.updated_at,
            error: job.error,
            metrics,
        }
    }

    /// Without the upload, for an answer that says more about it.
    #[must_use]
    pub fn without_upload(self) -> Self {
        Self { upload: None, ..self }
    }
}
