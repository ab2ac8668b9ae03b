//! A video that was cut into chunks is the video that one encoder would have made of it: the same frames at the same
//! times, and picture and sound together as in the source, whatever the source is like.

mod made;
mod whole;

use anyhow::{Context, Result, bail, ensure};
use e2e::recordings::{Recording, Source};
use e2e::studio::boxes;
use e2e::{Account, Harness, Studio};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use self::made::Made;
use self::whole::Whole;

/// Three chunks of 8 s on the local stack, and of what an edit list leaves as well.
const SOURCE_SECONDS: u32 = 20;
/// Recordings that are made, encoded and looked at at the same time.
const AT_ONCE: usize = 4;
/// Recordings that become WebM, too: VP9 takes its time.
const WEBM: [Recording; 3] = [Recording::Ntsc, Recording::SoundLate, Recording::Flv];
/// Recordings that are copied into another container before they are cut, so that each byte is read once more.
const COPIED: [Recording; 4] = [Recording::MpegTs, Recording::Flv, Recording::Wmv, Recording::Fragmented];
/// The recording whose copy begins a frame earlier than ffmpeg says of the file itself, of which it shows the picture as
/// much too late as it was reordered. All its frames must be there, and the first one some times more.
const ELSEWHERE: Recording = Recording::Fragmented;
/// What may be read on top of a multiple of the source: indexes, once for each opening, and the second before each
/// chunk, which is an eighth of so short a one.
const SPARE_BYTES: u64 = 4 << 20;
/// Frames after a seam in which a new encoder would show, and those around them.
const AFTER_SEAM: usize = 15;
const AROUND_SEAM: usize = 60;
/// How much worse these may look on the average of all seams, in dB.
const SEAM_LIMIT_DB: f64 = 0.5;
/// Largest difference of a sample at a seam from what one encoder makes of it; 1 is full scale.
const SEAM_SOUND: f64 = 0.01;

/// Frames, their times and the beeps of one rendition.
async fn check_rendition(studio: &Studio, made: &Made, source: &Source, output: &str, expected: &[u16]) -> Result<()> {
    let path = made.file(output)?;
    let frames = studio.frames(&path, 0).await?;
    ensure!(
        frames.numbers == expected,
        "{output}: other frames than of a whole encode: {:?}",
        frames.numbers
    );
    let mut steps = frames.steps();
    steps.sort_unstable();
    steps.dedup();
    let are_even = match steps[..] {
        [_] => true,
        // WebM counts in milliseconds, so its steps differ by one.
        [one, more] if output.starts_with("webm") => more == one + 1,
        // ffmpeg moves the picture of fragments once more where one is reordered further than all before it.
        [one, more] if output.starts_with("hls") => more == 2 * one && count(&frames.steps(), more) == 1,
        _ => false,
    };
    ensure!(are_even, "{output}: steps of {steps:?} units");

    let proof = made.proof(output)?;
    ensure!(
        (proof.expected_frames, proof.counted_frames) == (made.frames_total, made.frames_total),
        "{output}: {proof:?} of {} frames",
        made.frames_total
    );
    let frame_ms = 1_000.0 * f64::from(made.rate.1) / f64::from(made.rate.0);
    ensure!((proof.largest_gap_ms - frame_ms).abs() < 0.01, "{output}: {proof:?}");
    // A packet of AAC at 44.1 kHz is the longest.
    ensure!(
        proof.audio_drift_ms.is_none_or(|drift| drift.abs() < 23.3),
        "{output}: {proof:?}"
    );
    // Where ffmpeg itself moved the picture, it cannot tell how sound fits it.
    if source.beeps.is_empty() || output.starts_with("hls") && steps.len() > 1 {
        return Ok(());
    }
    let is_hls = output.starts_with("hls");
    let heard_in = if is_hls { made.file("hls")? } else { path };
    let heard = studio.beep_onsets_seconds(&heard_in, 0).await?;
    ensure!(heard.len() == source.beeps.len(), "{output}: beeps at {heard:?}");
    // ffmpeg shows the picture of fragments as much too late as it was reordered; browsers do not.
    let late = if is_hls {
        frames.seconds_at(0).context("no frames")?
    } else {
        0.0
    };
    // In a source, beeps begin with their frames.
    for (heard, shown) in heard.iter().zip(frames.beeps_seconds()) {
        let offset_ms = (heard - shown + late) * 1_000.0;
        ensure!(
            offset_ms.abs() < frame_ms / 2.0,
            "{output}: a beep {offset_ms} ms after its frame"
        );
    }
    Ok(())
}

