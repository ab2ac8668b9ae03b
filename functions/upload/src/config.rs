//! What the function is given.

use std::time::Duration;

use reelay_core::{
    adapters::{SdkConfig, jobs::JobsTable, objects::Bucket, queue::TaskQueues, usage::Usage},
    config::Env,
    domain::limits::AccountQuota,
    http::Edge,
};

use crate::{post::PostSigner, routes::AppState};

pub(crate) fn read(env: &mut Env, sdk: &SdkConfig) -> Option<(Edge, AppState)> {
    let edge = Edge::from_env(env, sdk);
    let jobs = env.required("JOBS_TABLE");
    let sources = env.required("SOURCE_BUCKET");
    let high = env.required("HIGH_QUEUE_URL");
    let low = env.required("LOW_QUEUE_URL");
    let max_source_bytes = env.required("MAX_SOURCE_BYTES");
    let multipart_threshold_bytes = env.required("MULTIPART_THRESHOLD_BYTES");
    let url_seconds = env.required("UPLOAD_URL_SECONDS");
    let multipart_seconds = env.required("MULTIPART_UPLOAD_SECONDS");
    let jobs_in_flight = env.required("MAX_JOBS_IN_FLIGHT");
    let stored_bytes = env.required("MAX_STORED_BYTES");
    let (edge, jobs) = (edge?, JobsTable::new(sdk, jobs?));
    let state = AppState {
        authenticator: edge.authenticator.clone(),
        usage: Usage::new(edge.accounts.clone(), jobs.clone()),
        quota: AccountQuota {
            jobs_in_flight: jobs_in_flight?,
            stored_bytes: stored_bytes?,
        },
        jobs,
        sources: Bucket::new(sdk, sources?),
        posts: PostSigner::new(sdk),
        queues: TaskQueues::new(sdk, high?, low?),
        max_source_bytes: max_source_bytes?,
        multipart_threshold_bytes: multipart_threshold_bytes?,
        url_lifetime: Duration::from_secs(url_seconds?),
        multipart_window: Duration::from_secs(multipart_seconds?),
    };
    Some((edge, state))
}
