//! A source in chunks: whatever comes twice, late, in another order or never, there is one whole result.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::account::{Created, sha256};
use e2e::behind::{Object, assemble_message, encode_message, encode_task, plan_message};
use e2e::studio::MP4;
use e2e::worker::Mark;
use e2e::{Account, Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, eventually};
use futures_util::future::try_join_all;
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use serde_json::{Value, json};

/// A straggler is left alone for half a minute, and begins anew then.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(40);
/// For half an hour of video.
const LONG_LIMIT: Duration = Duration::from_mins(8);

/// A clip of four chunks, with the bounds of the local stack.
pub(crate) fn chunked_clip() -> Clip<'static> {
    Clip {
        seconds: 30,
        ..Clip::default()
    }
}

/// Checks that a job is complete, once, that all of it is there, and that no task of it is left. Returns its items.
pub(crate) async fn is_whole(account: &Account<'_>, id: &str, frames: u64) -> Result<BTreeMap<String, Value>> {
    let items = is_published(account, id, frames).await?;
    let tasks = format!("task#{}#", items["job"]["generation"]);
    for (key, item) in items.iter().filter(|(key, _)| key.starts_with(&tasks)) {
        assert_eq!(item["state"], "DONE", "{key}");
        assert!(item.get("owner").is_none(), "{key}");
    }
    Ok(items)
}

/// Checks that a job is complete, once, and that all of it is there: every frame of every file, and every object that
/// its outputs and its proof name. Returns its items.
pub(crate) async fn is_published(account: &Account<'_>, id: &str, frames: u64) -> Result<BTreeMap<String, Value>> {
    let harness = account.harness;
    let shown = account.job(id).await?;
    assert_eq!(shown.status, "COMPLETED", "{:?}", shown.error);
    assert!(shown.playable && shown.metrics.is_some());
    let progress = account.progress(id).await?;
    assert_eq!(progress.progress_percent.to_bits(), 100_f64.to_bits());
    assert_eq!((progress.frames_done, progress.frames_total), (frames, frames));

    let items = harness.items(id).await?;
    let job = &items["job"];
    assert_eq!(job["tasks_remaining"], 0, "{job}");
    let prefix = format!("output#{}-{}#", job["generation"], job["published_attempt"]);
    let outputs: Vec<&Value> = items
        .iter()
        .filter_map(|(key, item)| key.starts_with("output#").then_some(item))
        .collect();
    assert!(
        outputs
            .iter()
            .all(|output| output["item"].as_str().is_some_and(|key| key.starts_with(&prefix)))
    );

    let mut named = Vec::new();
    for output in &outputs {
        named.push(*output);
        // The list of an HLS ladder's rungs is no rendition of its own.
        if output["type"] == "rendition" && output["id"] != "hls" {
            let proof = &output["proof"];
            assert_eq!(
                (&output["frames"], &proof["counted_frames"]),
                (&json!(frames), &json!(frames)),
                "{output}"
            );
            assert_eq!(proof["expected_frames"], frames, "{output}");
        }
    }
    let proof = outputs
        .iter()
        .find(|output| output["type"] == "proof")
        .context("no proof")?;
    let proof = harness
        .object("OUTPUT_BUCKET", proof["key"].as_str().context("no key")?)
        .await?;
    let proof: Value = serde_json::from_slice(&proof)?;
    let renditions = proof["renditions"].as_array().context("no renditions")?;
    named.extend(
        renditions
            .iter()
            .filter_map(|rendition| rendition["objects"].as_array())
            .flatten(),
    );
    for object in named {
        let key = object["key"].as_str().context("no key")?;
        let bytes = harness.object("OUTPUT_BUCKET", key).await?;
        assert_eq!(object["size_bytes"], bytes.len(), "{key}");
        assert_eq!(object["sha256"], sha256(&bytes), "{key}");
    }

    let studio = Studio::open(harness)?;
    for output in account.outputs(id).await? {
        if output.output_type == "rendition" && output.format == "mp4" {
            let look = studio.look_at(&output.id, &account.download(&output).await?).await?;
            assert_eq!(look.frames()?, frames, "{}", output.id);
        }
    }
    Ok(items)
}

/// Everything of a job that is stored: its items but for the mail's, and the objects of its outputs and its work.
async fn stored(account: &Account<'_>, id: &str) -> Result<(BTreeMap<String, Value>, Vec<Object>)> {
    let harness = account.harness;
    let mut items = harness.items(id).await?;
    items.retain(|key, _| !key.starts_with("mail#"));
    let mut objects = Vec::new();
    for area in ["outputs", "work"] {
        let prefix = format!("{area}/{}/{id}/", account.id);
        objects.extend(harness.objects("OUTPUT_BUCKET", &prefix).await?);
    }
    Ok((items, objects))
}

