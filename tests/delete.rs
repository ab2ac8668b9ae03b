//! Deleting a job: gone at once for everybody who asks, and then in fact, also when a worker did not notice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::worker::Mark;
use e2e::{Account, Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, eventually};
use reelay_core::adapters::deletion;
use reelay_core::adapters::jobs::JobsTable;
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use serde_json::{Value, json};

const SMALL: Clip<'static> = Clip {
    seconds: 1,
    size: (160, 90),
    rate: 25,
    sound: true,
    encoding: e2e::studio::MP4,
};

/// Every route that shows a job or acts on it.
const GETS: [&str; 7] = [
    "",
    "/progress",
    "/metadata",
    "/outputs",
    "/thumbnail",
    "/source",
    "/upload/parts",
];
const POSTS: [&str; 2] = ["/cancel", "/retry"];

async fn assert_gone(account: &Account<'_>, id: &str) -> Result<()> {
    for part in GETS {
        account
            .get(&format!("/jobs/{id}{part}"), 404)
            .await?
            .problem("not_found")?;
    }
    for action in POSTS {
        account.post(&format!("/jobs/{id}{action}"), &json!({}), 404).await?;
    }
    let list = account.get("/jobs", 200).await?.value("/jobs")?;
    assert!(!list.to_string().contains(id), "it is listed");
    Ok(())
}

/// How many versions of objects a job has.
async fn versions(account: &Account<'_>, id: &str) -> Result<usize> {
    let mut count = 0;
    for (bucket, area) in [
        ("SOURCE_BUCKET", "sources"),
        ("OUTPUT_BUCKET", "outputs"),
        ("OUTPUT_BUCKET", "work"),
    ] {
        let prefix = format!("{area}/{}/{id}/", account.id);
        count += account.harness.versions(bucket, &prefix).await?;
    }
    Ok(count)
}

/// Runs the sweep until there is nothing left of a job's objects.
async fn swept(account: &Account<'_>, id: &str) -> Result<()> {
    eventually("the removal of all objects", SHORT_LIMIT, async || {
        account.harness.sweep().await?;
        Ok((versions(account, id).await? == 0).then_some(()))
    })
    .await
}

/// As if the job had been deleted some time ago.
async fn age(harness: &Harness, id: &str, minutes: i64) -> Result<()> {
    let mut item = harness.item(id, "job").await?;
    let ms = UtcTime::now().epoch_ms() - minutes * 60_000;
    item["deleted_at"] = json!(UtcTime::from_epoch_ms(ms));
    item["upload_expires_at"] = json!("2026-01-01T00:00:00.000Z");
    harness.store_item(&item).await
}

#[tokio::test]
async fn a_deleted_job_is_gone_at_once_and_then_in_fact() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, stranger) = (harness.account().await?, harness.account().await?);
    let studio = Studio::open(&harness)?;
    let source = studio.clip("source.mp4", &SMALL).await?;
    let job = account.complete(&source, json!({})).await?;
    let kept = account.complete(&source, json!({"thumbnails": {"count": 0}})).await?;
    assert!(versions(&account, &job.id).await? > 2);
    let path = format!("/jobs/{}", job.id);
    stranger.delete(&path, 404).await?.problem("not_found")?;
    account
        .delete("/jobs/job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b", 404)
        .await?;
    account.get(&path, 200).await?;

    account.delete(&path, 204).await?;
    assert_gone(&account, &job.id).await?;
    // An answer may get lost.
    account.delete(&path, 204).await?;

    swept(&account, &job.id).await?;
    // Its mark stays for as long as somebody may be writing: this comes from a worker that was frozen all the time.
    harness.sweep().await?;
    assert!(harness.items(&job.id).await?.contains_key("job"));
    let late = format!("outputs/{}/{}/1-plan-1/late.mp4", account.id, job.id);
    harness.store_object("OUTPUT_BUCKET", &late, b"late").await?;
    age(&harness, &job.id, 15).await?;
    harness.sweep().await?;
    assert_eq!(versions(&account, &job.id).await?, 1, "not yet");
    age(&harness, &job.id, 17).await?;
    eventually("the removal of all items", SHORT_LIMIT, async || {
        harness.sweep().await?;
        Ok(harness.items(&job.id).await?.is_empty().then_some(()))
    })
    .await?;
    assert_eq!(versions(&account, &job.id).await?, 0);
    account.delete(&path, 404).await?;
    assert_gone(&account, &job.id).await?;

    // Nothing else went with it.
    assert_eq!(account.job(&kept.id).await?.status, "COMPLETED");
    let outputs = account.outputs(&kept.id).await?;
    account.download(&outputs[0]).await?;
    Ok(())
}

