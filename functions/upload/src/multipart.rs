//! Uploads in parts: sign more of them, complete, abort. All that a client needs to go on later is on the job: which
//! parts there are is listed by `status`, and each is signed again on demand.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use reelay_core::{
    adapters::multipart::Completion,
    domain::{
        create::FieldError,
        job::{Job, Status},
        json::Whole,
        time::UtcTime,
        upload::NamedPart,
    },
    http::{ApiError, Caller, Code, JsonBody, view::JobView},
};
use serde::{Deserialize, Serialize};

use crate::{
    actions::IdInPath,
    routes::AppState,
    store,
    target::{PartTarget, upload_over},
};

/// Most parts of one request.
const MAX_SIGNED_PARTS: usize = 100;

#[derive(Deserialize)]
pub(crate) struct SignParts {
    part_numbers: Vec<Whole<u32>>,
}

#[derive(Serialize)]
pub(crate) struct SignedParts {
    parts: Vec<PartTarget>,
}

#[derive(Deserialize)]
pub(crate) struct CompleteParts {
    parts: Option<Vec<NamedPart>>,
}

pub(crate) async fn sign(
    State(state): State<AppState>,
    caller: Caller,
    id: IdInPath,
    JsonBody(body): JsonBody<SignParts>,
) -> Result<Json<SignedParts>, ApiError> {
    let job = state.own(&caller, id).await?;
    let numbers: Vec<u32> = body.part_numbers.into_iter().map(|Whole(number)| number).collect();
    let parts = state.sign_parts(&job, &numbers).await?;
    Ok(Json(SignedParts { parts }))
}

pub(crate) async fn complete(
    State(state): State<AppState>,
    caller: Caller,
    id: IdInPath,
    JsonBody(body): JsonBody<CompleteParts>,
) -> Result<Json<JobView>, ApiError> {
    let job = state.own(&caller, id).await?;
    let job = state.complete_upload(job, body.parts.as_deref()).await?;
    Ok(Json(JobView::new(job, None)))
}

pub(crate) async fn abort(State(state): State<AppState>, caller: Caller, id: IdInPath) -> Result<StatusCode, ApiError> {
    let job = state.own(&caller, id).await?;
    state.abort_upload(&job).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl AppState {
    /// The caller's own job. What is somebody else's does not exist.
    pub(crate) async fn own(&self, caller: &Caller, id: IdInPath) -> Result<Job, ApiError> {
        let not_found = || ApiError::new(Code::NotFound);
        let Path(id) = id.map_err(|_| not_found())?;
        let job = self.jobs.job(&id).await?;
        job.filter(|job| job.account_id == caller.account.account_id)
            .ok_or_else(not_found)
    }

    /// Signs parts by their numbers.
    pub(crate) async fn sign_parts(&self, job: &Job, numbers: &[u32]) -> Result<Vec<PartTarget>, ApiError> {
        let Some(parts) = job.parts() else {
            return Err(upload_over(job));
        };
        if !(1..=MAX_SIGNED_PARTS).contains(&numbers.len()) {
            let message = format!("must have 1 to {MAX_SIGNED_PARTS} numbers");
            return Err(ApiError::fields(vec![FieldError::new("/part_numbers", message)]));
        }
        let numbered = numbers.iter().enumerate();
        let wrong: Vec<FieldError> = numbered
            .filter(|(_, number)| parts.length(**number).is_none())
            .map(|(index, _)| {
                let message = format!("must be 1 to {}", parts.count());
                FieldError::new(format!("/part_numbers/{index}"), message)
            })
            .collect();
        if !wrong.is_empty() {
            return Err(ApiError::fields(wrong));
        }
        self.part_targets(job, numbers, UtcTime::now()).await
    }

    /// Has S3 put the parts together. The event of the object that comes of it queues the job.
    ///
    /// What S3 has decides: its list gives the tags, and its sum must be the declared length. Completing twice is
    /// answered alike. Returns the job as it then stands.
    pub(crate) async fn complete_upload(&self, job: Job, named: Option<&[NamedPart]>) -> Result<Job, ApiError> {
        let (Some(multipart), Some(parts)) = (job.multipart.clone(), job.parts()) else {
            return Err(upload_over(&job));
        };
        match job.status {
            Status::Pending => {}
            Status::Cancelled | Status::Expired => return Err(upload_over(&job)),
            // Its object came to intake, so it was completed.
            Status::Queued | Status::InProgress | Status::Completed | Status::Failed => return Ok(job),
        }
        let key = job.source_key();
        let stored = match self.sources.parts(&key, &multipart.upload_id).await? {
            Some(_) if UtcTime::now() >= job.upload_expires_at => return Err(upload_over(&job)),
            Some(stored) => stored,
            None => return self.completed_before(job).await,
        };
        parts.check(&stored, named)?;
        let completion = self
            .sources
            .complete_parts(&key, &multipart.upload_id, &stored, job.size_bytes)
            .await?;
        match completion {
            Completion::Done => {
                tracing::info!(job_id = %job.job_id, parts = stored.len(), "upload completed");
                let now = self.jobs.job(&job.job_id).await?;
                now.ok_or_else(|| ApiError::new(Code::NotFound))
            }
            Completion::Gone => self.completed_before(job).await,
            Completion::Changed => Err(ApiError::new(Code::UploadIncomplete)
                .detail("a part was sent again meanwhile: complete the upload once more")),
        }
    }

    /// An upload that S3 does not know any more: completed when its object is there, else aborted.
    async fn completed_before(&self, job: Job) -> Result<Job, ApiError> {
        if self.sources.has(&job.source_key()).await? {
            Ok(job)
        } else {
            Err(ApiError::new(Code::UploadOver).detail("the upload was aborted"))
        }
    }

    /// Ends an upload in parts, and its job with it: CANCELLED. Twice is fine.
    pub(crate) async fn abort_upload(&self, job: &Job) -> Result<(), ApiError> {
        let Some(multipart) = &job.multipart else {
            return Err(upload_over(job));
        };
        // The job first: from then on, no event of an upload can queue it.
        let job = match job.status {
            Status::Pending => store::cancel_pending(&self.jobs, job, UtcTime::now()).await?,
            _ => Some(job.clone()),
        };
        let job = job.ok_or_else(|| ApiError::new(Code::NotFound))?;
        if job.status != Status::Cancelled {
            return Err(upload_over(&job));
        }
        self.sources
            .abort_parts(&job.source_key(), &multipart.upload_id)
            .await?;
        tracing::info!(job_id = %job.job_id, "upload aborted");
        Ok(())
    }
}
