//! How long a job will take and what it will cost: by its duration before anything is known, by its plan afterwards.

use serde::Serialize;

use super::{
    plan::{Plan, VideoCodec, VideoRendition},
    spec::Preset,
};

/// Processing seconds for one second of video, until measured speeds are known: 30 s a minute.
const SECONDS_PER_SECOND: f64 = 0.5;
/// The bit rate that a source of unknown duration is taken to have.
const ASSUMED_BITRATE_BPS: f64 = 5_000_000.0;

/// Estimates a job's processing time, in whole seconds and at least one.
#[must_use]
pub fn processing_seconds(duration_seconds: Option<f64>, size_bytes: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let assumed = size_bytes as f64 * 8.0 / ASSUMED_BITRATE_BPS;
    let seconds = duration_seconds.unwrap_or(assumed) * SECONDS_PER_SECOND;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and small"
    )]
    let whole = seconds.ceil().max(1.0) as u64;
    whole
}

/// CPU seconds to decode a megapixel of H.264. This and the next four were measured with `infra/bench` on one core of a
/// server of 2025; [`Machine::slowdown`] says how much slower another one is.
const DECODE_PER_MPX: f64 = 0.001_4;
/// CPU seconds to scale and encode a megapixel with x264's veryfast.
const H264_PER_MPX: f64 = 0.009_5;
/// CPU seconds to scale and encode a megapixel with libvpx-vp9 at the speed that goes with veryfast.
const VP9_PER_MPX: f64 = 0.035;
/// CPU seconds for a second of sound in one codec.
const AUDIO_PER_SECOND: f64 = 0.015;
/// CPU seconds of a task beside its frames: the lead that is decoded and thrown away, start and end of ffmpeg.
const PER_TASK: f64 = 1.0;
/// Seconds of a task on the clock beside encoding: cold start, requests, transfers that do not overlap.
const TASK_OVERHEAD_SECONDS: f64 = 1.7;
/// Seconds of planning and of assembling.
const ENDS_SECONDS: f64 = 3.0;
/// Memory that comes with one virtual CPU (AWS Lambda Developer Guide, "Configure Lambda function memory").
const MIB_PER_CPU: f64 = 1_769.0;
/// Price of Lambda on `x86_64` in us-east-1, in dollars for a GB-second (aws.amazon.com/lambda/pricing, 2026-11).
const USD_PER_GB_SECOND: f64 = 0.000_016_666_7;

/// Where a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Memory of a worker, in MiB; processor time grows with it.
    pub memory_mib: u32,
    /// Workers at the same time.
    pub workers: u32,
    /// How much slower one of its virtual CPUs is than the core that the figures are from.
    pub slowdown: f64,
}

/// What a plan will take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Tasks in all.
    pub tasks: u32,
    /// CPU time of all tasks.
    pub cpu_seconds: f64,
    /// From the first claim to the end, on the clock.
    pub wall_seconds: f64,
    /// Lambda's price for it, in dollars.
    pub cost_usd: f64,
}

impl Plan {
    /// Estimates what this plan will take on a machine.
    #[must_use]
    pub fn estimate(&self, source_pixels: u64, machine: &Machine) -> Estimate {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let mpx = |pixels: u64| (pixels * self.timeline.frames) as f64 / 1e6;
        let encode = |video: &VideoRendition| {
            let per_mpx = match video.codec {
                VideoCodec::H264 => H264_PER_MPX,
                VideoCodec::Vp9 => VP9_PER_MPX,
            };
            mpx(video.size.pixels()) * per_mpx
        };
        let preset = self.compression.preset.unwrap_or(Preset::Veryfast);
        let encoding: f64 = self.videos.iter().map(encode).sum::<f64>() * times_veryfast(preset);
        #[expect(clippy::cast_precision_loss, reason = "two at most")]
        let sound = self.timeline.duration_seconds() * AUDIO_PER_SECOND * self.audios.len() as f64;
        let chunks = f64::from(self.chunks.max(1));
        let cpu_seconds = mpx(source_pixels) * DECODE_PER_MPX + encoding + sound + PER_TASK * chunks;

        // More virtual CPUs than six do not exist, and x264 does not use many of them fully.
        let cpus = (f64::from(machine.memory_mib) / MIB_PER_CPU).clamp(0.1, 6.0);
        let useful = cpus * (1.0 - 0.03 * (cpus - 1.0).max(0.0));
        let task_seconds = cpu_seconds / chunks * machine.slowdown / useful + TASK_OVERHEAD_SECONDS;
        let rounds = (chunks / f64::from(machine.workers.max(1))).ceil();
        let billed = task_seconds * chunks + ENDS_SECONDS;
        Estimate {
            tasks: u32::try_from(self.tasks().len()).unwrap_or(u32::MAX).saturating_add(1),
            cpu_seconds,
            wall_seconds: task_seconds * rounds + ENDS_SECONDS,
            cost_usd: billed * f64::from(machine.memory_mib) / 1_024.0 * USD_PER_GB_SECOND,
        }
    }
}

