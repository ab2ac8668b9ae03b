//! Creates jobs and their upload targets; cancels and retries jobs.

mod actions;
mod routes;
mod store;

use std::time::Duration;

use reelay_core::{
    adapters::{self, accounts::AccountsTable, jobs::JobsTable, objects::Bucket, queue::TaskQueues},
    config::Env,
    http::{Authenticator, router},
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let sdk = adapters::sdk_config().await;
    let state = Env::new().finish(|env| {
        let accounts = env.required("ACCOUNTS_TABLE");
        let secret = env.required("SIGNING_KEY_SECRET");
        let jobs = env.required("JOBS_TABLE");
        let sources = env.required("SOURCE_BUCKET");
        let high = env.required("HIGH_QUEUE_URL");
        let low = env.required("LOW_QUEUE_URL");
        let max_source_bytes = env.required("MAX_SOURCE_BYTES");
        let upload_seconds = env.required("UPLOAD_URL_SECONDS");
        Some(routes::AppState {
            authenticator: Authenticator::new(&sdk, secret?, AccountsTable::new(&sdk, accounts?)).into(),
            jobs: JobsTable::new(&sdk, jobs?),
            sources: Bucket::new(&sdk, sources?),
            queues: TaskQueues::new(&sdk, high?, low?),
            max_source_bytes: max_source_bytes?,
            upload_window: Duration::from_secs(upload_seconds?),
        })
    })?;
    router::serve(routes::routes(state)).await
}
