//! What a track is coded with, from its sample description.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Mp4Error;
use super::boxes::{Atom, Cursor, FourCc, children};

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// The sample format of a track, with what playlists say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Codec {
    /// H.264 with its parameter sets in the sample description.
    Avc {
        /// `profile_idc`.
        profile: u8,
        /// The byte of constraint flags.
        compatibility: u8,
        /// `level_idc`: ten times the level.
        level: u8,
        /// Coded width.
        width_px: u16,
        /// Coded height.
        height_px: u16,
    },
    /// VP9.
    Vp9 {
        /// Profile, 0 to 3.
        profile: u8,
        /// Ten times the level.
        level: u8,
        /// Bits of a colour sample.
        bit_depth: u8,
        /// Coded width.
        width_px: u16,
        /// Coded height.
        height_px: u16,
    },
    /// AAC of MPEG-4.
    Aac {
        /// MPEG-4 audio object type: 2 is AAC-LC.
        object_type: u8,
        /// Channels.
        channels: u16,
        /// Samples a second.
        sample_rate_hz: u32,
    },
    /// Opus; always 48,000 samples a second.
    Opus {
        /// Channels.
        channels: u16,
        /// Samples at the start of the decoder's output that are to be dropped.
        pre_skip_samples: u16,
    },
}

/// Samples a second of every Opus decoder.
const OPUS_RATE_HZ: u32 = 48_000;
/// Bytes of a `VisualSampleEntry` before its boxes, without the box header.
const VISUAL_ENTRY_BYTES: usize = 78;
/// Bytes of an `AudioSampleEntry` before its boxes, without the box header.
const AUDIO_ENTRY_BYTES: usize = 28;
/// ISO/IEC 14496-3, table 1.18: rates by `samplingFrequencyIndex`.
const AAC_RATES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];

impl Codec {
    /// Reads the one entry of a sample description (`stsd`).
    pub(super) fn parse(stsd: &Atom<'_>) -> Result<Self, Mp4Error> {
        let mut cursor = stsd.cursor();
        cursor.version_and_flags()?;
        if cursor.u32()? != 1 {
            return Err(Mp4Error::Unsupported("several sample descriptions"));
        }
        let entry = children(stsd.kind, cursor.rest())
            .next()
            .ok_or(Mp4Error::Malformed(stsd.kind))??;
        match &entry.kind.0 {
            b"avc1" => Self::avc(&entry),
            b"vp09" => Self::vp9(&entry),
            b"mp4a" => Self::aac(&entry),
            b"Opus" => Self::opus(&entry),
            _ => Err(Mp4Error::Codec(entry.kind)),
        }
    }

    fn avc(entry: &Atom<'_>) -> Result<Self, Mp4Error> {
        let (width_px, height_px) = visual_size(entry)?;
        let mut config = config(entry, VISUAL_ENTRY_BYTES, *b"avcC")?.cursor();
        let [_version, profile, compatibility, level] = config.array()?;
        Ok(Self::Avc {
            profile,
            compatibility,
            level,
            width_px,
            height_px,
        })
    }

    fn vp9(entry: &Atom<'_>) -> Result<Self, Mp4Error> {
        let (width_px, height_px) = visual_size(entry)?;
        let mut config = config(entry, VISUAL_ENTRY_BYTES, *b"vpcC")?.cursor();
        config.version_and_flags()?;
        let [profile, level, depth] = config.array()?;
        Ok(Self::Vp9 {
            profile,
            level,
            bit_depth: depth >> 4,
            width_px,
            height_px,
        })
    }

    fn aac(entry: &Atom<'_>) -> Result<Self, Mp4Error> {
        let mut fields = entry.cursor();
        fields.take(16)?;
        let entry_channels = fields.u16()?;
        let esds = config(entry, AUDIO_ENTRY_BYTES, *b"esds")?;
        let config = AudioConfig::parse(&esds)?;
        Ok(Self::Aac {
            object_type: config.object_type,
            // The sample entry says 2 for one channel too; the decoder's own configuration says what it is.
            channels: match config.channels {
                0 => entry_channels,
                7 => 8,
                channels => u16::from(channels),
            },
            sample_rate_hz: config.sample_rate_hz,
        })
    }

    fn opus(entry: &Atom<'_>) -> Result<Self, Mp4Error> {
        let mut config = config(entry, AUDIO_ENTRY_BYTES, *b"dOps")?.cursor();
        let [_version, channels] = config.array()?;
        Ok(Self::Opus {
            channels: u16::from(channels),
            pre_skip_samples: config.u16()?,
        })
    }

