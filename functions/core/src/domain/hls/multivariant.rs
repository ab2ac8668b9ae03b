//! The multivariant playlist: the rungs of a ladder.

use std::{cmp::Reverse, fmt};

use super::{Bandwidth, VERSION, quoted};
use crate::domain::{geometry::Size, timeline::FrameRate};

/// The average bit rate that playback best begins with. Apple's authoring specification asks for it over Wi-Fi.
const START_BPS: u64 = 2_000_000;

/// A rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Where its media playlist is.
    pub uri: String,
    /// Its bit rates, sound included.
    pub bandwidth: Bandwidth,
    /// The codecs of all that plays with it, sound included, as RFC 6381 spells them (`avc1.640028`); read from the
    /// bitstream, since players believe them.
    pub codecs: Vec<String>,
    /// The size of its picture.
    pub size: Size,
    /// Frames a second.
    pub frame_rate: FrameRate,
}

/// The sound that plays with every rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioRendition {
    /// Where its media playlist is.
    pub uri: String,
    /// What the rungs call it by.
    pub group: String,
    /// What viewers see in a menu.
    pub name: String,
    /// Channels.
    pub channels: u32,
    /// A language tag (RFC 5646), when the source names one.
    pub language: Option<String>,
}

/// A multivariant playlist. [`Display`](fmt::Display) writes it.
///
/// The first variant is the one that many players begin with. Here it is the best one of up to 2 Mbit/s on average, or
/// else the smallest: the first seconds look decent on most lines and start at once. The others follow by bit rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultivariantPlaylist {
    /// The rungs, in any order.
    pub variants: Vec<Variant>,
    /// The sound; `None` for silent sources.
    pub audio: Option<AudioRendition>,
}

impl MultivariantPlaylist {
    fn in_order(&self) -> Vec<&Variant> {
        let mut variants: Vec<_> = self.variants.iter().collect();
        variants.sort_by_key(|variant| (variant.bandwidth.peak_bps, variant.bandwidth.average_bps));
        // Below the limit the more is the better; above it, the less.
        let fitness = |variant: &&&Variant| {
            let average_bps = variant.bandwidth.average_bps;
            if average_bps <= START_BPS {
                (1, Reverse(START_BPS - average_bps))
            } else {
                (0, Reverse(average_bps))
            }
        };
        let start = variants.iter().max_by_key(fitness).copied();
        let others = variants.into_iter().filter(|variant| start != Some(*variant));
        start.into_iter().chain(others).collect()
    }
}

