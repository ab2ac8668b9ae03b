//! The routes that write jobs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
    routing::post,
};
use reelay_core::{
    adapters::{
        jobs::JobsTable,
        objects::Bucket,
        queue::TaskQueues,
        usage::{self, Usage},
    },
    domain::{audit::Action, create::CreateJob, id::JobId, job::Job, limits::AccountQuota, time::UtcTime},
    http::{ApiError, Authenticator, Caller, JsonBody, Trail, view::JobView},
};
use serde::Serialize;

use crate::actions;

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) jobs: JobsTable,
    pub(crate) usage: Usage,
    pub(crate) quota: AccountQuota,
    pub(crate) sources: Bucket,
    pub(crate) queues: TaskQueues,
    pub(crate) max_source_bytes: u64,
    pub(crate) upload_window: Duration,
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.authenticator)
    }
}

pub(crate) fn routes(state: AppState) -> Router {
    Router::new()
        .route("/jobs", post(create))
        .route("/jobs/{id}/cancel", post(actions::cancel))
        .route("/jobs/{id}/retry", post(actions::retry))
        .with_state(state)
}

/// A new job and where its source goes.
#[derive(Serialize)]
struct CreatedJob {
    #[serde(flatten)]
    job: JobView,
    upload: UploadTarget,
}

#[derive(Serialize)]
struct UploadTarget {
    method: &'static str,
    url: String,
    /// The request must carry exactly these: they are part of the signature.
    headers: BTreeMap<&'static str, String>,
    expires_at: UtcTime,
}

async fn create(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    JsonBody(body): JsonBody<CreateJob>,
) -> Result<(StatusCode, HeaderMap, Json<CreatedJob>), ApiError> {
    let new = body.validate(state.max_source_bytes)?;
    let job = Job::pending(
        JobId::generate(),
        caller.account.account_id.clone(),
        new,
        UtcTime::now(),
        state.upload_window,
    );
    let place = state.usage.reserve(&job, state.quota)?;
    if let Some(refused) = state.jobs.create(&job, place).await? {
        return Err(usage::exceeded(refused.old.as_ref(), state.quota).into());
    }
    let signed = state
        .sources
        .sign_upload(
            &job.source_key(),
            job.size_bytes,
            &job.content_type,
            state.upload_window,
        )
        .await?;
    trail.job(Action::CreateJob, &caller, &job.job_id).await;
    tracing::info!(job_id = %job.job_id, size_bytes = job.size_bytes, "job created");

    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/jobs/{}", job.job_id)) {
        headers.insert(LOCATION, location);
    }
    let upload = UploadTarget {
        method: "PUT",
        url: signed.url,
        headers: signed.headers,
        expires_at: job.upload_expires_at,
    };
    Ok((
        StatusCode::CREATED,
        headers,
        Json(CreatedJob {
            job: JobView::new(job, None),
            upload,
        }),
    ))
}
