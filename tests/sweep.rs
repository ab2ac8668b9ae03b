//! What `sweep` makes good. Each journey leaves a job as a crash or a lost event would, and calls the function at once
//! instead of waiting for its minute. The stack's own schedule may come first: then the call finds nothing to do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::primitives::ByteStream;
use e2e::{Account, Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, events, eventually};
use reelay_core::adapters::jobs::JobsTable;
use reelay_core::domain::create::CreateJob;
use reelay_core::domain::id::JobId;
use reelay_core::domain::job::{Job, PinnedSource, Status};
use reelay_core::domain::magic::Kind;
use reelay_core::domain::time::UtcTime;
use serde_json::{Value, json};

/// The emulator looks at its schedules every ten seconds.
const SCHEDULE_LIMIT: Duration = Duration::from_secs(90);
const MINUTES: i64 = 60_000;

fn ago(ms: i64) -> UtcTime {
    UtcTime::from_epoch_ms(UtcTime::now().epoch_ms() - ms)
}

/// A job of this account that was created some time ago, with an upload window of a minute. It is not stored yet.
fn pending(account: &Account<'_>, size_bytes: usize, age_ms: i64) -> Result<Job> {
    let body = json!({"filename": "a.mp4", "size_bytes": size_bytes, "thumbnails": {"count": 0}});
    let new = serde_json::from_value::<CreateJob>(body)?.validate(u64::MAX)?;
    let (id, owner) = (JobId::generate(), account.id.parse()?);
    Ok(Job::pending(id, owner, new, ago(age_ms), Duration::from_mins(1)))
}

async fn store(harness: &Harness, job: &Job) -> Result<()> {
    let table = JobsTable::new(&harness.sdk, harness.name("JOBS_TABLE")?.to_owned());
    ensure!(table.create(job, Vec::new()).await?.is_none(), "refused");
    Ok(())
}

/// Puts a source where a job's belongs before there is such a job: its event tells intake nothing.
async fn source_before_job(harness: &Harness, job: &Job, bytes: Vec<u8>) -> Result<PinnedSource> {
    let s3 = aws_sdk_s3::Client::new(&harness.sdk);
    let put = s3
        .put_object()
        .bucket(harness.name("SOURCE_BUCKET")?)
        .key(job.source_key().to_string())
        .body(ByteStream::from(bytes));
    let answer = put.send().await?;
    Ok(PinnedSource {
        version_id: answer.version_id.context("no version")?,
        etag: answer.e_tag.context("no tag")?,
    })
}

/// Waits until intake is through with what was uploaded up to now: an upload of its own, that it fails, comes after.
async fn events_up_to_now(account: &Account<'_>) -> Result<()> {
    let created = account.create(&json!({"filename": "marker", "size_bytes": 6})).await?;
    account.upload(&created.upload, b"marker".to_vec()).await?;
    account.ended(&created.id, JOB_LIMIT).await?;
    Ok(())
}

/// A queued job with a source that can be encoded, and its plan task with these attributes.
async fn queued(account: &Account<'_>, studio: &Studio, status: Status, task: Value) -> Result<String> {
    let clip = Clip {
        seconds: 1,
        size: (160, 90),
        ..Clip::default()
    };
    let bytes = std::fs::read(studio.clip("source.mp4", &clip).await?)?;
    let job = pending(account, bytes.len(), 20 * MINUTES)?;
    let source = source_before_job(account.harness, &job, bytes).await?;
    let job = Job {
        status,
        kind: Some(Kind::Video),
        source: Some(source),
        ..job
    };
    events_up_to_now(account).await?;
    stored_with(account.harness, &job, "plan", task).await?;
    Ok(job.job_id.to_string())
}

/// Stores a job, after a task of it.
async fn stored_with(harness: &Harness, job: &Job, task: &str, attributes: Value) -> Result<()> {
    task_item(harness, job, task, attributes).await?;
    store(harness, job).await
}

