//! What a file is, by its first bytes. Names and declared types are not believed.

use serde::{Deserialize, Serialize};

use super::words::words;

/// How many bytes from the start [`detect`] wants to see.
pub const HEAD_BYTES: usize = 4_096;

words! {
    /// A family of content.
    Kind {
        /// Moving pictures, with or without sound.
        Video = "video",
        /// Sound only.
        Audio = "audio",
        /// A still picture or an animation.
        Image = "image",
        /// A PDF document.
        Pdf = "pdf",
    }
}

impl Kind {
    /// Whether content of this kind may carry the declared media type.
    #[must_use]
    pub fn agrees_with(self, content_type: &str) -> bool {
        match content_type.split_once('/') {
            Some(("video", _)) => self == Self::Video,
            Some(("audio", _)) => self == Self::Audio,
            Some(("image", _)) => self == Self::Image,
            Some(("application", "pdf")) => self == Self::Pdf,
            _ => true,
        }
    }
}

/// Tells the kind of a file from its first bytes; `None` for what is nothing known.
#[must_use]
pub fn detect(head: &[u8]) -> Option<Kind> {
    iso_media(head)
        .or_else(|| riff(head))
        .or_else(|| by_signature(head))
        .or_else(|| transport_stream(head))
}

/// Signatures at offset 0, longest meaning first.
const SIGNATURES: &[(&[u8], Kind)] = &[
    (b"\x1a\x45\xdf\xa3", Kind::Video),                 // Matroska, WebM (RFC 8794: EBML)
    (b"FLV\x01", Kind::Video),                          // Flash Video
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind::Video), // ASF, WMV, WMA
    (b"\x00\x00\x01\xba", Kind::Video),                 // MPEG program stream
    (b"\x00\x00\x01\xb3", Kind::Video),                 // MPEG-1/2 video sequence
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", Kind::Video), // MXF
    (b"OggS", Kind::Audio),
    (b"fLaC", Kind::Audio),
    (b"ID3", Kind::Audio),
    (b"\xff\xfb", Kind::Audio),
    (b"\xff\xf3", Kind::Audio),
    (b"\xff\xf2", Kind::Audio),
    (b"\xff\xf1", Kind::Audio), // ADTS
    (b"\xff\xf9", Kind::Audio),
    (b"\x89PNG\r\n\x1a\n", Kind::Image),
    (b"\xff\xd8\xff", Kind::Image),
    (b"GIF87a", Kind::Image),
    (b"GIF89a", Kind::Image),
    (b"BM", Kind::Image),
    (b"II*\0", Kind::Image),
    (b"MM\0*", Kind::Image),
    (b"%PDF-", Kind::Pdf),
];

fn by_signature(head: &[u8]) -> Option<Kind> {
    if head.starts_with(b"OggS") && head.windows(7).any(|window| window == b"\x80theora") {
        return Some(Kind::Video);
    }
    SIGNATURES
        .iter()
        .find(|(signature, _)| head.starts_with(signature))
        .map(|(_, kind)| *kind)
}

/// ISO base media (MP4, `QuickTime`, 3GP, HEIF): a length, then a four-letter box type.
fn iso_media(head: &[u8]) -> Option<Kind> {
    match head.get(4..8)? {
        b"ftyp" => match head.get(8..12)? {
            b"M4A " | b"M4B " | b"M4P " => Some(Kind::Audio),
            b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" | b"avif" | b"avis" => Some(Kind::Image),
            _ => Some(Kind::Video),
        },
        b"moov" | b"mdat" | b"wide" | b"free" | b"skip" | b"pnot" | b"moof" | b"styp" => Some(Kind::Video),
        _ => None,
    }
}

fn riff(head: &[u8]) -> Option<Kind> {
    if !matches!(head.get(..4)?, b"RIFF" | b"RF64") {
        return None;
    }
    match head.get(8..12)? {
        b"AVI " => Some(Kind::Video),
        b"WAVE" => Some(Kind::Audio),
        b"WEBP" => Some(Kind::Image),
        _ => None,
    }
}

/// MPEG transport stream: the sync byte at the start of each packet of 188 bytes, or of 192 with a time code before it
/// (ISO/IEC 13818-1 2.4.3.2; Blu-ray's M2TS).
fn transport_stream(head: &[u8]) -> Option<Kind> {
    const SYNC: u8 = 0x47;
    const PACKETS: usize = 4;
    [(0, 188), (4, 192)]
        .into_iter()
        .any(|(start, step)| (0..PACKETS).all(|n| head.get(start + n * step) == Some(&SYNC)))
        .then_some(Kind::Video)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn containers_are_told_by_content() {
        let ts = |start: usize, step: usize| {
            let mut bytes = vec![0; 1_000];
            (0..5).for_each(|n| bytes[start + n * step] = 0x47);
            bytes
        };
        let mut theora = b"OggS\0\x02".to_vec();
        theora.extend([0; 22]);
        theora.extend(b"\x80theora");
        let cases: &[(&[u8], Option<Kind>)] = &[
            (b"\0\0\0\x20ftypisom\0\0\x02\0", Some(Kind::Video)),
            (b"\0\0\0\x14ftypqt  \0\0\0\0", Some(Kind::Video)),
            (b"\0\0\0\x1cftypM4A \0\0\0\0", Some(Kind::Audio)),
            (b"\0\0\0\x1cftypheic\0\0\0\0", Some(Kind::Image)),
            (b"RIFF\x24\0\0\0AVI LIST", Some(Kind::Video)),
            (b"RIFF\x24\0\0\0WAVEfmt ", Some(Kind::Audio)),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some(Kind::Image)),
            (&ts(0, 188), Some(Kind::Video)),
            (&ts(4, 192), Some(Kind::Video)),
            (&theora, Some(Kind::Video)),
            (b"OggS\0\x02", Some(Kind::Audio)),
            (b"%PDF-1.7", Some(Kind::Pdf)),
            (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/", None),
            (b"ffconcat version 1.0\nfile '/srv/canary'", None),
            (b"v=0\r\nm=video 18100 RTP/AVP 96", None),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", None),
            (b"This is plain text named .mp4, fifty-two bytes long.", None),
            (b"", None),
            (b"\0", None),
        ];
        for (head, kind) in cases {
            assert_eq!(detect(head), *kind, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_declared_family_must_agree() {
        assert!(Kind::Video.agrees_with("video/quicktime"));
        assert!(Kind::Video.agrees_with("application/octet-stream"));
        assert!(!Kind::Image.agrees_with("video/mp4"));
        assert!(!Kind::Video.agrees_with("application/pdf"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(head in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = detect(&head);
        }
    }
}
