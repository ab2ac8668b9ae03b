//! What was made from chunks plays in a real browser as if it had been made in one piece.
//!
//! Each frame of the source carries its number, so what the browser shows at a time can be held against what belongs
//! there: before, at and behind each seam of two chunks.

use anyhow::{Context, Result, bail, ensure};
use e2e::browser::{Browser, Crossing, FileUrl, Played, PlayedHls, Shown, Watched, Wish};
use e2e::recordings::{Recording, Source};
use e2e::{Account, Harness, Output, Studio};
use reqwest::Url;
use serde_json::json;

/// Three chunks on the local stack.
const SOURCE_SECONDS: u32 = 20;
const SOURCE_SIZE_PX: (u32, u32) = (960, 540);
/// How the picture of each rung must be announced: H.264 High at level 3.0 and 3.1, and AAC-LC.
const LEVELS: [(u32, u32, &str); 2] = [(640, 360, "avc1.64001e,mp4a.40.2"), (854, 480, "avc1.64001f,mp4a.40.2")];
/// The frames around a seam that are looked at, counted from the first behind it. The two at the seam are looked at
/// near the seam, in parts of a frame from its beginning: exactly there, a player's rounding would decide.
const LOOKS: [(i32, f64); 4] = [(-15, 0.5), (-1, 0.9), (0, 0.1), (15, 0.5)];
/// Sound is a whole number of packets, so it ends some milliseconds later than the picture.
const DURATION_TOLERANCE_SECONDS: f64 = 0.05;
/// Times of `WebM` are whole milliseconds.
const TIME_TOLERANCE_SECONDS: f64 = 0.001;
const STALL_LIMIT_MS: f64 = 500.0;

/// The media times of a grid of frames.
#[derive(Clone, Copy, Debug)]
struct Grid {
    frames: u32,
    frames_per_second: f64,
}

impl Grid {
    fn of(source: &Source) -> Result<Self> {
        let (frames, seconds) = source.rate;
        Ok(Self {
            frames: source.numbers.len().try_into()?,
            frames_per_second: f64::from(frames) / f64::from(seconds),
        })
    }

    fn seconds(self, frames: f64) -> f64 {
        frames / self.frames_per_second
    }

    fn duration_seconds(self) -> f64 {
        self.seconds(f64::from(self.frames))
    }

    fn frame_at(self, seconds: f64) -> f64 {
        seconds * self.frames_per_second
    }

    /// The numbers of frames, each of which must have the time that belongs to it.
    fn numbers(self, frames: &[Shown]) -> Result<Vec<u32>> {
        let checked = frames.iter().map(|&(seconds, number)| {
            let number = number.with_context(|| format!("no number at {seconds} s"))?;
            let off_seconds = seconds - self.seconds(f64::from(number));
            ensure!(
                off_seconds.abs() < TIME_TOLERANCE_SECONDS,
                "frame {number} at {seconds} s"
            );
            Ok(number)
        });
        checked.collect()
    }
}

/// Where the picture's segments go over from one chunk's object to the next, in seconds, by the API's own playlists.
async fn seams_seconds(account: &Account<'_>, id: &str) -> Result<Vec<f64>> {
    let index = account.get(&format!("/jobs/{id}/hls/index.m3u8"), 200).await?;
    let index = m3u8_rs::parse_master_playlist_res(&index.body).map_err(|error| anyhow::anyhow!("{error}"))?;
    let uri = &index.variants.first().context("no variants")?.uri;
    let playlist = account.get(&format!("/jobs/{id}/hls/{uri}"), 200).await?;
    let playlist = m3u8_rs::parse_media_playlist_res(&playlist.body).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut seams = Vec::new();
    let mut seconds = 0.0;
    for pair in playlist.segments.windows(2) {
        let [before, behind] = pair else { continue };
        seconds += f64::from(before.duration);
        if Url::parse(&before.uri)?.path() != Url::parse(&behind.uri)?.path() {
            seams.push(seconds);
        }
    }
    Ok(seams)
}

/// The rungs that HLS must have, each with the picture's true size, and all else about the player.
fn check_hls(hls: &PlayedHls, grid: Grid) -> Result<()> {
    let announced: Vec<_> = hls
        .levels
        .iter()
        .map(|level| (level.width_px, level.height_px, level.codecs.as_str()))
        .collect();
    assert_eq!(announced, LEVELS);
    assert_eq!(hls.audio_tracks, 1);
    assert!(hls.errors.is_empty(), "{:?}", hls.errors);
    assert_eq!(hls.video_error, None);
    for level in &hls.levels {
        let name = &level.resolution;
        assert_eq!(*name, format!("{}x{}", level.width_px, level.height_px));
        let buffered = level.watched.buffered.as_ref().context("nothing was buffered")?;
        for (kind, ranges) in [("video", &buffered.video), ("audio", &buffered.audio)] {
            let [(begin, end)] = ranges[..] else {
                bail!("{name}: {kind} has gaps: {ranges:?}");
            };
            assert!(begin.abs() < 0.001, "{name}: {kind} begins at {begin} s");
            let off = (end - grid.duration_seconds()).abs();
            assert!(off < DURATION_TOLERANCE_SECONDS, "{name}: {kind} ends at {end} s");
        }
    }
    Ok(())
}

