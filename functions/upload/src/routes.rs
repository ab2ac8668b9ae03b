//! The routes that write jobs.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::FromRef};
use reelay_core::{
    adapters::{jobs::JobsTable, objects::Bucket, queue::TaskQueues, usage::Usage},
    domain::limits::AccountQuota,
    http::{
        Authenticator,
        routes::{Routes, delete, get, none, post},
    },
};

use crate::{actions, create, multipart, post::PostSigner, uppy};

#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) jobs: JobsTable,
    pub(crate) usage: Usage,
    pub(crate) quota: AccountQuota,
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
        // As written by people who already use such services.
        .route("/videos/upload", post(create::create))
        .route("/videos/{id}", delete(actions::delete))
        .route("/videos/tasks", none())
        .route("/submit_job", post(create::create))
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
