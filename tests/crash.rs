//! A worker dies or freezes in the middle of its work.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::worker::Encoder;
use e2e::{Account, Clip, Harness, JOB_LIMIT, Run, SHORT_LIMIT, Studio, eventually, studio};
use serde_json::json;

/// How long a lost message stays hidden, and then some for its turn.
const REDELIVERY: Duration = Duration::from_secs(80);

/// Submits a clip whose encoding takes some seconds, and finds its encoder.
async fn encoder_at_work(account: &Account<'_>, studio: &Studio, mark: usize) -> Result<(Run, Encoder)> {
    let clip = Clip {
        seconds: 10,
        size: (854, 480),
        ..Clip::default()
    };
    let bytes = std::fs::read(studio.clip("long.mp4", &clip).await?)?;
    // No other source has this length, so it names the encoder.
    let size = bytes.len() + mark;
    let bytes = studio::padded(bytes, size)?;
    let wishes = json!({"priority": "high", "thumbnails": {"count": 1}, "compression": {"preset": "slow"}});
    let run = account.submit(bytes, wishes).await?;
    let length = size.try_into()?;
    let encoder = eventually("the encoder", JOB_LIMIT, async || Ok(Encoder::of_source(length))).await?;
    Ok((run, encoder))
}

/// Slow: more than a minute, most of it waiting for the frozen worker's lease to run out.
#[tokio::test]
async fn slow_a_frozen_worker_that_wakes_up_late_changes_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let (run, encoder) = encoder_at_work(&account, &studio, 5_432).await?;
    let id = run.id.clone();
    encoder.freeze_function()?;
    let job = account.finish_within(run, REDELIVERY + JOB_LIMIT).await;
    // Thawed in any case: a frozen process would outlive a failed test.
    let before = harness.items(&id).await;
    encoder.thaw_function()?;
    let (job, before) = (job?, before?);
    assert_eq!((job.status.as_str(), job.attempts), ("COMPLETED", 2), "{:?}", job.error);
    assert_eq!(before["job"]["published_attempt"], 2);

    // The late worker finds its lease gone and gives its message back, which then finds nothing to do.
    eventually("the end of the late encoder", SHORT_LIMIT, async || {
        Ok(encoder.is_gone().then_some(()))
    })
    .await?;
    harness.queues_forget(&id).await?;
    let mut after = harness.items(&id).await?;
    after.retain(|key, _| !key.starts_with("mail#"));
    assert!(after.keys().all(|key| !key.starts_with("output#1-1#")), "{after:?}");
    for (key, item) in &after {
        assert_eq!(Some(item), before.get(key), "{key}");
    }
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    Ok(())
}

/// Slow: about a minute and a half, most of it waiting for the dead worker's lease to run out.
#[tokio::test]
async fn slow_a_killed_worker_costs_an_attempt_and_nothing_else() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let (run, encoder) = encoder_at_work(&account, &studio, 4_321).await?;
    let id = run.id.clone();
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
