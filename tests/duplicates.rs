//! Deliveries that come more than once, late, or for nothing: one run, one set of outputs, one mail.

use anyhow::{Context, Result};
use e2e::behind::{given_back, plan_message};
use e2e::{Clip, Harness, SHORT_LIMIT, Studio, events, eventually};
use serde_json::{Value, json};

/// An upload's event, as S3 would send it again.
fn event_of(harness: &Harness, account_id: &str, job_id: &str, version_id: &str, size: usize) -> Result<Value> {
    let key = format!("sources/{account_id}/{job_id}/source");
    events::upload_finished(harness.name("SOURCE_BUCKET")?, &key, version_id, size)
}

#[tokio::test]
async fn the_same_upload_event_five_times_and_its_message_too_is_one_run() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let bytes = std::fs::read(
        studio
            .clip(
                "source.mp4",
                &Clip {
                    seconds: 2,
                    ..Clip::default()
                },
            )
            .await?,
    )?;
    let size = bytes.len();
    let run = account.submit(bytes, json!({"thumbnails": {"count": 2}})).await?;
    let id = run.id.clone();
    let pinned = |job: &Value| job["source"]["version_id"].as_str().map(str::to_owned);
    let version = eventually("the pinned version", SHORT_LIMIT, async || {
        Ok(pinned(&harness.item(&id, "job").await?))
    })
    .await?;

    // Three at once while it runs, then a message, then two more of each when it is over.
    let event = event_of(&harness, &account.id, &id, &version, size)?;
    let deliver = || harness.invoke("INTAKE_FUNCTION", &event);
    tokio::try_join!(deliver(), deliver(), deliver())?;
    harness
        .send_message("LOW_QUEUE_URL", &account.id, &plan_message(&id, 1))
        .await?;
    let job = account.finish(run).await?;
    assert_eq!(job.status, "COMPLETED", "{:?}", job.error);
    deliver().await?;
    // A message that came while the job ran is hidden as long as a lease lasts. So those that are waited for are marked,
    // by a field that nobody reads.
    let late = plan_message(&id, 1).replacen('{', "{\"copy\":\"late\",", 1);
    for queue in ["HIGH_QUEUE_URL", "LOW_QUEUE_URL"] {
        harness.send_message(queue, &account.id, &late).await?;
        eventually("the end of a late message", SHORT_LIMIT, async || {
            let waiting = harness.messages(queue, &id).await?;
            Ok((!waiting.iter().any(|body| body.contains("late"))).then_some(()))
        })
        .await?;
    }

    let items = harness.items(&id).await?;
    assert_eq!(items["job"]["attempts"], 1);
    assert_eq!(items["task#1#plan"]["attempts"], 1);
    let outputs: Vec<_> = items.keys().filter(|key| key.starts_with("output#")).collect();
    assert_eq!(
        outputs.len(),
        4,
        "a rendition, two thumbnails and the proof: {outputs:?}"
    );
    assert!(outputs.iter().all(|key| key.starts_with("output#1-1#")), "{outputs:?}");
    let prefix = format!("outputs/{}/{id}/", account.id);
    let stored = harness.objects("OUTPUT_BUCKET", &prefix).await?;
    assert_eq!(stored.len(), 4, "{stored:?}");
    assert!(
        stored
            .iter()
            .all(|object| object.key.starts_with(&format!("{prefix}1-plan-1/"))),
        "{stored:?}"
    );
    assert_eq!(
        account
            .get("/jobs", 200)
            .await?
            .value("/jobs")?
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    let mails = account.mails_up_to_now().await?;
    assert_eq!(mails.len(), 1, "{mails:?}");
    Ok(())
}

#[tokio::test]
async fn events_that_mean_nothing_are_acknowledged_and_change_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, other) = (harness.account().await?, harness.account().await?);
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?.id;
    let before = harness.items(&id).await?;
    let bucket = harness.name("SOURCE_BUCKET")?;

    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-21T12:00:00.000Z",
        "Bucket": bucket, "RequestId": "5582815E1AEA5ADF", "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"});
    harness.invoke("INTAKE_FUNCTION", &test).await?;
    let nobody = "job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b";
    for key in [
        // Somebody else's prefix with this job's id, an unknown job, and names that were never given out.
        format!("sources/{}/{id}/source", other.id),
        format!("sources/{}/{nobody}/source", account.id),
        format!("sources/{}/{id}/source.mp4", account.id),
        "u%2Fa+b%2B%C3%BC.mp4".to_owned(),
        "%00%ff..%2F..".to_owned(),
        // This job's, but nothing was uploaded.
        format!("sources/{}/{id}/source", account.id),
    ] {
        let event = events::upload_finished(bucket, &key, "096fKKXTRTtl3on89fVO.nfljtsv6qko", 6)?;
        harness.invoke("INTAKE_FUNCTION", &event).await.context(key)?;
    }
    let removed = events::upload_finished(bucket, &format!("sources/{}/{id}/source", account.id), "x", 6)?;
    let removed = events::with(removed, &[("/Records/0/eventName", json!("ObjectRemoved:Delete"))])?;
    harness.invoke("INTAKE_FUNCTION", &removed).await?;
    assert_eq!(harness.items(&id).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_message_of_another_version_is_given_back_and_a_stale_one_is_not() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?.id;
    let before = harness.items(&id).await?;
    let deliver = async |body: &str| {
        harness
            .invoke("PROCESS_FUNCTION", &events::message("message-1", body)?)
            .await
    };

    let newer = json!({"version": 99, "type": "plan", "job_id": id, "generation": 1}).to_string();
    let unknown = json!({"version": 1, "type": "fly", "job_id": id, "generation": 1}).to_string();
    for body in [newer.as_str(), unknown.as_str(), "no JSON", "{}", ""] {
        let answer = deliver(body).await?;
        assert_eq!(
            given_back(&answer)?,
            ["message-1"],
            "{body:?}: it must reach the dead-letter queue, not be lost"
        );
    }
    // A job that nobody queued, a generation that is not, a job that is not: there is nothing to do.
    for body in [
        plan_message(&id, 1),
        plan_message(&id, 2),
        plan_message("job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b", 1),
    ] {
        let answer = deliver(&body).await?;
        assert_eq!(given_back(&answer)?, Vec::<&str>::new(), "{body}");
    }
    assert_eq!(harness.items(&id).await?, before);
    Ok(())
}
