//! Looks at finished files with ffprobe: what the tables say is one thing, what a player finds another.

use std::path::Path;

use reelay_core::domain::{plan::Plan, plan::VideoCodec};
use serde::Deserialize;

use super::{
    super::{Attempt, input::Served, invalid},
    files::Tracks,
};
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
    transfer::ObjectRef,
};

/// How far a file's duration may be from the plan, in seconds: WebM counts in milliseconds, and sound ends with a packet.
const DURATION_TOLERANCE_SECONDS: f64 = 0.1;

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Container,
}

#[derive(Debug, Default, Deserialize)]
struct Container {
    duration: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    codec_name: Option<String>,
    codec_type: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    nb_frames: Option<String>,
    nb_read_packets: Option<String>,
}

/// Checks a file in scratch space, packet by packet.
pub(super) async fn file(
    attempt: &Attempt<'_>,
    plan: &Plan,
    tracks: &Tracks<'_>,
    scratch: &Scratch,
    file: &Path,
    usage: &mut Usage,
) -> Result<(), TaskError> {
    let args = ["-count_packets"].map(Into::into).into_iter().chain(cage::input(file));
    let json = look(attempt, scratch, args.collect(), usage).await?;
    check(&json, plan, tracks)
}

/// Checks a stored object by its header.
pub(super) async fn object(
    attempt: &Attempt<'_>,
    plan: &Plan,
    tracks: &Tracks<'_>,
    object: ObjectRef,
    usage: &mut Usage,
) -> Result<(), TaskError> {
    let scratch = attempt.scratch(0)?;
    let served = Served::start(attempt, object)?;
    let looked = look(attempt, &scratch, cage::input_url(&served.url), usage).await;
    let json = served.judge(reelay_core::domain::failure::Stage::Verify, looked)?;
    check(&json, plan, tracks)
}

async fn look(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    input: Vec<String>,
    usage: &mut Usage,
) -> Result<String, TaskError> {
    let entries = "format=duration:stream=codec_name,codec_type,width,height,nb_frames,nb_read_packets";
    let mut args: Vec<String> = ["-v", "error", "-show_entries", entries, "-of", "json"]
        .map(Into::into)
        .into();
    args.extend(input);
    let mut json = String::new();
    let used = cage::run(
        &attempt.bench.tools,
        Tool::Ffprobe,
        &args,
        scratch.path(),
        &attempt.quick_limits(),
        |line| json.push_str(line),
    )
    .await
    .map_err(|_| invalid("it cannot be read"))?;
    usage.then(used);
    Ok(json)
}

fn check(json: &str, plan: &Plan, tracks: &Tracks<'_>) -> Result<(), TaskError> {
    let report: Report = serde_json::from_str(json).map_err(|_| invalid("it cannot be read"))?;
    let of_type = |wanted: &str| {
        let mut streams = report.streams.iter();
        streams.find(|stream| stream.codec_type.as_deref() == Some(wanted))
    };
    let video = of_type("video").ok_or_else(|| invalid("it has no video"))?;
    let codec = match tracks.video.codec.rfc6381() {
        name if name.starts_with("vp09") => VideoCodec::Vp9,
        _ => VideoCodec::H264,
    };
    if video.codec_name.as_deref() != Some(codec.as_str()) {
        return Err(invalid("its picture has another codec"));
    }
    let size = tracks.video.codec.size_px().map(|(w, h)| (u32::from(w), u32::from(h)));
    if video.width.zip(video.height) != size {
        return Err(invalid("its picture has another size"));
    }
    let audio_codec = of_type("audio").and_then(|stream| stream.codec_name.as_deref());
    if audio_codec != tracks.audio.map(|(_, codec)| codec.as_str()) {
        return Err(invalid("its sound is not as planned"));
    }
    let counted = video.nb_read_packets.as_deref().or(video.nb_frames.as_deref());
    let frames = counted.and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    if frames != plan.timeline.frames {
        return Err(invalid("it has another number of frames"));
    }
    let duration = report.format.duration.as_deref().and_then(|text| text.parse().ok());
    let duration: f64 = duration.unwrap_or(0.0);
    // Sound may be planned to last longer than the picture.
    let planned = plan.timeline.duration_seconds();
    let longest = plan
        .audio
        .and_then(|audio| audio.end_us)
        .map_or(planned, |us| planned.max(reelay_core::domain::timeline::seconds(us)));
    let allowed = planned - DURATION_TOLERANCE_SECONDS..=longest + DURATION_TOLERANCE_SECONDS;
    if !allowed.contains(&duration) {
        return Err(invalid("it has another duration"));
    }
    Ok(())
}
