//! What an owner does about a job: cancel and retry, each where it is possible and where it is not, alone, at the same
//! time, and against the workers. I7 is here.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::behind::{given_back, plan_message};
use e2e::{Account, Answer, Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, events, eventually};
use futures_util::future::{join_all, try_join_all};
use reqwest::Method;
use serde_json::{Value, json};

const ACTIONS: [&str; 2] = ["cancel", "retry"];
/// How long a worker may go on after a cancel.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// As few pixels as a rendition may have.
const SMALL: Clip<'_> = Clip {
    seconds: 2,
    size: (160, 90),
    rate: 25,
    sound: true,
    encoding: e2e::studio::MP4,
};

/// Acts on a job, as clients do: with no body at all.
async fn act_any(account: &Account<'_>, id: &str, action: &str) -> Result<Answer> {
    let harness = account.harness;
    let request = harness.request(Method::POST, &harness.url(&format!("/jobs/{id}/{action}"))?);
    harness.send_any(request.bearer_auth(&account.token)).await
}

/// Acts on a job; the answer must have this status.
async fn act(account: &Account<'_>, id: &str, action: &str, expected: u16) -> Result<Answer> {
    let answer = act_any(account, id, action).await?;
    let body = String::from_utf8_lossy(&answer.body);
    anyhow::ensure!(answer.status == expected, "{action}: {} {body}", answer.status);
    Ok(answer)
}

/// A job that waits for an upload.
async fn pending(account: &Account<'_>) -> Result<String> {
    Ok(account.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?.id)
}

/// Puts a job where only work or time brings one. A field that is null is taken away.
async fn put_into(harness: &Harness, id: &str, status: &str, fields: Value) -> Result<()> {
    let mut job = harness.item(id, "job").await?;
    let item = job.as_object_mut().context("no item")?;
    item.insert("status".into(), json!(status));
    if matches!(status, "PENDING" | "QUEUED" | "IN_PROGRESS") {
        item.insert("open_state".into(), json!(status));
    } else {
        item.remove("open_state");
    }
    for (name, value) in fields.as_object().context("no fields")? {
        item.insert(name.clone(), value.clone());
    }
    item.retain(|_, value| !value.is_null());
    harness.store_item(&job).await
}

/// A cancelled job whose source was accepted and that nobody has worked on.
async fn cancelled_with_source(account: &Account<'_>, source: Vec<u8>) -> Result<String> {
    let body = json!({"filename": "clip.mp4", "content_type": "video/mp4", "size_bytes": source.len(),
        "thumbnails": {"count": 1}});
    let created = account.create(&body).await?;
    // Cancelled before its upload, so that its event leads to nothing.
    act(account, &created.id, "cancel", 200).await?;
    let stored = account.put(&created.upload, source).await?;
    let pinned = json!({"version_id": stored.header("x-amz-version-id")?, "etag": stored.header("etag")?});
    let fields = json!({"source": pinned, "kind": "video"});
    put_into(account.harness, &created.id, "CANCELLED", fields).await?;
    Ok(created.id)
}

async fn small_clip(harness: &Harness) -> Result<Vec<u8>> {
    let studio = Studio::open(harness)?;
    Ok(fs::read(studio.clip("small.mp4", &SMALL).await?)?)
}

/// Checks that nothing of a cancelled job is there for anybody, and that it is as it was when it was cancelled.
async fn is_cancelled(account: &Account<'_>, answer: &Answer) -> Result<()> {
    let shown: Value = answer.json()?;
    let id = answer.text("/id")?;
    assert_eq!(shown["status"], "CANCELLED", "{shown}");
    assert_eq!(shown["completed_at"], shown["updated_at"], "{shown}");
    assert_eq!(
        (&shown["playable"], &shown["phase"], &shown["metrics"]),
        (&json!(false), &Value::Null, &Value::Null),
        "{shown}"
    );
    assert_eq!(account.get(&format!("/jobs/{id}"), 200).await?.json::<Value>()?, shown);
    for part in ["outputs", "download", "thumbnail"] {
        let refused = account.get(&format!("/jobs/{id}/{part}"), 409).await?;
        refused.problem("not_ready")?;
    }
    let item = account.harness.item(&id, "job").await?;
    for gone in ["open_state", "phase", "fps", "published_attempt"] {
        assert!(item.get(gone).is_none(), "{gone}: {item}");
    }
    Ok(())
}