/// How much longer a preset takes than veryfast; the middle ones as measured, the ends from x264's own tables.
fn times_veryfast(preset: Preset) -> f64 {
    match preset {
        Preset::Ultrafast => 0.6,
        Preset::Superfast => 0.95,
        Preset::Veryfast => 1.0,
        Preset::Faster => 1.9,
        Preset::Fast => 2.2,
        Preset::Medium => 2.5,
        Preset::Slow => 4.0,
        Preset::Slower => 8.0,
        Preset::Veryslow => 14.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        geometry::Size,
        plan::Input,
        spec::Compression,
        time::UtcTime,
        timeline::{FrameRate, Timeline},
    };

    fn plan(chunks: u32) -> Plan {
        let size = |width_px, height_px| Size { width_px, height_px };
        let video = |size| VideoRendition {
            codec: VideoCodec::H264,
            size,
            max_bitrate_bps: 1,
            published: true,
        };
        Plan {
            version: 1,
            planned_at: UtcTime::from_epoch_ms(0),
            input: Input::Source,
            timeline: Timeline::new(FrameRate::parse("30/1").unwrap(), 0, 0, 3_600_000_000),
            chunk_frames: 108_000 / u64::from(chunks),
            chunks,
            video_index: 0,
            audio: None,
            videos: [size(1_920, 1_080), size(1_280, 720), size(854, 480), size(640, 360)]
                .map(video)
                .to_vec(),
            audios: Vec::new(),
            files: Vec::new(),
            hls: None,
            thumbnail_frames: Vec::new(),
            thumbnail_size: size(640, 360),
            compression: Compression::default(),
        }
    }

    #[test]
    fn an_hour_in_four_rungs_is_near_what_was_measured() {
        let machine = Machine {
            memory_mib: 10_240,
            workers: 50,
            slowdown: 2.2,
        };
        let estimate = plan(180).estimate(1_920 * 1_080, &machine);
        // 1.13 CPU seconds for a second of video, and one for each task.
        assert!((4_000.0..4_700.0).contains(&estimate.cpu_seconds), "{estimate:?}");
        assert!((40.0..80.0).contains(&estimate.wall_seconds), "{estimate:?}");
        assert!((0.2..0.6).contains(&estimate.cost_usd), "{estimate:?}");
    }

    #[test]
    fn more_workers_take_less_time_and_no_more_money() {
        let machine = |workers| Machine {
            memory_mib: 1_769,
            workers,
            slowdown: 1.0,
        };
        let (one, many) = (plan(100).estimate(1, &machine(1)), plan(100).estimate(1, &machine(100)));
        assert!(many.wall_seconds < one.wall_seconds / 20.0);
        assert!((many.cost_usd - one.cost_usd).abs() < 1e-9);
        assert_eq!(one.tasks, 102);
    }

    #[test]
    fn a_minute_of_video_is_thirty_seconds() {
        assert_eq!(processing_seconds(Some(60.0), 1), 30);
        assert_eq!(processing_seconds(Some(0.04), 1), 1);
        assert_eq!(processing_seconds(None, 37_500_000), 30);
    }
}