/// What any player must see of any of the videos.
fn check_watched(name: &str, watched: &Watched, size_px: (u32, u32), numbers: &[u32], grid: Grid) -> Result<()> {
    assert_eq!((watched.width_px, watched.height_px), size_px, "{name}");
    let (duration, expected) = (watched.duration_seconds, grid.duration_seconds());
    assert!(
        (duration - expected).abs() < DURATION_TOLERANCE_SECONDS,
        "{name}: {duration} s instead of {expected} s"
    );
    assert_eq!(
        grid.numbers(&watched.looked).context(name.to_owned())?,
        numbers,
        "{name}"
    );
    assert!(watched.audio_decoded_bytes > 0, "{name}: no sound");
    watched
        .crossings
        .iter()
        .try_for_each(|crossing| check_crossing(crossing, grid).with_context(|| name.to_owned()))
}

fn check_crossing(crossing: &Crossing, grid: Grid) -> Result<()> {
    let seam = crossing.seam_seconds;
    let (stalled, waits) = (crossing.stalled_ms, crossing.waits);
    ensure!(
        stalled < STALL_LIMIT_MS && waits == 0,
        "{stalled} ms and {waits} waits at {seam} s"
    );
    let numbers = grid.numbers(&crossing.frames)?;
    ensure!(numbers.is_sorted(), "{numbers:?}");
    let seam = grid.frame_at(seam).round();
    let [first, .., last] = numbers[..] else {
        bail!("only {numbers:?} at {seam}");
    };
    ensure!(
        f64::from(first) < seam && f64::from(last) >= seam,
        "{numbers:?} is not across {seam}"
    );
    Ok(())
}

/// Playlists are asked for with the token. Signed URLs are without: S3 refuses a request with two permissions.
fn check_answers(played: &Played, api_url: &str) {
    let of_api = format!("{api_url}/");
    let playlists = played.answers.iter().filter(|answer| answer.authorized).count();
    assert_eq!(playlists, 2 + LEVELS.len(), "{:?}", played.answers);
    for answer in &played.answers {
        assert_eq!(answer.authorized, answer.url.starts_with(&of_api), "{answer:?}");
        assert!(matches!(answer.status, 200 | 206), "{answer:?}");
    }
}

/// The files among a job's outputs.
fn files(outputs: &[Output]) -> impl Iterator<Item = &Output> {
    outputs
        .iter()
        .filter(|output| matches!(output.format.as_str(), "mp4" | "webm"))
}

/// Small MP4 files are copied together by the worker, large ones by S3 alone: one of each is played, and one `WebM`.
async fn check_both_ways_of_joining(harness: &Harness, outputs: &[Output]) -> Result<()> {
    let environment = harness.function_environment("PROCESS_FUNCTION").await?;
    let composed_from_bytes: u64 = environment
        .get("COMPOSE_MIN_BYTES")
        .context("no COMPOSE_MIN_BYTES")?
        .parse()?;
    let found: Vec<_> = files(outputs)
        .map(|output| (output.id.as_str(), output.size_bytes >= composed_from_bytes))
        .collect();
    let [("mp4", true), ("mp4-360p", false), ("webm-360p", _)] = found[..] else {
        bail!("{outputs:?} from {composed_from_bytes} bytes");
    };
    Ok(())
}

#[tokio::test]
async fn chromium_plays_hls_mp4_and_webm_across_the_seams_of_their_chunks() -> Result<()> {
    let harness = Harness::open().await?;
    let browser = Browser::open(&harness).await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .source_of_size(Recording::Ntsc, SOURCE_SECONDS, SOURCE_SIZE_PX)
        .await?;
    let grid = Grid::of(&source)?;
    let job = account
        .complete(
            &source.path,
            json!({
                "outputs": [
                    {"format": "hls", "qualities": ["360p", "480p"]},
                    {"format": "mp4"},
                    {"format": "mp4", "quality": "360p"},
                    {"format": "webm", "quality": "360p"},
                ],
                "thumbnails": {"count": 0},
                // Quick, with all that makes seams hard, such as B-frames.
                "compression": {"preset": "superfast"},
            }),
        )
        .await?;
    let outputs = account.outputs(&job.id).await?;
    check_both_ways_of_joining(&harness, &outputs).await?;
    let seams_seconds = seams_seconds(&account, &job.id).await?;
    ensure!(seams_seconds.len() >= 2, "not enough chunks: {seams_seconds:?}");

    let seams = seams_seconds.iter().map(|seconds| grid.frame_at(*seconds).round());
    let around = seams.flat_map(|seam| LOOKS.map(|(frame, part)| (seam + f64::from(frame), part)));
    let looks: Vec<(f64, f64)> = around.chain([(f64::from(grid.frames - 1), 0.5), (0.0, 0.5)]).collect();
    let wish = Wish {
        api_url: harness.name("API_URL")?.to_owned(),
        token: account.token.clone(),
        hls_url: harness.url(&format!("/jobs/{}/hls/index.m3u8", job.id))?,
        files: files(&outputs)
            .map(|output| FileUrl {
                name: output.id.clone(),
                url: output.url.clone(),
            })
            .collect(),
        looks_seconds: looks.iter().map(|(frame, part)| grid.seconds(frame + part)).collect(),
        seams_seconds,
    };
    let played = browser.play(&wish).await?;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers of frames"
    )]
    let numbers: Vec<u32> = looks.iter().map(|(frame, _)| *frame as u32).collect();
    check_hls(&played.hls, grid)?;
    for level in &played.hls.levels {
        let size = (level.width_px, level.height_px);
        check_watched(&level.resolution, &level.watched, size, &numbers, grid)?;
    }
    for (file, output) in played.files.iter().zip(files(&outputs)) {
        assert_eq!((&file.name, &file.video_error), (&output.id, &None));
        let size = (output.width_px, output.height_px);
        check_watched(&file.name, &file.watched, size, &numbers, grid)?;
    }
    check_answers(&played, &wish.api_url);
    Ok(())
}
