//! The header of a whole movie whose payload lies elsewhere: all sample tables up front, so that it plays while it is
//! loaded, and offsets into payload that is never looked at.

use super::boxes::{
    LARGE_HEADER_BYTES, patch_u32, put_box, put_full_box, put_i32, put_large_mdat_header, put_u32, put_u32s, put_u64,
};
use super::init::{Edit, MOVIE_TIMESCALE, Track, entries, put_ftyp, put_mvhd};
use super::samples::{Run, merged};
use super::{Codec, Mp4Error, Samples};

/// Samples of all tracks together: more than twelve hours of 120 frames a second with their sound.
const MAX_SAMPLES: usize = 1 << 23;

/// One track of a movie.
#[derive(Debug, Clone)]
pub struct MovieTrack<'a> {
    /// The initialisation section of any of its chunks. Its timescale is that of all ticks here.
    pub init: &'a [u8],
    /// How much of the track is decoded but not presented: the priming of its encoder.
    pub media_start_ticks: u64,
    /// Where its samples are, in decode order. They follow each other without a gap in time.
    pub extents: Vec<Extent<'a>>,
}

/// Samples that follow each other in the payload: those of one fragment.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    /// Where the first one begins, counted from the first byte after the header.
    pub offset: u64,
    /// The samples.
    pub samples: &'a Samples,
}

