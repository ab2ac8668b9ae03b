//! Lists: filters, cursors, and what a page costs when an account has very many jobs. And tags: what has not changed is
//! not sent again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use e2e::{Account, Harness};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::adapters::dynamo;
use reelay_core::adapters::jobs::{JOB, JobFilter, JobsTable, MAX_READ};
use reelay_core::domain::create::CreateJob;
use reelay_core::domain::id::JobId;
use reelay_core::domain::job::{Job, Status};
use reelay_core::domain::magic::Kind;
use reelay_core::domain::spec::Priority;
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde_json::{Value, json};

const JOBS: i64 = 10_000;
/// One in so many.
const RARE: i64 = 100;
/// When the first was created; the next ones a second later each.
const FIRST_MS: i64 = 1_700_000_000_000;

fn created(index: i64) -> UtcTime {
    UtcTime::from_epoch_ms(FIRST_MS + index * 1_000)
}

fn planted(account: &Account<'_>, index: i64) -> Result<Job> {
    let body = json!({"filename": format!("{index}.mp4"), "size_bytes": 10});
    let new = serde_json::from_value::<CreateJob>(body)?.validate(u64::MAX)?;
    let job = Job::pending(
        JobId::generate(),
        account.id.parse()?,
        new,
        created(index),
        Duration::ZERO,
    );
    let is_rare = index % RARE == 0;
    Ok(Job {
        status: if is_rare { Status::Failed } else { Status::Completed },
        kind: is_rare.then_some(Kind::Video),
        priority: if is_rare { Priority::High } else { Priority::Low },
        ..job
    })
}

/// Puts very many jobs into the table, behind everybody's back.
async fn plant(account: &Account<'_>, table: &JobsTable) -> Result<()> {
    let indexes: Vec<i64> = (0..JOBS).collect();
    let batches = indexes.chunks(25).map(|batch| async move {
        let mut writes = Vec::new();
        for index in batch {
            let mut item = dynamo::to_item(&planted(account, *index)?)?;
            item.insert("item".into(), dynamo::s(JOB));
            let put = PutRequest::builder().set_item(Some(item)).build()?;
            writes.push(WriteRequest::builder().put_request(put).build());
        }
        let request = table.client().batch_write_item().request_items(table.name(), writes);
        let answer = request.send().await?;
        ensure!(
            answer.unprocessed_items.unwrap_or_default().is_empty(),
            "not all was stored"
        );
        Ok(())
    });
    stream::iter(batches).buffer_unordered(4).try_collect().await
}

async fn walk(account: &Account<'_>, query: &str) -> Result<(Vec<String>, usize)> {
    let (mut names, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let answer = account.get(&format!("/jobs?{query}{cursor}"), 200).await?;
        pages += 1;
        for job in answer.value("/jobs")?.as_array().context("no list")? {
            names.push(job["filename"].as_str().unwrap_or_default().to_owned());
        }
        match answer.value("/next_cursor")? {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return Ok((names, pages)),
        }
    }
}

fn named(indexes: impl Iterator<Item = i64>) -> Vec<String> {
    indexes.map(|index| format!("{index}.mp4")).collect()
}

