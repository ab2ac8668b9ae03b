//! What one encoder would have made of the whole source: the same filter graph from the first frame to the last, laid by
//! what ffprobe says of the file and by nothing that the service says of it but the rate.

use std::path::Path;

use anyhow::{Context, Result};
use e2e::Studio;
use serde_json::Value;

/// The frame grid over a source.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) frames: u64,
    /// Frames a second, as a fraction.
    rate: (u32, u32),
    video_start_us: i64,
    /// Frames of the grid before the first one of the picture, for sound that begins earlier.
    lead_frames: i64,
}

impl Whole {
    pub(crate) async fn of(studio: &Studio, path: &Path, rate: (u32, u32)) -> Result<Self> {
        let look = studio.glance(path).await?;
        let video_start_us = start_us(look.first("video").context("no picture")?);
        let sound_start_us = look.first("audio").map_or(video_start_us, start_us);
        // Rounded up to a whole frame, but for what the microseconds' own rounding makes.
        let lead = (frames_in((video_start_us - sound_start_us).max(0), rate) - 1e-4).ceil();
        let shown = frames_in(end_us(studio, path, rate).await? - video_start_us, rate).round();
        #[expect(clippy::cast_possible_truncation, reason = "counts of a short clip's frames")]
        let (lead_frames, frames) = (lead as i64, (lead + shown) as i64);
        Ok(Self {
            frames: u64::try_from(frames)?,
            rate,
            video_start_us,
            lead_frames,
        })
    }

    /// The filters that put the picture on the grid.
    pub(crate) fn picture(&self) -> String {
        let (frames, seconds) = self.rate;
        format!(
            "setpts=PTS-{}/TB,fps={frames}/{seconds}:start_time=0,tpad=stop_mode=clone:stop=-1,trim=end_pts={}",
            self.origin(),
            self.frames
        )
    }

    /// The filters that put the sound beside it.
    pub(crate) fn sound(&self, rate_hz: u32) -> String {
        format!(
            "asetpts=PTS-{}/TB,aresample={rate_hz},aresample=async=1:min_hard_comp=0.02:first_pts=0",
            self.origin()
        )
    }

    /// When a frame is shown.
    pub(crate) fn seconds(&self, frame: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "frames of a short clip")]
        let frame = frame as f64;
        frame * f64::from(self.rate.1) / f64::from(self.rate.0)
    }

    /// The source's time at which the grid begins, in seconds, as ffmpeg reads it.
    fn origin(&self) -> String {
        let (frames, seconds) = self.rate;
        format!(
            "({}/1000000-{}*{seconds}/{frames})",
            self.video_start_us, self.lead_frames
        )
    }
}

fn frames_in(us: i64, rate: (u32, u32)) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "times of a short clip")]
    let us = us as f64;
    us * f64::from(rate.0) / f64::from(rate.1) / 1e6
}

fn start_us(stream: &Value) -> i64 {
    let seconds = stream["start_time"].as_str().and_then(|text| text.parse::<f64>().ok());
    #[expect(clippy::cast_possible_truncation, reason = "times of a short clip")]
    let us = (seconds.unwrap_or(0.0) * 1e6).round() as i64;
    us
}

/// Where the last packet of the picture ends; one whose duration is not told lasts one frame.
async fn end_us(studio: &Studio, path: &Path, rate: (u32, u32)) -> Result<i64> {
    let (packets, (numerator, denominator)) = studio.packets(path, "v:0").await?;
    let unit_us = 1e6 * f64::from(numerator) / f64::from(denominator);
    let frame_us = 1e6 * f64::from(rate.1) / f64::from(rate.0);
    let mut last_us = 0.0_f64;
    for packet in packets {
        #[expect(clippy::cast_precision_loss, reason = "times of a short clip")]
        let (start, duration) = (packet.pts as f64, packet.duration.map(|units| units as f64));
        last_us = last_us.max(start * unit_us + duration.map_or(frame_us, |units| units * unit_us));
    }
    #[expect(clippy::cast_possible_truncation, reason = "times of a short clip")]
    let us = last_us.round() as i64;
    Ok(us)
}
