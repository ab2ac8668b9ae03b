//! Remembers, beside the job, that its owner was told.
//!
//! A claim is written before the mail is sent and a mark after it. The one gap is a crash between the two: the claim
//! then runs out, and the mail is sent a second time rather than never.

use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use reelay_core::{
    adapters::{
        AwsError,
        dynamo::{Write, n, outcome, s},
        jobs::JobsTable,
    },
    domain::{job::Job, time::UtcTime},
};

const SENDING: &str = "SENDING";
const SENT: &str = "SENT";
/// How long a claim holds: longer than the function may run.
const CLAIM: Duration = Duration::from_secs(90);

/// What came of claiming a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Ours,
    InProgress,
    Told,
}

fn mail_item(job: &Job) -> String {
    format!("mail#{}", job.generation)
}

/// Claims the mail about a job's end.
pub(crate) async fn claim(jobs: &JobsTable, job: &Job, now: UtcTime) -> Result<Claim, AwsError> {
    let result = jobs
        .client()
        .put_item()
        .table_name(jobs.name())
        .item("job_id", s(job.job_id.as_str()))
        .item("item", s(mail_item(job)))
        .item("state", s(SENDING))
        .item("claim_expires_ms", n(now.plus(CLAIM).epoch_ms()))
        .condition_expression("attribute_not_exists(job_id) OR (#state = :sending AND claim_expires_ms < :now)")
        .expression_attribute_names("#state", "state")
        .expression_attribute_values(":sending", s(SENDING))
        .expression_attribute_values(":now", n(now.epoch_ms()))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    Ok(match outcome("PutItem", result)? {
        Write::Done(_) => Claim::Ours,
        Write::Refused(old) => {
            let state = old
                .as_ref()
                .and_then(|item| item.get("state"))
                .and_then(|state| state.as_s().ok());
            if state.is_some_and(|state| state == SENT) {
                Claim::Told
            } else {
                Claim::InProgress
            }
        }
    })
}

/// Marks the mail as sent.
pub(crate) async fn told(jobs: &JobsTable, job: &Job, now: UtcTime) -> Result<(), AwsError> {
    set(jobs, job, "SET #state = :sent, sent_at = :now", |update| {
        update
            .expression_attribute_values(":sent", s(SENT))
            .expression_attribute_values(":now", s(now.to_string()))
    })
    .await
}

/// Gives a claim back, so that the next delivery can try at once.
pub(crate) async fn release(jobs: &JobsTable, job: &Job) -> Result<(), AwsError> {
    set(jobs, job, "SET claim_expires_ms = :zero", |update| {
        update.expression_attribute_values(":zero", n(0))
    })
    .await
}

async fn set(
    jobs: &JobsTable,
    job: &Job,
    expression: &str,
    values: impl FnOnce(
        aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder,
    ) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder,
) -> Result<(), AwsError> {
    let update = jobs
        .client()
        .update_item()
        .table_name(jobs.name())
        .key("job_id", s(job.job_id.as_str()))
        .key("item", s(mail_item(job)))
        .update_expression(expression)
        .condition_expression("#state = :sending")
        .expression_attribute_names("#state", "state")
        .expression_attribute_values(":sending", s(SENDING));
    // A mark that is there already is what was wanted.
    outcome("UpdateItem", values(update).send().await).map(|_| ())
}
