//! Leases and the fan-in against the real table: of many who try at once one wins, and who lost writes nothing.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::Harness;
use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt, TryStreamExt, stream};
use reelay_core::adapters::jobs::JobsTable;
use reelay_core::adapters::lease::{Claim, Fenced, Lease, claim};
use reelay_core::adapters::{AwsError, tasks};
use reelay_core::domain::create::CreateJob;
use reelay_core::domain::failure::{Failure, FailureCode, Stage};
use reelay_core::domain::id::{AccountId, JobId, WorkerId};
use reelay_core::domain::job::{Job, LEASE, Metrics, Phase, Status};
use reelay_core::domain::task::{ChunkResult, StoredObject, TaskCost, TaskId, TrackObject};
use reelay_core::domain::time::UtcTime;
use serde_json::{Value, json};

/// Frames of a chunk.
const FRAMES: u64 = 240;
/// Times that two workers finish the last two chunks of a job at once.
const ROUNDS: u32 = 200;
/// How many of these jobs at once.
const ROUNDS_AT_ONCE: usize = 8;

/// A table, and a job in it whose chunks wait for workers.
struct Bench {
    harness: Harness,
    jobs: JobsTable,
}

impl Bench {
    async fn open() -> Result<Self> {
        let harness = Harness::open().await?;
        let jobs = JobsTable::new(&harness.sdk, harness.name("JOBS_TABLE")?.to_owned());
        Ok(Self { harness, jobs })
    }

    /// A running job of so many chunks. Without an entry in the index of open jobs: the stack's own sweep leaves it to us.
    async fn job(&self, chunks: u32) -> Result<JobId> {
        let body = json!({"filename": "a.mp4", "size_bytes": 6});
        let new = serde_json::from_value::<CreateJob>(body)?.validate(100)?;
        let now = UtcTime::now();
        let job = Job {
            status: Status::InProgress,
            tasks_total: chunks,
            tasks_remaining: chunks,
            frames_total: u64::from(chunks) * FRAMES,
            ..Job::pending(JobId::generate(), AccountId::generate(), new, now, LEASE)
        };
        let mut item = serde_json::to_value(&job)?;
        item["item"] = json!("job");
        self.harness.store_item(&item).await?;
        let tasks = (0..chunks).map(|chunk| (TaskId::Encode(chunk), "READY"));
        try_join_all(
            tasks
                .chain([(TaskId::Assemble, "BLOCKED")])
                .map(|(task, state)| self.task(&job.job_id, task, state)),
        )
        .await?;
        Ok(job.job_id)
    }

    async fn task(&self, job: &JobId, task: TaskId, state: &str) -> Result<()> {
        let item = json!({"job_id": job, "item": task.item(1), "state": state, "attempts": 0, "sent_ms": 0,
            "updated_at": UtcTime::now()});
        self.harness.store_item(&item).await
    }

    async fn claim(&self, job: &JobId, task: TaskId, now: UtcTime) -> Result<Claim, AwsError> {
        claim(&self.jobs, job, 1, task, WorkerId::generate(), now).await
    }

    async fn lease(&self, job: &JobId, task: TaskId, now: UtcTime) -> Result<Lease> {
        match self.claim(job, task, now).await? {
            Claim::Won(lease, _) => Ok(lease),
            other => anyhow::bail!("{task} was not claimed: {other:?}"),
        }
    }

    async fn read(&self, job: &JobId) -> Result<Job> {
        self.jobs.job(job).await?.context("no job")
    }

    /// Changes the job item behind everybody's back.
    async fn put(&self, job: &JobId, fields: Value) -> Result<()> {
        let mut item = self.harness.item(job.as_str(), "job").await?;
        for (name, value) in fields.as_object().context("no fields")? {
            item[name] = value.clone();
        }
        self.harness.store_item(&item).await
    }

    /// All items of a job but the mail's: the stack tells of an end whoever wrote it.
    async fn items(&self, job: &JobId) -> Result<BTreeMap<String, Value>> {
        let mut items = self.harness.items(job.as_str()).await?;
        items.retain(|key, _| !key.starts_with("mail#"));
        Ok(items)
    }

