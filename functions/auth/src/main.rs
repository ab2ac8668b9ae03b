//! Accounts: registration, sessions, passwords, the signed-in account.

mod client;
mod password;
mod refresh;
mod routes;
mod store;

use std::time::Duration;

use reelay_core::{
    adapters::{self, accounts::AccountsTable},
    config::Env,
    http::{Authenticator, router},
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let (table, secret, access_seconds, refresh_seconds, memory_kib, passes) = Env::new().finish(|env| {
        let table = env.required("ACCOUNTS_TABLE");
        let secret = env.required("SIGNING_KEY_SECRET");
        let access_seconds = env.required("ACCESS_TOKEN_SECONDS");
        let refresh_seconds = env.required("REFRESH_TOKEN_SECONDS");
        let memory_kib = env.required("HASH_MEMORY_KIB");
        let passes = env.required("HASH_PASSES");
        Some((table?, secret?, access_seconds?, refresh_seconds?, memory_kib?, passes?))
    })?;
    let sdk = adapters::sdk_config().await;
    let accounts = AccountsTable::new(&sdk, table);
    router::serve(routes::routes(routes::AppState {
        authenticator: Authenticator::new(&sdk, secret, accounts.clone()).into(),
        accounts,
        hasher: password::Hasher::new(memory_kib, passes)?,
        access_lifetime: Duration::from_secs(access_seconds),
        session_lifetime: Duration::from_secs(refresh_seconds),
    }))
    .await
}
