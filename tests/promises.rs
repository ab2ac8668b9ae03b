//! The promises that everything else may rely on; each test is named after the one that it holds to. I8 is in
//! `strangers`, I3 under a real crash in `crash`.

use anyhow::{Context, Result};
use e2e::behind::{given_back, plan_message};
use e2e::studio::MP4_FASTSTART;
use e2e::{Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, events, eventually};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn i1_every_accepted_upload_reaches_one_terminal_state() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let small = Clip {
        seconds: 1,
        size: (160, 90),
        encoding: MP4_FASTSTART,
        ..Clip::default()
    };
    let good = std::fs::read(studio.clip("good.mp4", &small).await?)?;
    let short = good[..good.len() - 1].to_vec();
    let half = good[..good.len() / 2].to_vec();
    let uploads = [
        good.clone(),
        short,
        half,
        b"x".to_vec(),
        vec![0; 4_096],
        b"\x1a\x45\xdf\xa3".to_vec(),
        good,
    ];
    let mut ends = Vec::new();
    for (number, bytes) in uploads.into_iter().enumerate() {
        let priority = if number % 2 == 0 { "high" } else { "low" };
        let run = account
            .submit(bytes, json!({"priority": priority, "thumbnails": {"count": 0}}))
            .await?;
        ends.push(account.finish(run).await?);
    }
    for job in &ends {
        assert!(matches!(job.status.as_str(), "COMPLETED" | "FAILED"), "{job:?}");
        assert_eq!(job.error.is_some(), job.status == "FAILED", "{job:?}");
    }
    assert_eq!(
        (ends[0].status.as_str(), ends[6].status.as_str()),
        ("COMPLETED", "COMPLETED")
    );
    let mails = account.mails_up_to_now().await?;
    assert_eq!(mails.len(), ends.len(), "one mail for each end");
    // The index of open jobs has no entry left for any of them.
    for job in &ends {
        assert!(
            harness.item(&job.id, "job").await?.get("open_state").is_none(),
            "{job:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn i2_a_terminal_state_never_changes() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let small = Clip {
        seconds: 1,
        size: (160, 90),
        ..Clip::default()
    };
    let good = std::fs::read(studio.clip("good.mp4", &small).await?)?;
    let mut bad = good.clone();
    bad.truncate(good.len() / 2);

    for (bytes, expected) in [(good, "COMPLETED"), (bad, "FAILED"), (b"text".to_vec(), "FAILED")] {
        let size = bytes.len();
        let run = account.submit(bytes.clone(), json!({})).await?;
        let (id, upload) = (run.id.clone(), run.upload.clone());
        let job = account.finish(run).await?;
        assert_eq!(job.status, expected, "{:?}", job.error);
        harness.queues_forget(&id).await?;
        let mails = account.mails_up_to_now().await?.len();
        let before = harness.items(&id).await?;

        // The upload again, its old event again, its message again, and messages of other generations.
        let version = account.upload(&upload, bytes).await?;
        let key = format!("sources/{}/{id}/source", account.id);
        let event = events::upload_finished(harness.name("SOURCE_BUCKET")?, &key, &version, size)?;
        harness.invoke("INTAKE_FUNCTION", &event).await?;
        for generation in [0, 1, 2] {
            let event = events::message("late", &plan_message(&id, generation))?;
            let answer = harness.invoke("PROCESS_FUNCTION", &event).await?;
            assert_eq!(given_back(&answer)?, Vec::<&str>::new(), "generation {generation}");
        }
        let after = account.mails_up_to_now().await?.len();
        assert_eq!(harness.items(&id).await?, before, "{expected}");
        assert_eq!(after, mails, "{expected}");
    }
    Ok(())
}

