//! The packet grid of sound: where each codec packet of the whole track lies, and which of them belong to a chunk.
//!
//! A chunk's encoder starts a few packets early and ends a few late, on the grid of the whole track, and only the
//! packets of the chunk are kept. With variable bit rate they are those of one encoder run over the whole track, but for
//! a few in a thousand, so the seams cannot be heard.

use serde::{Deserialize, Serialize};

use super::timeline::Timeline;

/// How the sound of a rendition is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC, for MP4 and HLS.
    Aac,
    /// Opus, for WebM.
    Opus,
}

impl AudioCodec {
    /// Its name, as files and logs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "opus",
        }
    }

    /// Samples of a packet: a frame of AAC-LC; 20 ms of Opus, which always counts at 48 kHz.
    #[must_use]
    pub fn packet_samples(self) -> u64 {
        match self {
            Self::Aac => 1_024,
            Self::Opus => 960,
        }
    }

    /// Samples that the encoder puts before the first one of the source: ffmpeg's AAC encoder one frame, libopus its
    /// lookahead at 48 kHz.
    #[must_use]
    pub fn priming_samples(self) -> u64 {
        match self {
            Self::Aac => 1_024,
            Self::Opus => 312,
        }
    }

    /// Samples a second that it is coded at: Opus has 48 kHz only, and else 44.1 kHz stays and everything else becomes
    /// 48 kHz.
    #[must_use]
    pub fn sample_rate_hz(self, source_hz: u32) -> u32 {
        match self {
            Self::Aac if source_hz == 44_100 => 44_100,
            Self::Aac | Self::Opus => 48_000,
        }
    }
}

/// Packets that are encoded before and after a chunk and thrown away, until encoder and decoder are settled. Opus asks for
/// 80 ms at least (RFC 7845, section 4.6); both codecs get more than that.
const SETTLING_PACKETS: u64 = 8;

/// The grid of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioGrid {
    codec: AudioCodec,
    sample_rate_hz: u32,
    total_samples: u64,
    timeline: Timeline,
}

/// The part of a track that a chunk makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioCut {
    /// First sample that is encoded.
    pub first_sample: u64,
    /// The sample after the last one that is encoded.
    pub end_sample: u64,
    /// Packets of the encoder that come before the chunk's first.
    pub drop_packets: u64,
    /// The chunk's packets by segment: how many in each.
    pub segments: Vec<u64>,
    /// The first packet's number on the grid of the whole track.
    pub first_packet: u64,
}

impl AudioGrid {
    /// The grid of a track that lasts as long as the picture, or until `end_us` from the timeline's origin when that is
    /// later. A shorter track is filled up with silence: players stop where one of two tracks has nothing.
    #[must_use]
    pub fn new(codec: AudioCodec, source_hz: u32, timeline: Timeline, end_us: Option<i64>) -> Self {
        let sample_rate_hz = codec.sample_rate_hz(source_hz);
        let grid = Self {
            codec,
            sample_rate_hz,
            total_samples: 0,
            timeline,
        };
        let of_picture = grid.samples_at(timeline.frames);
        let of_sound = i128::from(end_us.unwrap_or(0)) * i128::from(sample_rate_hz) / 1_000_000;
        Self {
            total_samples: of_picture.max(u64::try_from(of_sound).unwrap_or(0)).max(1),
            ..grid
        }
    }

    /// Samples a second, which is the track's time scale too.
    #[must_use]
    pub fn sample_rate_hz(&self) -> u32 {
        self.sample_rate_hz
    }

    /// Samples of the whole track, without priming.
    #[must_use]
    pub fn total_samples(&self) -> u64 {
        self.total_samples
    }

    /// Packets of the whole track, priming included.
    #[must_use]
    pub fn packets(&self) -> u64 {
        (self.total_samples + self.codec.priming_samples()).div_ceil(self.codec.packet_samples())
    }

    /// The last sample before the frame's time.
    fn samples_at(&self, frame: u64) -> u64 {
        let (num, den) = self.timeline.rate.fraction();
        let scaled = u128::from(frame) * u128::from(den) * u128::from(self.sample_rate_hz);
        u64::try_from(scaled / u128::from(num)).unwrap_or(u64::MAX)
    }

