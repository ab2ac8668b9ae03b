//! Reading the tables of a fragmented one-track file; the payload is skipped.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::boxes::{Atom, Cursor, FourCc, HEADER_BYTES, LARGE_HEADER_BYTES, children};
use super::init::{Defaults, Track};
use super::{Codec, Mp4Error, Sample, Samples, TrackKind};

/// A `moov` without samples is below 2 KiB with any parameter sets.
const MAX_MOOV_BYTES: u64 = 1 << 20;
/// The tables of [`MAX_SAMPLES`] at 16 bytes each.
const MAX_MOOF_BYTES: u64 = 1 << 26;
/// Twelve hours of 60 frames a second are 2.6 million.
const MAX_SAMPLES: usize = 1 << 22;
/// Twelve hours of a fragment for each half second are 86,400.
const MAX_FRAGMENTS: usize = 1 << 17;
/// A fragment is at most four boxes: `styp`, `sidx`, `moof`, `mdat`.
const MAX_BOXES: usize = MAX_FRAGMENTS * 4;

/// The bit of a sample's flags that says that decoding cannot begin with it.
pub(super) const NON_SYNC: u32 = 0x0001_0000;

/// One track in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackFile {
    /// The bytes before the first fragment, exactly.
    pub init: Vec<u8>,
    /// Ticks a second.
    pub timescale: u32,
    /// What the track is coded with.
    pub codec: Codec,
    /// At least one, in the order of the file.
    pub fragments: Vec<Fragment>,
}

/// An independently fetchable part of a track file: its own tables, then the samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Where its first box begins in the file.
    pub offset: u64,
    /// All its boxes.
    pub bytes: u64,
    /// Where its first sample begins in the file. The samples follow each other without a gap.
    pub payload_offset: u64,
    /// Decode time of its first sample.
    pub start_ticks: u64,
    /// Its samples.
    pub samples: Samples,
}

impl Fragment {
    /// Decode time of the sample after its last one.
    #[must_use]
    pub fn end_ticks(&self) -> u64 {
        self.start_ticks.saturating_add(self.samples.total_ticks())
    }
}

impl TrackFile {
    /// What the track carries.
    #[must_use]
    pub fn kind(&self) -> TrackKind {
        self.codec.kind()
    }

    /// How many samples all fragments have.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.fragments.iter().map(|fragment| fragment.samples.len()).sum()
    }

    /// Reads the packets with these numbers, counted over all fragments. `reader` is the file that this was read from.
    pub fn read_packets(
        &self,
        reader: &mut (impl Read + Seek),
        numbers: Range<usize>,
    ) -> Result<Vec<Vec<u8>>, Mp4Error> {
        if numbers.start > numbers.end || numbers.end > self.sample_count() {
            return Err(Mp4Error::Unsupported("fewer packets than were asked for"));
        }
        let mut packets = Vec::new();
        let mut first_number = 0;
        for fragment in &self.fragments {
            let end_number = first_number + fragment.samples.len();
            let mut offset = fragment.payload_offset;
            let mut is_there = false;
            for (number, &bytes) in (first_number..end_number).zip(fragment.samples.sizes_bytes()) {
                if numbers.contains(&number) {
                    if !is_there {
                        reader.seek(SeekFrom::Start(offset))?;
                        is_there = true;
                    }
                    packets.push(read_exactly(reader, u64::from(bytes))?);
                }
                offset += u64::from(bytes);
            }
            first_number = end_number;
        }
        Ok(packets)
    }
}

