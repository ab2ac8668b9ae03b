//! The playlists of a job, over the objects of its chunks. Those of a finished job are stored; those of a job that is
//! still encoding are made when they are asked for. Both come from here, so a segment has the same place and the same
//! duration in either.

use super::{
    AudioRendition, Bandwidth, ByteRange, Kind, MediaPlaylist, MultivariantPlaylist, Segment, Variant, relative_uri,
    target_duration_seconds,
};
use crate::domain::{
    mp4::Codec,
    plan::{HlsOutput, Plan, Rung},
    spec::Quality,
    task::TrackObject,
    timeline::FrameRate,
};

/// The file name of the sound's media playlist.
pub const AUDIO_FILE: &str = "audio.m3u8";
/// What the rungs call the sound by.
const AUDIO_GROUP: &str = "audio";
/// What viewers see the sound as.
const AUDIO_NAME: &str = "Main";
/// Channels of sound that does not say.
const STEREO: u32 = 2;

/// Seconds of a rendition's highest bit rate that the decoder's buffer holds, and so what an encoder may spend at once
/// beyond that rate.
pub const BUFFER_SECONDS: u64 = 2;
/// Bit rate of sound that no option sets.
pub const DEFAULT_AUDIO_BPS: u64 = 128_000;

/// The file name of a rung's media playlist.
#[must_use]
pub fn video_file(quality: Quality) -> String {
    format!("video-{}.m3u8", quality.as_str())
}

/// A fragment that is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayedFragment {
    /// Bytes of its object before it.
    pub offset_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
    /// How long it plays, in ticks of its track.
    pub ticks: u64,
}

/// A chunk's part of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The key of its object.
    pub key: String,
    /// Length of the initialisation section that the object begins with.
    pub init_bytes: u64,
    /// Its segments.
    pub fragments: Vec<PlayedFragment>,
}

impl From<&TrackObject> for Part {
    fn from(track: &TrackObject) -> Self {
        let mut offset_bytes = track.init_bytes.saturating_add(track.skip_bytes);
        let fragments = track.fragments.iter().map(|(length_bytes, ticks)| {
            let fragment = PlayedFragment {
                offset_bytes,
                length_bytes: *length_bytes,
                ticks: *ticks,
            };
            offset_bytes = offset_bytes.saturating_add(*length_bytes);
            fragment
        });
        Self {
            fragments: fragments.collect(),
            key: track.object.key.clone(),
            init_bytes: track.init_bytes,
        }
    }
}

/// What the multivariant playlist says of a track.
#[derive(Debug, Clone, Copy)]
pub struct TrackFacts<'a> {
    /// Its own bit rates.
    pub bandwidth: Bandwidth,
    /// What it is coded with, read from its initialisation section.
    pub codec: &'a Codec,
}

/// The ladder of a job.
#[derive(Debug, Clone, Copy)]
pub struct Ladder<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Its HLS output.
    pub hls: &'a HlsOutput,
    /// The key of the multivariant playlist; all others lie beside it.
    pub index_key: &'a str,
    /// Whether all chunks are there.
    pub kind: Kind,
}

