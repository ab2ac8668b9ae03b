//! Bit rates of renditions, measured over their segments.

use std::ops::Add;

use super::MediaPlaylist;

/// The bit rates of a rendition, or of renditions that play together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// The largest of any run of segments that plays for half to one and a half target durations.
    pub peak_bps: u64,
    /// Over all segments.
    pub average_bps: u64,
}

impl Bandwidth {
    /// The same with a peak of at least `peak_bps`.
    #[must_use]
    pub fn with_peak(self, peak_bps: u64) -> Self {
        Self {
            peak_bps: self.peak_bps.max(peak_bps),
            ..self
        }
    }
}

impl Add for Bandwidth {
    type Output = Self;

    /// Of two renditions that play together. RFC 8216 adds the peaks wherever they lie (section 4.3.4.2), so this is no
    /// less than any moment needs.
    fn add(self, other: Self) -> Self {
        Self {
            peak_bps: self.peak_bps.saturating_add(other.peak_bps),
            average_bps: self.average_bps.saturating_add(other.average_bps),
        }
    }
}

impl MediaPlaylist {
    /// Measures the bit rates (section 4.1 of the RFC). A playlist too short to have a run that counts has its average as
    /// its peak.
    #[must_use]
    pub fn bandwidth(&self) -> Bandwidth {
        let mut ends = vec![(0_i64, 0_u64)];
        let (mut time_us, mut size_bytes) = (0_i64, 0_u64);
        for (segment, duration_us) in self.segments.iter().zip(self.durations_us()) {
            time_us = time_us.saturating_add(duration_us);
            size_bytes = size_bytes.saturating_add(segment.bytes.length_bytes);
            ends.push((time_us, size_bytes));
        }
        let average_bps = bit_rate_bps(size_bytes, time_us);
        let target_us = i64::from(self.target_duration()) * 1_000_000;
        let runs = ends.iter().enumerate().flat_map(|(index, (start_us, before_bytes))| {
            ends[index + 1..]
                .iter()
                .map(move |(end_us, bytes)| (end_us - start_us, bytes - before_bytes))
                .take_while(move |(duration_us, _)| *duration_us <= target_us * 3 / 2)
                .filter(move |(duration_us, _)| *duration_us >= target_us / 2)
        });
        Bandwidth {
            peak_bps: runs
                .map(|(duration_us, bytes)| bit_rate_bps(bytes, duration_us))
                .max()
                .unwrap_or(average_bps),
            average_bps,
        }
    }
}

/// Bits a second, rounded up; 0 for what has no duration.
fn bit_rate_bps(size_bytes: u64, duration_us: i64) -> u64 {
    let Some(duration_us) = u128::try_from(duration_us).ok().filter(|us| *us > 0) else {
        return 0;
    };
    let bps = (u128::from(size_bytes) * 8_000_000).div_ceil(duration_us);
    u64::try_from(bps).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        hls::{ByteRange, Kind, Segment},
        timeline::FrameRate,
    };

    /// Segments of (milliseconds, bytes) under a target of four seconds.
    fn measured(segments: &[(u64, u64)]) -> Bandwidth {
        let bytes = |length_bytes| ByteRange {
            uri: "a".to_owned(),
            offset_bytes: 0,
            length_bytes,
        };
        let segments = segments.iter().map(|(units, length_bytes)| Segment {
            bytes: bytes(*length_bytes),
            units: *units,
        });
        MediaPlaylist {
            kind: Kind::Vod,
            target_duration_seconds: 4,
            unit_rate: FrameRate::new(1_000, 1).unwrap(),
            init: bytes(1),
            segments: segments.collect(),
        }
        .bandwidth()
    }

    #[test]
    fn the_peak_is_that_of_the_heaviest_segment() {
        let expected = Bandwidth {
            peak_bps: 4_000_000,
            average_bps: 2_000_000,
        };
        assert_eq!(
            measured(&[(4_000, 500_000), (4_000, 2_000_000), (4_000, 500_000)]),
            expected
        );
    }

    #[test]
    fn a_short_heavy_tail_counts_only_together_with_what_is_before_it() {
        // Alone it has 8 Mbit/s. With its neighbour it is (500 kB + 100 kB) in 4.1 s.
        let tail = measured(&[(4_000, 500_000), (4_000, 500_000), (100, 100_000)]);
        assert_eq!(tail.peak_bps, (600_000_u64 * 8_000).div_ceil(4_100));
    }

    #[test]
    fn short_segments_count_in_runs() {
        // The heaviest run of two to six seconds is the middle pair.
        let runs = measured(&[(1_000, 100), (1_000, 900), (1_000, 700), (1_000, 100)]);
        assert_eq!(runs.peak_bps, 1_600 * 8 / 2);
        assert_eq!(runs.average_bps, 1_800 * 8 / 4);
    }

    #[test]
    fn what_is_too_short_for_a_run_has_its_average() {
        let short = measured(&[(500, 1_000), (500, 3_000)]);
        assert_eq!((short.peak_bps, short.average_bps), (32_000, 32_000));
        assert_eq!(measured(&[]), Bandwidth::default());
        assert_eq!(measured(&[(0, 10)]).average_bps, 0);
    }

    #[test]
    fn twelve_hours_are_measured() {
        let segments = vec![(4_000, 1_000_000); 10_800];
        assert_eq!(measured(&segments).peak_bps, 2_000_000);
    }

    #[test]
    fn renditions_that_play_together_add_up() {
        let (video, audio) = (measured(&[(4_000, 1_000_000)]), measured(&[(4_000, 64_000)]));
        assert_eq!((video + audio).peak_bps, 2_128_000);
        assert_eq!((video + audio).average_bps, 2_128_000);
    }
}