async fn task_item(harness: &Harness, job: &Job, task: &str, attributes: Value) -> Result<()> {
    let changed = job.updated_at;
    let mut item = json!({"job_id": job.job_id, "item": format!("task#1#{task}"), "attempts": 0,
        "sent_ms": changed.epoch_ms(), "updated_at": changed});
    if let (Value::Object(item), Value::Object(more)) = (&mut item, attributes) {
        item.extend(more);
    }
    harness.store_item(&item).await
}

/// The attributes of a task that was claimed so long ago, and whose lease ran out then or has a minute to go.
fn running(attempts: u32, started_ms_ago: i64, lease_left_ms: i64) -> Value {
    json!({"state": "RUNNING", "owner": "wrk_lost", "attempts": attempts,
        "started_ms": ago(started_ms_ago).epoch_ms(), "lease_expires_ms": ago(-lease_left_ms).epoch_ms()})
}

/// Five jobs of which each has its turn in another minute, so that one of them has it in this one.
fn one_for_each_minute(mut make: impl FnMut() -> Result<Job>) -> Result<Vec<Job>> {
    let turn = |job: &Job| job.job_id.as_str().bytes().map(u32::from).sum::<u32>() % 5;
    let mut jobs: Vec<Job> = Vec::new();
    while jobs.len() < 5 {
        let job = make()?;
        if jobs.iter().all(|other| turn(other) != turn(&job)) {
            jobs.push(job);
        }
    }
    Ok(jobs)
}

#[tokio::test]
async fn an_upload_that_never_came_expires_and_one_that_may_still_come_does_not() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let grace: i64 = harness.function_environment("SWEEP_FUNCTION").await?["UPLOAD_GRACE_SECONDS"].parse()?;
    let late = one_for_each_minute(|| pending(&account, 4, grace * 1_000 + 2 * MINUTES))?;
    let early = one_for_each_minute(|| pending(&account, 4, grace * 1_000 - 2 * MINUTES))?;
    for job in late.iter().chain(&early) {
        store(&harness, job).await?;
    }
    harness.sweep().await?;
    let mut expired = Vec::new();
    for job in &late {
        expired.extend(Some(account.job(job.job_id.as_str()).await?).filter(|job| job.status == "EXPIRED"));
    }
    let [first, ..] = &expired[..] else {
        panic!("none expired");
    };
    assert!(first.completed_at.is_some() && first.error.is_none(), "{first:?}");
    let item = harness.item(&first.id, "job").await?;
    assert!(item.get("open_state").is_none(), "{item}");
    for job in &early {
        assert_eq!(account.job(job.job_id.as_str()).await?.status, "PENDING");
    }
    // For good: what arrives now is too late.
    harness.sweep().await?;
    assert_eq!(harness.item(&first.id, "job").await?, item);
    Ok(())
}

#[tokio::test]
async fn an_upload_whose_event_was_lost_is_taken_in() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let jobs = one_for_each_minute(|| pending(&account, 4, 3 * MINUTES))?;
    for job in &jobs {
        source_before_job(&harness, job, b"text".to_vec()).await?;
    }
    events_up_to_now(&account).await?;
    for job in &jobs {
        store(&harness, job).await?;
    }
    harness.sweep().await?;
    // It has looked at the upload: this one is no video.
    let taken = eventually("one of the uploads", SHORT_LIMIT, async || {
        for job in &jobs {
            let job = account.job(job.job_id.as_str()).await?;
            if job.is_terminal() {
                return Ok(Some(job));
            }
        }
        Ok(None)
    })
    .await?;
    assert_eq!(taken.error_code(), Some("unsupported_format"));
    Ok(())
}

#[tokio::test]
async fn a_lost_plan_message_is_sent_again() -> Result<()> {
    let harness = Harness::open().await?;
    let (studio, account) = (Studio::open(&harness)?, harness.account().await?);
    let id = queued(&account, &studio, Status::Queued, json!({"state": "READY"})).await?;
    harness.sweep().await?;
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!((job.status.as_str(), job.attempts), ("COMPLETED", 1), "{:?}", job.error);
    Ok(())
}

