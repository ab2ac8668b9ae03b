//! The initialisation section of a track file: everything before its first fragment.

use super::boxes::{
    Atom, Cursor, FourCc, children, put_box, put_full_box, put_i32, put_u16, put_u32, put_u32s, put_u64,
};
use super::{Codec, Mp4Error, TrackKind};

/// The initialisation section of a file that holds one track in fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    bytes: Vec<u8>,
    track_id: u32,
}

/// Ticks a second of a movie's own clock: durations of movie, tracks and edits, in milliseconds.
pub(super) const MOVIE_TIMESCALE: u32 = 1_000;
/// The brands of a fragmented track: CMAF, which is a constraint on `iso6`.
const TRACK_BRANDS: &[&[u8; 4]] = &[b"iso6", b"cmfc", b"mp41"];
/// A `tkhd` from its first reserved field after the duration: layer, group, volume, matrix, width, height.
const TKHD_TAIL_BYTES: usize = 60;
/// The identity transformation, in 16.16 and 2.30 fixed point.
const IDENTITY_MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// 1.0 in 16.16 fixed point.
const ONE: u32 = 0x0001_0000;

impl Init {
    /// The section without what differs between the chunks of one rendition (durations, edit list, times of creation,
    /// tags of the encoder), so that it is the same bytes for each of them.
    pub fn common(raw: &[u8]) -> Result<Self, Mp4Error> {
        Self::compose(&Track::parse(raw)?, None)
    }

    /// As [`Self::common`], with an edit list that begins the presentation `media_start_ticks` into the track: the
    /// encoder's priming is decoded but not heard.
    pub fn skipping(raw: &[u8], media_start_ticks: u64) -> Result<Self, Mp4Error> {
        let edit = Edit {
            // The length of a fragmented track is not known: zero is "to its end".
            duration: 0,
            media_start_ticks,
        };
        Self::compose(&Track::parse(raw)?, Some(edit))
    }

    /// What the track of an initialisation section is coded with.
    pub fn codec(raw: &[u8]) -> Result<Codec, Mp4Error> {
        Track::parse(raw).map(|track| track.codec)
    }

    fn compose(track: &Track<'_>, edit: Option<Edit>) -> Result<Self, Mp4Error> {
        let mut bytes = Vec::new();
        put_ftyp(&mut bytes, TRACK_BRANDS)?;
        put_box(&mut bytes, *b"moov", |out| {
            put_mvhd(out, 0, track.id.saturating_add(1))?;
            put_box(out, *b"trak", |out| {
                track.put_head(out, track.id, 0, edit)?;
                track.put_media(out, 0, |out| {
                    for table in [b"stts", b"stsc", b"stco"] {
                        put_full_box(out, *table, 0, 0, |out| entries(out, 0))?;
                    }
                    put_full_box(out, *b"stsz", 0, 0, |out| {
                        put_u32(out, 0);
                        entries(out, 0)
                    })
                })
            })?;
            put_box(out, *b"mvex", |out| {
                put_full_box(out, *b"trex", 0, 0, |out| {
                    // Every fragment says what its samples are; only the sample description has a default.
                    put_u32s(out, [track.id, 1, 0, 0, 0]);
                    Ok(())
                })
            })
        })?;
        Ok(Self {
            bytes,
            track_id: track.id,
        })
    }

    /// The section as it is written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number that fragments name this track by.
    #[must_use]
    pub fn track_id(&self) -> u32 {
        self.track_id
    }
}

/// What a sample is when its fragment does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) duration_ticks: u32,
    pub(super) bytes: u32,
    pub(super) flags: u32,
}

/// The one entry of an edit list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    /// In ticks of the movie.
    pub(super) duration: u64,
    pub(super) media_start_ticks: u64,
}

/// The only track of an initialisation section.
#[derive(Debug)]
pub(super) struct Track<'a> {
    pub(super) id: u32,
    pub(super) timescale: u32,
    pub(super) codec: Codec,
    pub(super) defaults: Defaults,
    /// ISO 639-2, packed.
    language: u16,
    tkhd_tail: &'a [u8],
    hdlr: Atom<'a>,
    /// `vmhd` or `smhd`.
    media_header: Atom<'a>,
    dinf: Atom<'a>,
    stsd: Atom<'a>,
}