/// A queued job whose task was claimed three times by workers that died.
async fn exhausted_job(harness: &Harness, account_id: &str, id: &str) -> Result<()> {
    let mut job = harness.item(id, "job").await?;
    let fields = [
        ("status", json!("IN_PROGRESS")),
        ("open_state", json!("IN_PROGRESS")),
        ("kind", json!("video")),
        ("attempts", json!(3)),
        (
            "source",
            json!({"version_id": "096fKKXTRTtl3on89fVO.nfljtsv6qko", "etag": "\"0\""}),
        ),
        ("queued_at", job["created_at"].clone()),
        ("started_at", job["created_at"].clone()),
    ];
    for (name, value) in fields {
        job[name] = value;
    }
    let task = json!({"job_id": id, "item": "task#1#plan", "state": "RUNNING", "attempts": 3, "owner": "wrk_gone",
        "lease_expires_ms": 0, "updated_at": job["created_at"]});
    harness.store_item(&task).await?;
    harness.store_item(&job).await?;
    harness
        .send_message("LOW_QUEUE_URL", account_id, &plan_message(id, 1))
        .await
}

#[tokio::test]
async fn i3_there_are_three_attempts_and_no_fourth() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account
        .create(&json!({"filename": "clip.mp4", "size_bytes": 6}))
        .await?
        .id;
    exhausted_job(&harness, &account.id, &id).await?;
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!(
        (job.status.as_str(), job.error_code()),
        ("FAILED", Some("attempts_exhausted"))
    );
    assert_eq!(job.attempts, 3);
    assert!(job.error.is_some_and(|error| error.retryable));
    assert_eq!(harness.item(&id, "task#1#plan").await?["attempts"], 3);
    harness.queues_forget(&id).await?;
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn i4_the_published_outputs_exist_and_match() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .clip(
            "source.mp4",
            &Clip {
                seconds: 2,
                size: (320, 180),
                ..Clip::default()
            },
        )
        .await?;
    let job = account.complete(&source, json!({})).await?;

    let items = harness.items(&job.id).await?;
    let attempt = items["job"]["published_attempt"].as_u64().context("no pointer")?;
    let prefix = format!("output#1-{attempt}#");
    let published: Vec<&Value> = items
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(_, item)| item)
        .collect();
    let mut stored = harness
        .objects("OUTPUT_BUCKET", &format!("outputs/{}/{}/", account.id, job.id))
        .await?;
    assert_eq!(
        published.len(),
        5,
        "a rendition, three thumbnails and the proof: {published:?}"
    );
    for output in &published {
        let key = output["key"].as_str().context("no key")?;
        assert!(
            key.starts_with(&format!("outputs/{}/{}/1-plan-{attempt}/", account.id, job.id)),
            "{key}"
        );
        let place = stored
            .iter()
            .position(|object| object.key == key)
            .with_context(|| format!("{key} is not stored"))?;
        assert_eq!(output["size_bytes"], stored.remove(place).size_bytes);
        let bytes = harness.object("OUTPUT_BUCKET", key).await?;
        assert_eq!(output["sha256"], e2e::account::sha256(&bytes));
    }
    assert_eq!(stored, [], "objects that no output names");

    // The API shows exactly these.
    let mut shown: Vec<_> = account
        .outputs(&job.id)
        .await?
        .into_iter()
        .map(|output| output.sha256)
        .collect();
    let mut expected: Vec<_> = published
        .iter()
        .filter_map(|output| output["sha256"].as_str())
        .collect();
    shown.sort();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    Ok(())
}

#[tokio::test]
async fn i5_no_output_is_visible_before_completed() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .clip(
            "source.mp4",
            &Clip {
                seconds: 8,
                ..Clip::default()
            },
        )
        .await?;
    let run = account
        .submit_file(&source, json!({"compression": {"preset": "medium"}}))
        .await?;
    let id = run.id.clone();
    let mut refusals = 0;
    eventually("the end", JOB_LIMIT, async || {
        for part in ["outputs", "download", "thumbnail"] {
            let url = harness.url(&format!("/jobs/{id}/{part}"))?;
            let answer = harness
                .send_any(harness.request(Method::GET, &url).bearer_auth(&account.token))
                .await?;
            if answer.status == 409 {
                answer.problem("not_ready")?;
                refusals += 1;
            } else {
                // What is shown now must have been completed before: states do not go back.
                assert_eq!(account.job(&id).await?.status, "COMPLETED", "{part}: {}", answer.status);
            }
        }
        Ok(account.job(&id).await?.is_terminal().then_some(()))
    })
    .await?;
    drop(run);
    assert!(refusals > 3, "the job was over before anybody could look");
    eventually("the outputs", SHORT_LIMIT, async || Ok(account.outputs(&id).await.ok())).await?;
    Ok(())
}
