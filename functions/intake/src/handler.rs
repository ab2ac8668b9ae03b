//! One upload at a time: look, check, queue, send.
//!
//! The event may come twice, late, or for an object that was overwritten since. The conditional write decides, and the
//! message is sent after it; when a crash falls between the two, the event's next delivery finds the job QUEUED with
//! this very version and sends the message again. A second message is harmless: the claim decides who works.

use reelay_core::{
    adapters::{AwsError, jobs::JobsTable, queue::TaskQueues},
    domain::{
        job::{Job, Status},
        keys::SourceKey,
        message::Task,
        time::UtcTime,
    },
};

use crate::{
    checks,
    event::{Record, S3Event},
    store::{self, Upload, Uploads},
};

/// What the handler works with.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) jobs: JobsTable,
    pub(crate) queues: TaskQueues,
    pub(crate) objects: Uploads,
    pub(crate) max_source_bytes: u64,
}

impl Intake {
    /// Handles an event.
    ///
    /// # Errors
    /// When a service failed in passing: Lambda then delivers the event again, and to the dead-letter queue at last.
    pub(crate) async fn handle(&self, event: S3Event) -> Result<(), AwsError> {
        for record in event.records.iter().filter(|record| record.is_creation()) {
            self.upload(record).await?;
        }
        Ok(())
    }

    async fn upload(&self, record: &Record) -> Result<(), AwsError> {
        let key = record.key();
        let Some(source) = SourceKey::parse(&key) else {
            tracing::warn!("an object outside of the sources' layout was ignored");
            return Ok(());
        };
        let job = self.jobs.job(&source.job).await?;
        let Some(job) = job.filter(|job| job.account_id == source.account) else {
            tracing::warn!(job_id = %source.job, "an upload without a job was ignored");
            return Ok(());
        };
        let Some(upload) = self.objects.look(record.bucket(), &key, record.version_id()).await? else {
            tracing::warn!(job_id = %job.job_id, "an upload was gone before it was looked at");
            return Ok(());
        };
        match job.status {
            Status::Pending => self.accept(job, &upload).await,
            _ => self.resend(&job, &upload).await,
        }
    }

    async fn accept(&self, job: Job, upload: &Upload) -> Result<(), AwsError> {
        let now = UtcTime::now();
        match checks::check(&job, upload, self.max_source_bytes) {
            Ok(kind) if store::queue(&self.jobs, &job, upload, kind, now).await? => {
                tracing::info!(job_id = %job.job_id, size_bytes = upload.size_bytes, "job queued");
                self.send(&job).await
            }
            // Another delivery was faster, or the job ended in the meantime.
            Ok(_) => match self.jobs.job(&job.job_id).await? {
                Some(job) => self.resend(&job, upload).await,
                None => Ok(()),
            },
            Err(failure) => {
                tracing::info!(job_id = %job.job_id, code = failure.code.as_str(), "upload refused");
                self.jobs.fail_pending(&job.job_id, &failure, now).await.map(|_| ())
            }
        }
    }

    async fn resend(&self, job: &Job, upload: &Upload) -> Result<(), AwsError> {
        let waits = job.status == Status::Queued && job.source.as_ref() == Some(&upload.pinned);
        if waits { self.send(job).await } else { Ok(()) }
    }

    async fn send(&self, job: &Job) -> Result<(), AwsError> {
        let task = Task::Plan {
            job_id: job.job_id.clone(),
            generation: job.generation,
        };
        self.queues.send(job.priority, &job.account_id, &task).await
    }
}
