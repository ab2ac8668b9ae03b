//! The routes that read jobs. Every one of them begins by finding the caller's own job; there is no other way in.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
    routing::get,
};
use reelay_core::{
    adapters::{jobs::JobsTable, objects::Bucket},
    domain::{
        create::FieldError,
        id::JobId,
        job::{Job, Output, OutputType, Phase, Status},
        probe::SourceInfo,
        time::UtcTime,
    },
    http::{ApiError, Authenticator, Caller, Code, view::JobView},
};
use serde::{Deserialize, Serialize};

use crate::cursor;

/// Jobs on a page that does not say how many.
const DEFAULT_LIMIT: i32 = 25;
/// Most jobs on a page.
const MAX_LIMIT: i32 = 100;

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) jobs: JobsTable,
    pub(crate) sources: Bucket,
    pub(crate) outputs: Bucket,
    pub(crate) download_window: Duration,
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.authenticator)
    }
}

pub(crate) fn routes(state: AppState) -> Router {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/progress", get(progress))
        .route("/jobs/{id}/metadata", get(metadata))
        .route("/jobs/{id}/outputs", get(outputs))
        .route("/jobs/{id}/thumbnail", get(thumbnail))
        .route("/jobs/{id}/download", get(download))
        .route("/jobs/{id}/source", get(source))
        .with_state(state)
}

impl AppState {
    /// The caller's job. What is somebody else's does not exist.
    async fn find(&self, caller: &Caller, id: &str) -> Result<Job, ApiError> {
        let not_found = || ApiError::new(Code::NotFound);
        let id: JobId = id.parse().map_err(|_| not_found())?;
        let job = self.jobs.job(&id).await?;
        job.filter(|job| job.account_id == caller.account.account_id)
            .ok_or_else(not_found)
    }

    /// The published outputs of the caller's job.
    async fn published(&self, caller: &Caller, id: &str) -> Result<(Job, Vec<Output>), ApiError> {
        let job = self.find(caller, id).await?;
        if job.published_attempt.is_none() {
            return Err(not_ready(&job, "has no outputs yet"));
        }
        let outputs = self.jobs.outputs(&job).await?;
        Ok((job, outputs))
    }

    async fn redirect(&self, output: &Output, file_name: Option<&str>) -> Result<(StatusCode, HeaderMap), ApiError> {
        let url = self
            .outputs
            .sign_download(&output.key, None, &output.content_type, file_name, self.download_window)
            .await?;
        redirect(&url)
    }
}

fn redirect(url: &str) -> Result<(StatusCode, HeaderMap), ApiError> {
    let location = HeaderValue::from_str(url).map_err(|_| ApiError::new(Code::InternalError))?;
    Ok((StatusCode::FOUND, HeaderMap::from_iter([(LOCATION, location)])))
}

fn not_ready(job: &Job, what: &str) -> ApiError {
    ApiError::new(Code::NotReady).detail(format!("the job is {} and {what}", job.status.as_str()))
}

