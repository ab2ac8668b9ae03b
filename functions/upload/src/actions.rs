//! What an owner can do about a job: stop it, have it run again, delete it.
//!
//! Neither takes a body; one that is sent is ignored. What is somebody else's does not exist.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use reelay_core::{
    adapters::{deletion, usage},
    domain::{
        audit::Action,
        id::JobId,
        job::{Job, Status},
        message::Task,
        task::TaskId,
        time::UtcTime,
    },
    http::{ApiError, Caller, Code, Trail, view::JobView},
};

use crate::{
    routes::AppState,
    store::{self, Retry},
};

/// How long the answer to a retry waits for the queue. Less than the function's own timeout, which the queue client's
/// repeated tries could use up: the answer must not get lost over a message that can be sent later.
const SEND_LIMIT: Duration = Duration::from_secs(4);

/// A job's id from the path. A text that is none names no job either.
pub(crate) type IdInPath = Result<Path<JobId>, PathRejection>;

fn not_found() -> ApiError {
    ApiError::new(Code::NotFound)
}

/// Stops a job. After this answer no output of it appears: publishing is on condition that the job is in progress.
///
/// Cancelling what is cancelled is answered alike, so that a client whose answer got lost can ask again.
pub(crate) async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    id: IdInPath,
) -> Result<Json<JobView>, ApiError> {
    let Path(id) = id.map_err(|_| not_found())?;
    let job = store::cancel(&state.jobs, &caller.account.account_id, &id, UtcTime::now()).await?;
    let job = job.ok_or_else(not_found)?;
    if job.status != Status::Cancelled {
        return Err(ApiError::new(Code::NotCancellable).detail(format!("the job is {}", job.status.as_str())));
    }
    trail.job(Action::CancelJob, &caller, &job.job_id).await;
    tracing::info!(job_id = %job.job_id, generation = job.generation, "job cancelled");
    // Nothing depends on it: the bucket drops what is left of an upload by a rule of its own.
    if let (Some(multipart), None) = (&job.multipart, &job.source)
        && let Err(error) = state.sources.abort_parts(&job.source_key(), &multipart.upload_id).await
    {
        tracing::warn!(%error, code = error.code(), job_id = %job.job_id, "an upload was not aborted");
    }
    Ok(Json(JobView::new(job, None)))
}

/// Deletes a job and all that it consists of. It is gone at once for everybody who asks; the sweep removes the rest.
pub(crate) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    id: IdInPath,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id.map_err(|_| not_found())?;
    if !deletion::mark(&state.jobs, &caller.account.account_id, &id, UtcTime::now()).await? {
        return Err(not_found());
    }
    trail.job(Action::DeleteJob, &caller, &id).await;
    tracing::info!(job_id = %id, "job deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a job again that failed or was cancelled, from the source that was accepted, as a new generation.
///
/// The write is what counts, so the answer is 202 once it is done, even when the task's message could not be sent: the
/// task is stored as READY and its message is sent again by the sweep. An error instead would have the client ask once
/// more, only to hear that the job cannot be retried, because it waits for a worker already.
pub(crate) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    id: IdInPath,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let Path(id) = id.map_err(|_| not_found())?;
    let job = state.jobs.job(&id).await?;
    let job = job
        .filter(|job| job.account_id == caller.account.account_id)
        .ok_or_else(not_found)?;
    let now = UtcTime::now();
    let next = next_generation(&job, now)?;
    // The place of the generation that is over may not have been given back yet; it must not be in this one's way.
    state.usage.settle(&job).await?;
    let place = state.usage.reserve_again(&next, state.quota, now)?;
    match store::retry(&state.jobs, &job, &next, place, now).await? {
        Retry::Begun => {}
        Retry::Changed => return Err(not_retryable("another request changed the job at the same time")),
        Retry::NoPlace(old) => return Err(usage::exceeded(old.as_ref(), state.quota).into()),
    }
    trail.job(Action::RetryJob, &caller, &next.job_id).await;
    tracing::info!(job_id = %next.job_id, generation = next.generation, "job queued again");

    let task = Task::new(next.job_id.clone(), next.generation, TaskId::Plan);
    let sending = state.queues.send(next.priority, &next.account_id, &task);
    match tokio::time::timeout(SEND_LIMIT, sending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, code = error.code(), job_id = %next.job_id, "a task waits for the sweep");
        }
        Err(_) => tracing::error!(job_id = %next.job_id, "a task waits for the sweep: the queue does not answer"),
    }
    Ok((StatusCode::ACCEPTED, Json(JobView::new(next, None))))
}

