//! Quotas: exact when many come at once, given back once, and healed when an event was lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Clip, Harness, SHORT_LIMIT, Studio, events, eventually};
use futures_util::future::{join_all, try_join_all};
use reelay_core::adapters::accounts::AccountsTable;
use reelay_core::adapters::jobs::JobsTable;
use reelay_core::adapters::usage::{Usage, exceeded};
use reelay_core::domain::create::CreateJob;
use reelay_core::domain::id::{AccountId, JobId};
use reelay_core::domain::job::{Job, PinnedSource, Status};
use reelay_core::domain::limits::{AccountQuota, Exceeded};
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use serde_json::{Value, json};

const QUOTA: AccountQuota = AccountQuota {
    jobs_in_flight: 5,
    stored_bytes: 10_000,
};

struct Tables {
    jobs: JobsTable,
    usage: Usage,
}

fn tables(harness: &Harness) -> Result<Tables> {
    let jobs = JobsTable::new(&harness.sdk, harness.name("JOBS_TABLE")?.to_owned());
    let accounts = AccountsTable::new(&harness.sdk, harness.name("ACCOUNTS_TABLE")?.to_owned());
    let usage = Usage::new(accounts, jobs.clone());
    Ok(Tables { jobs, usage })
}

fn job(account: &AccountId, size_bytes: u64) -> Result<Job> {
    let body = json!({"filename": "a.mp4", "size_bytes": size_bytes});
    let new = serde_json::from_value::<CreateJob>(body)?.validate(u64::MAX)?;
    let window = Duration::from_mins(1);
    Ok(Job::pending(
        JobId::generate(),
        account.clone(),
        new,
        UtcTime::now(),
        window,
    ))
}

impl Tables {
    /// Creates a job; what it exceeds, if it does.
    async fn create(&self, job: &Job, quota: AccountQuota) -> Result<Option<Exceeded>> {
        let refused = self.jobs.create(job, self.usage.reserve(job, quota)?).await?;
        refused
            .map(|refused| {
                ensure!(refused.index_in_beside == 0, "{refused:?}");
                Ok(exceeded(refused.old.as_ref(), quota))
            })
            .transpose()
    }
}

/// An account's figures: jobs in flight and stored bytes.
async fn figures(harness: &Harness, account: &str) -> Result<(usize, i64)> {
    let item = harness.account_item(&format!("usage#{account}"), "usage").await?;
    let in_flight = item["in_flight"].as_array().map_or(0, Vec::len);
    let stored_bytes = item["stored_bytes"].as_i64().context("no whole number of bytes")?;
    Ok((in_flight, stored_bytes))
}

fn with_source(job: &Job, status: Status) -> Job {
    let source = PinnedSource {
        version_id: "version".into(),
        etag: "etag".into(),
    };
    Job {
        status,
        source: Some(source),
        ..job.clone()
    }
}

#[tokio::test]
async fn u08_of_fifty_creations_at_once_as_many_pass_as_there_is_room_for() -> Result<()> {
    let harness = Harness::open().await?;
    let tables = tables(&harness)?;
    let (many, large) = (AccountId::generate(), AccountId::generate());
    for (account, size_bytes, room, by) in [
        (&many, 1, 5, Exceeded::Jobs { limit: 5 }),
        (&large, 3_000, 3, Exceeded::Bytes { limit: 10_000 }),
    ] {
        let jobs = (0..50).map(|_| job(account, size_bytes)).collect::<Result<Vec<_>>>()?;
        let results = join_all(jobs.iter().map(|job| tables.create(job, QUOTA))).await;
        let mut passed = Vec::new();
        for (job, result) in jobs.iter().zip(results) {
            match result? {
                None => passed.push(job),
                Some(exceeded) => assert_eq!(exceeded, by),
            }
        }
        assert_eq!(passed.len(), room);
        let bytes = i64::try_from(size_bytes * room as u64)?;
        assert_eq!(figures(&harness, account.as_str()).await?, (room, bytes));
        // What was refused has left nothing behind, and what passed is counted once however often it is sent.
        for job in &jobs {
            let is_stored = tables.jobs.job(&job.job_id).await?.is_some();
            assert_eq!(is_stored, passed.iter().any(|other| other.job_id == job.job_id));
        }
        assert_eq!(tables.create(passed[0], QUOTA).await?, None);
        assert_eq!(figures(&harness, account.as_str()).await?, (room, bytes));
    }
    // A source that is larger than all there is has no room on an empty account either; without a limit, any has.
    let alone = AccountId::generate();
    let huge = job(&alone, 10_001)?;
    assert_eq!(
        tables.create(&huge, QUOTA).await?,
        Some(Exceeded::Bytes { limit: 10_000 })
    );
    let unlimited = AccountQuota {
        stored_bytes: 0,
        ..QUOTA
    };
    assert_eq!(tables.create(&huge, unlimited).await?, None);
    Ok(())
}

