//! Checks what was made, as a hostile source could have made it: an exit code of 0 proves nothing.

use std::{fs, path::Path};

use reelay_core::domain::failure::{FailureCode, Stage};
use serde::Deserialize;

use super::{
    Attempt,
    encode::{Plan, Rendition},
};
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// How far a rendition's duration may be from the plan: half a second, or one part in a hundred.
const DURATION_TOLERANCE_SECONDS: f64 = 0.5;
const DURATION_TOLERANCE: f64 = 0.01;

/// What was found in a rendition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checked {
    pub(super) frames: u64,
    pub(super) duration_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    codec_name: Option<String>,
    codec_type: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    nb_frames: Option<String>,
    duration: Option<String>,
}

fn invalid(what: &str) -> TaskError {
    TaskError::permanent(
        FailureCode::OutputInvalid,
        Stage::Verify,
        format!("an output did not pass its check: {what}"),
    )
}

pub(super) async fn verify(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    plan: &Plan,
    usage: &mut Usage,
) -> Result<Vec<Checked>, TaskError> {
    let mut checked = Vec::with_capacity(plan.renditions.len());
    for rendition in &plan.renditions {
        let json = look(attempt, scratch, rendition, usage).await?;
        checked.push(check(&json, rendition, plan)?);
    }
    for n in 1..=plan.thumbnail_frames.len() {
        check_jpeg(&scratch.file(&Plan::thumbnail_file(n)))?;
    }
    Ok(checked)
}

async fn look(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    rendition: &Rendition,
    usage: &mut Usage,
) -> Result<String, TaskError> {
    let entries = "stream=codec_name,codec_type,width,height,nb_frames,duration";
    let mut args: Vec<String> = ["-v", "error", "-show_entries", entries, "-of", "json"]
        .map(Into::into)
        .into();
    args.extend(cage::input(&scratch.file(&rendition.file)));
    let mut json = String::new();
    let limits = attempt.quick_limits();
    let used = cage::run(
        &attempt.bench.tools,
        Tool::Ffprobe,
        &args,
        scratch.path(),
        &limits,
        |line| json.push_str(line),
    )
    .await
    .map_err(|_| invalid("it cannot be read"))?;
    usage.then(used);
    Ok(json)
}

fn check(json: &str, rendition: &Rendition, plan: &Plan) -> Result<Checked, TaskError> {
    let report: Report = serde_json::from_str(json).map_err(|_| invalid("it cannot be read"))?;
    let of_type = |wanted: &str| {
        report
            .streams
            .iter()
            .find(|stream| stream.codec_type.as_deref() == Some(wanted))
    };
    let video = of_type("video").ok_or_else(|| invalid("it has no video"))?;
    if video.codec_name.as_deref() != Some("h264") {
        return Err(invalid("its video is not H.264"));
    }
    if (video.width, video.height) != (Some(rendition.size.width_px), Some(rendition.size.height_px)) {
        return Err(invalid("its picture has another size"));
    }
    let audio_codec = of_type("audio").and_then(|stream| stream.codec_name.as_deref());
    if audio_codec != plan.probe.audio_index.map(|_| "aac") {
        return Err(invalid("its sound is not as planned"));
    }
    let frames = video
        .nb_frames
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if frames != plan.probe.timeline.frames {
        return Err(invalid("it has another number of frames"));
    }
    let duration_seconds: f64 = video
        .duration
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    let planned = plan.probe.timeline.duration_seconds();
    if (duration_seconds - planned).abs() > DURATION_TOLERANCE_SECONDS.max(planned * DURATION_TOLERANCE) {
        return Err(invalid("it has another duration"));
    }
    Ok(Checked {
        frames,
        duration_seconds,
    })
}

fn check_jpeg(path: &Path) -> Result<(), TaskError> {
    let bytes = fs::read(path).map_err(|_| invalid("a thumbnail is missing"))?;
    let whole = bytes.starts_with(b"\xff\xd8") && bytes.ends_with(b"\xff\xd9");
    if whole {
        Ok(())
    } else {
        Err(invalid("a thumbnail is not a whole JPEG"))
    }
}
