//! A real video goes in; renditions, thumbnails, metadata and a mail come out.

use anyhow::{Context, Result};
use e2e::account::Progress;
use e2e::studio::{self, MP4_FASTSTART, WEBM};
use e2e::{Account, Clip, Harness, Job, Output, Studio};
use serde_json::json;

/// Downloads a rendition and checks that it is what the API says, and that any player can begin at once.
async fn check_rendition(account: &Account<'_>, studio: &Studio, output: &Output) -> Result<()> {
    let id = &output.id;
    let bytes = account.download(output).await?;
    assert_eq!(
        (output.output_type.as_str(), output.format.as_str()),
        ("rendition", "mp4"),
        "{id}"
    );
    assert_eq!(output.content_type, "video/mp4", "{id}");
    assert!(
        studio::box_at(&bytes, "moov")? < studio::box_at(&bytes, "mdat")?,
        "{id}: the index is behind the media"
    );

    let look = studio.look_at(&format!("{id}.mp4"), &bytes).await?;
    assert_eq!(look.video()?["codec_name"], "h264", "{id}");
    assert_eq!(look.video()?["pix_fmt"], "yuv420p", "{id}");
    assert_eq!(look.size()?, (output.width_px.into(), output.height_px.into()), "{id}");
    assert_eq!(Some(look.frames()?), output.frames, "{id}");
    let (measured, told) = (
        look.duration_seconds()?,
        output.duration_seconds.context("no duration")?,
    );
    assert!((measured - told).abs() < 0.1, "{id}: {measured} s instead of {told} s");
    let bitrate = output.bitrate_bps.context("no bit rate")?;
    #[expect(clippy::cast_precision_loss, reason = "sizes of clips are far below 2^53")]
    let expected = output.size_bytes as f64 * 8.0 / told;
    #[expect(clippy::cast_precision_loss, reason = "bit rates are far below 2^53")]
    let ratio = bitrate as f64 / expected;
    assert!((0.9..1.1).contains(&ratio), "{id}: {bitrate} b/s instead of {expected}");
    Ok(())
}

async fn check_thumbnails(account: &Account<'_>, studio: &Studio, outputs: &[Output], count: usize) -> Result<()> {
    let thumbnails: Vec<_> = outputs
        .iter()
        .filter(|output| output.output_type == "thumbnail")
        .collect();
    assert_eq!(thumbnails.len(), count);
    for output in &thumbnails {
        let bytes = account.download(output).await?;
        assert!(
            bytes.starts_with(b"\xff\xd8\xff") && bytes.ends_with(b"\xff\xd9"),
            "{} is no whole JPEG",
            output.id
        );
        assert_eq!(
            (output.format.as_str(), output.content_type.as_str()),
            ("jpeg", "image/jpeg"),
            "{}",
            output.id
        );
        let look = studio.look_at(&format!("{}.jpg", output.id), &bytes).await?;
        assert_eq!(
            look.size()?,
            (output.width_px.into(), output.height_px.into()),
            "{}",
            output.id
        );
    }
    let mut digests: Vec<_> = thumbnails.iter().map(|output| &output.sha256).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count, "moving content, but the same picture twice");
    Ok(())
}

fn check_metrics(job: &Job, outputs: &[Output], source_bytes: u64) -> Result<()> {
    let metrics = job.metrics.as_ref().context("no metrics")?;
    assert_eq!(metrics.source_bytes, source_bytes);
    assert_eq!(
        metrics.output_bytes,
        outputs.iter().map(|output| output.size_bytes).sum::<u64>()
    );
    let seconds = metrics.processing_seconds;
    assert!((0.1..120.0).contains(&seconds), "{metrics:?}");
    assert!((0.1..seconds * 64.0).contains(&metrics.cpu_seconds), "{metrics:?}");
    assert!((5.0..6_400.0).contains(&metrics.peak_cpu_percent), "{metrics:?}");
    // An H.264 encoder cannot do with less, and may not have more than the function.
    assert!((8.0..3_008.0).contains(&metrics.peak_memory_mb), "{metrics:?}");
    assert!(metrics.billed_gb_seconds > 0.0, "{metrics:?}");
    let ratio = job.duration_seconds.context("no duration")? / seconds;
    assert!(
        (metrics.speed_ratio / ratio - 1.0).abs() < 0.1,
        "{metrics:?}: the speed should be {ratio}"
    );
    Ok(())
}