#[tokio::test]
async fn a_task_whose_worker_is_gone_is_taken_up_by_another() -> Result<()> {
    let harness = Harness::open().await?;
    let (studio, account) = (Studio::open(&harness)?, harness.account().await?);
    let lost = running(1, 3 * MINUTES, -2 * MINUTES);
    let id = queued(&account, &studio, Status::InProgress, lost).await?;
    harness.sweep().await?;
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!((job.status.as_str(), job.attempts), ("COMPLETED", 2), "{:?}", job.error);
    Ok(())
}

#[tokio::test]
async fn a_job_without_an_attempt_left_fails_once() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let job = Job {
        status: Status::InProgress,
        attempts: 3,
        tasks_total: 2,
        tasks_remaining: 2,
        ..pending(&account, 4, 20 * MINUTES)?
    };
    let id = job.job_id.as_str();
    task_item(&harness, &job, "encode#0000", json!({"state": "READY"})).await?;
    stored_with(&harness, &job, "encode#0001", running(3, 3 * MINUTES, -2 * MINUTES)).await?;
    harness.sweep().await?;
    let failed = account.ended(id, SHORT_LIMIT).await?;
    assert_eq!(failed.error_code(), Some("attempts_exhausted"));
    let error = failed.error.context("no error")?;
    assert!(error.retryable && error.attempt == 3, "{error:?}");
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    let before = harness.items(id).await?;
    assert_eq!(before["task#1#encode#0001"]["state"], "FAILED");
    assert_eq!(before["task#1#encode#0000"]["state"], "READY", "nobody cares any more");
    harness.sweep().await?;
    assert_eq!(harness.items(id).await?, before);
    Ok(())
}

#[tokio::test]
async fn joining_begins_when_its_message_was_never_sent() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let job = Job {
        status: Status::InProgress,
        tasks_total: 2,
        ..pending(&account, 4, 20 * MINUTES)?
    };
    stored_with(&harness, &job, "assemble", json!({"state": "BLOCKED"})).await?;
    harness.sweep().await?;
    let task = harness.item(job.job_id.as_str(), "task#1#assemble").await?;
    assert_ne!(task["state"], "BLOCKED");
    assert!(task["sent_ms"].as_i64() > Some(job.updated_at.epoch_ms()), "{task}");
    // The message reached a worker, which finds a job without a plan.
    eventually("a claim of the task", SHORT_LIMIT, async || {
        let task = harness.item(job.job_id.as_str(), "task#1#assemble").await?;
        Ok((task["attempts"].as_u64() > Some(0)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_straggler_loses_its_task() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let job = Job {
        status: Status::InProgress,
        tasks_total: 4,
        tasks_remaining: 1,
        ..pending(&account, 4, 10 * MINUTES)?
    };
    for chunk in 0..3 {
        let done = json!({"state": "DONE", "attempts": 1, "took_ms": 20_000, "frames_done": 600});
        task_item(&harness, &job, &format!("encode#{chunk:04}"), done).await?;
    }
    stored_with(&harness, &job, "encode#0003", running(1, 2 * MINUTES, MINUTES)).await?;
    harness.sweep().await?;
    let task = harness.item(job.job_id.as_str(), "task#1#encode#0003").await?;
    assert_ne!(task["owner"], "wrk_lost", "{task}");
    assert!(task["sent_ms"].as_i64() > Some(job.updated_at.epoch_ms()), "{task}");
    Ok(())
}

/// Slow: up to a minute and a half, all of it waiting for the schedule.
#[tokio::test]
async fn slow_the_schedule_comes_by_itself() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let job = Job {
        status: Status::InProgress,
        ..pending(&account, 4, 20 * MINUTES)?
    };
    stored_with(&harness, &job, "plan", running(3, 3 * MINUTES, -2 * MINUTES)).await?;
    let failed = account.ended(job.job_id.as_str(), SCHEDULE_LIMIT).await?;
    assert_eq!(failed.error_code(), Some("attempts_exhausted"));
    Ok(())
}

#[tokio::test]
async fn sweep_by_schedule() -> Result<()> {
    let harness = Harness::open().await?;
    let answer = harness.run_under_rie("sweep", &events::read("sweep-schedule")?).await?;
    assert_eq!(answer, Value::Null);
    Ok(())
}
