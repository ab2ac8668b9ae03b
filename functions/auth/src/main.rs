//! Accounts: register, login, logout, the signed-in account.

mod password;
mod routes;
mod store;

use std::time::Duration;

use reelay_core::{
    adapters::{
        self,
        throttle::{FreeFailures, LoginThrottle},
    },
    config::Env,
    http::{Edge, router},
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let sdk = adapters::edge_sdk_config().await;
    let (edge, token_seconds, free) = Env::new().finish(|env| {
        let edge = Edge::from_env(env, &sdk);
        let token_seconds = env.required::<u64>("ACCESS_TOKEN_SECONDS");
        let of_address = env.required("ADDRESS_FREE_FAILURES");
        let of_source = env.required("SOURCE_FREE_FAILURES");
        let (of_address, of_source) = (of_address?, of_source?);
        Some((edge?, token_seconds?, FreeFailures { of_address, of_source }))
    })?;
    let throttle = LoginThrottle::new(edge.accounts.clone(), free);
    let routes = routes::routes(&edge, throttle, Duration::from_secs(token_seconds));
    router::serve(routes, edge).await
}
