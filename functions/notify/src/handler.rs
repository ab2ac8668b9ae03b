//! One change of a job at a time. A stream delivers at least once and in order within a job; what was told is
//! remembered beside the job, so a change that comes twice is told once. The account's figures are settled by what is
//! counted for the job, not by how often its end was heard of.

use aws_lambda_events::event::{
    dynamodb::{Event, EventRecord},
    streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse},
};
use reelay_core::{
    adapters::{AwsError, accounts::AccountsTable, jobs::JobsTable, usage::Usage},
    domain::{
        id::JobId,
        job::{Job, Status},
        time::UtcTime,
    },
};

use crate::{
    mail::{Mail, MailError, Mailer},
    store::{self, Claim},
};

/// What the handler works with.
#[derive(Debug)]
pub(crate) struct Notify {
    pub(crate) accounts: AccountsTable,
    pub(crate) jobs: JobsTable,
    pub(crate) usage: Usage,
    pub(crate) mailer: Mailer,
}

/// Why a change must be delivered again.
#[derive(Debug, thiserror::Error)]
enum NotifyError {
    #[error("a service failed")]
    Aws(#[from] AwsError),
    #[error("the mail was not accepted")]
    Mail(#[from] MailError),
    #[error("another delivery is telling the owner right now")]
    InProgress,
}

impl NotifyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Aws(error) => error.code(),
            Self::Mail(error) => error.code(),
            Self::InProgress => "in_progress",
        }
    }
}

impl Notify {
    /// Handles a batch. The answer names the first change that must come again; Lambda then repeats from there, so that
    /// the order holds.
    pub(crate) async fn handle(&self, event: Event) -> DynamoDbEventResponse {
        let mut response = DynamoDbEventResponse::default();
        for record in &event.records {
            let Some(job_id) = job_id(record) else {
                tracing::error!("a change without a job id was skipped");
                continue;
            };
            if let Err(error) = self.job_changed(&job_id).await {
                let code = error.code();
                tracing::warn!(%job_id, code, error = &error as &dyn std::error::Error, "a change comes again");
                let mut failure = DynamoDbBatchItemFailure::default();
                failure.item_identifier.clone_from(&record.change.sequence_number);
                response.batch_item_failures.push(failure);
                break;
            }
        }
        response
    }

    /// Does what follows from a job's end. The stored job is read, not the change: a late delivery must not tell of a
    /// state that has passed.
    async fn job_changed(&self, job_id: &JobId) -> Result<(), NotifyError> {
        let Some(job) = self.jobs.job(job_id).await? else {
            return Ok(());
        };
        // Neither waits for the other: a mail that is not taken must not hold up the account's place, nor this the mail.
        let settled = self.usage.settle(&job).await;
        self.ended(&job).await?;
        settled?;
        Ok(())
    }

    /// Tells the owner how a job ended. Of a cancelled job they know, and of an expired one they never sent the source.
    async fn ended(&self, job: &Job) -> Result<(), NotifyError> {
        if !matches!(job.status, Status::Completed | Status::Failed) {
            return Ok(());
        }
        match store::claim(&self.jobs, job, UtcTime::now()).await? {
            Claim::Told => Ok(()),
            Claim::InProgress => Err(NotifyError::InProgress),
            Claim::Ours => self.tell(job).await,
        }
    }

    async fn tell(&self, job: &Job) -> Result<(), NotifyError> {
        let Some(account) = self.accounts.account(&job.account_id).await? else {
            tracing::info!(job_id = %job.job_id, "the owner's account is gone");
            return Ok(store::told(&self.jobs, job, UtcTime::now()).await?);
        };
        let outputs = self.jobs.outputs(job).await?;
        match self.mailer.send(&account.email, &Mail::about(job, &outputs)).await {
            Ok(()) => tracing::info!(job_id = %job.job_id, status = job.status.as_str(), "mail sent"),
            Err(error) if error.is_retryable() => {
                store::release(&self.jobs, job).await?;
                return Err(error.into());
            }
            // The address or the sender is refused for good: the job stands as it is, and nobody can be told.
            Err(error) => tracing::error!(job_id = %job.job_id, code = error.code(), "mail refused"),
        }
        Ok(store::told(&self.jobs, job, UtcTime::now()).await?)
    }
}

fn job_id(record: &EventRecord) -> Option<JobId> {
    match record.change.keys.get("job_id")? {
        serde_dynamo::AttributeValue::S(text) => text.parse().ok(),
        _ => None,
    }
}
