//! The shared adapters against the stack's own services: what each promises about a write, and what it reads back.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::Harness;
use futures_util::future::join_all;
use reelay_core::{
    adapters::{
        AwsError,
        dynamo::Write,
        jobs::{JobFilter, JobsTable, output_prefix},
        objects::Bucket,
        queue::TaskQueues,
        secrets::{Secret, SecretText},
        tasks,
    },
    domain::{
        create::CreateJob,
        failure::{Failure, FailureCode, Stage},
        id::{AccountId, JobId},
        job::{Job, MAX_ATTEMPTS, Status},
        message::Task,
        spec::Priority,
        task::TaskId,
        time::UtcTime,
    },
};
use reqwest::Method;
use serde_json::{Value, json};

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
    table.create(&first, Vec::new()).await?;
    assert_eq!(table.job(&first.job_id).await?, Some(first.clone()));
    // The same write again is a lost answer; the id of somebody else is not.
    table.create(&first, Vec::new()).await?;
    let stranger = Job {
        account_id: AccountId::generate(),
        ..first.clone()
    };
    assert!(matches!(
        table.create(&stranger, Vec::new()).await,
        Err(AwsError::Conflict { .. })
    ));
    assert_eq!(table.job(&first.job_id).await?, Some(first));
    assert_eq!(table.job(&JobId::generate()).await?, None);
    Ok(())
}

#[tokio::test]
async fn of_fifty_that_fail_a_pending_job_one_does() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let pending = job(&AccountId::generate(), UtcTime::now())?;
    table.create(&pending, Vec::new()).await?;
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
        table.create(&mine, Vec::new()).await?;
        table.create(&job(&other, UtcTime::now())?, Vec::new()).await?;
        wanted.insert(0, mine.job_id);
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = table.page(&account, &JobFilter::default(), 3, after.as_ref()).await?;
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
    table.create(&owner, Vec::new()).await?;
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

/// Stores a task as it is, of a job that need not be there.
async fn task_item(harness: &Harness, job_id: &JobId, task: TaskId, attributes: Value) -> Result<()> {
    let mut item = json!({"job_id": job_id, "item": task.item(1), "state": "READY", "attempts": 1, "owner": "wrk_1",
        "lease_expires_ms": 2_000, "sent_ms": 1_000, "updated_at": UtcTime::from_epoch_ms(1_000)});
    if let (Value::Object(item), Value::Object(more)) = (&mut item, attributes) {
        item.extend(more);
    }
    harness.store_item(&item).await
}

/// Does the same write many times at once; returns how many of them did it.
async fn winners(write: impl AsyncFn() -> Result<bool, AwsError>) -> Result<usize> {
    let writes = join_all((0..10).map(|_| write())).await;
    let won: Vec<bool> = writes.into_iter().collect::<Result<_, _>>()?;
    Ok(won.into_iter().filter(|won| *won).count())
}

#[tokio::test]
async fn a_task_is_made_ready_by_one_of_many_and_only_from_its_own_state() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let now = UtcTime::from_epoch_ms(10_000);
    let all = ["BLOCKED", "READY", "RUNNING", "DONE", "FAILED"];
    let id = TaskId::Encode(1);
    for state in all {
        let job = JobId::generate();
        for task in [id, TaskId::Assemble] {
            task_item(&harness, &job, task, json!({"state": state})).await?;
        }
        let unblocked = winners(async || tasks::unblock_assemble(&table, &job, 1, now).await).await?;
        let reopened = winners(async || tasks::reopen(&table, &job, 1, id, now).await).await?;
        let expected = [usize::from(state == "BLOCKED"), usize::from(state == "RUNNING")];
        assert_eq!([unblocked, reopened], expected, "{state}");
        let items = harness.items(job.as_str()).await?;
        for (task, changed) in [(TaskId::Assemble, unblocked), (id, reopened)] {
            let item = &items[&task.item(1)];
            let wanted = if changed == 1 {
                ("READY", 10_000)
            } else {
                (state, 1_000)
            };
            assert_eq!(
                (item["state"].as_str(), item["sent_ms"].as_i64()),
                (Some(wanted.0), Some(wanted.1))
            );
        }
        assert_eq!(items[&id.item(1)].get("owner").is_none(), reopened == 1);
    }
    // Nothing of another generation, and nothing that is not there.
    assert!(!tasks::reopen(&table, &JobId::generate(), 1, id, now).await?);
    Ok(())
}