/// Reads a file with one fragmented track, as ffmpeg writes it: `ftyp` and `moov`, then for each fragment `moof` and
/// `mdat`, each with optional `styp` and `sidx` before it.
pub fn read(reader: &mut (impl Read + Seek)) -> Result<TrackFile, Mp4Error> {
    let file_bytes = reader.seek(SeekFrom::End(0))?;
    let mut scan = Scan::default();
    let mut offset = 0;
    let mut boxes = 0;
    while offset < file_bytes {
        boxes += 1;
        if boxes > MAX_BOXES {
            return Err(Mp4Error::Limit("boxes"));
        }
        let header = TopLevel::read(reader, offset, file_bytes)?;
        match &header.kind.0 {
            b"moov" => scan.moov(header.load(reader, MAX_MOOV_BYTES)?, &header)?,
            b"styp" | b"sidx" => scan.begin(reader, header.offset)?,
            b"moof" => {
                scan.begin(reader, header.offset)?;
                scan.moof(&header.load(reader, MAX_MOOF_BYTES)?, &header)?;
            }
            b"mdat" => scan.mdat(&header)?,
            _ => {}
        }
        offset = header.end;
    }
    scan.finish()
}

/// A box of the file itself.
#[derive(Debug)]
struct TopLevel {
    kind: FourCc,
    offset: u64,
    header_bytes: u64,
    end: u64,
}

impl TopLevel {
    fn read(reader: &mut (impl Read + Seek), offset: u64, file_bytes: u64) -> Result<Self, Mp4Error> {
        const FILE: FourCc = FourCc(*b"file");
        let available = file_bytes - offset;
        reader.seek(SeekFrom::Start(offset))?;
        let bytes = read_exactly(reader, available.min(LARGE_HEADER_BYTES))?;
        let mut cursor = Cursor::new(FILE, &bytes);
        let (size, kind) = (cursor.u32()?, FourCc(cursor.array()?));
        let (header_bytes, size) = match size {
            0 => (HEADER_BYTES, available),
            1 => (LARGE_HEADER_BYTES, cursor.u64()?),
            size => (HEADER_BYTES, u64::from(size)),
        };
        if size < header_bytes || size > available {
            return Err(Mp4Error::Malformed(kind));
        }
        Ok(Self {
            kind,
            offset,
            header_bytes,
            end: offset + size,
        })
    }

    /// The body, when it is not longer than `max_bytes`.
    fn load(&self, reader: &mut (impl Read + Seek), max_bytes: u64) -> Result<Vec<u8>, Mp4Error> {
        let body_offset = self.offset + self.header_bytes;
        let body_bytes = self.end - body_offset;
        if body_bytes > max_bytes {
            return Err(Mp4Error::Limit("bytes of headers"));
        }
        reader.seek(SeekFrom::Start(body_offset))?;
        read_exactly(reader, body_bytes)
    }
}

/// What is known of the file so far.
#[derive(Debug, Default)]
struct Scan {
    header: Option<Header>,
    init: Option<Vec<u8>>,
    /// Where the fragment begins whose `mdat` has not come yet.
    begun: Option<u64>,
    pending: Option<Pending>,
    fragments: Vec<Fragment>,
    samples: usize,
}

#[derive(Debug)]
struct Header {
    track_id: u32,
    timescale: u32,
    codec: Codec,
    defaults: Defaults,
}

/// A `moof` whose `mdat` has not come yet.
#[derive(Debug)]
struct Pending {
    payload_offset: u64,
    payload_end: u64,
    start_ticks: u64,
    samples: Samples,
}

impl Scan {
    fn moov(&mut self, body: Vec<u8>, header: &TopLevel) -> Result<(), Mp4Error> {
        if self.header.is_some() || self.begun.is_some() || self.init.is_some() {
            return Err(Mp4Error::Malformed(header.kind));
        }
        let mut moov = Vec::with_capacity(body.len() + 8);
        super::boxes::put_box(&mut moov, *b"moov", |out| {
            out.extend(body);
            Ok(())
        })?;
        let track = Track::parse(&moov)?;
        self.header = Some(Header {
            track_id: track.id,
            timescale: track.timescale,
            codec: track.codec,
            defaults: track.defaults,
        });
        Ok(())
    }