#[tokio::test]
async fn what_a_job_uses_is_given_back_once_however_often_its_end_is_told() -> Result<()> {
    let harness = Harness::open().await?;
    let tables = &tables(&harness)?;
    let account = AccountId::generate();
    for (status, has_source, kept) in [
        (Status::Expired, false, 0),
        (Status::Failed, false, 0),
        (Status::Failed, true, 100),
        (Status::Cancelled, false, 0),
        (Status::Cancelled, true, 100),
    ] {
        let before = figures(&harness, account.as_str()).await.unwrap_or((0, 0));
        let job = job(&account, 100)?;
        assert_eq!(tables.create(&job, QUOTA).await?, None);
        assert_eq!(
            figures(&harness, account.as_str()).await?,
            (before.0 + 1, before.1 + 100)
        );
        let ended = if has_source {
            with_source(&job, status)
        } else {
            Job { status, ..job }
        };
        // At once and one after the other: one of them did it.
        let ended = &ended;
        let done = try_join_all((0..10).map(async |_| tables.usage.settle(ended).await)).await?;
        assert_eq!(done.iter().filter(|done| **done).count(), 1, "{status:?}");
        assert!(!tables.usage.settle(ended).await?);
        assert_eq!(
            figures(&harness, account.as_str()).await?,
            (before.0, before.1 + kept),
            "{status:?}"
        );
        let marker = harness.item(ended.job_id.as_str(), "usage").await?;
        assert!(marker.get("open_state").is_none(), "{marker}");

        // Deleted: for good, whatever is told later.
        assert!(tables.usage.release(ended).await?);
        assert!(!tables.usage.release(ended).await?);
        assert!(!tables.usage.settle(ended).await?);
        assert_eq!(figures(&harness, account.as_str()).await?, before, "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_late_end_of_one_generation_does_not_take_the_place_of_the_next() -> Result<()> {
    let harness = Harness::open().await?;
    let tables = tables(&harness)?;
    let account = AccountId::generate();
    let first = job(&account, 100)?;
    assert_eq!(tables.create(&first, QUOTA).await?, None);
    let failed = with_source(&first, Status::Failed);
    let second = Job {
        generation: 2,
        ..with_source(&first, Status::Queued)
    };
    let again = tables.usage.reserve_again(&second, QUOTA, UtcTime::now())?;
    let client = tables.jobs.client();
    assert!(reelay_core::adapters::dynamo::transact(client, again).await?.is_none());
    assert_eq!(figures(&harness, account.as_str()).await?, (2, 100));
    // The event of the first one's end comes now; whoever handles it reads the job as it is.
    assert!(tables.usage.settle(&second).await?);
    assert_eq!(figures(&harness, account.as_str()).await?, (1, 100));
    assert!(!tables.usage.settle(&failed).await?, "an end that was settled");
    assert_eq!(figures(&harness, account.as_str()).await?, (1, 100));
    let done = Job {
        status: Status::Completed,
        ..second
    };
    assert!(tables.usage.settle(&done).await?);
    assert_eq!(figures(&harness, account.as_str()).await?, (0, 100));
    Ok(())
}

#[tokio::test]
async fn a_completed_job_counts_its_source_and_its_outputs() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 1,
        size: (160, 90),
        ..Clip::default()
    };
    let source = studio.clip("source.mp4", &clip).await?;
    let job = account.complete(&source, json!({})).await?;
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    let metrics = harness.item(&job.id, "metrics").await?;
    let stored = account
        .outputs(&job.id)
        .await?
        .iter()
        .map(|output| output.size_bytes)
        .sum::<u64>();
    let source_bytes = std::fs::metadata(&source)?.len();
    assert_eq!(metrics["output_bytes"].as_u64(), Some(stored));
    let expected = (0, i64::try_from(source_bytes + stored)?);
    assert_eq!(figures(&harness, &account.id).await?, expected);

    // The end is told once more, twice.
    let event = events::with(
        events::read("notify-dynamodb")?,
        &[("/Records/0/dynamodb/Keys/job_id/S", json!(job.id))],
    )?;
    for _ in 0..2 {
        let answer = harness.invoke("NOTIFY_FUNCTION", &event).await?;
        assert_eq!(answer["batchItemFailures"], json!([]));
    }
    assert_eq!(figures(&harness, &account.id).await?, expected);
    Ok(())
}