    /// Tries every write that a lease allows; all must be refused, and nothing may change.
    async fn is_powerless(&self, lease: &Lease) -> Result<()> {
        let (jobs, now) = (&self.jobs, UtcTime::now());
        let before = self.items(&lease.job_id).await?;
        let failure = Failure::new(FailureCode::SourceCorrupt, Stage::Encode, lease.attempt, "too late");
        let refused = [
            ("renew", lease.renew(jobs, 7, now).await?),
            ("finish", lease.finish_chunk(jobs, &result(lease), 0, true, now).await?),
            ("finish_plan", lease.finish_plan(jobs, &TaskCost::default(), now).await?),
            ("complete", lease.complete(jobs, &[], &METRICS, now).await?),
            ("fail", lease.fail(jobs, &failure, now).await?),
            ("release", lease.release(jobs, now).await?),
        ];
        for (write, fenced) in refused {
            assert_eq!(fenced, Fenced::Lost, "{write}");
        }
        assert_eq!(self.items(&lease.job_id).await?, before);
        Ok(())
    }
}

const METRICS: Metrics = Metrics {
    processing_seconds: 1.0,
    tasks: 4,
    task_seconds: 1.0,
    cpu_seconds: 1.0,
    peak_cpu_percent: 1.0,
    peak_memory_mb: 1.0,
    source_bytes: 1,
    read_bytes: 1,
    output_bytes: 1,
    billed_gb_seconds: 1.0,
    speed_ratio: 1.0,
};

/// What an attempt at a chunk has made.
fn result(lease: &Lease) -> ChunkResult {
    let chunk = match lease.task {
        TaskId::Encode(chunk) => chunk,
        TaskId::Plan | TaskId::Assemble => 0,
    };
    let key = format!("outputs/a/b/1-c{chunk:04}-{}/h264-640x360.mp4", lease.attempt);
    let track = TrackObject {
        object: StoredObject {
            key: key.clone(),
            size_bytes: 1_000,
            sha256: "00".into(),
        },
        table_key: key,
        init_bytes: 100,
        init_sha256: "00".into(),
        skip_bytes: 0,
        fragments: vec![(900, FRAMES * 3_000)],
        timescale: 90_000,
    };
    ChunkResult {
        chunk,
        frames: FRAMES,
        videos: vec![track],
        audios: Vec::new(),
        thumbnails: Vec::new(),
        cost: TaskCost {
            seconds: 1.5,
            ..TaskCost::default()
        },
        made_at: UtcTime::now(),
    }
}

/// A time so much after a lease that began now.
fn after_lease(seconds: i64) -> UtcTime {
    UtcTime::from_epoch_ms(UtcTime::now().plus(LEASE).epoch_ms() + seconds * 1_000)
}

