//! Accounts: registration, sessions, passwords, the signed-in account.

mod config;
mod password;
mod refresh;
mod routes;
mod store;

use reelay_core::{adapters, config::Env, http::router, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let sdk = adapters::edge_sdk_config().await;
    let config = Env::new().finish(|env| config::Config::from_env(env, &sdk))?;
    router::serve(routes::routes(config.state()?), config.edge).await
}
