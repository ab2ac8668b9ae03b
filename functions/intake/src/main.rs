//! Turns a finished upload into a queued job.

mod checks;
mod event;
mod handler;
mod store;

use lambda_runtime::{LambdaEvent, service_fn};
use reelay_core::{
    adapters::{self, jobs::JobsTable, queue::TaskQueues},
    config::Env,
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let sdk = adapters::sdk_config().await;
    let intake = Env::new().finish(|env| {
        let jobs = env.required("JOBS_TABLE");
        let high = env.required("HIGH_QUEUE_URL");
        let low = env.required("LOW_QUEUE_URL");
        let max_source_bytes = env.required("MAX_SOURCE_BYTES");
        Some(handler::Intake {
            jobs: JobsTable::new(&sdk, jobs?),
            queues: TaskQueues::new(&sdk, high?, low?),
            objects: store::Uploads::new(&sdk),
            max_source_bytes: max_source_bytes?,
        })
    })?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<event::S3Event>| {
        Ok::<_, lambda_runtime::Error>(intake.handle(event.payload).await?)
    }))
    .await
}
