//! Puts other URIs into a stored playlist: the signed ones of its objects.

use std::collections::{HashMap, hash_map::Entry};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::uri::resolve;

/// Longest accepted line: a key has at most 1,024 bytes, which take three each when encoded, and an attribute list has
/// more than its URI.
pub const MAX_LINE_BYTES: usize = 4_096;
/// What would end a quoted string or a line, whatever a URL means by it.
const BREAKING: &AsciiSet = &CONTROLS.add(b' ').add(b'"');

/// Why a stored text is no playlist of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaylistError {
    /// It is not UTF-8.
    #[error("the playlist is not UTF-8")]
    NotUtf8,
    /// It does not begin with `#EXTM3U`.
    #[error("the text is no playlist")]
    NoHeader,
    /// A line has more than [`MAX_LINE_BYTES`].
    #[error("line {line} of the playlist is too long")]
    LongLine {
        /// Its number, from 1.
        line: usize,
    },
    /// A line holds control characters, or an attribute list that cannot be read.
    #[error("line {line} of the playlist cannot be read")]
    BadLine {
        /// Its number, from 1.
        line: usize,
    },
    /// A URI names no object of the playlist's own job.
    #[error("line {line} of the playlist names something outside of its job")]
    ForeignUri {
        /// Its number, from 1.
        line: usize,
    },
}

impl PlaylistError {
    /// The stable code of this error.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotUtf8 => "playlist_not_utf8",
            Self::NoHeader => "playlist_without_header",
            Self::LongLine { .. } => "playlist_line_too_long",
            Self::BadLine { .. } => "playlist_line_unreadable",
            Self::ForeignUri { .. } => "playlist_uri_foreign",
        }
    }

    /// Whether the same text may be accepted later: never.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        false
    }
}

/// The keys of all objects that the playlist under `base_key` names, each once, in the order of the text.
pub fn keys(playlist: &[u8], base_key: &str) -> Result<Vec<String>, PlaylistError> {
    let mut keys = Vec::new();
    rewrite(playlist, base_key, |key| {
        keys.push(key.to_owned());
        Ok::<_, PlaylistError>(String::new())
    })?;
    Ok(keys)
}

/// Writes the playlist that is stored under `base_key` again, with the URL that `url_of` gives for an object's key in
/// place of each URI: of lines, and of `URI` attributes. Each key is asked for once, however often it is named.
pub fn rewrite<E: From<PlaylistError>>(
    playlist: &[u8],
    base_key: &str,
    mut url_of: impl FnMut(&str) -> Result<String, E>,
) -> Result<String, E> {
    let text = str::from_utf8(playlist).map_err(|_| PlaylistError::NotUtf8)?;
    if text.lines().next() != Some("#EXTM3U") {
        return Err(PlaylistError::NoHeader.into());
    }
    let mut urls = HashMap::new();
    let mut url_of = |uri: &str, line| -> Result<String, E> {
        let key = resolve(base_key, uri).ok_or(PlaylistError::ForeignUri { line })?;
        Ok(match urls.entry(key) {
            Entry::Occupied(known) => String::clone(known.get()),
            Entry::Vacant(new) => {
                let url = url_of(new.key())?;
                new.insert(utf8_percent_encode(&url, BREAKING).to_string()).clone()
            }
        })
    };
    let mut written = String::with_capacity(text.len());
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        if content.len() > MAX_LINE_BYTES {
            return Err(PlaylistError::LongLine { line }.into());
        }
        if content.contains(char::is_control) {
            return Err(PlaylistError::BadLine { line }.into());
        }
        if let Some((tag, list)) = attribute_list(content) {
            written.push_str(tag);
            for attribute in Attributes(list) {
                let Attribute { name, value, end } = attribute.ok_or(PlaylistError::BadLine { line })?;
                match (name, unquoted(value)) {
                    ("URI", Some(uri)) => {
                        let url = url_of(uri, line)?;
                        written.extend([name, "=\"", url.as_str(), "\"", end]);
                    }
                    ("URI", None) => return Err(PlaylistError::BadLine { line }.into()),
                    _ => written.extend([name, "=", value, end]),
                }
            }
        } else if content.is_empty() || content.starts_with('#') {
            written.push_str(content);
        } else {
            written.push_str(&url_of(content, line)?);
        }
        written.push('\n');
    }
    Ok(written)
}

