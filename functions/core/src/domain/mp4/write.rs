//! Writing a track as fragments of its own.

use std::io::Write;

use super::boxes::{HEADER_BYTES, patch_u32, put_box, put_full_box, put_i32, put_mdat_header, put_u32, put_u64};
use super::init::entries;
use super::read::NON_SYNC;
use super::{Fragment, Init, Mp4Error, Sample, Samples};

/// `sample_depends_on`: it does not.
const INDEPENDENT: u32 = 0x0200_0000;
/// `sample_depends_on`: it does.
const DEPENDENT: u32 = 0x0100_0000;

/// Packets that become one fragment.
#[derive(Debug, Clone, Copy)]
pub struct PacketGroup<'a, P> {
    /// Decode time of the first packet.
    pub start_ticks: u64,
    /// The packets, in order; at least one.
    pub packets: &'a [P],
}

/// Writes a track file of packets that are each `packet_ticks` long and decodable on their own: `init`, then a fragment
/// for each group. Returns the fragments with their places in the file.
///
/// Groups need not follow each other in time: the encoder's priming packet can be a group of its own before the first
/// one, at whatever time, so that a playlist can leave it out and a whole movie can have it.
pub fn write_track<'a, P: AsRef<[u8]> + 'a>(
    writer: &mut impl Write,
    init: &Init,
    packet_ticks: u32,
    groups: impl IntoIterator<Item = PacketGroup<'a, P>>,
) -> Result<Vec<Fragment>, Mp4Error> {
    writer.write_all(init.as_bytes())?;
    let mut offset = u64::try_from(init.as_bytes().len()).unwrap_or(u64::MAX);
    let mut fragments = Vec::new();
    for (group, sequence) in groups.into_iter().zip(1..) {
        let samples = samples(group.packets, packet_ticks)?;
        let head = fragment_header(init, sequence, group.start_ticks, &samples)?;
        writer.write_all(&head)?;
        for packet in group.packets {
            writer.write_all(packet.as_ref())?;
        }
        let payload_offset = offset + u64::try_from(head.len()).unwrap_or(u64::MAX);
        let end = payload_offset + samples.total_bytes();
        fragments.push(Fragment {
            offset,
            bytes: end - offset,
            payload_offset,
            start_ticks: group.start_ticks,
            samples,
        });
        offset = end;
    }
    Ok(fragments)
}

fn samples<P: AsRef<[u8]>>(packets: &[P], packet_ticks: u32) -> Result<Samples, Mp4Error> {
    let sample = |packet: &P| {
        Ok(Sample {
            bytes: u32::try_from(packet.as_ref().len()).map_err(|_| Mp4Error::Limit("bytes of a packet"))?,
            duration_ticks: packet_ticks,
            composition_ticks: 0,
            is_sync: true,
        })
    };
    packets.iter().map(sample).collect()
}

/// What comes before the samples of a fragment: its `moof`, and the header of the `mdat` that the samples are in.
///
/// With it a track can be given other times, or another initialisation section, without its payload being read. The
/// first fragment of a file has `sequence` 1.
pub fn fragment_header(init: &Init, sequence: u32, start_ticks: u64, samples: &Samples) -> Result<Vec<u8>, Mp4Error> {
    if samples.is_empty() {
        return Err(Mp4Error::Unsupported("a fragment without samples"));
    }
    let mut bytes = Vec::new();
    let mut data_offset_at = 0;
    put_box(&mut bytes, *b"moof", |out| {
        put_full_box(out, *b"mfhd", 0, 0, |out| {
            put_u32(out, sequence);
            Ok(())
        })?;
        put_box(out, *b"traf", |out| {
            put_tfhd(out, init.track_id(), samples)?;
            put_full_box(out, *b"tfdt", 1, 0, |out| {
                put_u64(out, start_ticks);
                Ok(())
            })?;
            data_offset_at = put_trun(out, samples)?;
            Ok(())
        })
    })?;
    put_mdat_header(&mut bytes, samples.total_bytes())?;
    let data_offset = i32::try_from(bytes.len()).map_err(|_| Mp4Error::Limit("bytes of headers"))?;
    patch_u32(&mut bytes, data_offset_at, data_offset.cast_unsigned());
    Ok(bytes)
}

fn put_tfhd(out: &mut Vec<u8>, track_id: u32, samples: &Samples) -> Result<(), Mp4Error> {
    /// Offsets count from the `moof`; a default duration and default flags follow.
    const FLAGS: u32 = 0x0002_0000 | 0x08 | 0x20;
    put_full_box(out, *b"tfhd", 0, FLAGS, |out| {
        put_u32(out, track_id);
        put_u32(out, samples.longest_duration_ticks());
        put_u32(out, INDEPENDENT);
        Ok(())
    })
}

/// Writes the run with only the columns that are not constant; returns where its data offset is to be put.
fn put_trun(out: &mut Vec<u8>, samples: &Samples) -> Result<usize, Mp4Error> {
    let has_durations = samples.constant_duration_ticks().is_none();
    let has_flags = !samples.is_all_sync();
    let has_composition = samples.composition_runs().iter().any(|&(_, ticks)| ticks != 0);
    let flags = 0x01
        | 0x200
        | if has_durations { 0x100 } else { 0 }
        | if has_flags { 0x400 } else { 0 }
        | if has_composition { 0x800 } else { 0 };
    // After the box's header, version and flags, and the count.
    let data_offset_at = out.len() + usize::try_from(HEADER_BYTES).unwrap_or_default() + 8;
    put_full_box(out, *b"trun", 1, flags, |out| {
        entries(out, samples.len())?;
        put_i32(out, 0);
        for sample in samples.iter() {
            if has_durations {
                put_u32(out, sample.duration_ticks);
            }
            put_u32(out, sample.bytes);
            if has_flags {
                put_u32(
                    out,
                    if sample.is_sync {
                        INDEPENDENT
                    } else {
                        DEPENDENT | NON_SYNC
                    },
                );
            }
            if has_composition {
                put_i32(out, sample.composition_ticks);
            }
        }
        Ok(())
    })?;
    Ok(data_offset_at)
}