#[tokio::test]
async fn the_sweep_gives_back_places_whose_end_nobody_was_told() -> Result<()> {
    let harness = Harness::open().await?;
    let tables = tables(&harness)?;
    let account = AccountId::generate();
    // Ended by their creation: that is no change, so the stream tells nothing. Each has its turn in another minute.
    let turn = |job: &Job| job.job_id.as_str().bytes().map(u32::from).sum::<u32>() % 5;
    let mut jobs: Vec<Job> = Vec::new();
    while jobs.len() < 5 {
        let job = job(&account, 100)?;
        if jobs.iter().all(|other| turn(other) != turn(&job)) {
            jobs.push(Job {
                status: Status::Cancelled,
                created_at: UtcTime::from_epoch_ms(UtcTime::now().epoch_ms() - 300_000),
                ..job
            });
        }
    }
    for job in &jobs {
        assert_eq!(tables.create(job, QUOTA).await?, None);
    }
    let (before, _) = figures(&harness, account.as_str()).await?;
    harness.sweep().await?;
    let (after, bytes) = figures(&harness, account.as_str()).await?;
    assert!(after < before, "{after} of {before}");
    assert_eq!(bytes, 100 * i64::try_from(after)?);
    Ok(())
}

#[tokio::test]
async fn u08_of_fifty_requests_at_once_the_quota_passes_and_a_cancel_makes_room() -> Result<()> {
    let harness = Harness::open_strict().await?;
    let account = harness.account().await?;
    let create = async |size_bytes: u64| {
        let request = harness
            .request(Method::POST, &harness.url("/jobs")?)
            .bearer_auth(&account.token);
        let body = json!({"filename": "a.mp4", "size_bytes": size_bytes});
        harness.send_any(request.json(&body)).await
    };
    let answers = try_join_all((0..50).map(|_| create(1_000))).await?;
    let (created, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((created.len(), refused.len()), (7, 43));
    for answer in refused {
        assert_eq!(answer.status, 429);
        let problem = answer.problem("quota_jobs")?;
        assert!(
            problem["detail"].as_str().is_some_and(|text| text.contains('7')),
            "{problem}"
        );
        answer.header("retry-after")?;
    }
    let listed = account.get("/jobs?limit=100", 200).await?.value("/jobs")?;
    assert_eq!(listed.as_array().map(Vec::len), Some(7));

    let room = async |size_bytes| {
        eventually("room for a job", SHORT_LIMIT, async || {
            Ok(Some(create(size_bytes).await?).filter(|answer| answer.status != 429))
        })
        .await
    };
    let id = created[0].text("/id")?;
    account.post(&format!("/jobs/{id}/cancel"), &json!({}), 200).await?;
    room(1_000).await?.expect(201)?;

    // And by bytes: a quarter of a million for each of three jobs is room, a fourth one is not.
    for answer in created.iter().skip(1).take(4) {
        let id = answer.text("/id")?;
        account.post(&format!("/jobs/{id}/cancel"), &json!({}), 200).await?;
    }
    let mut large = Vec::new();
    for _ in 0..3 {
        large.push(room(300_000).await?.expect(201)?.text("/id")?);
    }
    let full = room(300_000).await?.expect(409)?;
    let problem = full.problem("quota_bytes")?;
    assert!(
        problem["detail"].as_str().is_some_and(|text| text.contains("1000000")),
        "{problem}"
    );
    account
        .post(&format!("/jobs/{}/cancel", large[0]), &json!({}), 200)
        .await?;
    eventually("room for the bytes", SHORT_LIMIT, async || {
        Ok(Some(create(300_000).await?).filter(|answer| answer.status == 201))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_retry_needs_a_place_and_takes_the_one_of_its_last_run() -> Result<()> {
    let harness = Harness::open_strict().await?;
    let tables = tables(&harness)?;
    let account = harness.account().await?;
    let owner: AccountId = account.id.parse()?;
    let quota = AccountQuota {
        jobs_in_flight: 7,
        stored_bytes: 0,
    };
    // Cancelled after its upload; its end has not been told.
    let cancelled = with_source(&job(&owner, 100)?, Status::Cancelled);
    assert_eq!(tables.create(&cancelled, quota).await?, None);
    for _ in 0..6 {
        account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?;
    }
    assert_eq!(figures(&harness, &account.id).await?.0, 7);
    let path = format!("/jobs/{}/retry", cancelled.job_id);
    account.post(&path, &json!({}), 202).await?;
    assert_eq!(figures(&harness, &account.id).await?, (7, 106));
    // It ends again; somebody else takes the place, and there is none for it.
    account
        .post(&format!("/jobs/{}/cancel", cancelled.job_id), &json!({}), 200)
        .await?;
    eventually("the place", SHORT_LIMIT, async || {
        Ok((figures(&harness, &account.id).await?.0 == 6).then_some(()))
    })
    .await?;
    account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?;
    account.post(&path, &json!({}), 429).await?.problem("quota_jobs")?;
    let stored: Value = account.get(&format!("/jobs/{}", cancelled.job_id), 200).await?.json()?;
    assert_eq!(stored["generation"], 2, "a refused retry changes nothing");
    Ok(())
}
