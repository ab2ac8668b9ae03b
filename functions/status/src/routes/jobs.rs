//! The job itself: in a list, alone, and what is known of its progress and its source.

use axum::{
    Json,
    extract::{Path, State},
};
use reelay_core::{
    domain::{
        create::FieldError,
        id::JobId,
        job::{DEFAULT_PAGE_JOBS, MAX_PAGE_JOBS, Phase, Status},
        probe::SourceInfo,
        time::UtcTime,
    },
    http::{ApiError, Caller, Code, QueryOf, view::JobView},
};
use serde::{Deserialize, Serialize};

use super::{AppState, not_ready};
use crate::cursor;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<i32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
pub(super) struct JobList {
    jobs: Vec<JobView>,
    next_cursor: Option<String>,
}

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<JobList>, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE_JOBS);
    if !(1..=MAX_PAGE_JOBS).contains(&limit) {
        return Err(ApiError::fields(vec![FieldError::new(
            "/limit",
            format!("must be 1 to {MAX_PAGE_JOBS}"),
        )]));
    }
    let account = &caller.account.account_id;
    let after = match query.cursor.as_deref() {
        Some(text) => Some(cursor::decode(account, text).ok_or_else(|| ApiError::new(Code::InvalidCursor))?),
        None => None,
    };
    let page = state.jobs.page(account, limit, after.as_ref()).await?;
    Ok(Json(JobList {
        next_cursor: page.last.map(|last| cursor::encode(account, &last)),
        jobs: page.jobs.into_iter().map(|job| JobView::new(job, None)).collect(),
    }))
}

pub(super) async fn job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.find(&caller, &id).await?;
    let metrics = match job.status {
        Status::Completed => state.jobs.metrics(&job.job_id).await?,
        _ => None,
    };
    Ok(Json(JobView::new(job, metrics)))
}

#[derive(Serialize)]
pub(super) struct ProgressBody {
    id: JobId,
    status: Status,
    phase: Option<Phase>,
    progress_percent: f64,
    tasks_total: u32,
    tasks_done: u32,
    fps: Option<f64>,
    frames_done: u64,
    frames_total: u64,
    eta_seconds: Option<f64>,
    updated_at: UtcTime,
}

pub(super) async fn progress(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ProgressBody>, ApiError> {
    let job = state.find(&caller, &id).await?;
    Ok(Json(ProgressBody {
        status: job.status,
        phase: job.phase,
        progress_percent: job.progress_percent(),
        tasks_total: job.tasks_total,
        tasks_done: job.tasks_done(),
        fps: job.speed_fps(),
        frames_done: job.frames_done,
        frames_total: job.frames_total,
        eta_seconds: job.eta_seconds(),
        updated_at: job.updated_at,
        id: job.job_id,
    }))
}

#[derive(Serialize)]
pub(super) struct MetadataBody {
    id: JobId,
    source: SourceInfo,
}

pub(super) async fn metadata(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<MetadataBody>, ApiError> {
    let job = state.find(&caller, &id).await?;
    match job.source_info.clone() {
        Some(source) => Ok(Json(MetadataBody { id: job.job_id, source })),
        None => Err(not_ready(&job, "was not probed yet")),
    }
}
