//! Media playlists: the segments of one rendition.

use std::fmt;

use super::{VERSION, quoted};
use crate::domain::timeline::FrameRate;

/// A run of bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteRange {
    /// Where the object is, as [`relative_uri`](super::relative_uri) writes it.
    pub uri: String,
    /// Bytes of the object before it.
    pub offset_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
}

/// One independently decodable piece of a rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bytes.
    pub bytes: ByteRange,
    /// How long it plays, in units of the playlist's [`unit_rate`](MediaPlaylist::unit_rate).
    pub units: u64,
}

/// Whether a playlist is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is, and never changes.
    Vod,
    /// It grows at its end; players ask again. They begin at the start, not at what came last.
    Event,
}

/// A media playlist. [`Display`](fmt::Display) writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// Whether it is whole.
    pub kind: Kind,
    /// What no segment exceeds, from [`target_duration_seconds`]. The same for all playlists of a job (section 6.2.4),
    /// and for all states of a growing one (section 6.2.1); a longer segment raises it all the same, since a wrong one is
    /// worse than a changed one.
    pub target_duration_seconds: u32,
    /// Units a second, exact: the frame rate when segments count frames, the sample rate when they count samples.
    pub unit_rate: FrameRate,
    /// The initialisation section. One for all: those of all chunks are the same, byte by byte.
    pub init: ByteRange,
    /// The segments, without a gap between them.
    pub segments: Vec<Segment>,
}

/// The target duration of playlists whose longest segment has `units` of `unit_rate`: rounded to the nearest second, as
/// RFC 8216 compares it (section 4.3.3.1). So pictures of four seconds and sound that is cut a packet later have the same.
#[must_use]
pub fn target_duration_seconds(unit_rate: FrameRate, units: u64) -> u32 {
    // A duration as written exceeds the exact one by less than a microsecond, see `durations_us`.
    rounded_seconds(unit_rate.duration_us(units).saturating_add(1))
}

fn rounded_seconds(us: i64) -> u32 {
    let seconds = us.saturating_add(500_000) / 1_000_000;
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

impl MediaPlaylist {
    /// How long each segment plays, as written. The ends of the segments are rounded, not their lengths, so that the sum
    /// of any number of them is right to a microsecond.
    pub(super) fn durations_us(&self) -> impl Iterator<Item = i64> {
        let (mut units, mut start_us) = (0_u64, 0);
        self.segments.iter().map(move |segment| {
            units = units.saturating_add(segment.units);
            let end_us = self.unit_rate.duration_us(units);
            let duration_us = end_us - start_us;
            start_us = end_us;
            duration_us
        })
    }

    /// The target duration as written.
    pub(super) fn target_duration(&self) -> u32 {
        let longest_us = self.durations_us().max().unwrap_or(0);
        self.target_duration_seconds.max(rounded_seconds(longest_us))
    }
}

impl fmt::Display for MediaPlaylist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "#EXTM3U")?;
        writeln!(f, "#EXT-X-VERSION:{VERSION}")?;
        writeln!(f, "#EXT-X-TARGETDURATION:{}", self.target_duration())?;
        writeln!(f, "#EXT-X-MEDIA-SEQUENCE:0")?;
        match self.kind {
            Kind::Vod => writeln!(f, "#EXT-X-PLAYLIST-TYPE:VOD")?,
            Kind::Event => writeln!(f, "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-START:TIME-OFFSET=0")?,
        }
        writeln!(f, "#EXT-X-INDEPENDENT-SEGMENTS")?;
        let uri = quoted(&self.init.uri);
        writeln!(f, "#EXT-X-MAP:URI={uri},BYTERANGE=\"{}\"", Range(&self.init))?;
        for (segment, duration_us) in self.segments.iter().zip(self.durations_us()) {
            let (seconds, us) = (duration_us / 1_000_000, duration_us % 1_000_000);
            writeln!(f, "#EXTINF:{seconds}.{us:06},")?;
            writeln!(f, "#EXT-X-BYTERANGE:{}", Range(&segment.bytes))?;
            writeln!(f, "{}", segment.bytes.uri)?;
        }
        match self.kind {
            Kind::Vod => writeln!(f, "#EXT-X-ENDLIST"),
            Kind::Event => Ok(()),
        }
    }
}

/// A range as playlists have it. The offset is always there: without it a player must remember the segment before.
struct Range<'a>(&'a ByteRange);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.length_bytes, self.0.offset_bytes)
    }
}

#[cfg(test)]
mod tests {
    use m3u8_rs::{MediaPlaylistType, parse_media_playlist_res};
    use proptest::prelude::*;

    use super::*;

    fn range(uri: &str, offset_bytes: u64, length_bytes: u64) -> ByteRange {
        ByteRange {
            uri: uri.to_owned(),
            offset_bytes,
            length_bytes,
        }
    }

    fn ntsc() -> FrameRate {
        FrameRate::parse("30000/1001").unwrap()
    }

    fn playlist(kind: Kind) -> MediaPlaylist {
        let (first, second) = ("../1-c0000-1/v720.mp4", "../1-c0001-2/v720.mp4");
        let segment = |bytes, units| Segment { bytes, units };
        MediaPlaylist {
            kind,
            target_duration_seconds: target_duration_seconds(ntsc(), 120),
            unit_rate: ntsc(),
            init: range(first, 0, 800),
            segments: vec![
                segment(range(first, 800, 1_000_000), 120),
                segment(range(first, 1_000_800, 1_200_000), 120),
                segment(range(second, 800, 90_000), 10),
            ],
        }
    }