fn bad_query(_: QueryRejection) -> ApiError {
    ApiError::new(Code::InvalidRequest).detail("the query string cannot be read")
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<i32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct JobList {
    jobs: Vec<JobView>,
    next_cursor: Option<String>,
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<JobList>, ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::fields(vec![FieldError::new(
            "/limit",
            format!("must be 1 to {MAX_LIMIT}"),
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

async fn job(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Json<JobView>, ApiError> {
    let job = state.find(&caller, &id).await?;
    let metrics = match job.status {
        Status::Completed => state.jobs.metrics(&job.job_id).await?,
        _ => None,
    };
    Ok(Json(JobView::new(job, metrics)))
}

#[derive(Serialize)]
struct ProgressBody {
    id: JobId,
    status: Status,
    phase: Option<Phase>,
    progress_percent: f64,
    fps: Option<f64>,
    frames_done: u64,
    frames_total: u64,
    eta_seconds: Option<f64>,
    updated_at: UtcTime,
}

async fn progress(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ProgressBody>, ApiError> {
    let job = state.find(&caller, &id).await?;
    Ok(Json(ProgressBody {
        status: job.status,
        phase: job.phase,
        progress_percent: job.progress_percent(),
        fps: job.fps,
        frames_done: job.frames_done,
        frames_total: job.frames_total,
        eta_seconds: job.eta_seconds(),
        updated_at: job.updated_at,
        id: job.job_id,
    }))
}

#[derive(Serialize)]
struct MetadataBody {
    id: JobId,
    source: SourceInfo,
}

async fn metadata(
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

#[derive(Serialize)]
struct OutputBody {
    id: String,
    r#type: OutputType,
    format: String,
    quality: Option<String>,
    width_px: u32,
    height_px: u32,
    duration_seconds: Option<f64>,
    frames: Option<u64>,
    bitrate_bps: Option<u64>,
    size_bytes: u64,
    sha256: String,
    content_type: String,
    url: String,
}

#[derive(Serialize)]
struct OutputList {
    outputs: Vec<OutputBody>,
}

async fn outputs(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OutputList>, ApiError> {
    let (_, outputs) = state.published(&caller, &id).await?;
    let mut views = Vec::with_capacity(outputs.len());
    for output in outputs {
        let url = state
            .outputs
            .sign_download(&output.key, None, &output.content_type, None, state.download_window)
            .await?;
        views.push(OutputBody {
            id: output.id,
            r#type: output.output_type,
            format: output.format,
            quality: output.quality,
            width_px: output.width_px,
            height_px: output.height_px,
            duration_seconds: output.duration_seconds,
            frames: output.frames,
            bitrate_bps: output.bitrate_bps,
            size_bytes: output.size_bytes,
            sha256: output.sha256,
            content_type: output.content_type,
            url,
        });
    }
    Ok(Json(OutputList { outputs: views }))
}

#[derive(Deserialize)]
struct ThumbnailQuery {
    #[serde(default)]
    index: usize,
}

async fn thumbnail(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<ThumbnailQuery>, QueryRejection>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let (_, outputs) = state.published(&caller, &id).await?;
    let mut thumbnails = outputs
        .iter()
        .filter(|output| output.output_type == OutputType::Thumbnail);
    let chosen = thumbnails
        .nth(query.index)
        .ok_or_else(|| ApiError::new(Code::NotFound))?;
    state.redirect(chosen, None).await
}

#[derive(Deserialize)]
struct DownloadQuery {
    format: Option<String>,
    quality: Option<String>,
}

async fn download(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<DownloadQuery>, QueryRejection>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let (job, outputs) = state.published(&caller, &id).await?;
    let wanted = |output: &&Output| {
        output.output_type == OutputType::Rendition
            && query.format.as_ref().is_none_or(|format| *format == output.format)
            && query
                .quality
                .as_ref()
                .is_none_or(|quality| Some(quality) == output.quality.as_ref())
    };
    // Of several that fit, the largest picture.
    let chosen = outputs.iter().filter(wanted).max_by_key(|output| output.height_px);
    let chosen = chosen.ok_or_else(|| ApiError::new(Code::NotFound))?;
    let stem = job
        .filename
        .rsplit_once('.')
        .map_or(job.filename.as_str(), |(stem, _)| stem);
    let quality = chosen
        .quality
        .as_ref()
        .map(|quality| format!("-{quality}"))
        .unwrap_or_default();
    state
        .redirect(chosen, Some(&format!("{stem}{quality}.{}", chosen.format)))
        .await
}

async fn source(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let job = state.find(&caller, &id).await?;
    let Some(pinned) = &job.source else {
        return Err(not_ready(&job, "its source was not accepted yet"));
    };
    let key = job.source_key().to_string();
    // Always an attachment: the content is the user's, and must not be rendered by a browser on our origin.
    let url = state
        .sources
        .sign_download(
            &key,
            Some(&pinned.version_id),
            "application/octet-stream",
            Some(&job.filename),
            state.download_window,
        )
        .await?;
    redirect(&url)
}
