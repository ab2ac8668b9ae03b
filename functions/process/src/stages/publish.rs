//! Stores what was made under the attempt's own prefix. Nothing points there until the job completes.

use reelay_core::{
    adapters::AwsError,
    domain::{
        failure::Stage,
        job::{Output, OutputType},
        spec::Format,
    },
};

use super::{Attempt, encode::Plan, verify::Checked};
use crate::{error::TaskError, scratch::Scratch};

fn media_type(format: Format) -> &'static str {
    match format {
        Format::Mp4 => "video/mp4",
    }
}

pub(super) async fn publish(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    plan: &Plan,
    checked: Vec<Checked>,
) -> Result<Vec<Output>, TaskError> {
    let failed = |error: AwsError| TaskError::aws(Stage::Publish, error);
    let transfer = &attempt.bench.transfer;
    let mut outputs = Vec::new();
    for (rendition, checked) in plan.renditions.iter().zip(checked) {
        let key = attempt.key(&rendition.file);
        let content_type = media_type(rendition.spec.format);
        let stored = transfer
            .store(&scratch.file(&rendition.file), &key, content_type)
            .await
            .map_err(failed)?;
        outputs.push(Output {
            id: rendition.spec.id(),
            output_type: OutputType::Rendition,
            format: rendition.spec.format.as_str().into(),
            quality: rendition.spec.quality.map(|quality| quality.as_str().into()),
            width_px: rendition.size.width_px,
            height_px: rendition.size.height_px,
            duration_seconds: Some(checked.duration_seconds),
            frames: Some(checked.frames),
            bitrate_bps: Some(bitrate_bps(stored.size_bytes, checked.duration_seconds)),
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
            content_type: content_type.into(),
            key,
        });
    }
    for n in 1..=plan.thumbnail_frames.len() {
        let file = Plan::thumbnail_file(n);
        let key = attempt.key(&file);
        let stored = transfer
            .store(&scratch.file(&file), &key, "image/jpeg")
            .await
            .map_err(failed)?;
        outputs.push(Output {
            // Two digits, so that text order is time order.
            id: format!("thumbnail-{n:02}"),
            output_type: OutputType::Thumbnail,
            format: "jpeg".into(),
            quality: None,
            width_px: plan.thumbnail_size.width_px,
            height_px: plan.thumbnail_size.height_px,
            duration_seconds: None,
            frames: None,
            bitrate_bps: None,
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
            content_type: "image/jpeg".into(),
            key,
        });
    }
    Ok(outputs)
}

fn bitrate_bps(size_bytes: u64, duration_seconds: f64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a figure for people"
    )]
    let bps = (size_bytes as f64 * 8.0 / duration_seconds.max(0.001)).round() as u64;
    bps
}
