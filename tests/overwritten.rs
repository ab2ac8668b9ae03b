//! The upload URL still works after the upload. What is sent then is never processed.

use anyhow::{Context, Result};
use e2e::{Clip, Harness, Studio, studio};
use serde_json::json;

#[tokio::test]
async fn the_version_that_was_checked_is_the_one_that_is_processed() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let checked = std::fs::read(
        studio
            .clip(
                "checked.mp4",
                &Clip {
                    seconds: 5,
                    ..Clip::default()
                },
            )
            .await?,
    )?;
    let swapped = std::fs::read(
        studio
            .clip(
                "swapped.mp4",
                &Clip {
                    seconds: 2,
                    ..Clip::default()
                },
            )
            .await?,
    )?;
    // The URL takes only this length.
    let swapped = studio::padded(swapped, checked.len())?;

    let run = account.submit(checked, json!({"thumbnails": {"count": 0}})).await?;
    let second = account.upload(&run.upload, swapped).await?;
    let id = run.id.clone();
    let job = account.finish(run).await?;
    assert_eq!(job.status, "COMPLETED", "{:?}", job.error);

    // Two events are on their way at once, so either may come first. What is pinned then is what comes out.
    let pinned = harness.item(&id, "job").await?["source"]["version_id"]
        .as_str()
        .context("no version")?
        .to_owned();
    let expected = if pinned == second { 50 } else { 125 };
    let outputs = account.outputs(&id).await?;
    assert_eq!(
        outputs[0].frames,
        Some(expected),
        "pinned {pinned}, the second upload is {second}"
    );
    let look = studio.look_at("out.mp4", &account.download(&outputs[0]).await?).await?;
    assert_eq!(look.frames()?, expected);
    assert_eq!(job.attempts, 1);
    assert_eq!(
        account.mails_up_to_now().await?.len(),
        1,
        "the second upload is no second job"
    );
    Ok(())
}