fn not_retryable(detail: impl Into<String>) -> ApiError {
    ApiError::new(Code::NotRetryable).detail(detail)
}

/// The job as its next generation begins: queued, with nothing of the earlier ones but what is known of the source.
fn next_generation(job: &Job, now: UtcTime) -> Result<Job, ApiError> {
    match job.status {
        Status::Failed | Status::Cancelled if job.source.is_none() => Err(not_retryable(
            "no upload was accepted for this job: create a new job and upload the source again",
        )),
        Status::Failed | Status::Cancelled => Ok(Job {
            status: Status::Queued,
            phase: None,
            generation: job.generation + 1,
            attempts: 0,
            tasks_total: 0,
            tasks_remaining: 0,
            frames_done: 0,
            fps: None,
            playable: false,
            published_attempt: None,
            error: None,
            queued_at: Some(now),
            started_at: None,
            completed_at: None,
            updated_at: now,
            ..job.clone()
        }),
        Status::Pending | Status::Queued | Status::InProgress | Status::Completed | Status::Expired => {
            Err(not_retryable(format!("the job is {}", job.status.as_str())))
        }
    }
}

#[cfg(test)]
mod tests {
    use reelay_core::domain::{
        create::CreateJob,
        failure::{Failure, FailureCode, Stage},
        id::AccountId,
        job::{Phase, PinnedSource},
    };

    use super::*;

    /// A job with everything in it that a run leaves behind.
    fn ended(status: Status) -> Job {
        let new = serde_json::from_str::<CreateJob>(r#"{"filename":"a.mp4","size_bytes":10}"#).unwrap();
        let new = new.validate(100).unwrap();
        let created = UtcTime::from_epoch_ms(1_000);
        let job = Job::pending(
            JobId::generate(),
            AccountId::generate(),
            new,
            created,
            Duration::from_mins(1),
        );
        let source = PinnedSource {
            version_id: "version".into(),
            etag: "etag".into(),
        };
        Job {
            status,
            phase: Some(Phase::Encoding),
            generation: 4,
            attempts: 3,
            source: Some(source),
            tasks_total: 9,
            tasks_remaining: 2,
            frames_done: 50,
            frames_total: 100,
            fps: Some(25.0),
            playable: true,
            published_attempt: Some(3),
            error: Some(Failure::new(FailureCode::AttemptsExhausted, Stage::Encode, 3, "three")),
            queued_at: Some(created),
            started_at: Some(created),
            completed_at: Some(created),
            ..job
        }
    }

    #[test]
    fn only_what_failed_or_was_cancelled_runs_again() {
        for status in Status::ALL {
            let next = next_generation(&ended(*status), UtcTime::from_epoch_ms(2_000));
            assert_eq!(
                next.is_ok(),
                matches!(status, Status::Failed | Status::Cancelled),
                "{status:?}"
            );
            if let Err(error) = next {
                assert_eq!(error.code(), Code::NotRetryable, "{status:?}");
            }
        }
    }

    #[test]
    fn nothing_runs_without_an_accepted_source() {
        for status in [Status::Failed, Status::Cancelled] {
            let job = Job {
                source: None,
                ..ended(status)
            };
            let error = next_generation(&job, UtcTime::from_epoch_ms(2_000)).unwrap_err();
            assert_eq!(error.code(), Code::NotRetryable, "{status:?}");
        }
    }

    #[test]
    fn a_new_generation_looks_like_a_job_that_was_just_queued() {
        let now = UtcTime::from_epoch_ms(2_000);
        let job = ended(Status::Failed);
        let next = next_generation(&job, now).unwrap();
        assert_eq!((next.status, next.generation, next.attempts), (Status::Queued, 5, 0));
        assert_eq!((next.queued_at, next.updated_at), (Some(now), now));
        assert_eq!((next.tasks_total, next.tasks_remaining, next.frames_done), (0, 0, 0));
        assert_eq!((next.started_at, next.completed_at, next.phase), (None, None, None));
        assert_eq!((next.fps, next.published_attempt, &next.error), (None, None, &None));
        assert!(!next.playable && next.progress_percent() <= 0.0);
        assert_eq!((next.source, next.created_at), (job.source, job.created_at));
    }
}