fn count(steps: &[i64], wanted: i64) -> usize {
    steps.iter().filter(|step| **step == wanted).count()
}

/// How much better the frames after each seam are than those around them, in dB.
async fn seams_db(studio: &Studio, made: &Made, source: &Source, whole: &Whole) -> Result<Vec<f64>> {
    let mp4 = made.file("mp4")?;
    let (width, height) = studio.glance(&mp4).await?.size()?;
    let scaled = format!(
        "{},scale={width}:{height}:flags=bicubic,setsar=1,format=yuv420p",
        whole.picture()
    );
    let psnr = studio.psnr_per_frame(&source.path, &scaled, &mp4).await?;
    let mut seams = Vec::new();
    for &seam in &made.seams {
        let seam = usize::try_from(seam)?;
        let before = psnr.get(seam - AROUND_SEAM..seam).context("too few frames")?;
        let after = psnr.get(seam..seam + AFTER_SEAM).context("too few frames")?;
        let later = psnr
            .get(seam + AFTER_SEAM..seam + AROUND_SEAM)
            .context("too few frames")?;
        seams.push(mean(after) - mean(&[before, later].concat()));
    }
    Ok(seams)
}

#[expect(clippy::cast_precision_loss, reason = "counts of frames")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Encodes a recording and checks what came of it; returns what its seams look like.
async fn check(account: &Account<'_>, studio: &Studio, recording: Recording) -> Result<Vec<f64>> {
    let source = studio.source(recording, SOURCE_SECONDS).await?;
    let mut outputs = vec![json!({"format": "mp4"}), json!({"format": "hls", "quality": "360p"})];
    if WEBM.contains(&recording) {
        outputs.push(json!({"format": "webm", "quality": "360p"}));
    }
    let wishes = json!({"outputs": outputs, "thumbnails": {"count": 1}});
    let run = account.submit_file(&source.path, wishes).await?;
    let made = Made::by(account, studio, run, &format!("{recording:?}")).await?;
    ensure!(made.seams.len() >= 2, "chunks meet at {:?} only", made.seams);

    let times = if COPIED.contains(&recording) { 4 } else { 3 };
    let (read, allowed) = (made.metrics.read_bytes, times * made.metrics.source_bytes + SPARE_BYTES);
    ensure!(read <= allowed, "{read} bytes read, more than {allowed}");

    let whole = Whole::of(studio, &source.path, made.rate).await?;
    let is_elsewhere = recording == ELSEWHERE;
    ensure!(
        is_elsewhere || whole.frames == made.frames_total,
        "{} frames instead of {}",
        made.frames_total,
        whole.frames
    );
    let expected = if is_elsewhere {
        let mut numbers = studio.frames(made.file("mp4")?, 0).await?.numbers;
        let all = numbers.clone();
        numbers.dedup();
        ensure!(numbers == source.numbers, "frames were lost: {numbers:?}");
        all
    } else {
        studio.frames_through(&source.path, 0, &whole.picture()).await?.numbers
    };
    let mut ids = vec!["mp4", "hls-360p"];
    if WEBM.contains(&recording) {
        ids.push("webm-360p");
    }
    for output in ids {
        check_rendition(studio, &made, &source, output, &expected).await?;
    }
    studio.decode_strictly(&made.file("mp4")?).await?;
    if is_elsewhere {
        return Ok(Vec::new());
    }
    seams_db(studio, &made, &source, &whole).await
}

#[tokio::test]
async fn every_recording_keeps_its_frames_and_its_times() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let checked: Vec<_> = stream::iter(Recording::all())
        .map(async |recording| (recording, check(&account, &studio, recording).await))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut seams = Vec::new();
    let mut problems = Vec::new();
    for (recording, result) in checked {
        match result {
            Ok(of_recording) => seams.extend(of_recording),
            Err(error) => problems.push(format!("{recording:?}: {error:#}")),
        }
    }
    ensure!(problems.is_empty(), "{problems:#?}");
    ensure!(
        mean(&seams) > -SEAM_LIMIT_DB,
        "seams differ from what is around them by {seams:?} dB"
    );
    Ok(())
}