/// Composes what comes before `mdat_payload_bytes` bytes of payload: `ftyp`, `moov` and the header of `mdat`. The
/// payload may hold bytes that belong to no sample.
pub fn header(tracks: &[MovieTrack<'_>], mdat_payload_bytes: u64) -> Result<Vec<u8>, Mp4Error> {
    let layouts: Vec<Layout<'_>> = tracks
        .iter()
        .map(|track| Layout::new(track, mdat_payload_bytes))
        .collect::<Result<_, _>>()?;
    let samples: usize = layouts.iter().map(|layout| layout.sample_count).sum();
    if layouts.is_empty() || samples > MAX_SAMPLES {
        return Err(Mp4Error::Limit("samples"));
    }
    let mut bytes = Vec::new();
    put_ftyp(&mut bytes, &brands(&layouts))?;
    let mut offsets_at = Vec::new();
    put_box(&mut bytes, *b"moov", |out| {
        let duration = layouts.iter().map(|layout| layout.presented).max().unwrap_or(0);
        let next_track_id = u32::try_from(layouts.len()).unwrap_or(u32::MAX).saturating_add(1);
        put_mvhd(out, duration, next_track_id)?;
        for (layout, id) in layouts.iter().zip(1..) {
            offsets_at.push(layout.put_trak(out, id)?);
        }
        Ok(())
    })?;
    let payload_start = u64::try_from(bytes.len())
        .unwrap_or(u64::MAX)
        .saturating_add(LARGE_HEADER_BYTES);
    for (layout, at) in layouts.iter().zip(offsets_at) {
        layout.patch_offsets(&mut bytes, at, payload_start);
    }
    put_large_mdat_header(&mut bytes, mdat_payload_bytes)?;
    Ok(bytes)
}

/// `isom` for everybody; `avc1` and `iso4` (signed composition offsets) where they are true.
fn brands(layouts: &[Layout<'_>]) -> Vec<&'static [u8; 4]> {
    let mut brands: Vec<&[u8; 4]> = vec![b"isom", b"iso2"];
    if layouts
        .iter()
        .any(|layout| matches!(layout.track.codec, Codec::Avc { .. }))
    {
        brands.push(b"avc1");
    }
    if layouts.iter().any(Layout::is_shown_early) {
        brands.push(b"iso4");
    }
    brands.push(b"mp41");
    brands
}

/// A track with everything that its boxes say about time.
struct Layout<'a> {
    track: Track<'a>,
    /// Without empty ones.
    extents: Vec<Extent<'a>>,
    sample_count: usize,
    /// Decode time of all samples.
    total_ticks: u64,
    /// From when until when samples are shown, on the track's own clock.
    shown_ticks: (i64, i64),
    /// Where the presentation begins, on the track's own clock.
    start_ticks: u64,
    /// How long the presentation is, in ticks of the movie, rounded up so that the last picture is not cut off.
    presented: u64,
    /// Composition offsets, joined over all extents.
    composition: Vec<Run<i32>>,
}

impl<'a> Layout<'a> {
    fn new(track: &MovieTrack<'a>, mdat_payload_bytes: u64) -> Result<Self, Mp4Error> {
        let extents: Vec<_> = track
            .extents
            .iter()
            .filter(|extent| !extent.samples.is_empty())
            .copied()
            .collect();
        let mut total_ticks = 0_u64;
        let mut shown_ticks = (i64::MAX, i64::MIN);
        for Extent { offset, samples } in &extents {
            if offset
                .checked_add(samples.total_bytes())
                .is_none_or(|end| end > mdat_payload_bytes)
            {
                return Err(Mp4Error::Limit("samples for its payload"));
            }
            let decode_start = i64::try_from(total_ticks).map_err(|_| Mp4Error::Limit("ticks"))?;
            if let Some((start, end)) = samples.presentation_ticks() {
                shown_ticks.0 = shown_ticks.0.min(decode_start.saturating_add(start));
                shown_ticks.1 = shown_ticks.1.max(decode_start.saturating_add(end));
            }
            total_ticks = total_ticks.saturating_add(samples.total_ticks());
        }
        // A track whose first picture waits for its reordered successors is presented from that picture on.
        let earliest = u64::try_from(shown_ticks.0).map_err(|_| Mp4Error::Unsupported("samples before its start"))?;
        let start_ticks = track.media_start_ticks.max(earliest);
        let track = Track::parse(track.init)?;
        let presented_ticks = u64::try_from(shown_ticks.1)
            .ok()
            .and_then(|end| end.checked_sub(start_ticks))
            .filter(|&ticks| ticks > 0)
            .ok_or(Mp4Error::Unsupported("no samples to present"))?;
        let presented = u128::from(presented_ticks) * u128::from(MOVIE_TIMESCALE);
        Ok(Self {
            presented: u64::try_from(presented.div_ceil(u128::from(track.timescale))).unwrap_or(u64::MAX),
            sample_count: extents.iter().map(|extent| extent.samples.len()).sum(),
            composition: merged(
                extents
                    .iter()
                    .flat_map(|extent| extent.samples.composition_runs().iter().copied()),
            ),
            track,
            extents,
            total_ticks,
            shown_ticks,
            start_ticks,
        })
    }

    /// Whether a sample is presented before its decode time.
    fn is_shown_early(&self) -> bool {
        self.composition.iter().any(|&(_, ticks)| ticks < 0)
    }

    /// Writes the track; returns where its payload offsets are.
    fn put_trak(&self, out: &mut Vec<u8>, id: u32) -> Result<usize, Mp4Error> {
        let mut offsets_at = 0;
        put_box(out, *b"trak", |out| {
            let edit = Edit {
                duration: self.presented,
                media_start_ticks: self.start_ticks,
            };
            self.track.put_head(out, id, self.presented, Some(edit))?;
            self.track.put_media(out, self.total_ticks, |out| {
                self.put_durations(out)?;
                self.put_composition(out)?;
                self.put_sync(out)?;
                self.put_extent_lengths(out)?;
                self.put_sizes(out)?;
                offsets_at = self.put_offsets(out)?;
                Ok(())
            })
        })?;
        Ok(offsets_at)
    }

    fn put_durations(&self, out: &mut Vec<u8>) -> Result<(), Mp4Error> {
        let runs = self.extents.iter().flat_map(|extent| extent.samples.duration_runs());
        put_runs(out, *b"stts", 0, &merged(runs.copied()), put_u32)
    }

    fn put_composition(&self, out: &mut Vec<u8>) -> Result<(), Mp4Error> {
        if self.composition.iter().all(|&(_, ticks)| ticks == 0) {
            return Ok(());
        }
        put_runs(out, *b"ctts", 1, &self.composition, put_i32)?;
        if !self.is_shown_early() {
            return Ok(());
        }
        // Says how far signed offsets reach, for players that want to know it before they have seen them all.
        let offsets = || self.composition.iter().map(|&(_, ticks)| i64::from(ticks));
        let least = offsets().min().unwrap_or(0);
        let (start, end) = self.shown_ticks;
        put_full_box(out, *b"cslg", 1, 0, |out| {
            for field in [-least, least, offsets().max().unwrap_or(0), start, end] {
                put_u64(out, field.cast_unsigned());
            }
            Ok(())
        })
    }

    fn put_sync(&self, out: &mut Vec<u8>) -> Result<(), Mp4Error> {
        if self.extents.iter().all(|extent| extent.samples.is_all_sync()) {
            return Ok(());
        }
        put_full_box(out, *b"stss", 0, 0, |out| {
            let count_at = out.len();
            entries(out, 0)?;
            let mut first_number = 1_u32;
            let mut count = 0_u32;
            for Extent { samples, .. } in &self.extents {
                for index in samples.sync_indexes() {
                    put_u32(out, first_number.saturating_add(index));
                    count += 1;
                }
                first_number = first_number.saturating_add(u32::try_from(samples.len()).unwrap_or(u32::MAX));
            }
            patch_u32(out, count_at, count);
            Ok(())
        })
    }

    /// How many samples each extent has: an entry where it differs from the extent before.
    fn put_extent_lengths(&self, out: &mut Vec<u8>) -> Result<(), Mp4Error> {
        let lengths = merged(self.extents.iter().map(|extent| (1, extent.samples.len())));
        put_full_box(out, *b"stsc", 0, 0, |out| {
            entries(out, lengths.len())?;
            let mut first_number = 1_u32;
            for (extents, samples) in lengths {
                put_u32(out, first_number);
                entries(out, samples)?;
                // The only sample description.
                put_u32(out, 1);
                first_number = first_number.saturating_add(extents);
            }
            Ok(())
        })
    }

    fn put_sizes(&self, out: &mut Vec<u8>) -> Result<(), Mp4Error> {
        put_full_box(out, *b"stsz", 0, 0, |out| {
            put_u32(out, 0);
            entries(out, self.sample_count)?;
            for extent in &self.extents {
                put_u32s(out, extent.samples.sizes_bytes().iter().copied());
            }
            Ok(())
        })
    }

    /// Writes room for the offsets, which depend on the length of the whole header; returns where it is.
    fn put_offsets(&self, out: &mut Vec<u8>) -> Result<usize, Mp4Error> {
        let mut at = 0;
        put_full_box(out, *b"co64", 0, 0, |out| {
            entries(out, self.extents.len())?;
            at = out.len();
            for _ in &self.extents {
                put_u64(out, 0);
            }
            Ok(())
        })?;
        Ok(at)
    }

    fn patch_offsets(&self, bytes: &mut [u8], at: usize, payload_start: u64) {
        let fields = bytes
            .get_mut(at..)
            .unwrap_or_default()
            .chunks_exact_mut(size_of::<u64>());
        for (field, extent) in fields.zip(&self.extents) {
            field.copy_from_slice(&payload_start.saturating_add(extent.offset).to_be_bytes());
        }
    }
}

fn put_runs<T: Copy>(
    out: &mut Vec<u8>,
    kind: [u8; 4],
    version: u8,
    runs: &[Run<T>],
    put: impl Fn(&mut Vec<u8>, T),
) -> Result<(), Mp4Error> {
    put_full_box(out, kind, version, 0, |out| {
        entries(out, runs.len())?;
        for &(count, value) in runs {
            put_u32(out, count);
            put(out, value);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::boxes::{Atom, FourCc, children};
    use super::super::fixture::{PLAIN, aac, avc, pictures, raw_init, sample};
    use super::*;

    const FILE: FourCc = FourCc(*b"file");

    fn top(header: &[u8], kind: [u8; 4]) -> Atom<'_> {
        // The header ends with the header of a box that is not here.
        let mut known = &header[..header.len() - 16];
        while let Some(atom) = children(FILE, known).next() {
            let atom = atom.unwrap();
            if atom.kind.0 == kind {
                return atom;
            }
            known = &known[atom.whole.len()..];
        }
        panic!("{}", kind.escape_ascii());
    }

    fn trak(header: &[u8], index: usize) -> Atom<'_> {
        let traks = top(header, *b"moov").children().map(Result::unwrap);
        traks.filter(|atom| &atom.kind.0 == b"trak").nth(index).unwrap()
    }

    fn stbl<'a>(trak: &Atom<'a>) -> Atom<'a> {
        [*b"mdia", *b"minf", *b"stbl"]
            .iter()
            .fold(*trak, |atom, kind| atom.require(*kind).unwrap())
    }

    /// The fields of a full box after its version and flags.
    fn fields(parent: &Atom<'_>, kind: [u8; 4]) -> Vec<u32> {
        let body = parent.require(kind).unwrap().body;
        body[4..]
            .chunks_exact(4)
            .map(|field| u32::from_be_bytes(field.try_into().unwrap()))
            .collect()
    }

    fn sound(packets: usize) -> Samples {
        vec![sample(100, 1_024, 0, true); packets].into_iter().collect()
    }

    #[test]
    fn tables_describe_both_tracks() {
        let (video_init, audio_init) = (raw_init(&avc(), 90_000, PLAIN), raw_init(&aac(), 48_000, PLAIN));
        let (priming, packets, pictures) = (sound(1), sound(3), pictures());
        let video = MovieTrack {
            init: &video_init,
            media_start_ticks: 0,
            extents: [1_000, 2_000]
                .map(|offset| Extent {
                    offset,
                    samples: &pictures,
                })
                .to_vec(),
        };
        let audio = MovieTrack {
            init: &audio_init,
            media_start_ticks: 1_024,
            extents: vec![
                Extent {
                    offset: 0,
                    samples: &priming,
                },
                Extent {
                    offset: 100,
                    samples: &packets,
                },
                Extent {
                    offset: 400,
                    samples: &packets,
                },
            ],
        };
        let header = header(&[video, audio], 2_016).unwrap();
        assert_eq!(header[header.len() - 16..], *b"\0\0\0\x01mdat\0\0\0\0\0\0\x07\xf0");
        assert_eq!(top(&header, *b"ftyp").body, b"isom\0\0\x02\0isomiso2avc1iso4mp41");
        // 24,000 / 90,000 s of pictures and 6,144 / 48,000 s of sound, in milliseconds.
        let mvhd = fields(&top(&header, *b"moov"), *b"mvhd");
        assert_eq!((mvhd[2], mvhd[3], mvhd[23]), (1_000, 267, 3));

        let video = trak(&header, 0);
        let tkhd = fields(&video, *b"tkhd");
        assert_eq!((tkhd[2], tkhd[4], tkhd[18], tkhd[19]), (1, 267, 1_280 << 16, 720 << 16));
        assert_eq!(
            fields(&video.require(*b"edts").unwrap(), *b"elst"),
            [1, 267, 0, 0x0001_0000]
        );
        assert_eq!(
            fields(&video.require(*b"mdia").unwrap(), *b"mdhd")[2..4],
            [90_000, 24_000]
        );
        let tables = stbl(&video);
        assert_eq!(fields(&tables, *b"stts"), [1, 8, 3_000]);
        let minus = (-3_000_i32).cast_unsigned();
        assert_eq!(
            fields(&tables, *b"ctts"),
            [6, 1, 0, 1, 6_000, 2, minus, 1, 0, 1, 6_000, 2, minus]
        );
        assert_eq!(
            fields(&tables, *b"cslg"),
            [0, 3_000, u32::MAX, minus, 0, 6_000, 0, 0, 0, 24_000]
        );
        assert_eq!(fields(&tables, *b"stss"), [2, 1, 5]);
        assert_eq!(fields(&tables, *b"stsc"), [1, 1, 4, 1]);
        assert_eq!(fields(&tables, *b"stsz"), [0, 8, 9, 4, 2, 1, 9, 4, 2, 1]);
        let start = u32::try_from(header.len()).unwrap();
        assert_eq!(fields(&tables, *b"co64"), [2, 0, start + 1_000, 0, start + 2_000]);

        let audio = trak(&header, 1);
        let tkhd = fields(&audio, *b"tkhd");
        assert_eq!((tkhd[2], tkhd[4]), (2, 128));
        assert_eq!(
            fields(&audio.require(*b"edts").unwrap(), *b"elst"),
            [1, 128, 1_024, 0x0001_0000]
        );
        assert_eq!(
            fields(&audio.require(*b"mdia").unwrap(), *b"mdhd")[2..4],
            [48_000, 7_168]
        );
        let tables = stbl(&audio);
        assert_eq!(fields(&tables, *b"stts"), [1, 7, 1_024]);
        assert_eq!(fields(&tables, *b"stsc"), [2, 1, 1, 1, 2, 3, 1]);
        assert_eq!(fields(&tables, *b"co64"), [3, 0, start, 0, start + 100, 0, start + 400]);
        for absent in [*b"ctts", *b"cslg", *b"stss"] {
            assert!(tables.child(absent).unwrap().is_none());
        }
    }

    #[test]
    fn a_first_picture_that_is_shown_late_starts_the_presentation() {
        let init = raw_init(&avc(), 30_000, PLAIN);
        let samples = [sample(1, 1_000, 2_000, true), sample(1, 1_000, 2_000, false)]
            .into_iter()
            .collect();
        let track = MovieTrack {
            init: &init,
            media_start_ticks: 0,
            extents: vec![Extent {
                offset: 0,
                samples: &samples,
            }],
        };
        let header = header(&[track], 2).unwrap();
        let video = trak(&header, 0);
        assert_eq!(
            fields(&video.require(*b"edts").unwrap(), *b"elst"),
            [1, 67, 2_000, 0x0001_0000]
        );
        assert_eq!(fields(&stbl(&video), *b"ctts"), [1, 2, 2_000]);
        assert!(stbl(&video).child(*b"cslg").unwrap().is_none());
        assert_eq!(top(&header, *b"ftyp").body, b"isom\0\0\x02\0isomiso2avc1mp41");
    }

    #[test]
    fn times_beyond_32_bits_take_the_wide_boxes() {
        let init = raw_init(&avc(), 90_000, PLAIN);
        // 55 hours.
        let samples: Samples = [sample(1, 900_000_000, 0, true); 20].into_iter().collect();
        let track = MovieTrack {
            init: &init,
            media_start_ticks: 0,
            extents: vec![Extent {
                offset: 0,
                samples: &samples,
            }],
        };
        let header = header(&[track], 20).unwrap();
        let video = trak(&header, 0);
        let mdia = video.require(*b"mdia").unwrap();
        assert_eq!(fields(&mdia, *b"mdhd")[4..7], [90_000, 4, 820_130_816]);
        assert_eq!(mdia.require(*b"mdhd").unwrap().body[0], 1);
        assert_eq!(fields(&video, *b"tkhd")[4], 200_000_000);
    }

    #[test]
    fn what_cannot_be_played_is_an_error() {
        let init = raw_init(&aac(), 48_000, PLAIN);
        let packets = sound(2);
        let track = |offset, media_start_ticks| MovieTrack {
            init: &init,
            media_start_ticks,
            extents: vec![Extent {
                offset,
                samples: &packets,
            }],
        };
        assert!(header(&[track(0, 1_024)], 200).is_ok());
        assert!(header(&[track(1, 1_024)], 200).is_err());
        assert!(header(&[track(u64::MAX, 0)], 200).is_err());
        assert!(header(&[track(0, 2_048)], 200).is_err());
        assert!(header(&[track(0, 0)], u64::MAX).is_err());
        assert!(header(&[], 0).is_err());
        let nothing = MovieTrack {
            extents: Vec::new(),
            ..track(0, 0)
        };
        assert!(header(&[nothing], 200).is_err());
        let early: Samples = [sample(1, 10, -5, true)].into_iter().collect();
        let negative = MovieTrack {
            extents: vec![Extent {
                offset: 0,
                samples: &early,
            }],
            ..track(0, 0)
        };
        assert!(header(&[negative], 200).is_err());
    }

    #[test]
    fn a_long_movie_has_a_header_of_its_tables_only() {
        let (video_init, audio_init) = (raw_init(&avc(), 90_000, PLAIN), raw_init(&aac(), 48_000, PLAIN));
        // Twelve hours of four-second groups of 30 frames a second, and their sound.
        let group: Samples = std::iter::once(sample(60_000, 3_000, 0, true))
            .chain(std::iter::repeat_n(sample(9_000, 3_000, 0, false), 119))
            .collect();
        let packets = sound(187);
        let stride = group.total_bytes() + packets.total_bytes();
        let groups = 12 * 900_u64;
        let extents = |skip, samples| {
            (0..groups)
                .map(|n| Extent {
                    offset: n * stride + skip,
                    samples,
                })
                .collect()
        };
        let tracks = [
            MovieTrack {
                init: &video_init,
                media_start_ticks: 0,
                extents: extents(packets.total_bytes(), &group),
            },
            MovieTrack {
                init: &audio_init,
                media_start_ticks: 1_024,
                extents: extents(0, &packets),
            },
        ];
        let header = header(&tracks, groups * stride).unwrap();
        let tables = 4 * groups * (120 + 187) + 2 * 8 * groups + 4 * groups;
        assert!(header.len() as u64 - tables < 3_000, "{} bytes", header.len());
        let last = *fields(&stbl(&trak(&header, 0)), *b"stss").last().unwrap();
        assert_eq!(u64::from(last), (groups - 1) * 120 + 1);
    }
}