/// Splits a tag that may have URIs from its attributes.
fn attribute_list(line: &str) -> Option<(&str, &str)> {
    let colon = line.strip_prefix("#EXT-X-")?.find(':')? + "#EXT-X-:".len();
    let (tag, list) = line.split_at(colon);
    list.contains("URI=").then_some((tag, list))
}

fn unquoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// The attributes of a list, in order. `None` ends a list that is none.
struct Attributes<'a>(&'a str);

struct Attribute<'a> {
    name: &'a str,
    /// With its quotes.
    value: &'a str,
    /// The comma behind it, when another one follows.
    end: &'a str,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let attribute = self.read();
            if attribute.is_none() {
                self.0 = "";
            }
            attribute
        })
    }
}

impl<'a> Attributes<'a> {
    fn read(&mut self) -> Option<Attribute<'a>> {
        let (name, rest) = self.0.split_once('=')?;
        let is_name = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-');
        if name.is_empty() || !name.bytes().all(is_name) {
            return None;
        }
        let length = match rest.strip_prefix('"') {
            Some(inner) => inner.find('"')? + 2,
            None => rest.find(',').unwrap_or(rest.len()),
        };
        let (value, rest) = rest.split_at(length);
        let end = if rest.is_empty() { "" } else { "," };
        self.0 = rest.strip_prefix(end)?;
        // A comma with nothing behind it.
        (end.is_empty() || !self.0.is_empty()).then_some(Attribute { name, value, end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::hls::relative_uri;

    const BASE: &str = "outputs/a/j/1-assemble-1/video-720p.m3u8";

    #[expect(clippy::unnecessary_wraps, reason = "the shape that `rewrite` takes")]
    fn url(key: &str) -> Result<String, PlaylistError> {
        Ok(format!("https://s3/{key}?a=1&b=\"2 3\""))
    }

    #[test]
    fn lines_and_attributes_are_mapped_and_nothing_else() {
        let text = "#EXTM3U\r\n\
            #EXT-X-MAP:URI=\"../1-c0000-1/v.mp4\",BYTERANGE=\"8@0\"\r\n\
            \r\n\
            # URI=\"../../../x\"\r\n\
            #EXTINF:4.000000,URI=\"../../../x\"\r\n\
            #EXT-X-BYTERANGE:10@8\r\n\
            ../1-c0000-1/v.mp4\r\n\
            #EXT-X-DATERANGE:ID=\"a,URI=b\",X-URI=\"../../../x\",URI=\"a.mp4\"\r\n\
            #EXT-X-ENDLIST";
        let expected = "#EXTM3U\n\
            #EXT-X-MAP:URI=\"https://s3/outputs/a/j/1-c0000-1/v.mp4?a=1&b=%222%203%22\",BYTERANGE=\"8@0\"\n\
            \n\
            # URI=\"../../../x\"\n\
            #EXTINF:4.000000,URI=\"../../../x\"\n\
            #EXT-X-BYTERANGE:10@8\n\
            https://s3/outputs/a/j/1-c0000-1/v.mp4?a=1&b=%222%203%22\n\
            #EXT-X-DATERANGE:ID=\"a,URI=b\",X-URI=\"../../../x\",URI=\"https://s3/outputs/a/j/1-assemble-1/a.mp4?a=1&b=%222%203%22\"\n\
            #EXT-X-ENDLIST\n";
        assert_eq!(rewrite(text.as_bytes(), BASE, url).unwrap(), expected);
    }

    #[test]
    fn each_object_is_asked_for_once() {
        let text = "#EXTM3U\n#EXT-X-MAP:URI=\"../c/v.mp4\"\n../c/v.mp4\n../d/v.mp4\n./../c/v.mp4\n";
        assert_eq!(
            keys(text.as_bytes(), BASE).unwrap(),
            ["outputs/a/j/c/v.mp4", "outputs/a/j/d/v.mp4"]
        );
    }

    #[test]
    fn what_is_no_playlist_of_the_job_is_refused() {
        let long = format!("#EXTM3U\n#{}\n", "x".repeat(MAX_LINE_BYTES));
        let cases: [(&[u8], PlaylistError); 13] = [
            (b"", PlaylistError::NoHeader),
            (b"#EXTM3U8\n", PlaylistError::NoHeader),
            (b"\xef\xbb\xbf#EXTM3U\n", PlaylistError::NoHeader),
            (b"#EXTM3U\n\xff\n", PlaylistError::NotUtf8),
            (long.as_bytes(), PlaylistError::LongLine { line: 2 }),
            (b"#EXTM3U\na\tb\n", PlaylistError::BadLine { line: 2 }),
            (b"#EXTM3U\n#a\rb\n", PlaylistError::BadLine { line: 2 }),
            (b"#EXTM3U\n#EXT-X-MAP:URI=a.mp4\n", PlaylistError::BadLine { line: 2 }),
            (b"#EXTM3U\n#EXT-X-MAP:URI=\"a.mp4\n", PlaylistError::BadLine { line: 2 }),
            (
                b"#EXTM3U\n#EXT-X-MAP:URI=\"a.mp4\"x\n",
                PlaylistError::BadLine { line: 2 },
            ),
            (
                b"#EXTM3U\n#EXT-X-MAP:URI=\"a.mp4\",\n",
                PlaylistError::BadLine { line: 2 },
            ),
            (b"#EXTM3U\n\n../../../k/a.mp4\n", PlaylistError::ForeignUri { line: 3 }),
            (
                b"#EXTM3U\n#EXT-X-KEY:METHOD=NONE,URI=\"http://x/\"\n",
                PlaylistError::ForeignUri { line: 2 },
            ),
        ];
        for (text, error) in cases {
            assert_eq!(
                rewrite(text, BASE, url),
                Err(error),
                "{}",
                String::from_utf8_lossy(text)
            );
            assert!(!error.is_retryable() && error.code().starts_with("playlist_"));
        }
    }

    #[test]
    fn the_callers_own_error_ends_it() {
        #[derive(Debug, PartialEq)]
        enum Own {
            Playlist(PlaylistError),
            Sign,
        }
        impl From<PlaylistError> for Own {
            fn from(error: PlaylistError) -> Self {
                Self::Playlist(error)
            }
        }
        assert_eq!(rewrite(b"#EXTM3U\na\n", BASE, |_| Err(Own::Sign)), Err(Own::Sign));
        let foreign = rewrite(b"#EXTM3U\n/a\n", BASE, |_| Err(Own::Sign));
        assert_eq!(foreign, Err(Own::Playlist(PlaylistError::ForeignUri { line: 2 })));
    }

    proptest! {
        #[test]
        fn a_written_uri_comes_back_as_its_key(file in "[ -.0-~]{1,20}") {
            prop_assume!(!file.contains('\\') && !file.split('/').any(|part| matches!(part, "" | "." | "..")));
            let key = format!("outputs/a/j/1-c0001-1/{file}");
            let uri = relative_uri(BASE, &key);
            let text = format!("#EXTM3U\n#EXT-X-MAP:BYTERANGE=\"1@0\",URI=\"{uri}\"\n{uri}\n");
            prop_assert_eq!(keys(text.as_bytes(), BASE).unwrap(), [key]);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(#EXTM3U\n)?([#EXT:URI=\",a./\n-]|#EXT-X-MAP:){0,60}") {
            let _ = rewrite(text.as_bytes(), BASE, url);
        }
    }
}