#[tokio::test]
async fn of_fifty_that_claim_a_task_one_has_it_and_three_have_had_it_in_all() -> Result<()> {
    let bench = Bench::open().await?;
    for task in [TaskId::Encode(0), TaskId::Assemble] {
        let job = bench.job(1).await?;
        bench.task(&job, task, "READY").await?;
        let mut now = UtcTime::now();
        for attempt in 1..=3 {
            let claims = join_all((0..50).map(|_| bench.claim(&job, task, now))).await;
            let mut won = Vec::new();
            for claim in claims {
                match claim? {
                    Claim::Won(lease, read) => {
                        assert!(read.attempts < attempt, "the job as it was read");
                        won.push(lease.attempt);
                    }
                    Claim::Busy => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(won, [attempt]);
            assert_eq!(bench.read(&job).await?.attempts, attempt, "the most of any task");
            // Claimed again at the first moment after the lease, and not at its last one.
            let last = now.plus(LEASE);
            assert!(matches!(bench.claim(&job, task, last).await?, Claim::Busy));
            now = UtcTime::from_epoch_ms(last.epoch_ms() + 1);
        }
        assert!(matches!(bench.claim(&job, task, now).await?, Claim::Exhausted));
    }
    Ok(())
}

#[tokio::test]
async fn what_is_over_or_has_not_come_is_not_claimed() -> Result<()> {
    let bench = Bench::open().await?;
    let job = bench.job(1).await?;
    let id = TaskId::Encode(0);
    assert!(matches!(
        bench.claim(&job, TaskId::Assemble, after_lease(9)).await?,
        Claim::Over
    ));
    for state in ["DONE", "FAILED", "BLOCKED"] {
        bench.task(&job, id, state).await?;
        let before = bench.items(&job).await?;
        let claimed = bench.claim(&job, id, after_lease(9)).await?;
        assert!(matches!(claimed, Claim::Over), "{state}");
        assert_eq!(bench.items(&job).await?, before, "{state}");
    }
    // There is no such task: of another job, of another generation, of another plan.
    for (job, generation, task) in [
        (JobId::generate(), 1, id),
        (job.clone(), 2, id),
        (job.clone(), 1, TaskId::Encode(7)),
    ] {
        let claimed = claim(
            &bench.jobs,
            &job,
            generation,
            task,
            WorkerId::generate(),
            UtcTime::now(),
        )
        .await?;
        assert!(matches!(claimed, Claim::Over), "{job} {generation} {task}");
    }
    // The task is there, and its job wants no work any more.
    for fields in [
        json!({"status": "CANCELLED"}),
        json!({"status": "IN_PROGRESS", "generation": 2}),
    ] {
        bench.put(&job, fields.clone()).await?;
        bench.task(&job, id, "READY").await?;
        let before = bench.harness.item(job.as_str(), "job").await?;
        assert!(
            matches!(bench.claim(&job, id, UtcTime::now()).await?, Claim::Over),
            "{fields}"
        );
        assert_eq!(bench.harness.item(job.as_str(), "job").await?, before);
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_that_lost_its_task_writes_nothing() -> Result<()> {
    let bench = Bench::open().await?;
    let id = TaskId::Encode(0);
    for taken in [
        "claimed",
        "revoked",
        "reopened",
        "revoked and claimed",
        "done",
        "failed",
    ] {
        let job = bench.job(2).await?;
        let now = UtcTime::now();
        let late = bench.lease(&job, id, now).await?;
        assert_eq!(late.renew(&bench.jobs, 5, now).await?, Fenced::Held);
        let revoke = || tasks::revoke(&bench.jobs, &job, 1, id, 1, now);
        match taken {
            "claimed" => drop(bench.lease(&job, id, after_lease(1)).await?),
            "revoked" => assert!(revoke().await?),
            "reopened" => assert!(tasks::reopen(&bench.jobs, &job, 1, id, after_lease(1)).await?),
            "revoked and claimed" => {
                assert!(revoke().await?);
                bench.lease(&job, id, now).await?;
            }
            "done" => {
                assert!(revoke().await?);
                let other = bench.lease(&job, id, now).await?;
                let done = other.finish_chunk(&bench.jobs, &result(&other), 0, false, now).await?;
                assert_eq!(done, Fenced::Held);
                assert_eq!(bench.read(&job).await?.tasks_remaining, 1);
            }
            _ => bench.task(&job, id, "FAILED").await?,
        }
        bench.is_powerless(&late).await.context(taken)?;
        if taken == "done" {
            let item = bench.harness.item(job.as_str(), &id.item(1)).await?;
            let key = item["result"]["videos"][0]["object"]["key"].as_str();
            assert_eq!(key, Some("outputs/a/b/1-c0000-2/h264-640x360.mp4"), "the winner's stay");
        }
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_finished_after_a_cancel_or_in_another_generation() -> Result<()> {
    let bench = Bench::open().await?;
    for fields in [
        json!({"status": "CANCELLED"}),
        json!({"status": "FAILED"}),
        json!({"status": "COMPLETED"}),
        json!({"status": "EXPIRED"}),
        json!({"status": "QUEUED", "generation": 2}),
        json!({"status": "IN_PROGRESS", "generation": 2}),
    ] {
        for task in [TaskId::Encode(0), TaskId::Assemble] {
            let job = bench.job(1).await?;
            bench.task(&job, task, "READY").await?;
            let now = UtcTime::now();
            let lease = bench.lease(&job, task, now).await?;
            bench.put(&job, fields.clone()).await?;
            let before = bench.items(&job).await?;
            let failure = Failure::new(FailureCode::SourceCorrupt, Stage::Encode, 1, "too late");
            let jobs = &bench.jobs;
            let refused = [
                lease.finish_chunk(jobs, &result(&lease), 0, true, now).await?,
                lease.progress(jobs, 5, 25.0, Phase::Encoding, now).await?,
                lease.complete(jobs, &[], &METRICS, now).await?,
                lease.fail(jobs, &failure, now).await?,
                lease.check(jobs).await?,
            ];
            assert_eq!(refused, [Fenced::Lost; 5], "{task} {fields}");
            assert_eq!(bench.items(&job).await?, before, "{task} {fields}");
        }
    }
    Ok(())
}

/// Two workers finish the last two chunks at once, each twice, as a worker whose first answer got lost. Then each lets the
/// assembly begin if it sees that nothing is left.
async fn round(bench: &Bench) -> Result<()> {
    let job = bench.job(2).await?;
    let (jobs, now) = (&bench.jobs, UtcTime::now());
    let finish = async |chunk: u32| {
        let lease = bench.lease(&job, TaskId::Encode(chunk), now).await?;
        let made = result(&lease);
        let reported = u64::from(chunk) * 100;
        lease.progress(jobs, reported, 25.0, Phase::Encoding, now).await?;
        let mut begun = 0;
        for _ in 0..2 {
            let done = lease.finish_chunk(jobs, &made, reported, chunk == 0, now).await?;
            ensure!(done == Fenced::Held, "a worker lost what it had");
            let none_left = bench.read(&job).await?.tasks_remaining == 0;
            begun += u32::from(none_left && tasks::unblock_assemble(jobs, &job, 1, now).await?);
        }
        anyhow::Ok(begun)
    };
    let (first, second) = tokio::try_join!(finish(0), finish(1))?;
    ensure!(first + second == 1, "the assembly was begun {} times", first + second);
    let ended = bench.read(&job).await?;
    ensure!(ended.tasks_remaining == 0 && ended.playable, "{ended:?}");
    ensure!(ended.frames_done == ended.frames_total, "{ended:?}");
    let items = bench.items(&job).await?;
    ensure!(items[&TaskId::Assemble.item(1)]["state"] == "READY", "{items:?}");
    for chunk in 0..2 {
        let item = &items[&TaskId::Encode(chunk).item(1)];
        ensure!(
            item["state"] == "DONE" && item["took_ms"] == 1_500 && item.get("owner").is_none(),
            "{item}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn two_that_finish_at_once_bring_the_count_to_zero_and_one_begins_the_assembly() -> Result<()> {
    let bench = Bench::open().await?;
    stream::iter(0..ROUNDS)
        .map(async |number| Box::pin(round(&bench)).await.with_context(|| format!("round {number}")))
        .buffer_unordered(ROUNDS_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

#[tokio::test]
async fn thirty_that_finish_at_once_are_counted_each_once() -> Result<()> {
    let bench = Bench::open().await?;
    let job = bench.job(30).await?;
    let now = UtcTime::now();
    let leases = try_join_all((0..30).map(|chunk| bench.lease(&job, TaskId::Encode(chunk), now))).await?;
    let finished = try_join_all(leases.iter().map(async |lease| {
        lease.progress(&bench.jobs, 40, 25.0, Phase::Encoding, now).await?;
        lease.finish_chunk(&bench.jobs, &result(lease), 40, false, now).await
    }))
    .await?;
    assert!(finished.iter().all(|fenced| *fenced == Fenced::Held));
    let ended = bench.read(&job).await?;
    assert_eq!((ended.tasks_remaining, ended.frames_done), (0, ended.frames_total));
    assert!(!ended.playable);
    Ok(())
}

#[tokio::test]
async fn a_second_attempt_counts_only_what_the_first_had_not_told() -> Result<()> {
    let bench = Bench::open().await?;
    let job = bench.job(1).await?;
    let (jobs, id, now) = (&bench.jobs, TaskId::Encode(0), UtcTime::now());
    let mut seen = Vec::new();
    let first = bench.lease(&job, id, now).await?;
    assert_eq!(first.frames_before, 0);
    for frames in [60, 90] {
        first.renew(jobs, frames, now).await?;
        first
            .progress(jobs, if frames == 60 { 60 } else { 30 }, 25.0, Phase::Encoding, now)
            .await?;
        seen.push(bench.read(&job).await?.frames_done);
    }
    // The next one begins anew, and is behind for a while.
    let second = bench.lease(&job, id, after_lease(1)).await?;
    assert_eq!((second.attempt, second.frames_before), (2, 90));
    second.renew(jobs, 10, now).await?;
    let item = bench.harness.item(job.as_str(), &id.item(1)).await?;
    assert_eq!(item["frames_done"], 90, "the high-water mark stays");
    assert_eq!(second.release(jobs, now).await?, Fenced::Held);
    let third = bench.lease(&job, id, now).await?;
    assert_eq!((third.attempt, third.frames_before), (3, 90));
    third.progress(jobs, 50, 25.0, Phase::Encoding, now).await?;
    seen.push(bench.read(&job).await?.frames_done);
    assert_eq!(
        third.finish_chunk(jobs, &result(&third), 140, false, now).await?,
        Fenced::Held
    );
    seen.push(bench.read(&job).await?.frames_done);
    assert_eq!(seen, [60, 90, 140, FRAMES]);
    Ok(())
}

/// A message may come before the job has its counts, when a planner was interrupted between its writes.
#[tokio::test]
async fn what_is_finished_before_the_job_has_its_counts_does_not_upset_them() -> Result<()> {
    let bench = Bench::open().await?;
    let job = bench.job(2).await?;
    let (id, now) = (TaskId::Encode(0), UtcTime::now());
    bench.put(&job, json!({"tasks_total": 0, "tasks_remaining": 0})).await?;
    let early = bench.lease(&job, id, now).await?;
    let before = bench.items(&job).await?;
    let done = early.finish_chunk(&bench.jobs, &result(&early), 0, true, now).await?;
    assert_eq!(done, Fenced::Lost);
    assert_eq!(bench.items(&job).await?, before);
    Ok(())
}