#[tokio::test]
async fn a_running_job_stops_when_it_is_deleted() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let clip = Clip {
        seconds: 20,
        size: (1280, 720),
        ..SMALL
    };
    let source = std::fs::read(studio.clip("source.mp4", &clip).await?)?;
    let (source, mark) = Mark::put(source)?;
    let slow = json!({"compression": {"preset": "veryslow"}});
    let run = account.submit(source, slow).await?;
    let marks = [mark];
    let tool = harness.tool_reading(&marks, JOB_LIMIT, |_| true).await?;
    let began = Instant::now();
    account.delete(&format!("/jobs/{}", run.id), 204).await?;
    assert_gone(&account, &run.id).await?;
    eventually("the end of its tool", SHORT_LIMIT, async || {
        Ok(tool.is_gone().then_some(()))
    })
    .await?;
    assert!(began.elapsed() < Duration::from_secs(20));
    let item = harness.item(&run.id, "job").await?;
    assert_eq!(
        (&item["status"], &item["open_state"]),
        (&json!("CANCELLED"), &json!("DELETED"))
    );
    swept(&account, &run.id).await?;
    harness.queues_forget(&run.id).await?;
    Ok(())
}

#[tokio::test]
async fn an_upload_that_comes_after_the_deletion_starts_nothing_and_does_not_stay() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let source = std::fs::read(studio.clip("source.mp4", &SMALL).await?)?;
    let body = json!({"filename": "a.mp4", "size_bytes": source.len()});
    let created = account.create(&body).await?;
    account.delete(&format!("/jobs/{}", created.id), 204).await?;
    swept(&account, &created.id).await?;
    account.upload(&created.upload, source).await?;
    assert_gone(&account, &created.id).await?;
    age(&harness, &created.id, 17).await?;
    eventually("the removal of everything", SHORT_LIMIT, async || {
        harness.sweep().await?;
        Ok(harness.items(&created.id).await?.is_empty().then_some(()))
    })
    .await?;
    assert_eq!(versions(&account, &created.id).await?, 0);

    // In parts, the upload ends with the job.
    let body = json!({"filename": "a.mp4", "size_bytes": 6 << 20, "upload": "multipart"});
    let id = account.post("/jobs", &body, 201).await?.text("/id")?;
    let prefix = format!("sources/{}/{id}/", account.id);
    assert_eq!(harness.open_uploads(&prefix).await?, 1);
    account.delete(&format!("/jobs/{id}"), 204).await?;
    account
        .post(&format!("/jobs/{id}/upload/complete"), &json!({}), 404)
        .await?;
    eventually("the end of its upload", SHORT_LIMIT, async || {
        harness.sweep().await?;
        Ok((harness.open_uploads(&prefix).await? == 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_jobs_of_a_deleted_account_go_with_it() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, other) = (harness.account().await?, harness.account().await?);
    let studio = Studio::open(&harness)?;
    let source = studio.clip("source.mp4", &SMALL).await?;
    let job = account.complete(&source, json!({"thumbnails": {"count": 0}})).await?;
    let waiting = account.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?;
    let kept = other.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?;
    assert!(versions(&account, &job.id).await? > 0);

    let delete = harness.request(Method::DELETE, &harness.url("/auth/me")?);
    let body = json!({"password": e2e::harness::PASSWORD});
    harness
        .send(delete.bearer_auth(&account.token).json(&body), 204)
        .await?;
    swept(&account, &job.id).await?;
    for id in [&job.id, &waiting.id] {
        eventually("its mark", SHORT_LIMIT, async || {
            harness.sweep().await?;
            Ok(harness.item(id, "job").await?.get("deleted_at").map(drop))
        })
        .await?;
    }
    assert_eq!(other.job(&kept.id).await?.status, "PENDING");

    // The account's own mark stays while a request that was let in before may still make a job.
    let mut mark = harness.account_item("deletions", &account.id).await?;
    harness.sweep().await?;
    assert!(harness.find_account_item("deletions", &account.id).await?.is_some());
    mark["deleted_at"] = json!(UtcTime::from_epoch_ms(UtcTime::now().epoch_ms() - 11 * 60_000));
    harness.store_in("ACCOUNTS_TABLE", &mark).await?;
    eventually("the end of what is left of it", SHORT_LIMIT, async || {
        harness.sweep().await?;
        let mark = harness.find_account_item("deletions", &account.id).await?;
        let usage = harness
            .find_account_item(&format!("usage#{}", account.id), "usage")
            .await?;
        Ok((mark.is_none() && usage.is_none()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn all_jobs_of_an_account_can_be_deleted() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, other) = (harness.account().await?, harness.account().await?);
    let body = json!({"filename": "a.mp4", "size_bytes": 6});
    for owner in [&account, &account, &account, &other] {
        owner.create(&body).await?;
    }
    let table = JobsTable::new(&harness.sdk, harness.name("JOBS_TABLE")?.to_owned());
    let owner = account.id.parse()?;
    let over = Instant::now();
    assert!(!deletion::mark_all(&table, &owner, over).await?, "no time was left");
    let until = Instant::now() + SHORT_LIMIT;
    assert!(deletion::mark_all(&table, &owner, until).await?);
    assert_eq!(account.get("/jobs", 200).await?.value("/jobs")?, json!([]));
    let rest: Value = other.get("/jobs", 200).await?.value("/jobs")?;
    assert_eq!(rest.as_array().context("no list")?.len(), 1);
    Ok(())
}
