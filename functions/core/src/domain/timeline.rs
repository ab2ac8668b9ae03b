//! The frame grid: exact rates and counts. No floating-point time decides anything.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A frame rate, exact. As text `30000/1001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FrameRate {
    num: u32,
    den: u32,
}

/// Least ticks a second of a track; ffmpeg's MP4 muxer uses the same bound.
const MIN_TIMESCALE: u32 = 10_000;
/// Largest numerator of an exact rate. Beyond it a "rate" is noise, and no time scale can hold it.
const MAX_NUMERATOR: u32 = 1_000_000;
/// Highest frame rate of an output, in frames a second.
const MAX_FPS: u32 = 120;
/// The rate of a source that names none.
const FALLBACK: FrameRate = FrameRate { num: 25, den: 1 };
/// Rates that real productions use; a variable rate is put on the nearest one.
const STANDARD: &[FrameRate] = &[
    FrameRate { num: 5, den: 1 },
    FrameRate { num: 10, den: 1 },
    FrameRate { num: 12, den: 1 },
    FrameRate { num: 15, den: 1 },
    FrameRate { num: 20, den: 1 },
    FrameRate {
        num: 24_000,
        den: 1_001,
    },
    FrameRate { num: 24, den: 1 },
    FrameRate { num: 25, den: 1 },
    FrameRate {
        num: 30_000,
        den: 1_001,
    },
    FrameRate { num: 30, den: 1 },
    FrameRate { num: 48, den: 1 },
    FrameRate { num: 50, den: 1 },
    FrameRate {
        num: 60_000,
        den: 1_001,
    },
    FrameRate { num: 60, den: 1 },
    FrameRate { num: 90, den: 1 },
    FrameRate { num: 100, den: 1 },
    FrameRate { num: 120, den: 1 },
];

impl FrameRate {
    /// A rate of `num / den` frames a second; `None` for zero or for more than a decoder can mean.
    #[must_use]
    pub fn new(num: u32, den: u32) -> Option<Self> {
        (num > 0 && den > 0).then_some(Self { num, den })
    }

    /// Frames a second as a fraction.
    #[must_use]
    pub fn fraction(self) -> (u32, u32) {
        (self.num, self.den)
    }

    /// The time scale of a track with this rate, and the ticks of one frame in it: exact, and at least
    /// 10,000 ticks a second, as players expect of MP4.
    #[must_use]
    pub fn timescale(self) -> (u32, u32) {
        let factor = MIN_TIMESCALE.div_ceil(self.num);
        (self.num.saturating_mul(factor), self.den.saturating_mul(factor))
    }

    /// Reads `30000/1001`; `None` for `0/0`, as ffprobe writes an unknown rate.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (num, den) = text.split_once('/')?;
        Self::new(num.parse().ok()?, den.parse().ok()?)
    }

    /// Frames a second, for display only.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// Chooses the rate of the outputs from what a probe reports: the nominal rate when the average confirms it to one
    /// per cent, else the standard rate that is nearest to the average.
    #[must_use]
    pub fn choose(nominal: Option<Self>, average: Option<Self>) -> Self {
        let plausible =
            |rate: &Self| rate.num <= MAX_NUMERATOR && rate.as_f64() <= f64::from(MAX_FPS) && rate.as_f64() >= 1.0;
        match (nominal.filter(plausible), average) {
            (Some(nominal), Some(average)) if (average.as_f64() / nominal.as_f64() - 1.0).abs() < 0.01 => nominal,
            (Some(nominal), None) => nominal,
            (_, Some(average)) => {
                let distance = |rate: &Self| (rate.as_f64() / average.as_f64()).ln().abs();
                STANDARD
                    .iter()
                    .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                    .copied()
                    .unwrap_or(FALLBACK)
            }
            (None, None) => FALLBACK,
        }
    }

    /// Frames in `duration_us` microseconds, rounded to the nearest.
    #[must_use]
    pub fn frames_in(self, duration_us: i64) -> u64 {
        let scaled = i128::from(duration_us.max(0)) * i128::from(self.num);
        let unit = i128::from(self.den) * 1_000_000;
        u64::try_from((scaled + unit / 2) / unit).unwrap_or(u64::MAX)
    }

    /// How long `frames` frames last, in microseconds.
    #[must_use]
    pub fn duration_us(self, frames: u64) -> i64 {
        let scaled = i128::from(frames) * i128::from(self.den) * 1_000_000;
        i64::try_from(scaled / i128::from(self.num)).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl TryFrom<String> for FrameRate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no frame rate"))
    }
}

impl From<FrameRate> for String {
    fn from(rate: FrameRate) -> Self {
        rate.to_string()
    }
}

/// The absolute frame grid of a job: where frame 0 lies in the source's own time, how fast frames follow and how many
/// there are. Every rendition and every track of a job shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The first video frame's time in the source, in microseconds.
    video_start_us: i64,
    /// How many frames before the first video frame the grid begins, so that sound that starts earlier is kept.
    lead_frames: u64,
    /// Frames a second.
    pub rate: FrameRate,
    /// Frames in all.
    pub frames: u64,
}