impl Ladder<'_> {
    /// The media playlist of a rung, over its parts in the order of the chunks; `None` without a part.
    #[must_use]
    pub fn video(&self, parts: &[Part]) -> Option<MediaPlaylist> {
        let rate = self.plan.timeline.rate;
        let (_, frame_ticks) = rate.timescale();
        self.media(parts, rate, frame_ticks)
    }

    /// The media playlist of the sound; `None` without a part, and when no sound was planned.
    #[must_use]
    pub fn audio(&self, parts: &[Part]) -> Option<MediaPlaylist> {
        let (sample_rate, _) = self.sound()?;
        self.media(parts, sample_rate, 1)
    }

    /// The multivariant playlist. `videos` are the rungs in the plan's order.
    #[must_use]
    pub fn multivariant(&self, videos: &[TrackFacts<'_>], audio: Option<TrackFacts<'_>>) -> MultivariantPlaylist {
        let audio_bandwidth = audio.map(|audio| audio.bandwidth).unwrap_or_default();
        let variants = self.hls.rungs.iter().zip(videos).filter_map(|(rung, video)| {
            let codecs = [Some(video.codec), audio.map(|audio| audio.codec)];
            Some(Variant {
                uri: video_file(rung.quality),
                bandwidth: video.bandwidth + audio_bandwidth,
                codecs: codecs.into_iter().flatten().map(Codec::rfc6381).collect(),
                size: self.plan.videos.get(rung.video)?.size,
                frame_rate: self.plan.timeline.rate,
            })
        });
        MultivariantPlaylist {
            variants: variants.collect(),
            audio: audio.map(|audio| AudioRendition {
                uri: AUDIO_FILE.into(),
                group: AUDIO_GROUP.into(),
                name: AUDIO_NAME.into(),
                channels: audio.codec.channels().map_or(STEREO, u32::from),
                language: None,
            }),
        }
    }

    /// The target duration of all playlists of the job. From the plan alone, so that it is known before there is a
    /// segment and never changes: a group of pictures, or the packets of sound that may begin during one.
    #[must_use]
    pub fn target_duration_seconds(&self) -> u32 {
        let timeline = &self.plan.timeline;
        let of_pictures = target_duration_seconds(timeline.rate, timeline.gop_frames());
        let of_sound = self.sound().map_or(0, |(sample_rate, packet_samples)| {
            let gop_us = timeline.rate.duration_us(timeline.gop_frames());
            let samples = u128::from(gop_us.unsigned_abs().saturating_add(1)) * u128::from(sample_rate.fraction().0);
            let packets = samples.div_ceil(1_000_000).div_ceil(u128::from(packet_samples.max(1)));
            let units = u64::try_from(packets)
                .unwrap_or(u64::MAX)
                .saturating_mul(packet_samples);
            target_duration_seconds(sample_rate, units)
        });
        of_pictures.max(of_sound)
    }

    /// The highest bit rate that a segment of a rung can come to: at the encoder's limit throughout, and with all that the
    /// buffer lets it spend besides.
    #[must_use]
    pub fn video_limit_bps(&self, rung: &Rung) -> u64 {
        let timeline = &self.plan.timeline;
        let limit_bps = self
            .plan
            .videos
            .get(rung.video)
            .map_or(0, |video| video.max_bitrate_bps);
        let segment_us = timeline.rate.duration_us(timeline.gop_frames()).unsigned_abs().max(1);
        let burst_bps = u128::from(limit_bps) * u128::from(BUFFER_SECONDS) * 1_000_000 / u128::from(segment_us);
        limit_bps.saturating_add(u64::try_from(burst_bps).unwrap_or(u64::MAX))
    }

    /// The bit rate that the sound aims at; its rate is variable and has no limit.
    #[must_use]
    pub fn audio_aim_bps(&self) -> u64 {
        self.plan.compression.audio_bitrate_bps.unwrap_or(DEFAULT_AUDIO_BPS)
    }

    /// Samples a second of the sound, as a rate, and samples of a packet.
    fn sound(&self) -> Option<(FrameRate, u64)> {
        let rendition = self.plan.audios.get(self.hls.audio?)?;
        let grid = self.plan.audio_grid(rendition)?;
        let sample_rate = FrameRate::new(grid.sample_rate_hz(), 1)?;
        Some((sample_rate, rendition.codec.packet_samples()))
    }

    /// The segments of a track, in units of `unit_ticks` ticks.
    fn media(&self, parts: &[Part], unit_rate: FrameRate, unit_ticks: u32) -> Option<MediaPlaylist> {
        let first = parts.first()?;
        let mut segments = Vec::new();
        for part in parts {
            let uri = relative_uri(self.index_key, &part.key);
            segments.extend(part.fragments.iter().map(|fragment| Segment {
                bytes: ByteRange {
                    uri: uri.clone(),
                    offset_bytes: fragment.offset_bytes,
                    length_bytes: fragment.length_bytes,
                },
                units: fragment.ticks / u64::from(unit_ticks.max(1)),
            }));
        }
        Some(MediaPlaylist {
            kind: self.kind,
            target_duration_seconds: self.target_duration_seconds(),
            unit_rate,
            init: ByteRange {
                uri: relative_uri(self.index_key, &first.key),
                offset_bytes: 0,
                length_bytes: first.init_bytes,
            },
            segments,
        })
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