    /// A box at `offset` belongs to a fragment; before the first one is the initialisation section.
    fn begin(&mut self, reader: &mut (impl Read + Seek), offset: u64) -> Result<(), Mp4Error> {
        self.begun.get_or_insert(offset);
        if self.init.is_none() {
            if offset > MAX_MOOV_BYTES {
                return Err(Mp4Error::Limit("bytes of headers"));
            }
            reader.seek(SeekFrom::Start(0))?;
            self.init = Some(read_exactly(reader, offset)?);
        }
        Ok(())
    }

    fn moof(&mut self, body: &[u8], header: &TopLevel) -> Result<(), Mp4Error> {
        let malformed = Mp4Error::Malformed(header.kind);
        let track = self.header.as_ref().ok_or(Mp4Error::Missing(FourCc(*b"moov")))?;
        if self.pending.is_some() {
            return Err(malformed);
        }
        let mut trafs = Vec::new();
        for atom in children(header.kind, body) {
            let atom = atom?;
            if atom.kind == FourCc(*b"traf") {
                trafs.push(atom);
            }
        }
        let [traf] = trafs[..] else {
            return Err(malformed);
        };
        let room = MAX_SAMPLES - self.samples;
        let pending = Pending::parse(&traf, header.offset, track, room)?;
        self.samples += pending.samples.len();
        self.pending = Some(pending);
        Ok(())
    }

    fn mdat(&mut self, header: &TopLevel) -> Result<(), Mp4Error> {
        let (Some(offset), Some(pending)) = (self.begun.take(), self.pending.take()) else {
            return Err(Mp4Error::Unsupported("samples outside of fragments"));
        };
        if pending.payload_offset < header.offset + header.header_bytes || pending.payload_end > header.end {
            return Err(Mp4Error::Malformed(header.kind));
        }
        if self.fragments.len() == MAX_FRAGMENTS {
            return Err(Mp4Error::Limit("fragments"));
        }
        self.fragments.push(Fragment {
            offset,
            bytes: header.end - offset,
            payload_offset: pending.payload_offset,
            start_ticks: pending.start_ticks,
            samples: pending.samples,
        });
        Ok(())
    }

    fn finish(self) -> Result<TrackFile, Mp4Error> {
        let header = self.header.ok_or(Mp4Error::Missing(FourCc(*b"moov")))?;
        if self.pending.is_some() {
            return Err(Mp4Error::Missing(FourCc(*b"mdat")));
        }
        let init = self.init.ok_or(Mp4Error::Missing(FourCc(*b"moof")))?;
        if self.fragments.is_empty() || self.begun.is_some() {
            return Err(Mp4Error::Missing(FourCc(*b"moof")));
        }
        Ok(TrackFile {
            init,
            timescale: header.timescale,
            codec: header.codec,
            fragments: self.fragments,
        })
    }
}

impl Pending {
    fn parse(traf: &Atom<'_>, moof_offset: u64, track: &Header, room: usize) -> Result<Self, Mp4Error> {
        let head = FragmentHead::parse(&traf.require(*b"tfhd")?, moof_offset, track)?;
        let mut tfdt = traf.require(*b"tfdt")?.cursor();
        let (version, _) = tfdt.version_and_flags()?;
        let start_ticks = tfdt.versioned(version)?;
        let mut runs = Runs {
            head,
            room,
            start: None,
            end: 0,
            samples: Samples::default(),
        };
        for atom in traf.children() {
            let atom = atom?;
            if atom.kind == FourCc(*b"trun") {
                runs.add(&atom)?;
            }
        }
        Ok(Self {
            payload_offset: runs.start.ok_or(Mp4Error::Missing(FourCc(*b"trun")))?,
            payload_end: runs.end,
            start_ticks,
            samples: runs.samples,
        })
    }
}

/// A `tfhd`, with the track's defaults where it has none.
#[derive(Debug)]
struct FragmentHead {
    base_offset: u64,
    defaults: Defaults,
}

