//! Accounts: register, login, logout, the signed-in account.

mod password;
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
    let (table, secret, token_seconds) = Env::new().finish(|env| {
        let table = env.required::<String>("ACCOUNTS_TABLE");
        let secret = env.required::<String>("SIGNING_KEY_SECRET");
        let token_seconds = env.required::<u64>("ACCESS_TOKEN_SECONDS");
        Some((table?, secret?, token_seconds?))
    })?;
    let sdk = adapters::sdk_config().await;
    let accounts = AccountsTable::new(&sdk, table);
    let authenticator = Authenticator::new(&sdk, secret, accounts.clone());
    router::serve(routes::routes(
        authenticator,
        accounts,
        Duration::from_secs(token_seconds),
    ))
    .await
}
