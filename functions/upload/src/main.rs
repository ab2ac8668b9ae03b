//! Creates jobs and their upload targets; cancels and retries jobs.

mod actions;
mod config;
mod routes;
mod store;

use reelay_core::{adapters, config::Env, http::router, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let sdk = adapters::edge_sdk_config().await;
    let (edge, state) = Env::new().finish(|env| config::read(env, &sdk))?;
    router::serve(routes::routes(state), edge).await
}
