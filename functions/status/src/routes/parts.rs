//! The parts of an upload that S3 has: where a client goes on that lost its network, or its page.

use axum::{
    Json,
    extract::{Path, State},
};
use reelay_core::{
    domain::{job::Status, time::UtcTime, upload::StoredPart},
    http::{ApiError, Caller, Code},
};
use serde::Serialize;

use super::AppState;

#[derive(Serialize)]
pub(super) struct PartList {
    upload_id: String,
    part_size_bytes: u64,
    part_count: u32,
    parts: Vec<StoredPart>,
    expires_at: UtcTime,
}

pub(super) async fn parts(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<PartList>, ApiError> {
    let job = state.find(&caller, &id).await?;
    let over = || ApiError::new(Code::UploadOver).detail(format!("the job is {}", job.status.as_str()));
    let (Some(multipart), Some(parts), Status::Pending) = (&job.multipart, job.parts(), job.status) else {
        return Err(over());
    };
    let stored = state.sources.parts(&job.source_key(), &multipart.upload_id).await?;
    Ok(Json(PartList {
        upload_id: multipart.upload_id.clone(),
        part_size_bytes: parts.part_size_bytes,
        part_count: parts.count(),
        parts: stored.ok_or_else(over)?,
        expires_at: job.upload_expires_at,
    }))
}
