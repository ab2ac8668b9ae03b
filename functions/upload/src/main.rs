//! Creates jobs and their upload targets; completes and aborts uploads; cancels and retries jobs.

mod actions;
mod config;
mod create;
mod idempotency;
mod multipart;
mod post;
mod routes;
mod store;
mod target;
mod uppy;

use reelay_core::{adapters, config::Env, http::router, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let sdk = adapters::edge_sdk_config().await;
    let (edge, state) = Env::new().finish(|env| config::read(env, &sdk))?;
    router::serve(routes::routes(state), edge).await
}
