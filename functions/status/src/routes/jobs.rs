//! The job itself: in a list, alone, and what is known of its progress and its source.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use reelay_core::{
    adapters::jobs::JobFilter,
    domain::{
        create::FieldError,
        id::JobId,
        job::{DEFAULT_PAGE_JOBS, MAX_PAGE_JOBS, Phase, Status},
        magic::Kind,
        probe::SourceInfo,
        spec::Priority,
        time::UtcTime,
    },
    http::{ApiError, Caller, Code, QueryOf, etag, view::JobView},
};
use serde::{Deserialize, Serialize};

use super::{AppState, not_ready};
use crate::cursor;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<i64>,
    cursor: Option<String>,
    status: Option<String>,
    kind: Option<String>,
    priority: Option<String>,
    created_after: Option<String>,
    created_before: Option<String>,
}

#[derive(Serialize)]
pub(super) struct JobList {
    jobs: Vec<JobView>,
    next_cursor: Option<String>,
}

pub(super) async fn list(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, filter) = query.read()?;
    let account = &caller.account.account_id;
    let after = match query.cursor.as_deref() {
        Some(text) => {
            let place = cursor::decode(account, &filter, text);
            Some(place.ok_or_else(|| ApiError::new(Code::InvalidCursor))?)
        }
        None => None,
    };
    let page = state.jobs.page(account, &filter, limit, after.as_ref()).await?;
    tracing::debug!(
        jobs = page.jobs.len(),
        read = page.read,
        units = page.read_units,
        "jobs listed"
    );
    let list = JobList {
        next_cursor: page.last.map(|last| cursor::encode(account, &filter, &last)),
        jobs: page.jobs.into_iter().map(|job| JobView::new(job, None)).collect(),
    };
    etag::answer(&headers, &list)
}

impl ListQuery {
    /// Checks every value.
    fn read(&self) -> Result<(usize, JobFilter), ApiError> {
        let mut errors = Vec::new();
        let limit = self
            .limit
            .map_or(DEFAULT_PAGE_JOBS, |limit| usize::try_from(limit).unwrap_or(0));
        if !(1..=MAX_PAGE_JOBS).contains(&limit) {
            errors.push(FieldError::new("/limit", format!("must be 1 to {MAX_PAGE_JOBS}")));
        }
        let mut wrong = |pointer: &str, message: String| errors.push(FieldError::new(pointer, message));
        let filter = JobFilter {
            status: word(self.status.as_ref(), Status::parse, || {
                wrong("/status", Status::expected());
            }),
            kind: word(self.kind.as_ref(), Kind::parse, || wrong("/kind", Kind::expected())),
            priority: word(self.priority.as_ref(), Priority::parse, || {
                wrong("/priority", Priority::expected());
            }),
            created_after: word(self.created_after.as_ref(), time, || {
                wrong("/created_after", TIME.to_owned());
            }),
            created_before: word(self.created_before.as_ref(), time, || {
                wrong("/created_before", TIME.to_owned());
            }),
        };
        if errors.is_empty() {
            Ok((limit, filter))
        } else {
            Err(ApiError::fields(errors))
        }
    }
}

const TIME: &str = "must be a time by RFC 3339 such as 2026-01-31T12:00:00Z";

fn time(text: &str) -> Option<UtcTime> {
    text.parse().ok()
}

/// A value of the query string; calls `wrong` when it is none of those that there are.
fn word<T>(text: Option<&String>, parse: fn(&str) -> Option<T>, wrong: impl FnOnce()) -> Option<T> {
    let parsed = parse(text?);
    if parsed.is_none() {
        wrong();
    }
    parsed
}

pub(super) async fn job(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let job = state.find(&caller, &id).await?;
    let metrics = match job.status {
        Status::Completed => state.jobs.metrics(&job.job_id).await?,
        _ => None,
    };
    etag::answer(&headers, &JobView::new(job, metrics))
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
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let job = state.find(&caller, &id).await?;
    let body = ProgressBody {
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
    };
    etag::answer(&headers, &body)
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