#[tokio::test]
async fn a_page_reads_no_more_than_a_page_of_ten_thousand_jobs() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let table = JobsTable::new(&harness.sdk, harness.name("JOBS_TABLE")?.to_owned());
    plant(&account, &table).await?;
    let owner = account.id.parse()?;

    let all = JobFilter::default();
    let page = table.page(&owner, &all, 25, None).await?;
    assert_eq!((page.jobs.len(), page.read), (25, 25));
    // 25 items of about a kilobyte each, four to a unit, half of it because the index is read as it is.
    assert!(page.read_units <= 10.0, "{} units", page.read_units);

    // What is rare is looked for in a bounded number of jobs.
    let rare = JobFilter {
        status: Some(Status::Failed),
        ..all.clone()
    };
    let (mut found, mut after, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = table.page(&owner, &rare, 10, after.as_ref()).await?;
        assert!(page.read <= MAX_READ, "{} jobs were read", page.read);
        assert!(page.jobs.len() <= 10);
        found.extend(page.jobs.into_iter().map(|job| job.filename));
        pages += 1;
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    let wanted: BTreeSet<String> = named((0..JOBS).step_by(100)).into_iter().collect();
    assert_eq!(found, wanted);
    assert!(pages <= JOBS / 500 + 1, "{pages} pages");

    // Times are a range: nothing outside of it is read.
    let between = JobFilter {
        created_after: Some(created(500)),
        created_before: Some(created(511)),
        ..all
    };
    let page = table.page(&owner, &between, 100, None).await?;
    assert_eq!((page.jobs.len(), page.read, page.last.is_none()), (10, 10, true));

    // The same by the API.
    let (names, _) = walk(&account, "status=FAILED&limit=100").await?;
    assert_eq!(names, named((0..JOBS).rev().filter(|index| index % RARE == 0)));
    let query = format!("created_after={}&created_before={}&limit=3", created(500), created(511));
    let (names, pages) = walk(&account, &query).await?;
    assert_eq!((names, pages), (named((501..511).rev()), 4));
    let query = format!("kind=video&priority=high&created_after={}&limit=2", created(9_500));
    let (names, _) = walk(&account, &query).await?;
    assert_eq!(names, named([9_900, 9_800, 9_700, 9_600].into_iter()));
    let (names, _) = walk(&account, "kind=video&priority=low").await?;
    assert_eq!(names, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_cursor_belongs_to_its_filter_and_values_are_checked() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    for name in ["a.mp4", "b.mp4", "c.mp4"] {
        account.create(&json!({"filename": name, "size_bytes": 6})).await?;
    }
    let cursor = account
        .get("/jobs?limit=1&status=PENDING", 200)
        .await?
        .text("/next_cursor")?;
    account
        .get(&format!("/jobs?limit=1&status=PENDING&cursor={cursor}"), 200)
        .await?;
    for other in ["", "&status=FAILED", "&status=PENDING&priority=low"] {
        let path = format!("/jobs?limit=1{other}&cursor={cursor}");
        account.get(&path, 400).await?.problem("invalid_cursor")?;
    }
    let bad = "status=pending&kind=film&priority=1&created_after=yesterday&created_before=x&limit=0";
    let pointers = account.get(&format!("/jobs?{bad}"), 422).await?.pointers()?;
    let expected = [
        "/limit",
        "/status",
        "/kind",
        "/priority",
        "/created_after",
        "/created_before",
    ];
    assert_eq!(pointers, expected);
    let nothing = "created_after=2026-01-02T00:00:00Z&created_before=2026-01-01T00:00:00Z";
    assert_eq!(
        account.get(&format!("/jobs?{nothing}"), 200).await?.value("/jobs")?,
        json!([])
    );
    Ok(())
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?.id;
    let ask = async |path: &str, tag: &str| {
        let request = harness.request(Method::GET, &harness.url(path)?);
        let request = request.bearer_auth(&account.token).header(IF_NONE_MATCH, tag);
        harness.send_any(request).await
    };
    let paths = [
        format!("/jobs/{id}"),
        format!("/jobs/{id}/progress"),
        "/jobs".to_owned(),
    ];
    let mut tags = Vec::new();
    for path in &paths {
        let first = account.get(path, 200).await?;
        let tag = first.header("etag")?.to_owned();
        assert_eq!(first.header("cache-control")?, "private, no-cache");
        let again = ask(path, &tag).await?;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag")?, tag);
        assert_eq!(ask(path, "\"other\"").await?.status, 200);
        tags.push(tag);
    }
    account.post(&format!("/jobs/{id}/cancel"), &json!({}), 200).await?;
    for (path, tag) in paths.iter().zip(tags) {
        assert_eq!(ask(path, &tag).await?.status, 200, "{path} has changed");
    }
    // Who may not read it is told nothing by a tag, either.
    let stranger = harness.account().await?;
    let request = harness.request(Method::GET, &harness.url(&paths[0])?);
    let request = request.bearer_auth(&stranger.token).header(IF_NONE_MATCH, "*");
    harness.send(request, 404).await?;
    Ok(())
}