/// Creates a job for a clip and sends it, with more fields of the request in `with`. It is not counted among those that
/// may be encoded at once: these tests wait for each other's queues instead.
async fn submit(account: &Account<'_>, source: Vec<u8>, with: Value) -> Result<Created> {
    let mut body = json!({"filename": "clip.mp4", "content_type": "video/mp4", "size_bytes": source.len(),
        "thumbnails": {"count": 1}});
    if let (Value::Object(fields), Value::Object(more)) = (&mut body, with) {
        fields.extend(more);
    }
    let created = account.create(&body).await?;
    account.upload(&created.upload, source).await?;
    Ok(created)
}

async fn source(harness: &Harness, clip: &Clip<'_>) -> Result<Vec<u8>> {
    let studio = Studio::open(harness)?;
    Ok(std::fs::read(studio.clip("source.mp4", clip).await?)?)
}

/// Waits for the tasks of a generation; returns the number of its chunks.
async fn planned(harness: &Harness, id: &str, generation: u32) -> Result<u32> {
    eventually("the tasks", JOB_LIMIT, async || {
        let job = harness.item(id, "job").await?;
        let total = job["tasks_total"].as_u64().filter(|total| *total > 0);
        Ok(total.filter(|_| job["generation"] == generation))
    })
    .await?
    .try_into()
    .map_err(Into::into)
}

/// The messages of a generation, in an order that makes no sense: what comes last first.
fn all_messages(id: &str, generation: u32, chunks: u32) -> Vec<String> {
    let mut messages = vec![assemble_message(id, generation)];
    messages.extend((0..chunks).rev().map(|chunk| encode_message(id, generation, chunk)));
    messages.push(plan_message(id, generation));
    messages
}

#[tokio::test]
async fn messages_that_come_thrice_early_late_or_for_another_generation_make_one_result() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let wishes = json!({"outputs": [{"format": "mp4", "quality": "360p"}, {"format": "hls", "qualities": ["360p"]}]});
    let id = submit(&account, source(&harness, &chunked_clip()).await?, wishes)
        .await?
        .id;
    // As soon as there is a plan, so that some come before the task that they are about may begin.
    eventually("the plan", JOB_LIMIT, async || {
        Ok(harness.items(&id).await?.contains_key("plan#1").then_some(()))
    })
    .await?;
    let send = |queue: &'static str, body: String| async {
        let body = body;
        harness.send_message(queue, &account.id, &body).await
    };
    for generation in [0, 1, 1, 1, 2] {
        let messages = all_messages(&id, generation, 4);
        try_join_all(messages.into_iter().map(|body| send("LOW_QUEUE_URL", body))).await?;
    }
    assert_eq!(planned(&harness, &id, 1).await?, 4);
    account.ended(&id, JOB_LIMIT).await?;
    let items = is_whole(&account, &id, 750).await?;
    for (key, item) in items.iter().filter(|(key, _)| key.starts_with("task#")) {
        assert_eq!(item["attempts"], 1, "{key}");
    }
    assert_eq!(items["metrics"]["tasks"], 6);
    // Every object is of a first attempt, and of each task there is one.
    let (_, objects) = stored(&account, &id).await?;
    assert!(objects.iter().all(|object| object.key.contains("-1/")), "{objects:?}");
    assert_eq!(account.mails_up_to_now().await?.len(), 1);

    // Late ones are marked by a field that nobody reads: those that came while a task ran are hidden for long.
    let before = stored(&account, &id).await?;
    for queue in ["HIGH_QUEUE_URL", "LOW_QUEUE_URL"] {
        let late = |body: String| body.replacen('{', "{\"copy\":\"late\",", 1);
        let messages = [0, 1, 2].map(|generation| all_messages(&id, generation, 4)).concat();
        try_join_all(messages.into_iter().map(|body| send(queue, late(body)))).await?;
        eventually("the end of the late messages", SHORT_LIMIT, async || {
            let waiting = harness.messages(queue, &id).await?;
            Ok((!waiting.iter().any(|body| body.contains("late"))).then_some(()))
        })
        .await?;
    }
    assert_eq!(stored(&account, &id).await?, before);
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn high_goes_before_low_and_low_still_moves() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let wishes = |priority: &str| json!({"priority": priority, "outputs": [{"format": "mp4", "quality": "360p"}]});
    let long = Clip {
        seconds: 90,
        ..Clip::default()
    };
    let (long, short) = (source(&harness, &long).await?, source(&harness, &chunked_clip()).await?);
    let low = submit(&account, long, wishes("low")).await?.id;
    planned(&harness, &low, 1).await?;
    let high = submit(&account, short, wishes("high")).await?.id;
    planned(&harness, &high, 1).await?;
    let at_first = harness.item(&low, "job").await?;
    account.ended(&high, JOB_LIMIT).await?;
    let meanwhile = harness.item(&low, "job").await?;
    assert_eq!(
        meanwhile["status"], "IN_PROGRESS",
        "it began first, and it is three times as long"
    );
    let done = |job: &Value| job["frames_done"].as_u64();
    assert!(done(&meanwhile) > done(&at_first), "{at_first} {meanwhile}");
    account.ended(&low, JOB_LIMIT).await?;
    is_whole(&account, &high, 750).await?;
    is_whole(&account, &low, 2_250).await?;
    Ok(())
}

