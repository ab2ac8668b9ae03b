//! Repairs what a crash, a lost event or an upload that never came has left behind; a schedule calls it every minute.

mod decide;
mod handler;
mod sources;
mod store;

use std::time::{Duration, Instant};

use lambda_runtime::{LambdaEvent, service_fn};
use reelay_core::adapters::{self, accounts::AccountsTable, jobs::JobsTable, queue::TaskQueues, usage::Usage};
use reelay_core::{config::Env, domain::time::UtcTime, telemetry};
use serde::de::IgnoredAny;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let sdk = adapters::sdk_config().await;
    let sweep = Env::new().finish(|env| {
        let (accounts, jobs) = (env.required("ACCOUNTS_TABLE"), env.required("JOBS_TABLE"));
        let (high, low) = (env.required("HIGH_QUEUE_URL"), env.required("LOW_QUEUE_URL"));
        let (bucket, intake) = (env.required("SOURCE_BUCKET"), env.required("INTAKE_FUNCTION"));
        let grace = env.required("UPLOAD_GRACE_SECONDS");
        let jobs = JobsTable::new(&sdk, jobs?);
        Some(handler::Sweep {
            usage: Usage::new(AccountsTable::new(&sdk, accounts?), jobs.clone()),
            jobs,
            queues: TaskQueues::new(&sdk, high?, low?),
            sources: sources::Sources::new(&sdk, bucket?, intake?),
            upload_grace: Duration::from_secs(grace?),
        })
    })?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<IgnoredAny>| {
        let left_ms = i64::try_from(event.context.deadline).unwrap_or(i64::MAX) - UtcTime::now().epoch_ms();
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        Ok::<_, lambda_runtime::Error>(sweep.run(deadline).await?)
    }))
    .await
}
