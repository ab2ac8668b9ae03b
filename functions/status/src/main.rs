//! Reads jobs: status, progress, metadata, outputs, downloads.

mod cursor;
mod growing;
mod gzip;
mod routes;

use std::time::Duration;

use reelay_core::{
    adapters::{self, accounts::AccountsTable, jobs::JobsTable, objects::Bucket},
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
        let outputs = env.required("OUTPUT_BUCKET");
        let download_seconds = env.required("DOWNLOAD_URL_SECONDS");
        Some(routes::AppState {
            authenticator: Authenticator::new(&sdk, secret?, AccountsTable::new(&sdk, accounts?)).into(),
            jobs: JobsTable::new(&sdk, jobs?),
            sources: Bucket::new(&sdk, sources?),
            outputs: Bucket::new(&sdk, outputs?),
            download_window: Duration::from_secs(download_seconds?),
        })
    })?;
    router::serve(routes::routes(state)).await
}
