//! A worker dies or freezes in the middle of its work, at each stage of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::worker::{Encoder, Mark};
use e2e::{Account, Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, eventually};
use futures_util::future::{join_all, try_join_all};
use serde_json::json;

use crate::chunks::{chunked_clip, is_whole};

/// How long a dead worker's task may wait: its lease, the sweep's minute, and the work itself on a busy machine.
const RECOVERY: Duration = Duration::from_secs(60 + 60 + 30);

/// What a worker is doing when it is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// All of a short source, in its plan task.
    WholeJob,
    /// It encodes a chunk that is not the first one.
    Encoding,
}

/// A job, and the worker to hit.
#[derive(Debug)]
struct Victim {
    id: String,
    moment: Moment,
    worker: Encoder,
    /// The sort key of the worker's task.
    task: String,
    frames: u64,
}

impl Victim {
    /// Submits a job and waits for its moment.
    async fn find(account: &Account<'_>, studio: &Studio, moment: Moment, priority: &str) -> Result<Self> {
        let clip = if moment == Moment::WholeJob {
            Clip {
                seconds: 10,
                size: (854, 480),
                ..Clip::default()
            }
        } else {
            chunked_clip()
        };
        let path = studio.clip(&format!("{moment:?}.mp4"), &clip).await?;
        let (source, mark) = Mark::put(std::fs::read(path)?)?;
        let body = json!({"filename": "clip.mp4", "content_type": "video/mp4", "size_bytes": source.len(),
            "priority": priority, "thumbnails": {"count": 1}, "compression": {"preset": "medium"},
            "outputs": [{"format": "mp4"}, {"format": "mp4", "quality": "360p"}]});
        let created = account.create(&body).await?;
        account.upload(&created.upload, source).await?;
        let (harness, id) = (account.harness, created.id);
        let worker = harness
            .tool_reading(&[mark], JOB_LIMIT, |tool| match moment {
                Moment::WholeJob => tool.first_frame == Some(0),
                Moment::Encoding => tool.first_frame > Some(0),
            })
            .await;
        let worker = worker.with_context(|| format!("{moment:?} of {id}"))?;
        let task = match (moment, worker.first_frame) {
            (Moment::Encoding, Some(frame)) => {
                let plan = harness.item(&id, "plan#1").await?;
                let frames = plan["chunk_frames"].as_u64().context("no chunks")?;
                format!("task#1#encode#{:04}", frame / frames)
            }
            _ => "task#1#plan".to_owned(),
        };
        Ok(Self {
            id,
            moment,
            worker,
            task,
            frames: u64::from(clip.seconds * clip.rate),
        })
    }

    /// Checks that the job has one result, and that the hit cost an attempt at one task and nothing else.
    async fn is_recovered(&self, account: &Account<'_>) -> Result<()> {
        let Self { id, moment, task, .. } = self;
        let items = is_whole(account, id, self.frames)
            .await
            .with_context(|| format!("{moment:?} of {id}"))?;
        for (key, item) in items.iter().filter(|(key, _)| key.starts_with("task#")) {
            let attempts = if key == task { 2 } else { 1 };
            assert_eq!(item["attempts"], attempts, "{moment:?}: {key}");
        }
        assert_eq!(items["job"]["attempts"], 2, "{moment:?}");
        let published = if *moment == Moment::WholeJob { 2 } else { 1 };
        assert_eq!(items["job"]["published_attempt"], published, "{moment:?}");
        if let Some((_, chunk)) = task.split_once("#encode#") {
            let key = items[task]["result"]["videos"][0]["object"]["key"].as_str();
            assert!(
                key.is_some_and(|key| key.contains(&format!("/1-c{chunk}-2/"))),
                "{key:?}"
            );
        }
        assert_eq!(account.mails_up_to_now().await?.len(), 1, "{moment:?}");
        Ok(())
    }
}

async fn tool_ends(victim: &Victim) -> Result<()> {
    let what = format!("the end of the tool of {:?}", victim.moment);
    eventually(&what, SHORT_LIMIT, async || Ok(victim.worker.is_gone().then_some(()))).await
}

/// Kills a worker at this moment, and waits for its job.
async fn killed(harness: &Harness, studio: &Studio, moment: Moment) -> Result<()> {
    let account = harness.account().await?;
    let victim = Victim::find(&account, studio, moment, "high").await?;
    victim.worker.kill_function()?;
    let hit = Instant::now();
    tool_ends(&victim).await?;
    account
        .get(&format!("/jobs/{}/outputs", victim.id), 409)
        .await?
        .problem("not_ready")?;
    account.ended(&victim.id, RECOVERY).await?;
    println!(
        "{moment:?}: complete {:.0} s after the kill",
        hit.elapsed().as_secs_f64()
    );
    victim.is_recovered(&account).await
}

/// Slow: about a minute and a half, most of it waiting for the dead workers' leases to run out.
#[tokio::test]
async fn slow_a_killed_worker_costs_an_attempt_and_nothing_else() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let moments = [Moment::WholeJob, Moment::Encoding];
    try_join_all(moments.map(|moment| killed(&harness, &studio, moment))).await?;
    Ok(())
}

/// Freezes a worker at this moment until its task was taken over, and lets it go on then.
async fn frozen(harness: &Harness, studio: &Studio, moment: Moment, priority: &str) -> Result<()> {
    let account = harness.account().await?;
    let victim = Victim::find(&account, studio, moment, priority).await?;
    let (id, task) = (&victim.id, &victim.task);
    victim.worker.freeze_function()?;
    // While another worker is at it, for a chunk; else when the job is over.
    let moved_on = eventually("the other worker", RECOVERY, async || {
        let items = harness.items(id).await?;
        let taken = items[task]["attempts"] == 2 && items[task]["state"] == "RUNNING";
        let over = items["job"]["status"] != "IN_PROGRESS";
        Ok((over || taken && moment == Moment::Encoding).then_some(over))
    })
    .await;
    let before = harness.items(id).await;
    // Thawed in any case: a frozen process would outlive a failed test.
    victim.worker.thaw_function()?;
    let (over, before) = (moved_on?, before?);
    ensure!(over != (moment == Moment::Encoding), "{moment:?}: thawed too late");
    tool_ends(&victim).await?;
    if over {
        // The late worker finds its lease gone and gives its message back, which then finds nothing to do.
        harness.queues_forget(id).await?;
        let after = harness.items(id).await?;
        // What follows from the job's end is not the worker's doing.
        let is_followed_up = |key: &str| key.starts_with("mail#") || key == "usage";
        for (key, item) in after.iter().filter(|(key, _)| !is_followed_up(key)) {
            assert_eq!(Some(item), before.get(key), "{moment:?}: {key}");
        }
    } else {
        account.ended(id, RECOVERY).await?;
    }
    victim.is_recovered(&account).await
}

/// Slow: more than a minute, most of it waiting for the frozen workers' leases to run out.
#[tokio::test]
async fn slow_a_frozen_worker_that_wakes_up_late_changes_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    // A frozen worker keeps its place in the queue's concurrency, and each queue needs one more to go on.
    let moments = [(Moment::WholeJob, "low"), (Moment::Encoding, "high")];
    let ends = join_all(moments.map(|(moment, priority)| frozen(&harness, &studio, moment, priority))).await;
    ends.into_iter().collect()
}
