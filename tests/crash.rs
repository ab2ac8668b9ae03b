//! A worker dies in the middle of its work.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::worker::Encoder;
use e2e::{Clip, Harness, JOB_LIMIT, SHORT_LIMIT, Studio, eventually, studio};
use serde_json::json;

/// How long a lost message stays hidden, and then some for its turn.
const REDELIVERY: Duration = Duration::from_secs(80);

/// Slow: about a minute and a half, most of it waiting for the dead worker's lease to run out.
#[tokio::test]
async fn slow_a_killed_worker_costs_an_attempt_and_nothing_else() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 10,
        size: (854, 480),
        ..Clip::default()
    };
    let bytes = std::fs::read(studio.clip("long.mp4", &clip).await?)?;
    // No other test's source has this length, so it names the encoder.
    let size = bytes.len() + 4_321;
    let bytes = studio::padded(bytes, size)?;
    let wishes = json!({"priority": "high", "thumbnails": {"count": 1}, "compression": {"preset": "slow"}});
    let run = account.submit(bytes, wishes).await?;
    let id = run.id.clone();

    let length = size.try_into()?;
    let encoder = eventually("the encoder", JOB_LIMIT, async || Ok(Encoder::of_source(length))).await?;
    encoder.kill_function()?;
    eventually("the end of the encoder", SHORT_LIMIT, async || {
        Ok(encoder.is_gone().then_some(()))
    })
    .await?;
    account
        .get(&format!("/jobs/{id}/outputs"), 409)
        .await?
        .problem("not_ready")?;

    let job = account.finish_within(run, REDELIVERY + JOB_LIMIT).await?;
    assert_eq!((job.status.as_str(), job.attempts), ("COMPLETED", 2), "{:?}", job.error);
    let items = harness.items(&id).await?;
    assert_eq!(
        (&items["job"]["published_attempt"], &items["task#1#plan"]["attempts"]),
        (&json!(2), &json!(2))
    );
    assert!(
        items.keys().all(|key| !key.starts_with("output#1-1#")),
        "{:?}",
        items.keys()
    );

    let outputs = account.outputs(&id).await?;
    let rendition = outputs
        .iter()
        .find(|output| output.output_type == "rendition")
        .context("no rendition")?;
    assert_eq!(rendition.frames, Some(250));
    let look = studio.look_at("out.mp4", &account.download(rendition).await?).await?;
    assert_eq!(look.frames()?, 250);
    harness.queues_forget(&id).await?;
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    Ok(())
}
