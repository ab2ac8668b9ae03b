//! Files that are not what they say: the job fails with a code and a mail, and nothing is published.

use anyhow::{Context, Result};
use e2e::studio::{self, MP4, MP4_FASTSTART};
use e2e::{Account, Clip, Harness, Studio};
use serde_json::{Value, json};

/// Submits bytes that must fail with a code, and checks all that must follow from it.
async fn fails(account: &Account<'_>, bytes: Vec<u8>, with: Value, code: &str, stages: &[&str]) -> Result<()> {
    let harness = account.harness;
    let run = account.submit(bytes, with).await?;
    let id = run.id.clone();
    let job = account.finish(run).await?;
    assert_eq!(
        (job.status.as_str(), job.error_code()),
        ("FAILED", Some(code)),
        "{:?}",
        job.error
    );
    let error = job.error.context("no error")?;
    assert!(
        !error.message.is_empty() && !error.hint.is_empty() && !error.retryable,
        "{error:?}"
    );
    assert!(stages.contains(&error.stage.as_str()), "{error:?}");
    for secret in ["/tmp", "ffmpeg", "ffprobe", "sources/", "amazonaws"] {
        assert!(!error.message.contains(secret), "{error:?}");
    }
    assert!(
        job.attempts <= 1,
        "a bad file is not tried again: {} attempts",
        job.attempts
    );
    assert!(job.completed_at.is_some() && !job.playable && job.metrics.is_none());

    for part in ["outputs", "download", "thumbnail"] {
        account
            .get(&format!("/jobs/{id}/{part}"), 409)
            .await?
            .problem("not_ready")?;
    }
    let stored = harness
        .objects("OUTPUT_BUCKET", &format!("outputs/{}/{id}/", account.id))
        .await?;
    assert_eq!(stored, [], "outputs of a failed job");
    harness.queues_forget(&id).await?;

    let mails = account.mails_up_to_now().await?;
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(mails[0].subject, "Your video could not be processed: clip.mp4");
    let html = mails[0].body_html.as_deref().context("no HTML part")?;
    assert!(mails[0].body_text.contains(&error.hint), "{}", mails[0].body_text);
    assert!(html.contains('<') && html.contains("clip.mp4"), "{html}");
    Ok(())
}

#[tokio::test]
async fn text_that_is_named_mp4() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let text = b"Fifty-two bytes of text, which are no video at all.\n".to_vec();
    assert_eq!(text.len(), 52);
    fails(&account, text, json!({}), "unsupported_format", &["intake"]).await
}

#[tokio::test]
async fn a_picture_that_is_declared_a_video() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let picture = studio
        .make(
            "picture.png",
            &["-f", "lavfi", "-i", "testsrc2=size=64x64", "-frames:v", "1"],
        )
        .await?;
    fails(
        &account,
        std::fs::read(picture)?,
        json!({}),
        "type_mismatch",
        &["intake"],
    )
    .await
}

#[tokio::test]
async fn a_video_without_its_end_and_index() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let whole = std::fs::read(
        studio
            .clip(
                "whole.mp4",
                &Clip {
                    encoding: MP4,
                    ..Clip::default()
                },
            )
            .await?,
    )?;
    assert!(
        studio::box_at(&whole, "mdat")? < studio::box_at(&whole, "moov")?,
        "the index should be at the end"
    );
    let half = whole[..whole.len() / 2].to_vec();
    fails(&account, half, json!({}), "source_corrupt", &["probe"]).await
}

#[tokio::test]
async fn a_video_whose_index_promises_more_than_there_is() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 6,
        encoding: MP4_FASTSTART,
        ..Clip::default()
    };
    let whole = std::fs::read(studio.clip("whole.mp4", &clip).await?)?;
    assert!(
        studio::box_at(&whole, "moov")? < whole.len() / 4,
        "the index should be at the start"
    );
    let half = whole[..whole.len() / 2].to_vec();
    fails(&account, half, json!({}), "source_corrupt", &["probe"]).await
}

#[tokio::test]
async fn noise_behind_the_signature_of_a_video() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let mut noise = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41".to_vec();
    noise.extend((0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]));
    fails(&account, noise, json!({}), "source_corrupt", &["probe"]).await
}

#[tokio::test]
async fn an_empty_file_is_refused_before_anything_is_made() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let answer = account
        .post("/jobs", &json!({"filename": "empty.mp4", "size_bytes": 0}), 422)
        .await?;
    answer.problem("validation_failed")?;
    assert_eq!(answer.pointers()?, ["/size_bytes"]);
    assert_eq!(account.get("/jobs", 200).await?.value("/jobs")?, json!([]));
    Ok(())
}