    fn even(unit_rate: FrameRate, units: &[u64]) -> MediaPlaylist {
        MediaPlaylist {
            unit_rate,
            target_duration_seconds: 1,
            segments: units
                .iter()
                .map(|units| Segment {
                    bytes: range("a", 0, 1),
                    units: *units,
                })
                .collect(),
            ..playlist(Kind::Vod)
        }
    }

    #[test]
    fn a_whole_playlist_as_text() {
        let text = r#"#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI="../1-c0000-1/v720.mp4",BYTERANGE="800@0"
#EXTINF:4.004000,
#EXT-X-BYTERANGE:1000000@800
../1-c0000-1/v720.mp4
#EXTINF:4.004000,
#EXT-X-BYTERANGE:1200000@1000800
../1-c0000-1/v720.mp4
#EXTINF:0.333666,
#EXT-X-BYTERANGE:90000@800
../1-c0001-2/v720.mp4
#EXT-X-ENDLIST
"#;
        assert_eq!(playlist(Kind::Vod).to_string(), text);
    }

    #[test]
    fn a_growing_playlist_has_no_end_and_begins_at_the_start() {
        let whole = playlist(Kind::Vod).to_string();
        let growing = whole
            .replace("TYPE:VOD", "TYPE:EVENT\n#EXT-X-START:TIME-OFFSET=0")
            .replace("#EXT-X-ENDLIST\n", "");
        assert_eq!(playlist(Kind::Event).to_string(), growing);
    }

    #[test]
    fn a_growing_playlist_only_grows() {
        let whole = playlist(Kind::Event);
        let mut before = whole.clone();
        before.segments.pop();
        assert!(whole.to_string().starts_with(&before.to_string()));
    }

    #[test]
    fn another_parser_reads_the_same() {
        let ours = playlist(Kind::Vod);
        let read = parse_media_playlist_res(ours.to_string().as_bytes()).unwrap();
        assert_eq!(
            (read.version, read.target_duration, read.media_sequence),
            (Some(7), 4, 0)
        );
        assert_eq!(read.playlist_type, Some(MediaPlaylistType::Vod));
        assert!(read.end_list && read.independent_segments && !read.i_frames_only);
        assert_eq!(read.segments.len(), ours.segments.len());
        for (read, ours) in read.segments.iter().zip(&ours.segments) {
            let bytes = read.byte_range.as_ref().unwrap();
            assert_eq!(
                (&read.uri, bytes.offset, bytes.length),
                (&ours.bytes.uri, Some(ours.bytes.offset_bytes), ours.bytes.length_bytes)
            );
        }
        let map = read.segments[0].map.as_ref().unwrap();
        assert_eq!(map.uri, ours.init.uri);
        assert_eq!(map.byte_range.as_ref().unwrap().length, 800);
    }

    #[test]
    fn targets_are_rounded_to_the_nearest_second_and_never_zero() {
        let target = |rate: &str, units| target_duration_seconds(FrameRate::parse(rate).unwrap(), units);
        assert_eq!(target("30000/1001", 120), 4);
        assert_eq!(target("48000/1", 188 * 1_024), 4);
        assert_eq!(target("10/1", 45), 5);
        assert_eq!(target("25/1", 1), 1);
        assert_eq!(target("1/1", u64::MAX), u32::MAX);
    }

    #[test]
    fn a_segment_beyond_the_target_raises_it() {
        assert_eq!(even(ntsc(), &[120, 240]).target_duration(), 8);
        assert_eq!(even(ntsc(), &[]).target_duration(), 1);
    }

    proptest! {
        #[test]
        fn written_durations_do_not_drift(
            rate in prop::sample::select(vec!["30000/1001", "24000/1001", "60000/1001", "48000/1", "44100/1", "25/1"]),
            units in prop::collection::vec(1_u64..200_000, 1_000..3_000),
        ) {
            let rate = FrameRate::parse(rate).unwrap();
            let text = even(rate, &units).to_string();
            let written_us: i64 = text
                .lines()
                .filter_map(|line| line.strip_prefix("#EXTINF:"))
                .map(|duration| duration.trim_end_matches(',').replace('.', "").parse::<i64>().unwrap())
                .sum();
            let (num, den) = rate.fraction();
            let exact_us = i128::from(units.iter().sum::<u64>()) * i128::from(den) * 1_000_000 / i128::from(num);
            prop_assert!((i128::from(written_us) - exact_us).abs() <= 1);
        }

        #[test]
        fn no_written_duration_exceeds_the_target(
            num in 1_u32..100_000, den in prop::sample::select(vec![1_u32, 1_001]),
            units in prop::collection::vec(1_u64..1_000_000, 1..50),
        ) {
            let rate = FrameRate::new(num, den).unwrap();
            let playlist = even(rate, &units);
            let target = target_duration_seconds(rate, units.iter().copied().max().unwrap());
            for duration_us in playlist.durations_us() {
                prop_assert!(rounded_seconds(duration_us) <= target);
            }
            // So a target that was chosen from the longest segment is never raised.
            prop_assert_eq!(MediaPlaylist { target_duration_seconds: target, ..playlist }.target_duration(), target);
        }
    }
}
