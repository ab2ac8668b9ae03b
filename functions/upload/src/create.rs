//! Creates a job and its upload target, once for each idempotency key.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::LOCATION},
};
use reelay_core::{
    adapters::{dynamo, usage},
    domain::{
        audit::Action,
        create::{CreateJob, NewJob},
        id::JobId,
        job::Job,
        time::UtcTime,
        upload::{Multipart, Parts, UploadMethod},
    },
    http::{ApiError, Caller, Code, JsonText, Trail, view::JobView},
};
use serde::Serialize;

use crate::{
    idempotency::{self, Found, Request},
    routes::AppState,
    target::UploadTarget,
};

/// Tells that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A new job and where its source goes.
#[derive(Serialize)]
pub(crate) struct CreatedJob {
    #[serde(flatten)]
    job: JobView,
    /// `null` in the repeated answer of a job that waits for nothing more.
    upload: Option<UploadTarget>,
}

/// A job that was just created, by this request or by the one that it repeats.
pub(crate) struct Created {
    pub(crate) job: Job,
    pub(crate) is_replay: bool,
}

pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    headers: HeaderMap,
    JsonText(body, text): JsonText<CreateJob>,
) -> Result<(StatusCode, HeaderMap, Json<CreatedJob>), ApiError> {
    let new = body.validate(state.max_source_bytes)?;
    let request = Request::read(&headers, &caller.account.account_id, "POST /jobs", &text)?;
    let Created { job, is_replay } = state.create(&caller, &trail, new, request).await?;
    let upload = state.target(&job, UtcTime::now()).await?;

    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/jobs/{}", job.job_id)) {
        headers.insert(LOCATION, location);
    }
    if is_replay {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    let job = JobView::new(job, None).without_upload();
    Ok((StatusCode::CREATED, headers, Json(CreatedJob { job, upload })))
}

impl AppState {
    /// Creates a job that waits for its upload, or finds the one that the same request created before.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        trail: &Trail,
        new: NewJob,
        request: Option<Request>,
    ) -> Result<Created, ApiError> {
        let now = UtcTime::now();
        if let Some(request) = &request
            && let Some(created) = self.replay(request, now).await?
        {
            return Ok(created);
        }
        let parts = self.parts(&new);
        let window = if parts.is_some() {
            self.multipart_window
        } else {
            self.url_lifetime
        };
        let account_id = caller.account.account_id.clone();
        let mut job = Job::pending(JobId::generate(), account_id, new, now, window);
        let key = job.source_key();
        // Before the job, which names it. What is begun and never named is dropped by the bucket's own rule.
        if let Some(parts) = parts {
            job.multipart = Some(Multipart {
                upload_id: self.sources.begin_parts(&key, &job.content_type).await?,
                part_size_bytes: parts.part_size_bytes,
            });
        }
        // The claim of the key first: a repetition is answered as such, also when there is no room for another job.
        let mut beside = Vec::new();
        if let Some(request) = &request {
            beside.push(request.claim(&self.jobs, &job.job_id, now)?);
        }
        let claims = beside.len();
        beside.extend(self.usage.reserve(&job, self.quota)?);
        match self.jobs.create(&job, beside).await {
            Ok(None) => {
                let parts = job.parts().map(|parts| parts.count());
                trail.job(Action::CreateJob, caller, &job.job_id).await;
                tracing::info!(job_id = %job.job_id, size_bytes = job.size_bytes, parts, "job created");
                Ok(Created { job, is_replay: false })
            }
            Ok(Some(refused)) => {
                if let Some(multipart) = &job.multipart
                    && let Err(error) = self.sources.abort_parts(&key, &multipart.upload_id).await
                {
                    tracing::warn!(%error, code = error.code(), "an upload without a job is left to the bucket's rule");
                }
                // The same request, sent twice at the same moment, was faster.
                match &request {
                    Some(request) if refused.index_in_beside < claims => {
                        let replay = self.replay(request, now).await?;
                        replay.ok_or_else(|| ApiError::new(Code::IdempotencyInProgress))
                    }
                    _ => Err(usage::exceeded(refused.old.as_ref(), self.quota).into()),
                }
            }
            Err(error) if request.is_some() && dynamo::is_conflict(&error) => {
                Err(ApiError::new(Code::IdempotencyInProgress))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How a new source is to be cut; `None` for one PUT.
    fn parts(&self, new: &NewJob) -> Option<Parts> {
        let size_bytes = new.size_bytes;
        let is_multipart = match new.upload {
            Some(UploadMethod::Multipart) => true,
            Some(UploadMethod::Put) => false,
            None => size_bytes > self.multipart_threshold_bytes || new.part_size_bytes.is_some(),
        };
        is_multipart.then(|| {
            let chosen = new.part_size_bytes.map(|part_size_bytes| Parts {
                size_bytes,
                part_size_bytes,
            });
            chosen.unwrap_or_else(|| Parts::of(size_bytes))
        })
    }

    async fn replay(&self, request: &Request, now: UtcTime) -> Result<Option<Created>, ApiError> {
        match idempotency::find(&self.jobs, request, now).await? {
            Found::Nothing => Ok(None),
            Found::Other => Err(ApiError::new(Code::IdempotencyMismatch)),
            Found::Job(job_id) => {
                let job = self.jobs.job(&job_id).await?;
                let job = job.ok_or_else(|| {
                    ApiError::new(Code::NotFound).detail("the job that was created with this key was deleted")
                })?;
                Ok(Some(Created { job, is_replay: true }))
            }
        }
    }
}