impl Timeline {
    /// Lays the grid: its origin is a whole number of frames before the first video frame, and not after the first
    /// sample of any used track; it ends with the last video frame.
    #[must_use]
    pub fn new(rate: FrameRate, earliest_start_us: i64, video_start_us: i64, video_end_us: i64) -> Self {
        let lead_us = (video_start_us - earliest_start_us).max(0);
        let nearest = rate.frames_in(lead_us);
        let lead_frames = if rate.duration_us(nearest) < lead_us {
            nearest + 1
        } else {
            nearest
        };
        let frames = (lead_frames + rate.frames_in(video_end_us - video_start_us)).max(1);
        Self {
            video_start_us,
            lead_frames,
            rate,
            frames,
        }
    }

    /// The origin in the source's time, in seconds, as an exact expression of ffmpeg's expression language.
    #[must_use]
    pub fn origin_expression(&self) -> String {
        let FrameRate { num, den } = self.rate;
        format!("({}/1000000-{}*{den}/{num})", self.video_start_us, self.lead_frames)
    }

    /// Where a frame of the grid lies in the source's own time, in microseconds.
    #[must_use]
    pub fn source_time_us(&self, frame: u64) -> i64 {
        self.video_start_us - self.rate.duration_us(self.lead_frames) + self.rate.duration_us(frame)
    }

    /// The whole duration, in seconds.
    #[must_use]
    pub fn duration_seconds(&self) -> f64 {
        seconds(self.rate.duration_us(self.frames))
    }

    /// The frames at which `count` evenly spread stills are taken: the middles of equal shares. Fewer when there are
    /// fewer frames; never twice the same.
    #[must_use]
    pub fn thumbnail_frames(&self, count: u32) -> Vec<u64> {
        let count = u64::from(count).min(self.frames);
        (0..count).map(|n| (2 * n + 1) * self.frames / (2 * count)).collect()
    }

    /// Frames between key frames, and so of a segment: four seconds, so that a segment is one group of pictures.
    #[must_use]
    pub fn gop_frames(&self) -> u64 {
        self.rate.frames_in(4_000_000).max(1)
    }
}

/// Microseconds as seconds.
#[must_use]
pub fn seconds(us: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for display; 2^53 us are 285 years")]
    let us = us as f64;
    us / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> FrameRate {
        FrameRate::parse(text).unwrap()
    }

    #[test]
    fn a_confirmed_nominal_rate_is_kept_exactly() {
        for text in ["30000/1001", "25/1", "24000/1001", "60/1", "25/2"] {
            assert_eq!(FrameRate::choose(Some(rate(text)), Some(rate(text))), rate(text));
        }
        assert_eq!(
            FrameRate::choose(Some(rate("25/1")), Some(rate("2997/120"))),
            rate("25/1")
        );
    }

    #[test]
    fn variable_and_implausible_rates_fall_on_a_standard_one() {
        assert_eq!(
            FrameRate::choose(Some(rate("1000/1")), Some(rate("2981/100"))),
            rate("30000/1001")
        );
        assert_eq!(FrameRate::choose(Some(rate("60/1")), Some(rate("26/1"))), rate("25/1"));
        assert_eq!(FrameRate::choose(Some(rate("90000/1")), None), FALLBACK);
        assert_eq!(FrameRate::choose(None, FrameRate::parse("0/0")), FALLBACK);
    }

    #[test]
    fn the_grid_begins_on_a_frame_and_not_after_any_track() {
        let timeline = Timeline::new(rate("25/1"), 1_000_000, 1_400_000, 11_400_000);
        assert_eq!((timeline.lead_frames, timeline.frames), (10, 260));
        let between = Timeline::new(rate("25/1"), 1_000_000, 1_010_000, 2_010_000);
        assert_eq!((between.lead_frames, between.frames), (1, 26));
    }

    #[test]
    fn thumbnails_lie_in_the_middles_of_equal_shares() {
        let timeline = Timeline::new(rate("25/1"), 0, 0, 12_000_000);
        assert_eq!(timeline.thumbnail_frames(3), [50, 150, 250]);
        let still = Timeline::new(rate("25/1"), 0, 0, 40_000);
        assert_eq!(still.thumbnail_frames(3), [0]);
        assert!(timeline.thumbnail_frames(0).is_empty());
    }

    #[test]
    fn time_scales_are_exact() {
        assert_eq!(rate("30000/1001").timescale(), (30_000, 1_001));
        assert_eq!(rate("24000/1001").timescale(), (24_000, 1_001));
        assert_eq!(rate("25/1").timescale(), (10_000, 400));
        assert_eq!(rate("15/2").timescale(), (10_005, 1_334));
    }

    #[test]
    fn a_frame_of_the_grid_is_found_in_the_source() {
        let timeline = Timeline::new(rate("25/1"), 1_000_000, 1_400_000, 11_400_000);
        assert_eq!(timeline.source_time_us(0), 1_000_000);
        assert_eq!(timeline.source_time_us(10), 1_400_000);
    }

    proptest! {
        #[test]
        fn counting_and_measuring_agree(num in 1_u32..120_000, den in prop::sample::select(vec![1_u32, 1_001]), frames in 1_u64..5_000_000) {
            let rate = FrameRate::new(num, den).unwrap();
            prop_assume!(rate.as_f64() < 500.0);
            prop_assert_eq!(rate.frames_in(rate.duration_us(frames)), frames);
        }

        #[test]
        fn thumbnails_are_distinct_and_inside(frames in 1_u64..100_000, count in 0_u32..21) {
            let timeline = Timeline { video_start_us: 0, lead_frames: 0, rate: FALLBACK, frames };
            let chosen = timeline.thumbnail_frames(count);
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(chosen.iter().all(|frame| *frame < frames));
        }
    }
}
