//! The shared adapters against the stack's own services: what each promises about a write, and what it reads back.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::Harness;
use futures_util::future::join_all;
use reelay_core::{
    adapters::{
        AwsError,
        dynamo::Write,
        jobs::{JobsTable, output_prefix},
        objects::Bucket,
        queue::TaskQueues,
        secrets::Secret,
    },
    domain::{
        create::CreateJob,
        failure::{Failure, FailureCode, Stage},
        id::{AccountId, JobId},
        job::{Job, Status},
        message::Task,
        spec::Priority,
        time::UtcTime,
    },
};
use reqwest::Method;
use serde_json::json;

fn job(account: &AccountId, created_at: UtcTime) -> Result<Job> {
    let body: CreateJob = serde_json::from_value(json!({"filename": "ä \"b\".mp4", "size_bytes": 6,
        "metadata": {"deep": [1, 2.5, null, {"x": true}]}, "duration_seconds": 1.5}))?;
    let new = body.validate(1_000)?;
    Ok(Job::pending(
        JobId::generate(),
        account.clone(),
        new,
        created_at,
        Duration::from_mins(1),
    ))
}

fn jobs(harness: &Harness) -> Result<JobsTable> {
    Ok(JobsTable::new(&harness.sdk, harness.name("JOBS_TABLE")?.to_owned()))
}

#[tokio::test]
async fn a_job_is_stored_once_and_reads_back_whole() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let first = job(&AccountId::generate(), UtcTime::now())?;
    table.create(&first).await?;
    assert_eq!(table.job(&first.job_id).await?, Some(first.clone()));
    // The same write again is a lost answer; the id of somebody else is not.
    table.create(&first).await?;
    let stranger = Job {
        account_id: AccountId::generate(),
        ..first.clone()
    };
    assert!(matches!(table.create(&stranger).await, Err(AwsError::Conflict { .. })));
    assert_eq!(table.job(&first.job_id).await?, Some(first));
    assert_eq!(table.job(&JobId::generate()).await?, None);
    Ok(())
}

#[tokio::test]
async fn of_fifty_that_fail_a_pending_job_one_does() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let pending = job(&AccountId::generate(), UtcTime::now())?;
    table.create(&pending).await?;
    let failures: Vec<_> = (0..50)
        .map(|n| Failure::new(FailureCode::EmptySource, Stage::Intake, 0, format!("writer {n}")))
        .collect();
    let now = UtcTime::now();
    let writes = join_all(
        failures
            .iter()
            .map(|failure| table.fail_pending(&pending.job_id, failure, now)),
    )
    .await;
    let mut winner = None;
    for (failure, write) in failures.iter().zip(writes) {
        match write? {
            Write::Done(()) => ensure!(winner.replace(failure).is_none(), "two writers won"),
            Write::Refused(old) => ensure!(old.is_some_and(|old| old.contains_key("error")), "no item came back"),
        }
    }
    let stored = table.job(&pending.job_id).await?.unwrap();
    assert_eq!((stored.status, stored.error.as_ref()), (Status::Failed, winner));
    Ok(())
}

#[tokio::test]
async fn a_list_is_one_accounts_newest_first_and_whole_over_its_pages() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let (account, other) = (AccountId::generate(), AccountId::generate());
    let mut wanted = Vec::new();
    for n in 0..7 {
        let mine = job(&account, UtcTime::from_epoch_ms(1_700_000_000_000 + n))?;
        table.create(&mine).await?;
        table.create(&job(&other, UtcTime::now())?).await?;
        wanted.insert(0, mine.job_id);
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = table.page(&account, 3, after.as_ref()).await?;
        assert!(page.jobs.len() <= 3);
        seen.extend(page.jobs.into_iter().map(|job| job.job_id));
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, wanted);
    Ok(())
}

#[tokio::test]
async fn outputs_are_visible_by_the_pointer_and_not_without_it() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let mut owner = job(&AccountId::generate(), UtcTime::now())?;
    table.create(&owner).await?;
    for (attempt, id) in [(1, "mp4"), (11, "mp4"), (2, "mp4"), (2, "thumbnail-01")] {
        let item = json!({"job_id": owner.job_id, "item": format!("{}{id}", output_prefix(1, attempt)), "id": id,
            "type": "rendition", "format": "mp4", "quality": null, "width_px": 2, "height_px": 2,
            "duration_seconds": 1.0, "frames": 25, "bitrate_bps": 1, "size_bytes": attempt, "sha256": "",
            "content_type": "video/mp4", "key": "k"});
        harness.store_item(&item).await?;
    }
    assert!(table.outputs(&owner).await?.is_empty());
    owner.published_attempt = Some(1);
    let sizes: Vec<_> = table
        .outputs(&owner)
        .await?
        .iter()
        .map(|output| output.size_bytes)
        .collect();
    assert_eq!(sizes, [1], "attempt 11 is not attempt 1");
    owner.published_attempt = Some(2);
    assert_eq!(table.outputs(&owner).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_signed_upload_is_bound_to_length_and_type() -> Result<()> {
    let harness = Harness::open().await?;
    let bucket = Bucket::new(&harness.sdk, harness.name("SOURCE_BUCKET")?.to_owned());
    let key = job(&AccountId::generate(), UtcTime::now())?.source_key();
    let signed = bucket.sign_upload(&key, 4, "video/mp4", Duration::from_mins(1)).await?;
    let put = |body: &'static str, content_type: &'static str| {
        let request = harness
            .request(Method::PUT, &signed.url)
            .header("content-type", content_type)
            .body(body);
        harness.send_any(request)
    };
    assert_eq!(put("five!", "video/mp4").await?.status.as_u16(), 403);
    assert_eq!(put("four", "text/html").await?.status.as_u16(), 403);
    assert_eq!(put("four", "video/mp4").await?.status.as_u16(), 200);
    Ok(())
}

#[tokio::test]
async fn a_task_comes_out_of_the_queue_that_its_priority_names() -> Result<()> {
    let harness = Harness::open().await?;
    // The dead-letter queues have no consumer, so what is sent there stays for this test to see.
    let (high, low) = (
        harness.name("HIGH_DEAD_LETTER_QUEUE_URL")?,
        harness.name("LOW_DEAD_LETTER_QUEUE_URL")?,
    );
    let queues = TaskQueues::new(&harness.sdk, high.to_owned(), low.to_owned());
    let account = AccountId::generate();
    for (priority, queue) in [
        (Priority::High, "HIGH_DEAD_LETTER_QUEUE_URL"),
        (Priority::Low, "LOW_DEAD_LETTER_QUEUE_URL"),
    ] {
        let task = Task::Plan {
            job_id: JobId::generate(),
            generation: 3,
        };
        queues.send(priority, &account, &task).await?;
        let Task::Plan { job_id, .. } = &task;
        let bodies = harness.messages(queue, job_id.as_str()).await?;
        assert_eq!(
            bodies
                .iter()
                .map(|body| Task::from_body(body))
                .collect::<Result<Vec<_>, _>>()?,
            [task]
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_signing_key_is_there_and_is_not_shown() -> Result<()> {
    let harness = Harness::open().await?;
    let environment = harness.function_environment("AUTH_FUNCTION").await?;
    let secret = Secret::new(&harness.sdk, environment["SIGNING_KEY_SECRET"].clone());
    let key = secret.get().await?;
    assert!(key.expose().len() >= 32, "HMAC-SHA-256 wants 32 bytes");
    assert!(!format!("{secret:?}{key:?}").contains(key.expose()));
    Ok(())
}