    /// The first packet that begins at or after a frame; the very first frame has all packets before it, too.
    fn packet_at(&self, frame: u64) -> u64 {
        if frame == 0 {
            return 0;
        }
        (self.samples_at(frame) + self.codec.priming_samples())
            .div_ceil(self.codec.packet_samples())
            .min(self.packets())
    }

    /// What the chunk of these frames makes; `last` takes everything that is left.
    #[must_use]
    pub fn cut(&self, first_frame: u64, end_frame: u64, last: bool) -> AudioCut {
        let gop = self.timeline.gop_frames();
        let packet_samples = self.codec.packet_samples();
        let first_packet = self.packet_at(first_frame);
        let end_packet = if last {
            self.packets()
        } else {
            self.packet_at(end_frame)
        };
        let encode_from = first_packet.saturating_sub(SETTLING_PACKETS);
        let end_sample = (end_packet + SETTLING_PACKETS) * packet_samples;

        let mut segments = Vec::new();
        let (mut frame, mut packet) = (first_frame, first_packet);
        while packet < end_packet {
            frame += gop;
            // Sound that is longer than the picture goes on past its end, in segments of the same length.
            let next = if frame >= end_frame && !last {
                end_packet
            } else {
                self.packet_at(frame).min(end_packet)
            };
            if next > packet {
                segments.push(next - packet);
            }
            packet = next;
        }
        AudioCut {
            first_sample: encode_from * packet_samples,
            end_sample: end_sample.min(self.total_samples),
            drop_packets: first_packet - encode_from,
            segments,
            first_packet,
        }
    }
}

impl AudioCut {
    /// The chunk's packets.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.segments.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::timeline::FrameRate;

    fn timeline(rate: &str, frames: u64) -> Timeline {
        let rate = FrameRate::parse(rate).unwrap();
        Timeline::new(rate, 0, 0, rate.duration_us(frames))
    }

    #[test]
    fn the_first_chunk_begins_with_the_priming_and_later_ones_settle_first() {
        let grid = AudioGrid::new(AudioCodec::Aac, 48_000, timeline("25/1", 1_000), None);
        let first = grid.cut(0, 500, false);
        assert_eq!((first.first_sample, first.drop_packets, first.first_packet), (0, 0, 0));
        let second = grid.cut(500, 1_000, true);
        // 20 s are 960,000 samples: packet 938.5 with the priming, so packet 939 is the first that begins after them.
        assert_eq!((second.first_packet, second.drop_packets), (939, 8));
        assert_eq!(second.first_sample, (939 - 8) * 1_024);
        assert_eq!(second.end_sample, 1_920_000);
    }

    #[test]
    fn sound_may_end_before_or_after_the_picture() {
        let long = AudioGrid::new(AudioCodec::Aac, 44_100, timeline("25/1", 100), Some(9_000_000));
        assert_eq!(long.sample_rate_hz(), 44_100);
        let cut = long.cut(0, 100, true);
        assert_eq!(cut.packets(), long.packets());
        assert_eq!(cut.segments.len(), 3);
        let short = AudioGrid::new(AudioCodec::Opus, 44_100, timeline("25/1", 1_000), Some(1_000_000));
        assert_eq!(short.total_samples(), 40 * 48_000);
    }

    proptest! {
        #[test]
        fn chunks_tile_the_packets(
            rate in prop::sample::select(vec!["25/1", "30000/1001", "24000/1001", "60/1", "15/2"]),
            frames in 1_u64..100_000,
            gops in 1_u64..20,
            codec in prop::sample::select(vec![AudioCodec::Aac, AudioCodec::Opus]),
            source_hz in prop::sample::select(vec![8_000_u32, 44_100, 48_000, 96_000]),
            end_us in prop::option::of(0_i64..5_000_000_000),
        ) {
            let timeline = timeline(rate, frames);
            let grid = AudioGrid::new(codec, source_hz, timeline, end_us);
            let chunk = timeline.gop_frames() * gops;
            let mut next = 0;
            for first in (0..timeline.frames).step_by(usize::try_from(chunk).unwrap()) {
                let end = (first + chunk).min(timeline.frames);
                let cut = grid.cut(first, end, end == timeline.frames);
                prop_assert_eq!(cut.first_packet, next);
                prop_assert!(cut.segments.iter().all(|packets| *packets > 0));
                prop_assert!(cut.first_sample <= cut.first_packet * codec.packet_samples());
                next += cut.packets();
            }
            prop_assert_eq!(next, grid.packets());
        }
    }
}