impl<'a> Track<'a> {
    pub(super) fn parse(init: &'a [u8]) -> Result<Self, Mp4Error> {
        let moov = children(FourCc(*b"moov"), init)
            .find_kind(*b"moov")?
            .ok_or(Mp4Error::Missing(FourCc(*b"moov")))?;
        let trak = moov.require(*b"trak")?;
        let mut traks = 0;
        for atom in moov.children() {
            traks += usize::from(atom?.kind == FourCc(*b"trak"));
        }
        if traks != 1 {
            return Err(Mp4Error::Unsupported("several tracks"));
        }
        let (id, tkhd_tail) = tkhd(&trak.require(*b"tkhd")?)?;
        let mdia = trak.require(*b"mdia")?;
        let (timescale, language) = mdhd(&mdia.require(*b"mdhd")?)?;
        let minf = mdia.require(*b"minf")?;
        let stsd = minf.require(*b"stbl")?.require(*b"stsd")?;
        let codec = Codec::parse(&stsd)?;
        let hdlr = mdia.require(*b"hdlr")?;
        if handler(&hdlr)? != codec.kind() {
            return Err(Mp4Error::Malformed(hdlr.kind));
        }
        let media_header = match codec.kind() {
            TrackKind::Video => minf.require(*b"vmhd")?,
            TrackKind::Audio => minf.require(*b"smhd")?,
        };
        Ok(Self {
            id,
            timescale,
            codec,
            defaults: trex(&moov, id)?,
            language,
            tkhd_tail,
            hdlr,
            media_header,
            dinf: minf.require(*b"dinf")?,
            stsd,
        })
    }

    /// Writes `tkhd` and `edts`; `duration` is in ticks of the movie.
    pub(super) fn put_head(
        &self,
        out: &mut Vec<u8>,
        id: u32,
        duration: u64,
        edit: Option<Edit>,
    ) -> Result<(), Mp4Error> {
        /// The track is enabled and part of the movie.
        const ENABLED_IN_MOVIE: u32 = 3;
        let version = u8::from(u32::try_from(duration).is_err());
        put_full_box(out, *b"tkhd", version, ENABLED_IN_MOVIE, |out| {
            put_versioned(out, version, 0);
            put_versioned(out, version, 0);
            put_u32(out, id);
            put_u32(out, 0);
            put_versioned(out, version, duration);
            out.extend_from_slice(self.tkhd_tail);
            Ok(())
        })?;
        match edit {
            Some(edit) => put_box(out, *b"edts", |out| put_elst(out, edit)),
            None => Ok(()),
        }
    }

    /// Writes `mdia` with the sample description and then the sample tables of `tables`.
    pub(super) fn put_media(
        &self,
        out: &mut Vec<u8>,
        duration_ticks: u64,
        tables: impl FnOnce(&mut Vec<u8>) -> Result<(), Mp4Error>,
    ) -> Result<(), Mp4Error> {
        put_box(out, *b"mdia", |out| {
            let version = u8::from(u32::try_from(duration_ticks).is_err());
            put_full_box(out, *b"mdhd", version, 0, |out| {
                put_versioned(out, version, 0);
                put_versioned(out, version, 0);
                put_u32(out, self.timescale);
                put_versioned(out, version, duration_ticks);
                put_u16(out, self.language);
                put_u16(out, 0);
                Ok(())
            })?;
            out.extend_from_slice(self.hdlr.whole);
            put_box(out, *b"minf", |out| {
                out.extend_from_slice(self.media_header.whole);
                out.extend_from_slice(self.dinf.whole);
                put_box(out, *b"stbl", |out| {
                    out.extend_from_slice(self.stsd.whole);
                    tables(out)
                })
            })
        })
    }
}

