//! What a job is to make: renditions, thumbnails, encoder settings.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::words::words;

/// Longest accepted declared or measured duration, in seconds.
pub const MAX_DURATION_SECONDS: f64 = 12.0 * 3_600.0;
/// Accepted declared durations. Whatever plays for less than a millisecond is not a duration, and a table's numbers do not
/// go down as far as those of JSON.
pub const DURATION_SECONDS: RangeInclusive<f64> = 0.001..=MAX_DURATION_SECONDS;
/// Most thumbnails of one job.
pub const MAX_THUMBNAILS: u32 = 20;
/// Accepted constant rate factors, on x264's scale. 0 is lossless, which no profile of the outputs holds.
pub const CRF: RangeInclusive<u32> = 1..=51;
/// Accepted highest video bit rates.
pub const VIDEO_BITRATE_BPS: RangeInclusive<u64> = 50_000..=100_000_000;
/// Accepted audio bit rates: AAC's highest for stereo at 48 kHz.
pub const AUDIO_BITRATE_BPS: RangeInclusive<u64> = 32_000..=512_000;

words! {
    /// Which of the two queues a job waits in.
    Priority {
        /// Goes before low.
        High = "high",
        /// The default.
        Low = "low",
    }
}

words! {
    /// The container of a rendition.
    Format {
        /// H.264 and AAC in MP4, index first.
        Mp4 = "mp4",
        /// VP9 and Opus in WebM.
        Webm = "webm",
        /// H.264 and AAC as one HLS ladder of CMAF segments, however many rungs were asked for.
        Hls = "hls",
    }
}

words! {
    /// A rung, named by the short side of its picture.
    Quality {
        /// 360 px.
        P360 = "360p",
        /// 480 px.
        P480 = "480p",
        /// 720 px.
        P720 = "720p",
        /// 1080 px.
        P1080 = "1080p",
        /// 1440 px.
        P1440 = "1440p",
        /// 2160 px.
        P2160 = "2160p",
    }
}

impl Quality {
    /// The rung's short side.
    #[must_use]
    pub fn short_side_px(self) -> u32 {
        match self {
            Self::P360 => 360,
            Self::P480 => 480,
            Self::P720 => 720,
            Self::P1080 => 1_080,
            Self::P1440 => 1_440,
            Self::P2160 => 2_160,
        }
    }
}

words! {
    /// An x264 speed preset.
    Preset {
        /// Fastest, largest.
        Ultrafast = "ultrafast",
        /// See x264.
        Superfast = "superfast",
        /// The default: a quarter of medium's time at nearly its quality.
        Veryfast = "veryfast",
        /// See x264.
        Faster = "faster",
        /// See x264.
        Fast = "fast",
        /// x264's own default.
        Medium = "medium",
        /// See x264.
        Slow = "slow",
        /// See x264.
        Slower = "slower",
        /// Slowest, smallest.
        Veryslow = "veryslow",
    }
}

/// One rendition that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OutputSpec {
    /// The container.
    pub format: Format,
    /// The rung; `None` is the source's own size, at most 1080p, and for HLS the whole ladder up to there.
    pub quality: Option<Quality>,
}

impl OutputSpec {
    /// The rendition's id within its job: `mp4`, `mp4-720p`, `hls-720p`.
    #[must_use]
    pub fn id(self) -> String {
        match self.quality {
            Some(quality) => format!("{}-{}", self.format.as_str(), quality.as_str()),
            None => self.format.as_str().to_owned(),
        }
    }
}

/// How many stills to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailSpec {
    /// 0 to [`MAX_THUMBNAILS`], evenly spread over the duration.
    pub count: u32,
}

/// Encoder settings. What is absent follows the rung.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// Constant rate factor on x264's scale, 1 (best) to 51; VP9 gets the value of its own scale that looks alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crf: Option<u32>,
    /// Speed preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Highest video bit rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bitrate_bps: Option<u64>,
    /// Audio bit rate to aim at; sound is coded with variable rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_bitrate_bps: Option<u64>,
}

/// What the caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Renditions; never empty, no two alike.
    pub outputs: Vec<OutputSpec>,
    /// Stills.
    pub thumbnails: ThumbnailSpec,
    /// Encoder settings.
    pub compression: Compression,
}
