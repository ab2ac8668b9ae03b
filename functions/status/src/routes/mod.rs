//! The routes that read jobs. Every one of them begins by finding the caller's own job; there is no other way in.

mod audit;
mod hls;
mod jobs;
mod outputs;
mod parts;
mod service;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::FromRef,
    http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION},
};
use reelay_core::{
    adapters::{
        audit::AuditLog,
        jobs::JobsTable,
        objects::{Bucket, Disposition},
    },
    domain::{
        id::JobId,
        job::{Job, Output},
    },
    http::{
        ApiError, Authenticator, Caller, Code,
        routes::{Routes, get},
    },
};

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) audit: Arc<AuditLog>,
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
    table().with_state(state)
}

fn table() -> Routes<AppState> {
    Routes::new()
        .route("/jobs", get(jobs::list))
        .route("/jobs/{id}", get(jobs::job))
        .route("/jobs/{id}/progress", get(jobs::progress))
        .route("/jobs/{id}/metadata", get(jobs::metadata))
        .route("/jobs/{id}/outputs", get(outputs::outputs))
        .route("/jobs/{id}/thumbnail", get(outputs::thumbnail))
        .route("/jobs/{id}/download", get(outputs::download))
        .route("/jobs/{id}/hls/{file}", get(hls::hls))
        .route("/jobs/{id}/upload/parts", get(parts::parts))
        .route("/jobs/{id}/source", get(outputs::source))
        .route("/analytics/audit", get(audit::entries))
        .route("/openapi.json", get(service::openapi))
        .route("/docs", get(service::docs))
        // As written by people who already use such services.
        .route("/videos", get(jobs::list))
        .route("/videos/tasks", get(jobs::list))
        .route("/videos/tasks/{id}", get(jobs::job))
        .route("/videos/tasks/{id}/progress", get(jobs::progress))
        .route("/videos/tasks/{id}/thumbnail", get(outputs::thumbnail))
        .route("/videos/{id}/status", get(jobs::job))
        .route("/videos/{id}/metadata", get(jobs::metadata))
        .route("/videos/{id}/download", get(outputs::download))
        .route("/job/{id}/status", get(jobs::job))
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

    /// A link to an output.
    async fn sign(&self, output: &Output, disposition: &Disposition) -> Result<String, ApiError> {
        let (key, content_type) = (&output.key, &output.content_type);
        let window = self.download_window;
        let signing = self
            .outputs
            .sign_download(key, None, content_type, Some(disposition), window);
        Ok(signing.await?)
    }
}

fn redirect(url: &str) -> Result<(StatusCode, HeaderMap), ApiError> {
    let location = HeaderValue::from_str(url).map_err(|_| ApiError::new(Code::InternalError))?;
    Ok((StatusCode::FOUND, HeaderMap::from_iter([(LOCATION, location)])))
}

fn not_ready(job: &Job, what: &str) -> ApiError {
    ApiError::new(Code::NotReady).detail(format!("the job is {} and {what}", job.status.as_str()))
}

#[cfg(test)]
mod tests {
    use reelay_core::http::contract::routes_of;

    use super::*;

    #[test]
    fn the_routes_are_those_of_the_contract() {
        assert_eq!(
            table().list().collect::<std::collections::BTreeSet<_>>(),
            routes_of("status")
        );
    }
}
