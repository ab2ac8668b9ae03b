//! A worker dies at every point at which anybody could notice: after each call that it makes to a service, which still is
//! carried out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::behind::{assemble_message, encode_message, plan_message};
use e2e::{Account, Clip, Harness, Studio, events, eventually};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::domain::time::UtcTime;
use serde_json::{Value, json};

use crate::chunks::is_whole;

/// From a worker's death to the end of its job: the lease, what the sweep grants beyond it, the sweep's minute, and the
/// work itself among all the others.
const RECOVERY: Duration = Duration::from_secs(60 + 30 + 60 + 120);
/// Workers that are driven at the same time.
const AT_ONCE: usize = 3;

/// The task that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All of a short source.
    Whole,
    /// The planning of a source in two chunks.
    Plan,
    /// The joining of those.
    Assemble,
}

impl Stage {
    /// By the bounds of the local stack: up to 12 s at once, and chunks of 8 s.
    fn seconds(self) -> u32 {
        match self {
            Self::Whole => 1,
            Self::Plan | Self::Assemble => 16,
        }
    }
}

/// What one worker was driven through.
#[derive(Debug)]
struct Driven {
    id: String,
    stage: Stage,
    /// After how many calls it died; `None` when it had made all of its calls before.
    died_after: Option<usize>,
}

/// A source and its owner.
struct Bench<'h> {
    account: Account<'h>,
    clips: [(Stage, Vec<u8>); 3],
    /// A queue that nobody reads: whatever a driven worker sends is delivered by the test.
    own_queue: String,
}

impl<'h> Bench<'h> {
    async fn open(harness: &'h Harness) -> Result<Self> {
        let studio = Studio::open(harness)?;
        let mut clips = Vec::new();
        for stage in [Stage::Whole, Stage::Plan, Stage::Assemble] {
            let clip = Clip {
                seconds: stage.seconds(),
                size: (160, 90),
                ..Clip::default()
            };
            let path = studio.clip(&format!("{stage:?}.mp4"), &clip).await?;
            clips.push((stage, std::fs::read(path)?));
        }
        Ok(Self {
            account: harness.account().await?,
            clips: clips.try_into().ok().context("three clips")?,
            own_queue: harness.own_queue().await?,
        })
    }

    /// A job that is ready for its plan task, of which no queue knows.
    async fn planted(&self, stage: Stage) -> Result<String> {
        let (harness, account) = (self.account.harness, &self.account);
        let (_, source) = self.clips.iter().find(|(of, _)| *of == stage).context("a clip")?;
        let body = json!({"filename": "clip.mp4", "size_bytes": source.len(), "priority": "high",
            "thumbnails": {"count": 1}, "outputs": [{"format": "mp4"}, {"format": "hls"}]});
        let created = account.create(&body).await?;
        // Before the upload, so that its event finds a job that is on its way already and sends no message.
        let mut job = harness.item(&created.id, "job").await?;
        job["status"] = json!("IN_PROGRESS");
        job["open_state"] = json!("IN_PROGRESS");
        harness.store_item(&job).await?;
        let answer = account.put(&created.upload, source.clone()).await?;
        job["kind"] = json!("video");
        job["queued_at"] = job["created_at"].clone();
        job["source"] = json!({"version_id": answer.header("x-amz-version-id")?, "etag": answer.header("etag")?});
        harness.store_item(&job).await?;
        harness
            .store_item(
                &json!({"job_id": created.id, "item": "task#1#plan", "state": "READY", "attempts": 0,
                "sent_ms": UtcTime::now().epoch_ms(), "updated_at": job["updated_at"]}),
            )
            .await?;
        Ok(created.id)
    }

