//! The queue worker: probes, encodes and publishes.

mod cage;
mod error;
mod range;
mod scratch;
mod stages;
mod transfer;
mod worker;

use std::time::{Duration, Instant};

use aws_lambda_events::event::sqs::{SqsEvent, SqsMessage};
use lambda_runtime::{LambdaEvent, service_fn};
use reelay_core::{adapters, batch, config::Env, domain::time::UtcTime, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    // A child must not read our environment through /proc.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    telemetry::init();
    let sdk = adapters::sdk_config().await;
    let worker = Env::new().finish(|env| worker::Worker::from_env(env, &sdk))?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SqsEvent>| {
        let left_ms = i64::try_from(event.context.deadline).unwrap_or(i64::MAX) - UtcTime::now().epoch_ms();
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        batch::each_message(event.payload, async |message: SqsMessage| {
            worker.message(&message, deadline).await
        })
        .await
    }))
    .await
}