    /// The codec as playlists and media types name it (RFC 6381), such as `avc1.64001f`.
    #[must_use]
    pub fn rfc6381(&self) -> String {
        self.to_string()
    }

    /// What the track carries.
    #[must_use]
    pub fn kind(&self) -> TrackKind {
        match self {
            Self::Avc { .. } | Self::Vp9 { .. } => TrackKind::Video,
            Self::Aac { .. } | Self::Opus { .. } => TrackKind::Audio,
        }
    }

    /// Width and height of a picture, in pixels.
    #[must_use]
    pub fn size_px(&self) -> Option<(u16, u16)> {
        match *self {
            Self::Avc {
                width_px, height_px, ..
            }
            | Self::Vp9 {
                width_px, height_px, ..
            } => Some((width_px, height_px)),
            Self::Aac { .. } | Self::Opus { .. } => None,
        }
    }

    /// Channels of sound.
    #[must_use]
    pub fn channels(&self) -> Option<u16> {
        match *self {
            Self::Aac { channels, .. } | Self::Opus { channels, .. } => Some(channels),
            Self::Avc { .. } | Self::Vp9 { .. } => None,
        }
    }

    /// Samples of sound a second.
    #[must_use]
    pub fn sample_rate_hz(&self) -> Option<u32> {
        match *self {
            Self::Aac { sample_rate_hz, .. } => Some(sample_rate_hz),
            Self::Opus { .. } => Some(OPUS_RATE_HZ),
            Self::Avc { .. } | Self::Vp9 { .. } => None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Avc {
                profile,
                compatibility,
                level,
                ..
            } => write!(f, "avc1.{profile:02x}{compatibility:02x}{level:02x}"),
            Self::Vp9 {
                profile,
                level,
                bit_depth,
                ..
            } => write!(f, "vp09.{profile:02}.{level:02}.{bit_depth:02}"),
            Self::Aac { object_type, .. } => write!(f, "mp4a.40.{object_type}"),
            Self::Opus { .. } => f.write_str("opus"),
        }
    }
}

/// The decoder's configuration: the box `kind` after the fixed fields of a sample entry.
fn config<'a>(entry: &Atom<'a>, fixed_bytes: usize, kind: [u8; 4]) -> Result<Atom<'a>, Mp4Error> {
    let mut fields = entry.cursor();
    fields.take(fixed_bytes)?;
    children(entry.kind, fields.rest())
        .find_kind(kind)?
        .ok_or(Mp4Error::Missing(FourCc(kind)))
}

fn visual_size(entry: &Atom<'_>) -> Result<(u16, u16), Mp4Error> {
    let mut fields = entry.cursor();
    fields.take(24)?;
    Ok((fields.u16()?, fields.u16()?))
}

/// The start of an `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1).
struct AudioConfig {
    object_type: u8,
    channels: u8,
    sample_rate_hz: u32,
}

impl AudioConfig {
    /// Walks the nested descriptors of an `esds` box (ISO/IEC 14496-1, 7.2.6) to the decoder's configuration.
    fn parse(esds: &Atom<'_>) -> Result<Self, Mp4Error> {
        /// MPEG-4 audio, as `objectTypeIndication`.
        const MPEG4_AUDIO: u8 = 0x40;
        let mut cursor = esds.cursor();
        cursor.version_and_flags()?;
        let mut stream = descriptor(&mut cursor, 3)?;
        stream.u16()?;
        let flags = stream.u8()?;
        if flags & 0xe0 != 0 {
            return Err(Mp4Error::Unsupported("an elementary stream with dependencies"));
        }
        let mut decoder = descriptor(&mut stream, 4)?;
        if decoder.u8()? != MPEG4_AUDIO {
            return Err(Mp4Error::Unsupported("sound that is not MPEG-4 audio"));
        }
        decoder.take(12)?;
        let mut specific = BitReader {
            cursor: descriptor(&mut decoder, 5)?,
            held: 0,
            held_bits: 0,
        };
        let object_type = match specific.take(5)? {
            31 => 32 + specific.take(6)?,
            object_type => object_type,
        };
        let sample_rate_hz = match specific.take(4)? {
            15 => specific.take(24)?,
            index => *usize::try_from(index)
                .ok()
                .and_then(|index| AAC_RATES_HZ.get(index))
                .ok_or_else(|| specific.cursor.malformed())?,
        };
        let narrow = |value: u32| u8::try_from(value).map_err(|_| Mp4Error::Malformed(esds.kind));
        Ok(Self {
            object_type: narrow(object_type)?,
            channels: narrow(specific.take(4)?)?,
            sample_rate_hz,
        })
    }
}