/// On the way: 0 to 99 percent, rising, in the one order of states.
fn check_progress(seen: &[Progress]) {
    let before_the_end: Vec<_> = seen.iter().filter(|progress| progress.status != "COMPLETED").collect();
    assert!(
        before_the_end.iter().all(|progress| progress.progress_percent <= 99.0),
        "{seen:?}"
    );
    assert!(
        seen.is_sorted_by(|a, b| a.progress_percent <= b.progress_percent),
        "{seen:?}"
    );
    let between = before_the_end
        .iter()
        .filter(|progress| (1.0..=99.0).contains(&progress.progress_percent));
    assert!(between.count() > 0, "no progress was seen: {seen:?}");
    let rank = |status: &str| {
        ["PENDING", "QUEUED", "IN_PROGRESS", "COMPLETED"]
            .iter()
            .position(|known| *known == status)
    };
    assert!(seen.iter().all(|progress| rank(&progress.status).is_some()), "{seen:?}");
    assert!(seen.is_sorted_by_key(|progress| rank(&progress.status)), "{seen:?}");
    let phases: Vec<_> = seen.iter().filter_map(|progress| progress.phase.as_deref()).collect();
    assert!(phases.contains(&"encoding"), "{phases:?}");
}

/// What the API says of the source that the main journey made.
async fn check_metadata(account: &Account<'_>, id: &str, source_bytes: u64) -> Result<()> {
    let metadata = account
        .get(&format!("/jobs/{id}/metadata"), 200)
        .await?
        .value("/source")?;
    let video = &metadata["video"];
    assert_eq!(
        (&video["codec"], &video["width_px"], &video["height_px"]),
        (&json!("h264"), &json!(854), &json!(480))
    );
    assert_eq!(
        (&video["frame_rate"], &video["rotation_degrees"]),
        (&json!("25/1"), &json!(0))
    );
    assert_eq!(
        (&metadata["audio"]["codec"], &metadata["audio"]["sample_rate_hz"]),
        (&json!("aac"), &json!(48_000))
    );
    assert_eq!(metadata["size_bytes"], source_bytes);
    assert!(
        (metadata["duration_seconds"].as_f64().context("no duration")? - 12.0).abs() < 0.05,
        "{metadata}"
    );
    Ok(())
}

#[tokio::test]
async fn a_video_becomes_two_renditions_thumbnails_and_one_mail() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 12,
        size: (854, 480),
        encoding: MP4_FASTSTART,
        ..Clip::default()
    };
    let source = studio.clip("source.mp4", &clip).await?;
    let source_bytes = source.metadata()?.len();

    let name = "my \"summer\" holiday; 'vidéo' №1 – 日本.final.mp4";
    let run = account
        .submit_file(
            &source,
            json!({
                "filename": name,
                "title": "Summer <b>& sea</b>",
                "description": "at the sea",
                "metadata": {"album": 7},
                "outputs": [{"format": "mp4", "qualities": ["360p", "480p"]}],
                "thumbnails": {"count": 3},
                "compression": {"crf": 28, "preset": "slow"},
            }),
        )
        .await?;
    let id = run.id.clone();

    let seen = account.follow(&run).await?;
    drop(run);
    check_progress(&seen);

    let job = account.job(&id).await?;
    assert_eq!(job.status, "COMPLETED", "{:?}", job.error);
    assert!(job.playable && job.error.is_none());
    assert_eq!((job.filename.as_str(), job.attempts), (name, 1));
    assert!((job.progress_percent - 100.0).abs() < f64::EPSILON);
    let times = [
        Some(job.created_at.clone()),
        job.queued_at.clone(),
        job.started_at.clone(),
        job.completed_at.clone(),
    ];
    assert!(times.iter().all(Option::is_some) && times.is_sorted(), "{times:?}");
    let whole = account.get(&format!("/jobs/{id}"), 200).await?;
    assert_eq!(whole.value("/metadata")?, json!({"album": 7}));
    assert_eq!(whole.value("/title")?, "Summer <b>& sea</b>");
    assert_eq!(whole.value("/kind")?, "video");

    check_metadata(&account, &id, source_bytes).await?;

    // What came out.
    let outputs = account.outputs(&id).await?;
    let mut renditions: Vec<_> = outputs
        .iter()
        .filter(|output| output.output_type == "rendition")
        .collect();
    renditions.sort_by_key(|output| output.height_px);
    let sizes: Vec<_> = renditions
        .iter()
        .map(|o| (o.quality.as_deref(), o.width_px, o.height_px))
        .collect();
    assert_eq!(sizes, [(Some("360p"), 640, 360), (Some("480p"), 854, 480)]);
    for output in &renditions {
        assert_eq!(output.frames, Some(300), "{}", output.id);
        check_rendition(&account, &studio, output).await?;
        let look = studio.look(&studio.path(&format!("{}.mp4", output.id))).await?;
        assert_eq!(look.audio()?.context("the sound is gone")?["codec_name"], "aac");
    }
    check_thumbnails(&account, &studio, &outputs, 3).await?;
    check_metrics(&job, &outputs, source_bytes)?;
    check_links(&account, &id, &renditions).await?;

    // One mail, in two parts; what the person wrote is text in both.
    let mails = account.mails_up_to_now().await?;
    assert_eq!(mails.len(), 1, "{mails:?}");
    let mail = &mails[0];
    assert_eq!(mail.subject, "Your video is ready: Summer <b>& sea</b>");
    assert!(
        mail.body_text.contains("Summer <b>& sea</b>") && mail.body_text.contains(&id),
        "{mail:?}"
    );
    let html = mail.body_html.as_deref().context("no HTML part")?;
    assert!(
        html.contains("Summer &lt;b&gt;&amp; sea&lt;/b&gt;") && !html.contains("<b>& sea"),
        "{html}"
    );
    Ok(())
}

