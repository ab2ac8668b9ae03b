//! The routes that write jobs.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use axum::{
    Router,
    extract::FromRef,
    routing::{delete, get, post},
};
use reelay_core::{
    adapters::{accounts::AccountsTable, jobs::JobsTable, objects::Bucket, queue::TaskQueues},
    config::Env,
    http::Authenticator,
};

use crate::{actions, create, multipart, post::PostSigner, uppy};

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) jobs: JobsTable,
    pub(crate) sources: Bucket,
    pub(crate) posts: PostSigner,
    pub(crate) queues: TaskQueues,
    pub(crate) max_source_bytes: u64,
    /// Sources above it are sent in parts, unless their creator wishes otherwise.
    pub(crate) multipart_threshold_bytes: u64,
    /// How long a signed URL lives, and so how long a single PUT may take to begin.
    pub(crate) url_lifetime: Duration,
    /// How long an upload in parts may take.
    pub(crate) multipart_window: Duration,
}

impl AppState {
    /// Reads the configuration.
    pub(crate) fn read(env: &mut Env, sdk: &SdkConfig) -> Option<Self> {
        let accounts = env.required("ACCOUNTS_TABLE");
        let secret = env.required("SIGNING_KEY_SECRET");
        let jobs = env.required("JOBS_TABLE");
        let sources = env.required("SOURCE_BUCKET");
        let high = env.required("HIGH_QUEUE_URL");
        let low = env.required("LOW_QUEUE_URL");
        let max_source_bytes = env.required("MAX_SOURCE_BYTES");
        let threshold_bytes = env.required("MULTIPART_THRESHOLD_BYTES");
        let url_seconds = env.required("UPLOAD_URL_SECONDS");
        let multipart_seconds = env.required("MULTIPART_UPLOAD_SECONDS");
        Some(Self {
            authenticator: Authenticator::new(sdk, secret?, AccountsTable::new(sdk, accounts?)).into(),
            jobs: JobsTable::new(sdk, jobs?),
            sources: Bucket::new(sdk, sources?),
            posts: PostSigner::new(sdk),
            queues: TaskQueues::new(sdk, high?, low?),
            max_source_bytes: max_source_bytes?,
            multipart_threshold_bytes: threshold_bytes?,
            url_lifetime: Duration::from_secs(url_seconds?),
            multipart_window: Duration::from_secs(multipart_seconds?),
        })
    }
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.authenticator)
    }
}

pub(crate) fn routes(state: AppState) -> Router {
    Router::new()
        .route("/jobs", post(create::create))
        .route("/jobs/{id}", delete(actions::delete))
        .route("/jobs/{id}/cancel", post(actions::cancel))
        .route("/jobs/{id}/retry", post(actions::retry))
        .route("/jobs/{id}/upload", delete(multipart::abort))
        .route("/jobs/{id}/upload/parts", post(multipart::sign))
        .route("/jobs/{id}/upload/complete", post(multipart::complete))
        .route("/s3/params", get(uppy::params))
        .route("/s3/multipart", post(uppy::create))
        .route("/s3/multipart/{upload_id}", get(uppy::parts).delete(uppy::abort))
        .route("/s3/multipart/{upload_id}/batch", get(uppy::batch))
        .route("/s3/multipart/{upload_id}/complete", post(uppy::complete))
        .route("/s3/multipart/{upload_id}/{part_number}", get(uppy::sign))
        .with_state(state)
}