/// Puts a task where only a crash brings it, whoever has it.
async fn put_task(harness: &Harness, id: &str, task: &str, fields: Value) -> Result<()> {
    let mut item = harness.item(id, task).await?;
    for (name, value) in fields.as_object().context("no fields")? {
        item[name] = value.clone();
    }
    harness.store_item(&item).await
}

#[tokio::test]
async fn a_retry_keeps_the_chunks_that_are_done() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let wishes = json!({"outputs": [{"format": "mp4", "quality": "360p"}, {"format": "hls", "qualities": ["360p"]}]});
    let id = submit(&account, source(&harness, &chunked_clip()).await?, wishes)
        .await?
        .id;
    assert_eq!(planned(&harness, &id, 1).await?, 4);
    // Somebody has the last chunk, and dies for the third time when the others are done.
    let (last, now) = (encode_task(1, 3), UtcTime::now());
    let held = json!({"state": "RUNNING", "owner": "wrk_lost", "attempts": 1, "started_ms": now.epoch_ms(),
        "lease_expires_ms": now.plus(JOB_LIMIT).epoch_ms()});
    put_task(&harness, &id, &last, held).await?;
    eventually("the other chunks", JOB_LIMIT, async || {
        Ok((harness.item(&id, "job").await?["tasks_remaining"] == 1).then_some(()))
    })
    .await?;
    put_task(&harness, &id, &last, json!({"attempts": 3, "lease_expires_ms": 1})).await?;
    harness.sweep().await?;
    let failed = account.ended(&id, SHORT_LIMIT).await?;
    assert_eq!(failed.error_code(), Some("attempts_exhausted"));
    assert!(!failed.playable, "it was, before it failed");
    eventually("the mail about the failure", SHORT_LIMIT, async || {
        Ok((harness.mails(&account.email).await?.len() == 1).then_some(()))
    })
    .await?;
    let first = harness.items(&id).await?;

    let retry = harness.request(Method::POST, &harness.url(&format!("/jobs/{id}/retry"))?);
    harness.send(retry.bearer_auth(&account.token), 202).await?;
    assert_eq!(planned(&harness, &id, 2).await?, 4);
    // What is left of the first generation means nothing to the second one.
    for body in all_messages(&id, 1, 4) {
        harness.send_message("LOW_QUEUE_URL", &account.id, &body).await?;
    }
    account.ended(&id, JOB_LIMIT).await?;
    let items = is_whole(&account, &id, 750).await?;
    for chunk in 0..4 {
        let task = &items[&encode_task(2, chunk)];
        let key = task["result"]["videos"][0]["object"]["key"]
            .as_str()
            .context("no key")?;
        if chunk < 3 {
            assert_eq!(task["result"], first[&encode_task(1, chunk)]["result"], "{task}");
            assert_eq!(task["attempts"], 0, "nobody has encoded it again");
            assert!(key.contains(&format!("/1-c000{chunk}-1/")), "{key}");
        } else {
            assert_eq!(task["attempts"], 1);
            assert!(key.contains("/2-c0003-1/"), "{key}");
        }
    }
    let old = |items: &BTreeMap<String, Value>| {
        let mut items = items.clone();
        items.retain(|key, _| key.starts_with("task#1#") || key == "plan#1");
        items
    };
    assert_eq!(old(&items), old(&first), "the first generation stays as it ended");
    assert_eq!(account.mails_up_to_now().await?.len(), 2, "one for each end");
    Ok(())
}