/// Compares what is heard around the seams with what one encoder makes of the whole sound.
async fn hear_seams(account: &Account<'_>, studio: &Studio, recording: Recording) -> Result<()> {
    let source = studio.source(recording, SOURCE_SECONDS).await?;
    let run = account
        .submit_file(&source.path, json!({"thumbnails": {"count": 0}}))
        .await?;
    let made = Made::by(account, studio, run, &format!("heard-{recording:?}")).await?;
    let whole = Whole::of(studio, &source.path, made.rate).await?;

    let look = studio.glance(&source.path).await?;
    let sound = look.audio()?.context("no sound")?;
    let rate_hz: u32 = sound["sample_rate"].as_str().context("no rate")?.parse()?;
    let channels = sound["channels"].as_f64().context("no channels")?.clamp(1.0, 2.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "samples of a short clip"
    )]
    let sample_at = |seconds: f64| (seconds * f64::from(rate_hz)) as usize;
    // 128 kb/s is what a job gets that asks for nothing, and 75 kb/s of a channel are a step of the encoder's quality.
    let quality = format!("{:.3}", 128_000.0 / (75_000.0 * channels));
    let filters = whole.sound(rate_hz);
    let path = source.path.to_str().context("a path that is no text")?;
    let arguments = ["-i", path, "-vn", "-af", &filters, "-c:a", "aac", "-q:a", &quality];
    let reference = studio.make(&format!("whole-{recording:?}.m4a"), &arguments).await?;
    let reference = studio.samples(&reference, "anull").await?;
    let heard = studio.samples(made.file("mp4")?, "anull").await?;

    for seam in &made.seams {
        let seam = sample_at(whole.seconds(*seam));
        // Four packets around it: each is heard together with its neighbours.
        let around = seam - 2 * 1_024..seam + 2 * 1_024;
        let of_both = reference[around.clone()].iter().zip(&heard[around]);
        let worst = of_both.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
        ensure!(
            worst < SEAM_SOUND,
            "{recording:?}: an error of {worst} at sample {seam}"
        );
    }
    Ok(())
}

/// The sound of the chunks is that of one encoder, at the seams too: nothing of an encoder's beginning can be heard.
#[tokio::test]
async fn seams_cannot_be_heard() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    for recording in [Recording::Constant, Recording::Sound44100] {
        hear_seams(&account, &studio, recording).await?;
    }
    Ok(())
}

/// Chunks of more than five megabytes, the smallest part that S3 copies: the MP4 is a computed header before them.
#[tokio::test]
async fn large_chunks_are_joined_where_they_are() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .source_of_size(Recording::Constant, SOURCE_SECONDS, (1_280, 720))
        .await?;
    let wishes = json!({"thumbnails": {"count": 0},
        "compression": {"crf": 1, "preset": "ultrafast", "max_bitrate_bps": 60_000_000}});
    let run = account.submit_file(&source.path, wishes).await?;
    let made = Made::by(&account, &studio, run, "large").await?;
    let mp4 = made.file("mp4")?;
    let bytes = std::fs::read(&mp4)?;
    ensure!(bytes.len() > 3 * (5 << 20), "{} bytes in three chunks", bytes.len());
    let kinds: Vec<String> = boxes(&bytes)?.into_iter().map(|(_, kind)| kind).collect();
    ensure!(kinds == ["ftyp", "moov", "mdat"], "{kinds:?}");
    // The chunks' own headers are in there, unread.
    ensure!(bytes.windows(4).any(|four| four == b"moof"), "the payload was moved");
    ensure!(studio.frames(&mp4, 0).await?.numbers == source.numbers, "other frames");
    // Somebody else's reader finds every sample where the header says, too.
    let movie = harness.movie(&mp4).await?;
    let [picture, sound] = &movie.tracks[..] else {
        bail!("{movie:?}");
    };
    let frames = source.numbers.len();
    ensure!((picture.samples, picture.read_samples) == (frames, frames), "{movie:?}");
    ensure!(picture.sync_samples == 5, "a key frame every 4 s of 20: {movie:?}");
    ensure!(sound.samples > 0 && sound.read_samples == sound.samples, "{movie:?}");
    studio.decode_strictly(&mp4).await
}