#[tokio::test]
async fn a_lease_that_holds_and_a_last_attempt_are_not_reopened() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let (job, id) = (JobId::generate(), TaskId::Plan);
    task_item(&harness, &job, id, json!({"state": "RUNNING"})).await?;
    assert!(!tasks::reopen(&table, &job, 1, id, UtcTime::from_epoch_ms(2_000)).await?);
    assert!(tasks::reopen(&table, &job, 1, id, UtcTime::from_epoch_ms(2_001)).await?);
    let last = json!({"state": "RUNNING", "attempts": MAX_ATTEMPTS});
    task_item(&harness, &job, id, last).await?;
    assert!(!tasks::reopen(&table, &job, 1, id, UtcTime::from_epoch_ms(9_000)).await?);
    Ok(())
}

#[tokio::test]
async fn one_of_many_sends_a_message_again_and_one_revokes_the_attempt_that_it_saw() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let (job, id) = (JobId::generate(), TaskId::Encode(0));
    let now = UtcTime::from_epoch_ms(10_000);
    task_item(&harness, &job, id, json!({})).await?;
    assert!(!tasks::resend(&table, &job, 1, id, 1_000, now).await?, "not before");
    let sent = winners(async || tasks::resend(&table, &job, 1, id, 1_001, now).await).await?;
    assert_eq!(sent, 1);
    let item = harness.item(job.as_str(), &id.item(1)).await?;
    assert_eq!(item["sent_ms"], 10_000);
    assert_eq!(
        item["updated_at"],
        json!(UtcTime::from_epoch_ms(1_000)),
        "it has waited since then"
    );
    assert!(!tasks::revoke(&table, &job, 1, id, 1, now).await?, "nobody has it");

    task_item(
        &harness,
        &job,
        id,
        json!({"state": "RUNNING", "lease_expires_ms": 90_000}),
    )
    .await?;
    assert!(
        !tasks::resend(&table, &job, 1, id, 5_000, now).await?,
        "somebody has it"
    );
    assert!(!tasks::revoke(&table, &job, 1, id, 2, now).await?, "another attempt");
    assert_eq!(
        winners(async || tasks::revoke(&table, &job, 1, id, 1, now).await).await?,
        1
    );
    let item = harness.item(job.as_str(), &id.item(1)).await?;
    assert_eq!((&item["state"], item.get("owner")), (&json!("READY"), None));
    Ok(())
}

