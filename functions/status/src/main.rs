//! Reads jobs: status, progress, metadata, outputs, downloads.

mod cursor;
mod growing;
mod gzip;
mod routes;

use std::time::Duration;

use reelay_core::{
    adapters::{self, jobs::JobsTable, objects::Bucket},
    config::Env,
    http::{Edge, router},
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let sdk = adapters::edge_sdk_config().await;
    let (edge, state) = Env::new().finish(|env| {
        let edge = Edge::from_env(env, &sdk);
        let jobs = env.required("JOBS_TABLE");
        let (sources, outputs) = (env.required("SOURCE_BUCKET"), env.required("OUTPUT_BUCKET"));
        let download_seconds = env.required("DOWNLOAD_URL_SECONDS");
        let edge = edge?;
        let state = routes::AppState {
            authenticator: edge.authenticator.clone(),
            audit: edge.audit.clone(),
            jobs: JobsTable::new(&sdk, jobs?),
            sources: Bucket::new(&sdk, sources?),
            outputs: Bucket::new(&sdk, outputs?),
            download_window: Duration::from_secs(download_seconds?),
        };
        Some((edge, state))
    })?;
    router::serve(routes::routes(state), edge).await
}