/// Checks that a job is complete in this generation, and that it is this generation's outputs that are shown.
async fn is_complete(account: &Account<'_>, id: &str, generation: u64, frames: u64) -> Result<()> {
    let job: Value = account.get(&format!("/jobs/{id}"), 200).await?.json()?;
    assert_eq!(
        (&job["status"], &job["generation"]),
        (&json!("COMPLETED"), &json!(generation)),
        "{job}"
    );
    assert_eq!((&job["error"], &job["playable"]), (&Value::Null, &json!(true)), "{job}");
    let items = account.harness.items(id).await?;
    let prefix = format!("output#{generation}-{}#", items["job"]["published_attempt"]);
    let outputs: Vec<_> = items.keys().filter(|key| key.starts_with("output#")).collect();
    assert!(
        !outputs.is_empty() && outputs.iter().all(|key| key.starts_with(&prefix)),
        "{outputs:?}"
    );
    let outputs = account.outputs(id).await?;
    let rendition = outputs.iter().find(|output| output.output_type == "rendition");
    let rendition = rendition.context("no rendition")?;
    assert_eq!(rendition.frames, Some(frames));
    account.download(rendition).await?;
    Ok(())
}

#[tokio::test]
async fn a_job_can_be_cancelled_in_every_state_before_its_end() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let running = json!({"phase": "encoding", "fps": 25.5, "playable": true, "attempts": 2, "frames_done": 10,
        "frames_total": 50, "tasks_total": 4, "tasks_remaining": 2});
    for (status, fields) in [("PENDING", json!({})), ("QUEUED", json!({})), ("IN_PROGRESS", running)] {
        let id = pending(&account).await?;
        put_into(&harness, &id, status, fields).await?;
        let before = harness.items(&id).await?;
        act(&account, &id, "retry", 409).await?.problem("not_retryable")?;
        assert_eq!(harness.items(&id).await?, before, "{status}");

        let answer = act(&account, &id, "cancel", 200).await?;
        is_cancelled(&account, &answer).await?;
        // An answer may have been lost; a body means nothing.
        let cancelled = harness.settled_items(&id).await?;
        let again = harness.request(Method::POST, &harness.url(&format!("/jobs/{id}/cancel"))?);
        let again = again
            .bearer_auth(&account.token)
            .header("content-type", "text/plain")
            .body("{");
        let again = harness.send(again, 200).await?;
        assert_eq!(again.json::<Value>()?, answer.json::<Value>()?, "{status}");
        // There is no source to run again from.
        let refused = act(&account, &id, "retry", 409).await?.problem("not_retryable")?;
        assert!(
            refused["detail"]
                .as_str()
                .is_some_and(|text| text.contains("create a new job")),
            "{refused}"
        );
        assert_eq!(harness.items(&id).await?, cancelled, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_over_stays_as_it_is() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let failure = json!({"code": "size_mismatch", "message": "too short", "stage": "intake", "attempt": 0,
        "retryable": false, "hint": "Declare it."});
    let source = json!({"version_id": "096fKKXTRTtl3on89fVO.nfljtsv6qko", "etag": "\"0\""});
    for (status, fields, retried) in [
        (
            "COMPLETED",
            json!({"source": source, "playable": true, "published_attempt": 1}),
            "the job is COMPLETED",
        ),
        ("EXPIRED", json!({}), "the job is EXPIRED"),
        ("FAILED", json!({"error": failure}), "create a new job"),
    ] {
        let id = pending(&account).await?;
        put_into(&harness, &id, status, fields).await?;
        let before = harness.item(&id, "job").await?;
        let refused = act(&account, &id, "cancel", 409).await?.problem("not_cancellable")?;
        assert_eq!(refused["detail"], format!("the job is {status}"));
        let refused = act(&account, &id, "retry", 409).await?.problem("not_retryable")?;
        assert!(
            refused["detail"].as_str().is_some_and(|text| text.contains(retried)),
            "{refused}"
        );
        let after = harness.items(&id).await?;
        assert_eq!(after["job"], before, "{status}");
        assert!(
            !after.keys().any(|key| key.starts_with("task#")),
            "{status}: {:?}",
            after.keys()
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_comes_late_wakes_no_cancelled_job() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let created = account.create(&json!({"filename": "a.mp4", "size_bytes": 6})).await?;
    let id = &created.id;
    let answer = act(&account, id, "cancel", 200).await?;
    let before = harness.settled_items(id).await?;

    let version = account.upload(&created.upload, b"source".to_vec()).await?;
    let key = format!("sources/{}/{id}/source", account.id);
    let event = events::upload_finished(harness.name("SOURCE_BUCKET")?, &key, &version, 6)?;
    harness.invoke("INTAKE_FUNCTION", &event).await?;
    assert_eq!(harness.items(id).await?, before);

    // A task that was waiting for a worker, and its message.
    let task = json!({"job_id": id, "item": "task#1#plan", "state": "READY", "attempts": 0, "sent_ms": 0,
        "updated_at": before["job"]["created_at"]});
    harness.store_item(&task).await?;
    let event = events::message("late", &plan_message(id, 1))?;
    let handled = harness.invoke("PROCESS_FUNCTION", &event).await?;
    assert_eq!(given_back(&handled)?, Vec::<&str>::new());
    assert_eq!(harness.item(id, "job").await?, before["job"]);
    is_cancelled(&account, &answer).await
}

#[tokio::test]
async fn nobody_acts_on_a_job_but_its_owner() -> Result<()> {
    let harness = Harness::open().await?;
    let (owner, stranger) = (harness.account().await?, harness.account().await?);
    let id = pending(&owner).await?;
    let before = harness.items(&id).await?;
    let shape = |answer: &Answer| {
        let mut body = answer.problem("not_found")?;
        body["request_id"] = json!("");
        Ok::<_, anyhow::Error>(body)
    };
    for action in ACTIONS {
        let foreign = shape(&act(&stranger, &id, action, 404).await?)?;
        let malformed = [
            id.to_uppercase(),
            format!("{id}0"),
            format!("..%2F{id}"),
            "x".into(),
            "%FF".into(),
        ];
        let unknown = "job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b".to_owned();
        for other in malformed.into_iter().chain([unknown]) {
            let answer = act(&owner, &other, action, 404).await.context(other)?;
            assert_eq!(shape(&answer)?, foreign, "a stranger can tell that the job exists");
        }
        let nobody = harness.request(Method::POST, &harness.url(&format!("/jobs/{id}/{action}"))?);
        harness.send(nobody, 401).await?.problem("unauthenticated")?;
    }
    assert_eq!(harness.items(&id).await?, before);

    for base in ["/api/v1", "/api"] {
        for slash in ["", "/"] {
            let id = pending(&owner).await?;
            for (action, expected) in [("retry", 409), ("cancel", 200)] {
                let url = harness.url_at_root(&format!("{base}/jobs/{id}/{action}{slash}"))?;
                let request = harness.request(Method::POST, &url).bearer_auth(&owner.token);
                harness.send(request, expected).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn many_retries_at_once_are_one_new_generation() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = cancelled_with_source(&account, small_clip(&harness).await?).await?;
    let answers = try_join_all((0..8).map(|_| act_any(&account, &id, "retry"))).await?;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    assert_eq!(accepted.len(), 1, "one of them begins the generation");
    for answer in refused {
        assert_eq!(answer.status, 409, "{}", String::from_utf8_lossy(&answer.body));
        answer.problem("not_retryable")?;
    }
    let queued: Value = accepted[0].json()?;
    assert_eq!(
        (&queued["status"], &queued["generation"]),
        (&json!("QUEUED"), &json!(2)),
        "{queued}"
    );
    assert_eq!(
        (&queued["attempts"], &queued["progress_percent"]),
        (&json!(0), &json!(0.0)),
        "{queued}"
    );
    for absent in ["started_at", "completed_at", "error", "phase"] {
        assert_eq!(queued[absent], Value::Null, "{queued}");
    }
    assert_eq!(queued["queued_at"], queued["updated_at"], "{queued}");

    account.ended(&id, JOB_LIMIT).await?;
    is_complete(&account, &id, 2, 50).await?;
    let items = harness.items(&id).await?;
    let tasks: Vec<_> = items.keys().filter(|key| key.ends_with("#plan")).collect();
    assert_eq!(tasks, ["task#2#plan"]);
    assert_eq!(items["task#2#plan"]["attempts"], 1);
    act(&account, &id, "retry", 409).await?.problem("not_retryable")?;
    act(&account, &id, "cancel", 409).await?.problem("not_cancellable")?;
    Ok(())
}

#[tokio::test]
async fn a_storm_of_cancels_and_retries_leaves_one_consistent_job() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = cancelled_with_source(&account, small_clip(&harness).await?).await?;
    let mut generations = Vec::new();
    for _ in 0..5 {
        let calls = [ACTIONS; 4].concat();
        let answers = join_all(calls.iter().map(|action| act_any(&account, &id, action))).await;
        for (action, answer) in calls.into_iter().zip(answers) {
            let answer = answer?;
            match (action, answer.status.as_u16()) {
                ("cancel", 200) => assert_eq!(answer.text("/status")?, "CANCELLED"),
                ("retry", 202) => {
                    assert_eq!(answer.text("/status")?, "QUEUED");
                    generations.push(answer.value("/generation")?.as_u64().context("no generation")?);
                }
                ("cancel", 409) => drop(answer.problem("not_cancellable")?),
                ("retry", 409) => drop(answer.problem("not_retryable")?),
                (_, status) => panic!("{action}: {status} {}", String::from_utf8_lossy(&answer.body)),
            }
        }
    }
    // It may have been complete before the next cancel came; nothing changes that then.
    if act_any(&account, &id, "cancel").await?.status == 200 {
        let retried = act(&account, &id, "retry", 202).await?;
        generations.push(retried.value("/generation")?.as_u64().context("no generation")?);
    }
    generations.sort_unstable();
    let last = 1 + generations.len() as u64;
    assert_eq!(
        generations,
        (2..=last).collect::<Vec<_>>(),
        "each retry is a generation of its own"
    );

    account.ended(&id, JOB_LIMIT).await?;
    is_complete(&account, &id, last, 50).await?;
    let items = harness.items(&id).await?;
    let tasks = items.keys().filter(|key| key.starts_with("task#"));
    let expected: BTreeSet<_> = generations.iter().map(|n| format!("task#{n}#plan")).collect();
    assert!(tasks.eq(expected.iter()), "{:?}", items.keys());
    assert_eq!(account.mails_up_to_now().await?.len(), 1, "only the end is told");
    Ok(())
}

#[tokio::test]
async fn a_job_whose_attempts_were_used_up_has_three_more_after_a_retry() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = cancelled_with_source(&account, small_clip(&harness).await?).await?;
    // A worker has died for the third time.
    let now = harness.item(&id, "job").await?["updated_at"].clone();
    let task = json!({"job_id": id, "item": "task#1#plan", "state": "RUNNING", "attempts": 3, "owner": "wrk_gone",
        "lease_expires_ms": 0, "updated_at": now});
    harness.store_item(&task).await?;
    let fields = json!({"attempts": 3, "queued_at": now, "started_at": now, "completed_at": null});
    put_into(&harness, &id, "IN_PROGRESS", fields).await?;
    harness
        .send_message("LOW_QUEUE_URL", &account.id, &plan_message(&id, 1))
        .await?;
    let failed = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!(
        (failed.status.as_str(), failed.error_code()),
        ("FAILED", Some("attempts_exhausted"))
    );
    // Told before the retry: a mail is about the job as it is when it is written.
    eventually("the mail about the failure", SHORT_LIMIT, async || {
        Ok((harness.mails(&account.email).await?.len() == 1).then_some(()))
    })
    .await?;

    let queued: Value = act(&account, &id, "retry", 202).await?.json()?;
    assert_eq!(
        (&queued["attempts"], &queued["error"]),
        (&json!(0), &Value::Null),
        "{queued}"
    );
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!(job.attempts, 1, "{:?}", job.error);
    is_complete(&account, &id, 2, 50).await?;
    let items = harness.items(&id).await?;
    assert_eq!(
        (&items["task#1#plan"]["state"], &items["task#1#plan"]["attempts"]),
        (&json!("FAILED"), &json!(3))
    );
    assert_eq!(
        (&items["task#2#plan"]["state"], &items["task#2#plan"]["attempts"]),
        (&json!("DONE"), &json!(1))
    );
    assert_eq!(account.mails_up_to_now().await?.len(), 2, "one for each end");
    Ok(())
}

#[tokio::test]
async fn i7_a_cancel_comes_before_the_outputs_or_after_them() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let source = small_clip(&harness).await?;
    let wishes = json!({"compression": {"preset": "slow"}});
    let mut cancelled = Vec::new();
    for percent in [0.0, 30.0, 60.0, 90.0, 99.0] {
        let run = account.submit(source.clone(), wishes.clone()).await?;
        eventually("the moment", JOB_LIMIT, async || {
            let seen = account.progress(&run.id).await?;
            let began = matches!(seen.status.as_str(), "IN_PROGRESS" | "COMPLETED");
            Ok((began && seen.progress_percent >= percent).then_some(()))
        })
        .await?;
        let answer = act_any(&account, &run.id, "cancel").await?;
        if answer.status == 200 {
            is_cancelled(&account, &answer).await?;
            cancelled.push(answer);
        } else {
            answer.problem("not_cancellable")?;
            is_complete(&account, &run.id, 1, 50).await?;
        }
    }
    // A whole job takes longer than what was left to do for the others, had their workers not stopped.
    let run = account.submit(source, wishes).await?;
    assert_eq!(account.finish(run).await?.status, "COMPLETED");
    for answer in &cancelled {
        is_cancelled(&account, answer).await?;
    }
    Ok(())
}

/// The running encoders whose bit rate is limited to this: a number that no other test asks for.
fn encoders(max_bitrate_bps: u64) -> Vec<i32> {
    let mark = max_bitrate_bps.to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One that has ended and was not waited for yet has no arguments any more.
    pids.filter(|pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.trim() == "ffmpeg" && arguments.split('\0').any(|argument| argument == mark)
    })
    .collect()
}

/// Cancels a job while this many encoders work on it at once, and runs it again to its end.
async fn stopped_and_retried(clip: &Clip<'_>, preset: &str, max_bitrate_bps: u64, at_once: usize) -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let wishes = json!({"priority": "high", "thumbnails": {"count": 1},
        "compression": {"preset": preset, "max_bitrate_bps": max_bitrate_bps}});
    let run = account
        .submit_file(&studio.clip("long.mp4", clip).await?, wishes)
        .await?;
    let id = &run.id;
    eventually("the encoders", JOB_LIMIT, async || {
        Ok((encoders(max_bitrate_bps).len() >= at_once).then_some(()))
    })
    .await?;

    let answer = act(&account, id, "cancel", 200).await?;
    eventually("the end of the encoders", STOP_LIMIT, async || {
        Ok(encoders(max_bitrate_bps).is_empty().then_some(()))
    })
    .await?;
    // Its message again, as the queue would deliver it.
    let event = events::message("late", &plan_message(id, 1))?;
    harness.invoke("PROCESS_FUNCTION", &event).await?;
    assert_eq!(encoders(max_bitrate_bps), Vec::<i32>::new());
    is_cancelled(&account, &answer).await?;

    act(&account, id, "retry", 202).await?;
    account.ended(id, JOB_LIMIT).await?;
    is_complete(&account, id, 2, u64::from(clip.seconds * clip.rate)).await?;
    assert_eq!(account.mails_up_to_now().await?.len(), 1, "a cancel is not told");
    Ok(())
}

#[tokio::test]
async fn i7_a_cancel_stops_the_encoder_and_a_retry_completes_the_job() -> Result<()> {
    let clip = Clip {
        seconds: 10,
        size: (854, 480),
        ..Clip::default()
    };
    stopped_and_retried(&clip, "slow", 1_234_567, 1).await
}

#[tokio::test]
async fn i7_a_cancel_stops_all_workers_of_a_job_and_a_retry_completes_it() -> Result<()> {
    let harness = Harness::open().await?;
    let environment = harness.function_environment("PROCESS_FUNCTION").await?;
    let seconds = |name: &str| Ok::<u32, anyhow::Error>(environment.get(name).context("not set")?.parse()?);
    // Above the length that one invocation does, and some chunks long.
    let clip = Clip {
        seconds: seconds("SINGLE_SECONDS")? + 3 * seconds("CHUNK_SECONDS")?,
        ..Clip::default()
    };
    stopped_and_retried(&clip, "medium", 1_234_589, 2).await
}