/// The links for people: to the file under the name that it was uploaded by, and to the stills.
async fn check_links(account: &Account<'_>, id: &str, renditions: &[&Output]) -> Result<()> {
    let harness = account.harness;
    let largest = renditions.last().context("no renditions")?;
    for (query, expected) in [
        ("", *largest),
        ("?format=mp4&quality=360p", renditions[0]),
        ("?quality=480p", *largest),
    ] {
        let redirect = account.get(&format!("/jobs/{id}/download{query}"), 302).await?;
        let link = harness.request(reqwest::Method::GET, redirect.header("location")?);
        let file = harness.send(link, 200).await?;
        assert_eq!(file.body.len() as u64, expected.size_bytes, "{query}");
        let disposition = file.header("content-disposition")?;
        assert!(disposition.starts_with("attachment;"), "{disposition}");
        // RFC 8187: the name's bytes in UTF-8, escaped.
        assert!(
            disposition.contains("filename*=UTF-8''my%20%5Fsummer%5F%20holiday"),
            "{disposition}"
        );
        assert!(
            disposition.contains("vid%C3%A9o") && disposition.contains("%E6%97%A5%E6%9C%AC"),
            "{disposition}"
        );
        assert!(disposition.ends_with(&format!("{}%2Emp4", expected.quality.as_deref().unwrap_or_default())));
    }
    account
        .get(&format!("/jobs/{id}/download?quality=2160p"), 404)
        .await?
        .problem("not_found")?;

    for index in 0..3 {
        let redirect = account.get(&format!("/jobs/{id}/thumbnail?index={index}"), 302).await?;
        let picture = harness
            .send(harness.request(reqwest::Method::GET, redirect.header("location")?), 200)
            .await?;
        assert_eq!(picture.header("content-type")?, "image/jpeg");
    }
    account
        .get(&format!("/jobs/{id}/thumbnail?index=3"), 404)
        .await?
        .problem("not_found")?;
    Ok(())
}

#[tokio::test]
async fn a_webm_becomes_an_mp4_without_asking_for_anything() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .clip(
            "source.webm",
            &Clip {
                seconds: 3,
                rate: 30,
                encoding: WEBM,
                ..Clip::default()
            },
        )
        .await?;
    let frames = studio.look(&source).await?.frames()?;

    let wishes = json!({"filename": "rabbit.webm", "content_type": "video/webm"});
    let job = account.complete(&source, wishes).await?;
    let metadata = account
        .get(&format!("/jobs/{}/metadata", job.id), 200)
        .await?
        .value("/source")?;
    assert_eq!(
        (&metadata["video"]["codec"], &metadata["audio"]["codec"]),
        (&json!("vp9"), &json!("opus"))
    );
    assert_eq!(metadata["video"]["frame_rate"], "30/1");

    let outputs = account.outputs(&job.id).await?;
    let [rendition] = &outputs
        .iter()
        .filter(|o| o.output_type == "rendition")
        .collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("one rendition was expected: {outputs:?}");
    };
    assert_eq!(
        (rendition.width_px, rendition.height_px, rendition.quality.as_deref()),
        (640, 360, None)
    );
    check_rendition(&account, &studio, rendition).await?;
    // Opus begins a moment before the picture (its pre-skip), for which the grid may have one frame more.
    let made = rendition.frames.context("no frames")?;
    assert!((frames..=frames + 1).contains(&made), "{made} frames of {frames}");
    check_thumbnails(&account, &studio, &outputs, 3).await?;

    let mails = account.mails_up_to_now().await?;
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(mails[0].subject, "Your video is ready: rabbit.webm");
    Ok(())
}
