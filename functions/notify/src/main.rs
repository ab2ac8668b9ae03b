//! Follows the jobs table's stream: mails results, and gives back what a job that is over used of its account's quota.

mod handler;
mod mail;
mod store;

use aws_lambda_events::event::{dynamodb::Event, streams::DynamoDbEventResponse};
use lambda_runtime::{LambdaEvent, service_fn};
use reelay_core::{
    adapters::{self, accounts::AccountsTable, jobs::JobsTable, usage::Usage},
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
        let (accounts, jobs) = (AccountsTable::new(&sdk, accounts?), JobsTable::new(&sdk, jobs?));
        Some(handler::Notify {
            usage: Usage::new(accounts.clone(), jobs.clone()),
            accounts,
            jobs,
            mailer: mail::Mailer::new(&sdk, sender?),
        })
    })?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Event>| {
        Ok::<DynamoDbEventResponse, lambda_runtime::Error>(notify.handle(event.payload).await)
    }))
    .await
}