fn tkhd<'a>(tkhd: &Atom<'a>) -> Result<(u32, &'a [u8]), Mp4Error> {
    let mut cursor = tkhd.cursor();
    let (version, _) = cursor.version_and_flags()?;
    cursor.versioned(version)?;
    cursor.versioned(version)?;
    let id = cursor.u32()?;
    cursor.u32()?;
    cursor.versioned(version)?;
    Ok((id, cursor.take(TKHD_TAIL_BYTES)?))
}

fn mdhd(mdhd: &Atom<'_>) -> Result<(u32, u16), Mp4Error> {
    let mut cursor = mdhd.cursor();
    let (version, _) = cursor.version_and_flags()?;
    cursor.versioned(version)?;
    cursor.versioned(version)?;
    let timescale = cursor.u32()?;
    if timescale == 0 {
        return Err(cursor.malformed());
    }
    cursor.versioned(version)?;
    Ok((timescale, cursor.u16()?))
}

fn handler(hdlr: &Atom<'_>) -> Result<TrackKind, Mp4Error> {
    let mut cursor = hdlr.cursor();
    cursor.version_and_flags()?;
    cursor.u32()?;
    match &cursor.array()? {
        b"vide" => Ok(TrackKind::Video),
        b"soun" => Ok(TrackKind::Audio),
        _ => Err(Mp4Error::Unsupported("a track that is neither video nor audio")),
    }
}

fn trex(moov: &Atom<'_>, track_id: u32) -> Result<Defaults, Mp4Error> {
    for atom in moov.require(*b"mvex")?.children() {
        let atom = atom?;
        if atom.kind != FourCc(*b"trex") {
            continue;
        }
        let mut cursor: Cursor<'_> = atom.cursor();
        cursor.version_and_flags()?;
        if cursor.u32()? == track_id {
            cursor.u32()?;
            return Ok(Defaults {
                duration_ticks: cursor.u32()?,
                bytes: cursor.u32()?,
                flags: cursor.u32()?,
            });
        }
    }
    Err(Mp4Error::Missing(FourCc(*b"trex")))
}

/// Writes the file type: the first brand is the major one.
pub(super) fn put_ftyp(out: &mut Vec<u8>, brands: &[&[u8; 4]]) -> Result<(), Mp4Error> {
    /// What ffmpeg has always written; nobody reads it.
    const MINOR_VERSION: u32 = 512;
    put_box(out, *b"ftyp", |out| {
        out.extend(brands.first().into_iter().copied().flatten());
        put_u32(out, MINOR_VERSION);
        out.extend(brands.iter().copied().flatten());
        Ok(())
    })
}

/// Writes the movie's header; `duration` is in [`MOVIE_TIMESCALE`].
pub(super) fn put_mvhd(out: &mut Vec<u8>, duration: u64, next_track_id: u32) -> Result<(), Mp4Error> {
    /// 1.0 in 8.8 fixed point.
    const FULL_VOLUME: u16 = 0x0100;
    let version = u8::from(u32::try_from(duration).is_err());
    put_full_box(out, *b"mvhd", version, 0, |out| {
        put_versioned(out, version, 0);
        put_versioned(out, version, 0);
        put_u32(out, MOVIE_TIMESCALE);
        put_versioned(out, version, duration);
        put_u32(out, ONE);
        put_u16(out, FULL_VOLUME);
        out.extend_from_slice(&[0; 10]);
        put_u32s(out, IDENTITY_MATRIX);
        out.extend_from_slice(&[0; 24]);
        put_u32(out, next_track_id);
        Ok(())
    })
}

fn put_elst(out: &mut Vec<u8>, edit: Edit) -> Result<(), Mp4Error> {
    let narrow = (u32::try_from(edit.duration), i32::try_from(edit.media_start_ticks));
    let version = u8::from(!matches!(narrow, (Ok(_), Ok(_))));
    put_full_box(out, *b"elst", version, 0, |out| {
        entries(out, 1)?;
        if let (Ok(duration), Ok(media_start)) = narrow {
            put_u32(out, duration);
            put_i32(out, media_start);
        } else {
            put_u64(out, edit.duration);
            put_u64(out, edit.media_start_ticks);
        }
        put_u32(out, ONE);
        Ok(())
    })
}