#[tokio::test]
async fn a_job_fails_with_its_exhausted_task_or_not_at_all() -> Result<()> {
    let harness = Harness::open().await?;
    let table = jobs(&harness)?;
    let now = UtcTime::from_epoch_ms(10_000);
    let failure = Failure::new(FailureCode::AttemptsExhausted, Stage::Encode, MAX_ATTEMPTS, "over");
    let id = TaskId::Encode(2);
    for (status, task, fails) in [
        ("QUEUED", json!({"attempts": 3}), true),
        ("IN_PROGRESS", json!({"attempts": 3, "state": "RUNNING"}), true),
        (
            "IN_PROGRESS",
            json!({"attempts": 3, "state": "RUNNING", "lease_expires_ms": 10_000}),
            false,
        ),
        ("IN_PROGRESS", json!({"attempts": 2, "state": "RUNNING"}), false),
        ("IN_PROGRESS", json!({"attempts": 3, "state": "DONE"}), false),
        ("CANCELLED", json!({"attempts": 3}), false),
        ("COMPLETED", json!({"attempts": 3}), false),
    ] {
        let case = format!("{status} {task}");
        let job = JobId::generate();
        // Without an entry in the index of open jobs: the stack's own sweep leaves it to us.
        let item = json!({"job_id": job, "item": "job", "status": status, "generation": 1, "playable": true});
        harness.store_item(&item).await?;
        task_item(&harness, &job, id, task).await?;
        let before = harness.items(job.as_str()).await?;
        assert!(
            !tasks::fail_exhausted(&table, &job, 2, id, &failure, now).await?,
            "{case}"
        );
        let won = winners(async || tasks::fail_exhausted(&table, &job, 1, id, &failure, now).await).await?;
        assert_eq!(won, usize::from(fails), "{case}");
        let after = harness.items(job.as_str()).await?;
        if fails {
            assert_eq!(
                (&after["job"]["status"], &after[&id.item(1)]["state"]),
                (&json!("FAILED"), &json!("FAILED"))
            );
            assert_eq!(after["job"]["error"]["code"], "attempts_exhausted");
            assert_eq!(
                (&after["job"]["playable"], after[&id.item(1)].get("owner")),
                (&json!(false), None)
            );
        } else {
            assert_eq!(after, before, "{case}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_signed_upload_is_bound_to_length_and_type() -> Result<()> {
    let harness = Harness::open().await?;
    let bucket = Bucket::new(&harness.sdk, harness.name("SOURCE_BUCKET")?.to_owned());
    let key = job(&AccountId::generate(), UtcTime::now())?.source_key();
    let signed = bucket
        .sign_upload(&key, 4, "video/mp4", None, Duration::from_mins(1))
        .await?;
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
        let job_id = JobId::generate();
        let task = Task::new(job_id.clone(), 3, TaskId::Plan);
        queues.send(priority, &account, &task).await?;
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
    let keys = secret.versions().await?;
    let key = keys.current.expose();
    assert!(key.len() >= 32, "HMAC-SHA-256 wants 32 bytes");
    assert!(!format!("{secret:?}{keys:?}").contains(key));
    Ok(())
}

#[tokio::test]
async fn a_secret_has_two_live_versions_and_no_stranger_has_it_fetched_again_and_again() -> Result<()> {
    let harness = Harness::open().await?;
    let client = aws_sdk_secretsmanager::Client::new(&harness.sdk);
    let name = format!("adapters-{}", uuid::Uuid::new_v4().simple());
    let [first, second] = ["1", "2"].map(|digit| digit.repeat(64));
    client.create_secret().name(&name).secret_string(&first).send().await?;
    let put = |value: &str| client.put_secret_value().secret_id(&name).secret_string(value).send();

    let early = Secret::new(&harness.sdk, name.clone());
    let versions = early.versions().await?;
    assert_eq!(versions.current.expose(), first);
    assert!(versions.previous.is_none(), "there is none before the first rotation");
    put(&second).await?;
    let versions = Secret::new(&harness.sdk, name.clone()).versions().await?;
    assert_eq!(
        versions.all().map(SecretText::expose).collect::<Vec<_>>(),
        [&second, &first]
    );
    // Known for a moment only, so it is not asked for again: not even for a key that it does not know.
    assert_eq!(early.versions().await?.current.expose(), first);
    assert_eq!(early.refetched().await?.current.expose(), first);

    // A value that is no key fails closed, as does a secret that nobody can read.
    put("too short").await?;
    let error = Secret::new(&harness.sdk, name.clone()).versions().await.unwrap_err();
    assert!(
        error.is_retryable() && !error.to_string().contains("too short"),
        "{error}"
    );
    assert_eq!(early.versions().await?.current.expose(), first);
    let nowhere = Secret::new(&harness.sdk, format!("{name}-absent"));
    assert!(nowhere.versions().await.is_err());
    client
        .delete_secret()
        .secret_id(&name)
        .force_delete_without_recovery(true)
        .send()
        .await?;
    Ok(())
}
