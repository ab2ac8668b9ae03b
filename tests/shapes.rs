//! Pictures that lie on their side or have odd sizes, and videos without sound.

use anyhow::{Context, Result};
use e2e::studio::WEBM;
use e2e::{Account, Clip, Harness, Output, Studio};
use serde_json::json;

/// The one rendition of a job.
async fn rendition(account: &Account<'_>, id: &str) -> Result<Output> {
    let outputs = account.outputs(id).await?;
    outputs
        .into_iter()
        .find(|output| output.output_type == "rendition")
        .context("no rendition")
}

#[tokio::test]
async fn a_phones_video_is_stored_upright() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let lying = studio
        .clip(
            "lying.mp4",
            &Clip {
                seconds: 2,
                ..Clip::default()
            },
        )
        .await?;
    let lying = lying.to_str().context("a plain path")?;
    let arguments = ["-display_rotation:v:0", "90", "-i", lying, "-c", "copy", "-f", "mp4"];
    let source = studio.make("phone.mp4", &arguments).await?;

    let job = account
        .complete(&source, json!({"outputs": [{"format": "mp4"}]}))
        .await?;
    let metadata = account
        .get(&format!("/jobs/{}/metadata", job.id), 200)
        .await?
        .value("/source/video")?;
    // ffmpeg counts against the clock.
    assert_eq!(metadata["rotation_degrees"], 270);
    assert_eq!(
        (&metadata["width_px"], &metadata["height_px"]),
        (&json!(360), &json!(640)),
        "as shown"
    );

    let output = rendition(&account, &job.id).await?;
    let look = studio.look_at("upright.mp4", &account.download(&output).await?).await?;
    assert_eq!(look.size()?, (360, 640));
    assert_eq!(look.frames()?, 50);
    let turned = look.video()?["side_data_list"].as_array().is_some_and(|data| {
        data.iter()
            .any(|entry| entry["rotation"].as_i64().is_some_and(|degrees| degrees != 0))
    });
    assert!(!turned, "it is upright already, and must not be turned once more");
    Ok(())
}

#[tokio::test]
async fn odd_sizes_become_even_and_never_larger() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 2,
        size: (241, 427),
        encoding: WEBM,
        ..Clip::default()
    };
    let source = studio.clip("odd.webm", &clip).await?;

    let job = account
        .complete(
            &source,
            json!({"content_type": "video/webm", "thumbnails": {"count": 1}}),
        )
        .await?;
    let output = rendition(&account, &job.id).await?;
    let look = studio.look_at("even.mp4", &account.download(&output).await?).await?;
    let (width, height) = look.size()?;
    assert_eq!((width, height), (240, 426));
    assert!(look.audio()?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_silent_video_stays_silent() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .clip(
            "silent.mp4",
            &Clip {
                seconds: 2,
                rate: 24,
                sound: false,
                ..Clip::default()
            },
        )
        .await?;

    let job = account.complete(&source, json!({"thumbnails": {"count": 0}})).await?;
    let metadata = account.get(&format!("/jobs/{}/metadata", job.id), 200).await?;
    assert_eq!(metadata.value("/source/audio")?, json!(null));
    let outputs = account.outputs(&job.id).await?;
    let types: Vec<_> = outputs.iter().map(|output| output.output_type.as_str()).collect();
    assert!(
        !types.contains(&"thumbnail"),
        "no thumbnails were asked for: {outputs:?}"
    );
    assert!(types.contains(&"proof"), "{outputs:?}");
    let output = rendition(&account, &job.id).await?;
    let look = studio
        .look_at("silent-out.mp4", &account.download(&output).await?)
        .await?;
    assert!(look.audio()?.is_none());
    assert_eq!(look.frames()?, 48);
    Ok(())
}

#[tokio::test]
async fn thumbnails_take_no_memory_that_grows_with_the_length() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .clip(
            "long.mp4",
            &Clip {
                seconds: 40,
                ..Clip::default()
            },
        )
        .await?;
    let wishes = |count: u32| json!({"thumbnails": {"count": count}, "compression": {"preset": "ultrafast"}});
    let mut peaks = Vec::new();
    for count in [0, 1] {
        let job = account.complete(&source, wishes(count)).await?;
        peaks.push(job.metrics.context("no metrics")?.peak_memory_mb);
    }
    // Half of the clip, decoded, is 170 MB: it lies between the start and the thumbnail.
    assert!(
        peaks[1] - peaks[0] < 60.0,
        "{} MB without a thumbnail, {} MB with one",
        peaks[0],
        peaks[1]
    );
    Ok(())
}