/// Slow: a straggler is left alone for half a minute.
#[tokio::test]
async fn slow_a_straggler_is_given_to_another_worker() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let (source, mark) = Mark::put(source(&harness, &chunked_clip()).await?)?;
    let wishes = json!({"priority": "high", "outputs": [{"format": "mp4", "quality": "360p"}]});
    let id = submit(&account, source, wishes).await?.id;
    // Its encoder stands still; its worker goes on and renews its lease.
    let slow = harness
        .tool_reading(&[mark], JOB_LIMIT, |tool| tool.first_frame > Some(0))
        .await?;
    slow.freeze_tool()?;
    let plan = harness.item(&id, "plan#1").await?;
    let chunk = slow
        .first_frame
        .zip(plan["chunk_frames"].as_u64())
        .map(|(frame, frames)| frame / frames);
    let chunk = u32::try_from(chunk.context("no chunk")?)?;
    eventually("the other chunks", JOB_LIMIT, async || {
        Ok((harness.item(&id, "job").await?["tasks_remaining"] == 1).then_some(()))
    })
    .await?;
    eventually("another attempt", STRAGGLER_LIMIT, async || {
        harness.sweep().await?;
        let task = harness.item(&id, &encode_task(1, chunk)).await?;
        Ok((task["attempts"] == 2).then_some(()))
    })
    .await?;
    eventually("the end of the straggler", SHORT_LIMIT, async || {
        Ok(slow.is_gone().then_some(()))
    })
    .await?;
    account.ended(&id, JOB_LIMIT).await?;
    let items = is_whole(&account, &id, 750).await?;
    for (key, item) in items.iter().filter(|(key, _)| key.starts_with("task#")) {
        assert_eq!(
            item["attempts"],
            if *key == encode_task(1, chunk) { 2 } else { 1 },
            "{key}"
        );
    }
    let result = &items[&encode_task(1, chunk)]["result"];
    let key = result["videos"][0]["object"]["key"].as_str().context("no key")?;
    assert!(key.contains(&format!("/1-c{chunk:04}-2/")), "{key}");
    Ok(())
}

#[tokio::test]
async fn progress_only_grows_and_what_is_there_can_be_played_before_the_end() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let wishes = json!({"priority": "high", "compression": {"preset": "medium"},
        "outputs": [{"format": "hls", "qualities": ["360p"]}, {"format": "mp4", "quality": "360p"}]});
    let id = submit(&account, source(&harness, &chunked_clip()).await?, wishes)
        .await?
        .id;
    let (mut seen, mut playable) = (Vec::new(), Vec::new());
    eventually("the end", JOB_LIMIT, async || {
        let progress = account.progress(&id).await?;
        let job = account.job(&id).await?;
        let ended = job.is_terminal();
        playable.push((job.playable, job.status));
        seen.push(progress);
        Ok(ended.then_some(()))
    })
    .await?;
    seen.push(account.progress(&id).await?);
    is_whole(&account, &id, 750).await?;
    for pair in seen.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert!(
            before.progress_percent <= after.progress_percent,
            "{before:?} {after:?}"
        );
        assert!(before.frames_done <= after.frames_done, "{before:?} {after:?}");
        assert!(
            after.progress_percent < 100.0 || after.status == "COMPLETED",
            "{after:?}"
        );
    }
    let between = seen
        .iter()
        .filter(|look| look.progress_percent > 0.0 && look.progress_percent < 100.0);
    let mut steps: Vec<u64> = between.map(|look| look.frames_done).collect();
    steps.dedup();
    assert!(steps.len() >= 4, "at least once a chunk: {steps:?}");
    assert!(playable.is_sorted_by_key(|(playable, _)| *playable), "{playable:?}");
    let early = playable
        .iter()
        .filter(|(playable, status)| *playable && status == "IN_PROGRESS");
    assert!(early.count() > 0, "{playable:?}");
    Ok(())
}

/// Slow: half an hour of video.
#[tokio::test]
async fn slow_half_an_hour_goes_through_in_hundreds_of_tasks() -> Result<()> {
    // On a stack of its own: the emulator's queues are not fair, and nobody else's job would come through for minutes.
    let harness = Harness::open_apart("local-e2e-long").await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    // Few colours and five frames a second: many chunks, and little work in each.
    let picture = "color=c=navy:size=1920x1080:rate=5:duration=1800[sea];\
                   color=c=white:size=120x80:rate=5:duration=1800[boat];\
                   [sea][boat]overlay=x=mod(t*30\\,1800):y=500:shortest=1";
    let sound = "sine=frequency=330:sample_rate=48000:duration=1800";
    let mut arguments = vec!["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound];
    arguments.extend(MP4);
    let long = studio.make("long.mp4", &arguments).await?;
    let frames = studio.look(&long).await?.frames()?;
    ensure!(frames == 9_000, "the source has {frames} frames");
    let wishes = json!({"priority": "high", "compression": {"preset": "ultrafast"}, "thumbnails": {"count": 3},
        "outputs": [{"format": "mp4", "quality": "360p"}, {"format": "hls", "qualities": ["360p"]}]});
    let id = submit(&account, std::fs::read(long)?, wishes).await?.id;
    let job = account.ended(&id, LONG_LIMIT).await?;
    let items = is_whole(&account, &id, frames).await?;
    let tasks = items.keys().filter(|key| key.starts_with("task#1#")).count();
    assert!(tasks > 60, "{tasks} tasks");
    assert_eq!(items["metrics"]["tasks"], tasks);
    println!("{tasks} tasks: {:?}", job.metrics);
    Ok(())
}