impl FragmentHead {
    fn parse(tfhd: &Atom<'_>, moof_offset: u64, track: &Header) -> Result<Self, Mp4Error> {
        let mut cursor = tfhd.cursor();
        let (_, flags) = cursor.version_and_flags()?;
        if cursor.u32()? != track.track_id {
            return Err(cursor.malformed());
        }
        // Without either kind of base, a moof's only track counts from the moof as well.
        let base_offset = if flags & 0x01 == 0 { moof_offset } else { cursor.u64()? };
        if flags & 0x02 != 0 && cursor.u32()? != 1 {
            return Err(Mp4Error::Unsupported("several sample descriptions"));
        }
        let mut field = |flag: u32, default: u32| if flags & flag == 0 { Ok(default) } else { cursor.u32() };
        Ok(Self {
            base_offset,
            defaults: Defaults {
                duration_ticks: field(0x08, track.defaults.duration_ticks)?,
                bytes: field(0x10, track.defaults.bytes)?,
                flags: field(0x20, track.defaults.flags)?,
            },
        })
    }
}

/// The runs of one fragment, joined.
#[derive(Debug)]
struct Runs {
    head: FragmentHead,
    /// How many more samples a file may have.
    room: usize,
    /// Where the first sample begins in the file.
    start: Option<u64>,
    /// Where the last one ends.
    end: u64,
    samples: Samples,
}

impl Runs {
    fn add(&mut self, trun: &Atom<'_>) -> Result<(), Mp4Error> {
        let mut cursor = trun.cursor();
        let (version, flags) = cursor.version_and_flags()?;
        let count = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
        if count > self.room - self.samples.len() {
            return Err(Mp4Error::Limit("samples"));
        }
        let data_offset = if flags & 0x01 == 0 { None } else { Some(cursor.i32()?) };
        self.place(data_offset).ok_or_else(|| cursor.malformed())?;
        let defaults = self.head.defaults;
        let mut first_flags = if flags & 0x04 == 0 { None } else { Some(cursor.u32()?) };
        for _ in 0..count {
            let mut field = |flag: u32, default: u32| if flags & flag == 0 { Ok(default) } else { cursor.u32() };
            let duration_ticks = field(0x100, defaults.duration_ticks)?;
            let bytes = field(0x200, defaults.bytes)?;
            let sample_flags = field(0x400, first_flags.take().unwrap_or(defaults.flags))?;
            let composition = field(0x800, 0)?;
            let composition_ticks = match version {
                // Unsigned: what does not fit is no offset that a track of ours has.
                0 => i32::try_from(composition).map_err(|_| cursor.malformed())?,
                _ => composition.cast_signed(),
            };
            self.end = self
                .end
                .checked_add(u64::from(bytes))
                .ok_or_else(|| cursor.malformed())?;
            self.samples.push(Sample {
                bytes,
                duration_ticks,
                composition_ticks,
                is_sync: sample_flags & NON_SYNC == 0,
            });
        }
        Ok(())
    }

    /// Checks that a run begins where the one before it ended; `None` when it does not.
    fn place(&mut self, data_offset: Option<i32>) -> Option<()> {
        let named = match data_offset {
            Some(offset) => Some(self.head.base_offset.checked_add_signed(i64::from(offset))?),
            None => None,
        };
        if self.start.is_none() {
            self.end = named.unwrap_or(self.head.base_offset);
            self.start = Some(self.end);
        }
        named.is_none_or(|named| named == self.end).then_some(())
    }
}

/// Reads `bytes` bytes. The buffer grows with what is there, whatever the number says.
fn read_exactly(reader: &mut impl Read, bytes: u64) -> Result<Vec<u8>, Mp4Error> {
    let mut buffer = Vec::new();
    reader.take(bytes).read_to_end(&mut buffer)?;
    if u64::try_from(buffer.len()).is_ok_and(|read| read == bytes) {
        Ok(buffer)
    } else {
        Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
    }
}
