//! Takes the stills: each by one seek into the finished rendition, which lies on the job's frame grid already.
//!
//! Not a branch of the encoder's filter graph: that would hold every frame between two stills in memory.

use std::{fs, path::Path};

use reelay_core::domain::{
    failure::Stage,
    geometry::Size,
    plan::{Chunk, Plan},
    timeline::Timeline,
};

use super::{Attempt, encode, invalid};
use crate::{
    cage::{self, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// MJPEG's quality scale, 2 (best) to 31.
const QUALITY: &str = "4";

/// The name of the n-th still, from 1.
pub(super) fn file(n: u32) -> String {
    format!("thumbnail-{n}.jpg")
}

/// Takes the stills of a chunk from its largest rendition.
pub(super) async fn take(
    attempt: &Attempt<'_>,
    plan: &Plan,
    chunk: &Chunk,
    scratch: &Scratch,
    usage: &mut Usage,
) -> Result<(), TaskError> {
    let Some(best) = plan.largest_video() else {
        return Ok(());
    };
    for (n, frame) in plan.thumbnails_of(chunk) {
        let input = cage::input(&scratch.file(&encode::video_file(best)));
        let args = args(
            input,
            seek_seconds(&plan.timeline, frame, chunk),
            plan.thumbnail_size,
            &file(n),
        );
        let used = attempt.ffmpeg(&args, scratch, Stage::Encode).await?;
        usage.then(used);
        check_jpeg(&scratch.file(&file(n)))?;
    }
    Ok(())
}

fn args(input: Vec<String>, seek_seconds: f64, size: Size, file: &str) -> Vec<String> {
    let Size { width_px, height_px } = size;
    let mut args: Vec<String> = "-nostdin -hide_banner -v error -y -seek_timestamp 1 -ss"
        .split(' ')
        .map(Into::into)
        .collect();
    args.push(format!("{seek_seconds:.6}"));
    args.extend(input);
    args.extend("-map 0:v:0 -frames:v 1 -map_metadata -1 -vf".split(' ').map(Into::into));
    args.push(format!(
        "scale={width_px}:{height_px}:flags=bicubic:out_range=full,format=yuvj420p"
    ));
    args.extend(["-c:v", "mjpeg", "-q:v", QUALITY, "-f", "image2", "-update", "1"].map(Into::into));
    args.push(format!("file:{file}"));
    args
}

/// Half a frame before the wanted one: the first frame from there on is it, however the time is rounded. A chunk's file
/// has the times of the whole, and nothing before its first frame.
fn seek_seconds(timeline: &Timeline, frame: u64, chunk: &Chunk) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "frame counts are far below 2^53")]
    let seconds = |frames: u64| frames as f64 / timeline.rate.as_f64();
    let half_a_frame = 0.5 / timeline.rate.as_f64();
    (seconds(frame) - half_a_frame).max(seconds(chunk.first_frame))
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

#[cfg(test)]
mod tests {
    use reelay_core::domain::timeline::FrameRate;

    use super::*;

    #[test]
    fn a_still_is_sought_half_a_frame_early_and_never_before_its_chunk() {
        let timeline = Timeline::new(FrameRate::parse("25/1").unwrap(), 0, 0, 12_000_000);
        let chunk = Chunk {
            index: 1,
            first_frame: 100,
            end_frame: 300,
            last: true,
        };
        assert!((seek_seconds(&timeline, 150, &chunk) - 5.98).abs() < 1e-9);
        assert!((seek_seconds(&timeline, 100, &chunk) - 4.0).abs() < f64::EPSILON);
        let size = Size {
            width_px: 640,
            height_px: 360,
        };
        let args = args(vec!["-i".into(), "x".into()], 5.98, size, "t.jpg").join(" ");
        assert!(args.contains("-ss 5.980000 -i x") && args.contains("scale=640:360") && args.ends_with("file:t.jpg"));
    }
}
