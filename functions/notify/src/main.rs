//! Follows the jobs table's stream and mails results.

mod handler;
mod mail;
mod store;

use aws_lambda_events::event::{dynamodb::Event, streams::DynamoDbEventResponse};
use lambda_runtime::{LambdaEvent, service_fn};
use reelay_core::{
    adapters::{self, accounts::AccountsTable, jobs::JobsTable},
    config::Env,
    telemetry,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let sdk = adapters::sdk_config().await;
    let notify = Env::new().finish(|env| {
        let accounts = env.required("ACCOUNTS_TABLE");
        let jobs = env.required("JOBS_TABLE");
        let sender = env.required("MAIL_SENDER");
        Some(handler::Notify {
            accounts: AccountsTable::new(&sdk, accounts?),
            jobs: JobsTable::new(&sdk, jobs?),
            mailer: mail::Mailer::new(&sdk, sender?),
        })
    })?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Event>| {
        Ok::<DynamoDbEventResponse, lambda_runtime::Error>(notify.handle(event.payload).await)
    }))
    .await
}
