//! The routes that write jobs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
};
use reelay_core::{
    adapters::{jobs::JobsTable, objects::Bucket, queue::TaskQueues},
    domain::{create::CreateJob, id::JobId, job::Job, time::UtcTime},
    http::{
        ApiError, Authenticator, Caller, JsonBody,
        routes::{Routes, post},
        view::JobView,
    },
};
use serde::Serialize;

use crate::actions;

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) jobs: JobsTable,
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
    table().with_state(state)
}

fn table() -> Routes<AppState> {
    Routes::new()
        .route("/jobs", post(create))
        .route("/jobs/{id}/cancel", post(actions::cancel))
        .route("/jobs/{id}/retry", post(actions::retry))
        // As written by people who already use such services.
        .route("/videos/upload", post(create))
        .route("/submit_job", post(create))
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
    JsonBody(body): JsonBody<CreateJob>,
) -> Result<(StatusCode, HeaderMap, Json<CreatedJob>), ApiError> {
    let new = body.validate(state.max_source_bytes)?;
    let job = Job::pending(
        JobId::generate(),
        caller.account.account_id,
        new,
        UtcTime::now(),
        state.upload_window,
    );
    state.jobs.create(&job).await?;
    let signed = state
        .sources
        .sign_upload(
            &job.source_key(),
            job.size_bytes,
            &job.content_type,
            state.upload_window,
        )
        .await?;
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

#[cfg(test)]
mod tests {
    use reelay_core::http::contract::routes_of;

    use super::*;

    #[test]
    fn the_routes_are_those_of_the_contract() {
        assert_eq!(
            table().list().collect::<std::collections::BTreeSet<_>>(),
            routes_of("upload")
        );
    }
}
