//! Takes the stills: each by one seek into the finished rendition, which lies on the job's frame grid already.
//!
//! Not a branch of the encoder's filter graph: that would hold every frame between two stills in memory.

use reelay_core::domain::{failure::Stage, geometry::Size, timeline::Timeline};

use super::{
    Attempt,
    encode::{Plan, Rendition},
};
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// MJPEG's quality scale, 2 (best) to 31.
const QUALITY: &str = "4";

pub(super) async fn take(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    plan: &Plan,
    usage: &mut Usage,
) -> Result<(), TaskError> {
    let pixels = |rendition: &&Rendition| u64::from(rendition.size.width_px) * u64::from(rendition.size.height_px);
    let Some(best) = plan.renditions.iter().max_by_key(pixels) else {
        return Ok(());
    };
    for (n, frame) in (1..).zip(&plan.thumbnail_frames) {
        let input = cage::input(&scratch.file(&best.file));
        let args = args(
            input,
            seek_seconds(&plan.probe.timeline, *frame),
            plan.thumbnail_size,
            &Plan::thumbnail_file(n),
        );
        let used = cage::run(
            &attempt.bench.tools,
            Tool::Ffmpeg,
            &args,
            scratch.path(),
            &attempt.limits(),
            |_| {},
        )
        .await
        .map_err(|error| TaskError::cage(Stage::Encode, attempt.lease.attempt, error))?;
        usage.then(used);
    }
    Ok(())
}

fn args(input: Vec<String>, seek_seconds: f64, size: Size, file: &str) -> Vec<String> {
    let Size { width_px, height_px } = size;
    let mut args: Vec<String> = "-nostdin -hide_banner -v error -y -ss"
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

/// Half a frame before the wanted one: the first frame from there on is it, however the time is rounded.
fn seek_seconds(timeline: &Timeline, frame: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "frame counts are far below 2^53")]
    let seconds = (frame as f64 - 0.5) / timeline.rate.as_f64();
    seconds.max(0.0)
}

#[cfg(test)]
mod tests {
    use reelay_core::domain::timeline::FrameRate;

    use super::*;

    #[test]
    fn a_still_is_sought_half_a_frame_early_and_never_before_the_start() {
        let timeline = Timeline::new(FrameRate::parse("25/1").unwrap(), 0, 0, 12_000_000);
        assert!((seek_seconds(&timeline, 150) - 5.98).abs() < 1e-9);
        assert!(seek_seconds(&timeline, 0).abs() < f64::EPSILON);
        let args = args(
            vec!["-i".into(), "x".into()],
            5.98,
            Size {
                width_px: 640,
                height_px: 360,
            },
            "t.jpg",
        )
        .join(" ");
        assert!(args.contains("-ss 5.980000 -i x") && args.contains("scale=640:360") && args.ends_with("file:t.jpg"));
    }
}