/// The content of the descriptor that has to come next.
fn descriptor<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<Cursor<'a>, Mp4Error> {
    if cursor.u8()? != tag {
        return Err(cursor.malformed());
    }
    let mut size = 0_usize;
    for _ in 0..4 {
        let byte = cursor.u8()?;
        size = size << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            let mut content = cursor.clone();
            let bytes = content.take(size)?;
            cursor.take(size)?;
            return Ok(Cursor::new(FourCc(*b"esds"), bytes));
        }
    }
    Err(cursor.malformed())
}

/// Fields that are not whole bytes, high bit first.
struct BitReader<'a> {
    cursor: Cursor<'a>,
    held: u64,
    held_bits: u32,
}

impl BitReader<'_> {
    /// The next `bits` bits, at most 32.
    fn take(&mut self, bits: u32) -> Result<u32, Mp4Error> {
        while self.held_bits < bits {
            self.held = self.held << 8 | u64::from(self.cursor.u8()?);
            self.held_bits += 8;
        }
        self.held_bits -= bits;
        let value = self.held >> self.held_bits;
        self.held &= (1 << self.held_bits) - 1;
        u32::try_from(value).map_err(|_| self.cursor.malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::super::boxes::{put_full_box, put_u32};
    use super::super::fixture::{aac, aac_with, avc, entry, opus, vp9};
    use super::*;

    fn parse(entry: &[u8]) -> Result<Codec, Mp4Error> {
        let mut stsd = Vec::new();
        put_full_box(&mut stsd, *b"stsd", 0, 0, |out| {
            put_u32(out, 1);
            out.extend(entry);
            Ok(())
        })?;
        Codec::parse(&children(FourCc(*b"stbl"), &stsd).next().unwrap()?)
    }

    #[test]
    fn codecs_have_their_registered_names() {
        let names = [avc(), vp9(), aac(), opus()].map(|entry| parse(&entry).unwrap().rfc6381());
        assert_eq!(names, ["avc1.64001f", "vp09.00.31.08", "mp4a.40.2", "opus"]);
    }

    #[test]
    fn codecs_know_their_shape() {
        for video in [avc(), vp9()].map(|entry| parse(&entry).unwrap()) {
            assert_eq!((video.kind(), video.size_px()), (TrackKind::Video, Some((1_280, 720))));
            assert_eq!((video.channels(), video.sample_rate_hz()), (None, None));
        }
        for audio in [aac(), opus()].map(|entry| parse(&entry).unwrap()) {
            assert_eq!((audio.kind(), audio.size_px()), (TrackKind::Audio, None));
            assert_eq!((audio.channels(), audio.sample_rate_hz()), (Some(2), Some(48_000)));
        }
        assert!(matches!(
            parse(&opus()).unwrap(),
            Codec::Opus {
                pre_skip_samples: 312,
                ..
            }
        ));
    }

    #[test]
    fn the_decoder_configuration_overrides_the_sample_entry() {
        // AAC-LC, 44,100 Hz, one channel.
        let mono = parse(&aac_with(&[0x12, 0x08])).unwrap();
        assert_eq!((mono.channels(), mono.sample_rate_hz()), (Some(1), Some(44_100)));
        // AAC-LC, an explicit rate of 50,000 Hz, 7.1.
        let explicit = parse(&aac_with(&[0x17, 0x80, 0x61, 0xa8, 0x38])).unwrap();
        assert_eq!(
            (explicit.channels(), explicit.sample_rate_hz()),
            (Some(8), Some(50_000))
        );
        // Object type 42 by the escape: xHE-AAC.
        let escaped = parse(&aac_with(&[0xf9, 0x46, 0x40])).unwrap();
        assert_eq!(escaped.rfc6381(), "mp4a.40.42");
    }

    #[test]
    fn other_sample_formats_are_named_in_the_error() {
        let error = parse(&entry(*b"ac-3", *b"dac3", &[])).unwrap_err();
        assert_eq!((error.code(), error.to_string().contains("ac-3")), ("mp4_codec", true));
        assert!(matches!(
            parse(&entry(*b"mp4a", *b"esdt", &[])),
            Err(Mp4Error::Missing(_))
        ));
    }

    #[test]
    fn broken_configurations_are_errors() {
        for specific in [&[][..], &[0x11], &[0x17, 0x80], &[0x16, 0xf0]] {
            assert!(
                matches!(parse(&aac_with(specific)), Err(Mp4Error::Malformed(_))),
                "{specific:?}"
            );
        }
        for entry in [avc(), vp9(), aac(), opus()] {
            for len in 0..entry.len() {
                assert!(parse(&entry[..len]).is_err());
            }
        }
    }
}
