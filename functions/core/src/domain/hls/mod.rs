//! HLS playlists (RFC 8216 and its successor, draft-pantos-hls-rfc8216bis): written over the objects that encoding left
//! behind, and mapped onto signed URLs when they are asked for.
//!
//! No payload is moved. A chunk's object is a complete CMAF file, and a playlist names the byte range of each of its
//! fragments. A job's playlists lie beside each other, and everything that they name has the job's own prefix, so they
//! name it relative to themselves; [`rewrite`] lets nothing else out.

mod bandwidth;
mod ladder;
mod media;
mod multivariant;
mod rewrite;
mod uri;

pub use bandwidth::Bandwidth;
pub use ladder::{AUDIO_FILE, BUFFER_SECONDS, DEFAULT_AUDIO_BPS, Ladder, Part, PlayedFragment, TrackFacts, video_file};
pub use media::{ByteRange, Kind, MediaPlaylist, Segment, target_duration_seconds};
pub use multivariant::{AudioRendition, MultivariantPlaylist, Variant};
pub use rewrite::{MAX_LINE_BYTES, PlaylistError, keys, rewrite};
pub use uri::relative_uri;

/// The media type of both kinds of playlist.
pub const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";
/// The file name of a job's multivariant playlist.
pub const INDEX_FILE: &str = "index.m3u8";
/// The protocol version that has all that is written here: `EXT-X-MAP` with byte ranges for fragmented MP4.
const VERSION: u32 = 7;

/// A quoted string of an attribute list, which can hold anything but quotes and control characters: what it cannot hold
/// is replaced.
fn quoted(text: &str) -> String {
    let held: String = text
        .chars()
        .map(|c| match c {
            '"' => '\'',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    format!("\"{held}\"")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(
            quoted("a\",URI=\"x\r\n#EXT-X-KEY \u{85}ü"),
            "\"a',URI='x  #EXT-X-KEY  ü\""
        );
    }
}