impl fmt::Display for MultivariantPlaylist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "#EXTM3U")?;
        writeln!(f, "#EXT-X-VERSION:{VERSION}")?;
        writeln!(f, "#EXT-X-INDEPENDENT-SEGMENTS")?;
        if let Some(audio) = &self.audio {
            write!(f, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID={}", quoted(&audio.group))?;
            write!(f, ",NAME={}", quoted(&audio.name))?;
            if let Some(language) = &audio.language {
                write!(f, ",LANGUAGE={}", quoted(language))?;
            }
            write!(f, ",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"{}\"", audio.channels)?;
            writeln!(f, ",URI={}", quoted(&audio.uri))?;
        }
        for variant in self.in_order() {
            let Bandwidth { peak_bps, average_bps } = variant.bandwidth;
            write!(
                f,
                "#EXT-X-STREAM-INF:BANDWIDTH={peak_bps},AVERAGE-BANDWIDTH={average_bps}"
            )?;
            write!(f, ",CODECS={}", quoted(&variant.codecs.join(",")))?;
            let Size { width_px, height_px } = variant.size;
            write!(f, ",RESOLUTION={width_px}x{height_px}")?;
            write!(f, ",FRAME-RATE={:.3}", variant.frame_rate.as_f64())?;
            if let Some(audio) = &self.audio {
                write!(f, ",AUDIO={}", quoted(&audio.group))?;
            }
            writeln!(f, ",CLOSED-CAPTIONS=NONE\n{}", variant.uri)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use m3u8_rs::{AlternativeMediaType, parse_master_playlist_res};

    use super::*;

    fn variant(name: &str, average_bps: u64) -> Variant {
        Variant {
            uri: format!("video-{name}.m3u8"),
            bandwidth: Bandwidth {
                peak_bps: average_bps * 2,
                average_bps,
            },
            codecs: vec!["avc1.64001f".to_owned(), "mp4a.40.2".to_owned()],
            size: Size {
                width_px: 1_280,
                height_px: 720,
            },
            frame_rate: FrameRate::parse("30000/1001").unwrap(),
        }
    }

    fn playlist() -> MultivariantPlaylist {
        MultivariantPlaylist {
            variants: vec![
                variant("1080p", 4_000_000),
                variant("720p", 1_900_000),
                variant("480p", 800_000),
            ],
            audio: Some(AudioRendition {
                uri: "audio.m3u8".to_owned(),
                group: "audio".to_owned(),
                name: "Sound".to_owned(),
                channels: 2,
                language: Some("de".to_owned()),
            }),
        }
    }

    #[test]
    fn a_ladder_as_text() {
        let text = r#"#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Sound",LANGUAGE="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=3800000,AVERAGE-BANDWIDTH=1900000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="audio",CLOSED-CAPTIONS=NONE
video-720p.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1600000,AVERAGE-BANDWIDTH=800000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="audio",CLOSED-CAPTIONS=NONE
video-480p.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=8000000,AVERAGE-BANDWIDTH=4000000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="audio",CLOSED-CAPTIONS=NONE
video-1080p.m3u8
"#;
        assert_eq!(playlist().to_string(), text);
    }

    #[test]
    fn silence_names_no_audio() {
        let silent = MultivariantPlaylist {
            audio: None,
            ..playlist()
        };
        assert!(!silent.to_string().contains("AUDIO"));
    }

    #[test]
    fn playback_begins_at_the_best_modest_rung_or_the_smallest() {
        let order = |rates: &[u64]| -> Vec<u64> {
            let variants = rates.iter().map(|bps| variant("x", *bps)).collect();
            let playlist = MultivariantPlaylist { variants, audio: None };
            playlist
                .in_order()
                .iter()
                .map(|variant| variant.bandwidth.average_bps)
                .collect()
        };
        assert_eq!(order(&[5, 1, 3]), [5, 1, 3]);
        assert_eq!(
            order(&[9_000_000, 2_000_000, 2_000_001]),
            [2_000_000, 2_000_001, 9_000_000]
        );
        assert_eq!(order(&[9_000_000, 3_000_000]), [3_000_000, 9_000_000]);
        assert_eq!(order(&[]), [0; 0]);
    }

    #[test]
    fn another_parser_reads_the_same() {
        let ours = playlist();
        let read = parse_master_playlist_res(ours.to_string().as_bytes()).unwrap();
        assert!(read.independent_segments && read.version == Some(7));
        for (read, ours) in read.variants.iter().zip(ours.in_order()) {
            assert_eq!(read.uri, ours.uri);
            assert_eq!(read.bandwidth, ours.bandwidth.peak_bps);
            assert_eq!(read.average_bandwidth, Some(ours.bandwidth.average_bps));
            assert_eq!(read.codecs.as_deref(), Some("avc1.64001f,mp4a.40.2"));
            assert_eq!(
                read.resolution.map(|size| (size.width, size.height)),
                Some((1_280, 720))
            );
            assert_eq!(read.frame_rate, Some(29.97));
            assert_eq!(read.audio.as_deref(), Some("audio"));
        }
        let audio = &read.alternatives[0];
        assert_eq!(audio.media_type, AlternativeMediaType::Audio);
        assert_eq!(
            (audio.uri.as_deref(), audio.channels.as_deref()),
            (Some("audio.m3u8"), Some("2"))
        );
        assert!(audio.default && audio.autoselect);
    }
}
