//! Track files as ffmpeg writes them, made by hand.

use super::boxes::{put_box, put_full_box, put_u16, put_u32, put_u32s, put_u64};
use super::{Init, Sample, Samples, fragment_header};

/// The sample entry of each codec, as bytes of `stsd` after the count.
pub(super) fn entry(kind: [u8; 4], config_kind: [u8; 4], config: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_box(&mut out, kind, |out| {
        out.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        if matches!(&kind, b"avc1" | b"vp09") {
            out.extend([0; 16]);
            put_u16(out, 1_280);
            put_u16(out, 720);
            out.extend([0; 50]);
        } else {
            out.extend([0; 8]);
            put_u16(out, 2);
            put_u16(out, 16);
            put_u32(out, 0);
            put_u32(out, 48_000 << 16);
        }
        put_box(out, *b"btrt", |_| Ok(()))?;
        put_box(out, config_kind, |out| {
            out.extend(config);
            Ok(())
        })
    })
    .unwrap();
    out
}

pub(super) fn avc() -> Vec<u8> {
    entry(*b"avc1", *b"avcC", &[1, 0x64, 0, 0x1f, 0xff, 0xe0, 0])
}

pub(super) fn vp9() -> Vec<u8> {
    entry(*b"vp09", *b"vpcC", &[1, 0, 0, 0, 0, 31, 0x82, 2, 2, 2, 0, 0])
}

/// `specific` is the decoder's own configuration.
pub(super) fn aac_with(specific: &[u8]) -> Vec<u8> {
    let mut esds = vec![0, 0, 0, 0];
    let specific_bytes = u8::try_from(specific.len()).unwrap();
    esds.extend([3, 0x80, 0x80, 0x80, specific_bytes + 26, 0, 1, 0]);
    esds.extend([
        4,
        0x80,
        0x80,
        0x80,
        specific_bytes + 18,
        0x40,
        0x15,
        0,
        0,
        0,
        0,
        1,
        0xf4,
        0,
        0,
        1,
        0xf4,
        0,
    ]);
    esds.extend([5, 0x80, 0x80, 0x80, specific_bytes]);
    esds.extend(specific);
    esds.extend([6, 1, 2]);
    entry(*b"mp4a", *b"esds", &esds)
}

pub(super) fn aac() -> Vec<u8> {
    aac_with(&[0x11, 0x90])
}

pub(super) fn opus() -> Vec<u8> {
    entry(*b"Opus", *b"dOps", &[0, 2, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0])
}

/// What differs between the initialisation sections of two chunks.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    pub(super) version: u8,
    pub(super) duration: u32,
    pub(super) has_edit: bool,
    pub(super) traks: usize,
}

pub(super) const PLAIN: Variant = Variant {
    version: 0,
    duration: 0,
    has_edit: false,
    traks: 1,
};

/// `ftyp` and `moov` with one track of number 1.
pub(super) fn raw_init(entry: &[u8], timescale: u32, variant: Variant) -> Vec<u8> {
    let Variant { version, duration, .. } = variant;
    let wide = |out: &mut Vec<u8>, value: u32| match version {
        0 => put_u32(out, value),
        _ => put_u64(out, u64::from(value)),
    };
    let is_video = matches!(&entry[4..8], b"avc1" | b"vp09");
    let mut out = Vec::new();
    put_box(&mut out, *b"ftyp", |out| {
        out.extend(b"iso5\0\0\x02\0iso5iso6mp41");
        Ok(())
    })
    .unwrap();
    put_box(&mut out, *b"moov", |out| {
        put_full_box(out, *b"mvhd", 0, 0, |out| {
            out.extend([0; 96]);
            Ok(())
        })?;
        for _ in 0..variant.traks {
            put_box(out, *b"trak", |out| {
                put_full_box(out, *b"tkhd", version, 3, |out| {
                    wide(out, duration);
                    wide(out, 0);
                    put_u32s(out, [1, 0]);
                    wide(out, duration);
                    out.extend([0; 52]);
                    put_u32s(out, [1_280 << 16, 720 << 16]);
                    Ok(())
                })?;
                if variant.has_edit {
                    put_box(out, *b"edts", |out| {
                        out.extend(b"\0\0\0\x1celst\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x04\0\0\x01\0\0");
                        Ok(())
                    })?;
                }
                put_box(out, *b"mdia", |out| {
                    put_full_box(out, *b"mdhd", version, 0, |out| {
                        wide(out, duration);
                        wide(out, 0);
                        put_u32(out, timescale);
                        wide(out, duration);
                        put_u32(out, 0x55c4_0000);
                        Ok(())
                    })?;
                    put_full_box(out, *b"hdlr", 0, 0, |out| {
                        put_u32(out, 0);
                        out.extend(if is_video { b"vide" } else { b"soun" });
                        out.extend([0; 13]);
                        Ok(())
                    })?;
                    put_box(out, *b"minf", |out| {
                        put_full_box(out, if is_video { *b"vmhd" } else { *b"smhd" }, 0, 0, |_| Ok(()))?;
                        put_box(out, *b"dinf", |_| Ok(()))?;
                        put_box(out, *b"stbl", |out| {
                            put_full_box(out, *b"stsd", 0, 0, |out| {
                                put_u32(out, 1);
                                out.extend(entry);
                                Ok(())
                            })
                        })
                    })
                })
            })?;
        }
        put_box(out, *b"mvex", |out| {
            put_full_box(out, *b"trex", 0, 0, |out| {
                // Defaults: 512 ticks, 3 bytes, not a sync sample.
                put_u32s(out, [1, 1, 512, 3, 0x0001_0000]);
                Ok(())
            })
        })?;
        put_box(out, *b"udta", |_| Ok(()))
    })
    .unwrap();
    out
}

pub(super) fn sample(bytes: u32, duration_ticks: u32, composition_ticks: i32, is_sync: bool) -> Sample {
    Sample {
        bytes,
        duration_ticks,
        composition_ticks,
        is_sync,
    }
}

/// A group of pictures: one that others refer to, shown first, and reordered ones after it.
pub(super) fn pictures() -> Samples {
    [
        sample(9, 3_000, 0, true),
        sample(4, 3_000, 6_000, false),
        sample(2, 3_000, -3_000, false),
        sample(1, 3_000, -3_000, false),
    ]
    .into_iter()
    .collect()
}

/// A file of these fragments, with payload bytes that count up.
pub(super) fn file(init: &Init, fragments: &[(u64, Samples)]) -> Vec<u8> {
    let mut out = init.as_bytes().to_vec();
    for ((start_ticks, samples), sequence) in fragments.iter().zip(1..) {
        out.extend(fragment_header(init, sequence, *start_ticks, samples).unwrap());
        out.extend((0..samples.total_bytes()).map(|byte| byte.to_be_bytes()[7]));
    }
    out
}
