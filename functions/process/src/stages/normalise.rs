//! Sources that cannot be sought: found out by trying, and copied once, stream by stream, into a container that can.

use reelay_core::domain::{failure::Stage, probe::Probe, task::StoredObject, timeline};

use super::{
    Attempt,
    input::Served,
    probe::{Looker, Probed},
};
use crate::{
    cage::{self, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// Where in a source seeking is tried, in parts of its duration.
const TRIALS: &[f64] = &[0.3, 0.6, 0.9];
/// How much one trial may read: an index of twelve hours and some seconds of a high bit rate.
const TRIAL_BYTES: u64 = 48 << 20;
/// What else it may read, as a part of the source: a longer source has a longer index.
const TRIAL_SHARE: u64 = 10;
/// Codecs that MP4 can carry, by ffprobe's names. It keeps times exactly; Matroska, which takes everything else, in
/// milliseconds.
const MP4_CODECS: &[&str] = &[
    "h264",
    "hevc",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "av1",
    "vp9",
    "aac",
    "mp3",
    "mp2",
    "ac3",
    "eac3",
    "opus",
    "flac",
    "alac",
];

/// Whether every part of the source can be reached without reading what lies before it: a seek lands on a key frame that
/// is not after the wanted time, and takes a bounded number of bytes.
pub(super) async fn can_be_sought(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    served: &Served,
    probed: &Probed,
    usage: &mut Usage,
) -> Result<bool, TaskError> {
    if !probed.may_be_sought {
        return Ok(false);
    }
    let timeline = &probed.probe.timeline;
    let allowed = TRIAL_BYTES.max(attempt.job.size_bytes / TRIAL_SHARE);
    for share in TRIALS {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place somewhere in the source"
        )]
        let frame = (timeline.frames as f64 * share) as u64;
        let wanted = timeline::seconds(timeline.source_time_us(frame));
        let before = served.read_bytes();
        let found = key_frame_at(attempt, scratch, served, &probed.probe, wanted, usage).await?;
        let is_right = found.is_some_and(|seconds| seconds <= wanted + 1.0 / timeline.rate.as_f64());
        if !is_right || served.read_bytes() - before > allowed {
            tracing::info!(job_id = %attempt.lease.job_id, read_bytes = served.read_bytes() - before, "a seek missed");
            return Ok(false);
        }
    }
    Ok(true)
}

/// The time of the first packet that a seek finds, if it is one of a key frame.
async fn key_frame_at(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    served: &Served,
    probe: &Probe,
    seconds: f64,
    usage: &mut Usage,
) -> Result<Option<f64>, TaskError> {
    let looker = Looker {
        attempt,
        scratch,
        url: &served.url,
    };
    let interval = format!("{seconds:.6}%+#1");
    let index = probe.video_index.to_string();
    let mut found = None;
    looker
        .ask(
            &[
                "-of",
                "csv=p=0",
                "-show_entries",
                "packet=pts_time,dts_time,flags",
                "-select_streams",
                &index,
                "-read_intervals",
                &interval,
            ],
            usage,
            |line| {
                let fields: Vec<&str> = line.trim().split(',').collect();
                if let (None, [pts, dts, flags, ..]) = (found, fields.as_slice()) {
                    let time = pts.parse().or_else(|_| dts.parse()).ok();
                    found = Some(time.filter(|_| flags.starts_with('K')));
                }
            },
        )
        .await?;
    Ok(found.flatten())
}

/// Copies the used streams into a container that can be sought, and stores it for the tasks of this job.
pub(super) async fn normalise(
    attempt: &Attempt<'_>,
    served: &Served,
    probed: &Probed,
    usage: &mut Usage,
) -> Result<StoredObject, TaskError> {
    let scratch = attempt.scratch(attempt.job.size_bytes)?;
    let fits_mp4 = probed.codecs.iter().all(|codec| MP4_CODECS.contains(&codec.as_str()));
    let (file, format) = if fits_mp4 {
        ("copy.mp4", "mp4")
    } else {
        ("copy.mkv", "matroska")
    };
    let mut args: Vec<String> = "-nostdin -hide_banner -v error -y".split(' ').map(Into::into).collect();
    args.extend(cage::input_url(&served.url));
    let tracks = [Some(probed.probe.video_index), probed.probe.audio_index];
    for index in tracks.into_iter().flatten() {
        args.extend(["-map".into(), format!("0:{index}")]);
    }
    args.extend(
        "-c copy -map_metadata -1 -map_chapters -1 -f"
            .split(' ')
            .map(Into::into),
    );
    args.extend([format.into(), format!("file:{file}")]);
    let ran = attempt.ffmpeg(&args, &scratch, Stage::Fetch).await;
    usage.then(served.judge(Stage::Fetch, ran)?);
    let key = attempt.prefix().work(file);
    let stored = attempt
        .bench
        .transfer
        .store(&scratch.file(file), &key, "application/octet-stream")
        .await
        .map_err(|error| TaskError::aws(Stage::Fetch, error))?;
    tracing::info!(job_id = %attempt.lease.job_id, size_bytes = stored.size_bytes, format, "source normalised");
    Ok(StoredObject {
        key,
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
    })
}