/// A field of 32 bits in version 0 and of 64 bits in version 1. The caller has chosen the version by the value.
fn put_versioned(out: &mut Vec<u8>, version: u8, value: u64) {
    match u32::try_from(value) {
        Ok(value) if version == 0 => put_u32(out, value),
        _ => put_u64(out, value),
    }
}

/// The number of entries that a table has.
pub(super) fn entries(out: &mut Vec<u8>, count: usize) -> Result<(), Mp4Error> {
    put_u32(out, u32::try_from(count).map_err(|_| Mp4Error::Limit("table entries"))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{PLAIN, Variant, aac, avc, raw_init};
    use super::*;

    fn moov(init: &[u8]) -> Atom<'_> {
        children(FourCc(*b"file"), init).find_kind(*b"moov").unwrap().unwrap()
    }

    #[test]
    fn chunks_have_one_initialisation_section() {
        let common = Init::common(&raw_init(&aac(), 48_000, PLAIN)).unwrap();
        for version in [0, 1] {
            for duration in [0, 5, 960_000] {
                let variant = Variant {
                    version,
                    duration,
                    has_edit: duration == 5,
                    ..PLAIN
                };
                assert_eq!(Init::common(&raw_init(&aac(), 48_000, variant)).unwrap(), common);
            }
        }
        assert_eq!(Init::common(common.as_bytes()).unwrap(), common);
        assert!(moov(common.as_bytes()).child(*b"udta").unwrap().is_none());
    }

    #[test]
    fn the_track_stays_what_it_was() {
        for (entry, timescale) in [(avc(), 90_000), (aac(), 44_100)] {
            let raw = raw_init(&entry, timescale, PLAIN);
            let common = Init::common(&raw).unwrap();
            let (before, after) = (Track::parse(&raw).unwrap(), Track::parse(common.as_bytes()).unwrap());
            assert_eq!((after.id, after.timescale), (before.id, timescale));
            assert_eq!((&after.codec, after.language), (&before.codec, before.language));
            assert_eq!(after.stsd.whole, before.stsd.whole);
            assert_eq!(
                (after.tkhd_tail, after.defaults),
                (before.tkhd_tail, Defaults::default())
            );
        }
    }

    #[test]
    fn an_edit_list_skips_the_priming() {
        let raw = raw_init(&aac(), 48_000, PLAIN);
        let elst = |init: &Init| {
            let edts = moov(init.as_bytes())
                .require(*b"trak")
                .unwrap()
                .require(*b"edts")
                .unwrap();
            edts.require(*b"elst").unwrap().body.to_vec()
        };
        let skipping = Init::skipping(&raw, 1_024).unwrap();
        assert_eq!(elst(&skipping), b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x04\0\0\x01\0\0");
        let late = Init::skipping(&raw, 1 << 31).unwrap();
        assert_eq!(
            elst(&late),
            b"\x01\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\x01\0\0"
        );
        assert_eq!(Init::common(skipping.as_bytes()).unwrap(), Init::common(&raw).unwrap());
    }

    #[test]
    fn a_section_that_contradicts_itself_is_an_error() {
        assert!(matches!(
            Init::common(&raw_init(&aac(), 0, PLAIN)),
            Err(Mp4Error::Malformed(FourCc(kind))) if &kind == b"mdhd"
        ));
        let mut wrong_handler = raw_init(&aac(), 48_000, PLAIN);
        let at = wrong_handler.windows(4).position(|bytes| bytes == b"soun").unwrap();
        wrong_handler[at..at + 4].copy_from_slice(b"vide");
        assert!(matches!(Init::common(&wrong_handler), Err(Mp4Error::Malformed(FourCc(kind))) if &kind == b"hdlr"));
        wrong_handler[at..at + 4].copy_from_slice(b"subt");
        assert!(matches!(Init::common(&wrong_handler), Err(Mp4Error::Unsupported(_))));
    }
}