    /// Has a worker of ours do a task, with the wire to the services breaking at this call; returns whether it broke.
    async fn drive(&self, message: &str, sends_to: Option<&str>, break_at: usize) -> Result<bool> {
        let harness = self.account.harness;
        let mut wire = harness.wire(break_at).await?;
        let mut variables = vec![("AWS_ENDPOINT_URL", wire.url.as_str())];
        variables.extend(sends_to.map(|queue| ("HIGH_QUEUE_URL", queue)));
        let queue = sends_to.unwrap_or(harness.name("HIGH_QUEUE_URL")?);
        let queue = queue.rsplit('/').next().unwrap_or_default();
        let event = events::with(
            events::message("driven", message)?,
            &[(
                "/Records/0/eventSourceARN",
                json!(format!("arn:aws:sqs:us-east-1:000000000000:{queue}")),
            )],
        )?;
        let rie = harness.rie("process", &variables).await?;
        let handle = rie.handle()?;
        let called = harness.call(rie, &event);
        tokio::pin!(called);
        tokio::select! {
            answer = &mut called => {
                let given_back: Value = answer?;
                ensure!(given_back["batchItemFailures"] == json!([]), "{message} was given back: {given_back}");
                Ok(false)
            }
            broken = wire.broken() => {
                broken?;
                handle.kill_function()?;
                Ok(true)
            }
        }
    }

    /// Brings a job to a stage and lets its worker die after so many calls.
    async fn crash(&self, stage: Stage, calls: usize) -> Result<Driven> {
        let id = self.planted(stage).await?;
        let own = Some(self.own_queue.as_str());
        let broke = match stage {
            Stage::Whole | Stage::Plan => self.drive(&plan_message(&id, 1), None, calls).await,
            Stage::Assemble => {
                for message in [
                    plan_message(&id, 1),
                    encode_message(&id, 1, 0),
                    encode_message(&id, 1, 1),
                ] {
                    let broke = self.drive(&message, own, usize::MAX).await?;
                    ensure!(!broke, "{message}: a wire broke by itself");
                }
                self.drive(&assemble_message(&id, 1), own, calls).await
            }
        };
        let broke = broke.with_context(|| format!("{stage:?} of {id} after {calls} calls"))?;
        Ok(Driven {
            id,
            stage,
            died_after: broke.then_some(calls),
        })
    }

    /// Lets workers die after the first call, the second, and so on, until one has done its work by then.
    async fn crash_everywhere(&self, stage: Stage) -> Result<Vec<Driven>> {
        let mut driven = Vec::new();
        let mut first = 1;
        while driven.iter().all(|one: &Driven| one.died_after.is_some()) {
            let calls = first..first + AT_ONCE * 2;
            first = calls.end;
            let more: Vec<Driven> = stream::iter(calls)
                .map(|calls| self.crash(stage, calls))
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            driven.extend(more);
        }
        Ok(driven)
    }
}

/// Slow: some minutes. Each stage's worker dies after each of its calls, and each of the jobs is whole in the end.
#[tokio::test]
async fn slow_a_worker_that_dies_after_any_call_loses_and_doubles_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let bench = Bench::open(&harness).await?;
    let mut driven = Vec::new();
    for stage in [Stage::Assemble, Stage::Plan, Stage::Whole] {
        let of_stage = bench.crash_everywhere(stage).await?;
        let deaths = of_stage.iter().filter(|one| one.died_after.is_some()).count();
        println!("{stage:?}: died after each of {deaths} calls");
        ensure!(deaths >= 5, "{stage:?}: only {deaths} calls");
        driven.extend(of_stage);
    }
    let account = &bench.account;
    for one in &driven {
        let what = format!("{one:?}");
        let job = eventually(&what, RECOVERY, async || {
            let job = account.job(&one.id).await?;
            Ok(Some(job).filter(e2e::Job::is_terminal))
        })
        .await?;
        ensure!(job.status == "COMPLETED", "{what}: {:?}", job.error);
        let frames = u64::from(one.stage.seconds() * Clip::default().rate);
        let items = is_whole(account, &one.id, frames).await.with_context(|| what.clone())?;
        for (key, task) in items.iter().filter(|(key, _)| key.starts_with("task#")) {
            ensure!(
                task["attempts"].as_u64().is_some_and(|attempts| attempts <= 2),
                "{what}: {key}: {task}"
            );
        }
    }
    Ok(())
}
