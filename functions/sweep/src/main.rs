//! Repairs what a crash, a lost event or an upload that never came has left behind, and removes deleted jobs; a schedule
//! calls it every minute.

mod accounts;
mod decide;
mod handler;
mod removal;
mod sources;
mod store;

use std::time::{Duration, Instant};

use lambda_runtime::{LambdaEvent, service_fn};
use reelay_core::{adapters, config::Env, domain::time::UtcTime, telemetry};
use serde::de::IgnoredAny;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let sdk = adapters::sdk_config().await;
    let sweep = Env::new().finish(|env| handler::Sweep::read(env, &sdk))?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<IgnoredAny>| {
        let left_ms = i64::try_from(event.context.deadline).unwrap_or(i64::MAX) - UtcTime::now().epoch_ms();
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        Ok::<_, lambda_runtime::Error>(sweep.run(deadline).await?)
    }))
    .await
}
