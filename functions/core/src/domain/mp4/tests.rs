//! What is written can be read, and what is damaged is an error.

use std::io::Cursor;

use proptest::prelude::*;

use super::boxes::{put_box, put_full_box, put_u32, put_u32s, put_u64};
use super::fixture::{PLAIN, aac, avc, file, opus, pictures, raw_init, sample};
use super::*;

fn parse(bytes: &[u8]) -> Result<TrackFile, Mp4Error> {
    read(&mut Cursor::new(bytes))
}

fn video_init() -> Init {
    Init::common(&raw_init(&avc(), 90_000, PLAIN)).unwrap()
}

fn audio_init() -> Init {
    Init::common(&raw_init(&aac(), 48_000, PLAIN)).unwrap()
}

/// One `moof` with these `tfhd` and `trun` boxes, each as flags and fields, at `tfdt` 7 of version 0.
fn moof(tfhd: (u32, &[u32]), truns: &[(u8, u32, &[u32])]) -> Vec<u8> {
    let mut out = Vec::new();
    put_box(&mut out, *b"moof", |out| {
        put_full_box(out, *b"mfhd", 0, 0, |out| {
            put_u32(out, 1);
            Ok(())
        })?;
        put_box(out, *b"traf", |out| {
            put_full_box(out, *b"tfhd", 0, tfhd.0, |out| {
                put_u32s(out, tfhd.1.iter().copied());
                Ok(())
            })?;
            put_full_box(out, *b"tfdt", 0, 0, |out| {
                put_u32(out, 7);
                Ok(())
            })?;
            for (version, flags, fields) in truns {
                put_full_box(out, *b"trun", *version, *flags, |out| {
                    put_u32s(out, fields.iter().copied());
                    Ok(())
                })?;
            }
            Ok(())
        })
    })
    .unwrap();
    out
}

fn mdat(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_box(&mut out, *b"mdat", |out| {
        out.extend(payload);
        Ok(())
    })
    .unwrap();
    out
}

/// A video file of this `moof` and payload, whose track's defaults are 512 ticks, 3 bytes and no sync sample.
fn handmade(moof: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = raw_init(&avc(), 90_000, PLAIN);
    out.extend(moof);
    out.extend(mdat(payload));
    out
}

fn only_fragment(bytes: &[u8]) -> Fragment {
    let [fragment] = &parse(bytes).unwrap().fragments[..] else {
        panic!("one fragment");
    };
    fragment.clone()
}

#[test]
fn fragments_are_read_with_their_places() {
    let init = video_init();
    let bytes = file(&init, &[(0, pictures()), (12_000, pictures())]);
    let track = parse(&bytes).unwrap();
    assert_eq!(
        (track.timescale, track.kind(), track.sample_count()),
        (90_000, TrackKind::Video, 8)
    );
    assert_eq!(track.init, init.as_bytes());
    let [first, second] = &track.fragments[..] else {
        panic!("two fragments");
    };
    assert_eq!(
        (first.start_ticks, first.end_ticks(), second.start_ticks),
        (0, 12_000, 12_000)
    );
    assert_eq!((&first.samples, &second.samples), (&pictures(), &pictures()));
    assert_eq!(first.offset, track.init.len() as u64);
    assert_eq!(second.offset, first.offset + first.bytes);
    assert_eq!(second.offset + second.bytes, bytes.len() as u64);
    assert_eq!(second.payload_offset + 16, bytes.len() as u64);
}

#[test]
fn defaults_hold_where_a_run_says_nothing() {
    // From the track: everything. The run counts from the moof, as in a file of one track.
    let head = moof((0x02_0000, &[1]), &[(0, 1, &[2, 0])]);
    let offset = u32::try_from(head.len() + 8).unwrap();
    let moof_at_offset = moof((0x02_0000, &[1]), &[(0, 1, &[2, offset])]);
    let fragment = only_fragment(&handmade(&moof_at_offset, b"aaabbb"));
    assert_eq!(fragment.start_ticks, 7);
    assert_eq!(fragment.samples, [sample(3, 512, 0, false); 2].into_iter().collect());

    // From the fragment: duration, size and flags; the first sample has flags of its own.
    let tfhd: (u32, &[u32]) = (0x02_0038, &[1, 100, 2, 0x0001_0000]);
    let run = |offset| moof(tfhd, &[(1, 0x05, &[3, offset, 0x0200_0000])]);
    let offset = u32::try_from(run(0).len() + 8).unwrap();
    let fragment = only_fragment(&handmade(&run(offset), b"aabbcc"));
    let expected = [
        sample(2, 100, 0, true),
        sample(2, 100, 0, false),
        sample(2, 100, 0, false),
    ];
    assert_eq!(fragment.samples, expected.into_iter().collect());
}

#[test]
fn several_runs_join_when_they_follow_each_other() {
    let sizes_and_all: (u8, u32, &[u32]) = (1, 0xf00, &[1, 10, 4, 0, (-5_i32).cast_unsigned()]);
    let runs = |offset, second| {
        moof(
            (0x02_0000, &[1]),
            &[(0, 1, &[1, offset]), sizes_and_all, (0, 1, &[1, second])],
        )
    };
    let offset = u32::try_from(runs(0, 0).len() + 8).unwrap();
    let fragment = only_fragment(&handmade(&runs(offset, offset + 7), b"aaabbbbccc"));
    let expected = [
        sample(3, 512, 0, false),
        sample(4, 10, -5, true),
        sample(3, 512, 0, false),
    ];
    assert_eq!(fragment.samples, expected.into_iter().collect());
    assert!(matches!(
        parse(&handmade(&runs(offset, offset + 6), b"aaabbbbccc")),
        Err(Mp4Error::Malformed(_))
    ));
}

#[test]
fn offsets_may_count_from_the_file_and_payload_may_have_a_64_bit_size() {
    let init_bytes = raw_init(&avc(), 90_000, PLAIN).len();
    let run = |base| moof((0x01, &[1, 0, base]), &[(0, 0, &[1])]);
    let payload_offset = init_bytes + run(0).len() + 16;
    let mut bytes = raw_init(&avc(), 90_000, PLAIN);
    bytes.extend(run(u32::try_from(payload_offset).unwrap()));
    put_u32(&mut bytes, 1);
    bytes.extend(b"mdat");
    put_u64(&mut bytes, 19);
    bytes.extend(b"aaa");
    let fragment = only_fragment(&bytes);
    assert_eq!(fragment.payload_offset, payload_offset as u64);
}

#[test]
fn segment_boxes_belong_to_their_fragment_and_an_index_at_the_end_to_none() {
    let init = video_init();
    let plain = file(&init, &[(0, pictures())]);
    let (head, fragment) = plain.split_at(init.as_bytes().len());
    let mut bytes = head.to_vec();
    put_box(&mut bytes, *b"styp", |_| Ok(())).unwrap();
    put_box(&mut bytes, *b"sidx", |_| Ok(())).unwrap();
    bytes.extend(fragment);
    let end = bytes.len() as u64;
    put_box(&mut bytes, *b"mfra", |_| Ok(())).unwrap();
    let track = parse(&bytes).unwrap();
    assert_eq!(track.init, head);
    assert_eq!(track.fragments[0].offset, head.len() as u64);
    assert_eq!(track.fragments[0].bytes, end - head.len() as u64);
    assert_eq!(track.fragments[0].payload_offset, end - 16);
}

#[test]
fn counts_and_sizes_that_the_file_cannot_hold_are_errors() {
    let head = moof((0x02_0000, &[1]), &[(0, 1, &[2, 0])]);
    let offset = u32::try_from(head.len() + 8).unwrap();
    let broken = [
        // More samples than any file has, none of which takes a byte of the table.
        moof((0x02_0010, &[1, 0]), &[(0, 1, &[u32::MAX, offset])]),
        // More bytes than there are.
        moof((0x02_0000, &[1]), &[(0, 1, &[3, offset])]),
        moof((0x02_0010, &[1, u32::MAX]), &[(0, 1, &[2, offset])]),
        // Samples in the tables, or before the file.
        moof((0x02_0000, &[1]), &[(0, 1, &[2, 0])]),
        moof((0x02_0000, &[1]), &[(0, 1, &[2, u32::MAX])]),
        moof((0x01, &[1, u32::MAX, u32::MAX]), &[(0, 0, &[2])]),
        // A table that is shorter than its count.
        moof((0x02_0000, &[1]), &[(0, 0x201, &[2, offset, 3])]),
        // Another track; no run.
        moof((0x02_0000, &[2]), &[(0, 1, &[2, offset])]),
        moof((0x02_0000, &[1]), &[]),
    ];
    assert!(parse(&handmade(&moof((0x02_0000, &[1]), &[(0, 1, &[2, offset])]), b"aaabbb")).is_ok());
    for moof in broken {
        assert!(parse(&handmade(&moof, b"aaabbb")).is_err(), "{moof:?}");
    }
}

#[test]
fn a_file_of_another_shape_is_an_error() {
    let init = raw_init(&avc(), 90_000, PLAIN);
    let good = file(&video_init(), &[(0, pictures())]);
    let fragment = &good[video_init().as_bytes().len()..];
    let joined = |parts: &[&[u8]]| parse(&parts.concat()).map_err(|error| error.code());
    assert_eq!(joined(&[]), Err("mp4_missing"));
    assert_eq!(joined(&[&init]), Err("mp4_missing"));
    assert_eq!(joined(&[fragment]), Err("mp4_missing"));
    assert_eq!(joined(&[&init, &mdat(b"aaa")]), Err("mp4_unsupported"));
    assert_eq!(joined(&[&good, &init]), Err("mp4_malformed"));
    let two_tracks = raw_init(&avc(), 90_000, fixture::Variant { traks: 2, ..PLAIN });
    assert_eq!(joined(&[&two_tracks, fragment]), Err("mp4_unsupported"));
    assert_eq!(joined(&[b"#EXTM3U\nhttp://example.com/a.ts"]), Err("mp4_malformed"));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = file(
        &audio_init(),
        &[(0, [sample(5, 1_024, 0, true); 3].into_iter().collect())],
    );
    assert!(parse(&bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "{len} bytes");
        assert!(
            len >= audio_init().as_bytes().len() || Init::common(&bytes[..len]).is_err(),
            "{len} bytes"
        );
    }
}

#[test]
fn packets_are_written_as_groups_and_read_back() {
    let packets: Vec<Vec<u8>> = (1..=5_u8).map(|n| vec![n; usize::from(n)]).collect();
    let groups = [(0, 0..1), (0, 1..4), (3_072, 4..5)];
    let groups = groups.map(|(start_ticks, range)| PacketGroup {
        start_ticks,
        packets: &packets[range],
    });
    let mut bytes = Vec::new();
    let fragments = write_track(&mut bytes, &audio_init(), 1_024, groups).unwrap();
    let track = parse(&bytes).unwrap();
    assert_eq!(track.fragments, fragments);
    assert_eq!(track.init, audio_init().as_bytes());
    let starts: Vec<_> = fragments.iter().map(|fragment| fragment.start_ticks).collect();
    assert_eq!(starts, [0, 0, 3_072]);
    assert_eq!(track.read_packets(&mut Cursor::new(&bytes), 0..5).unwrap(), packets);
    assert_eq!(
        track.read_packets(&mut Cursor::new(&bytes), 2..4).unwrap(),
        packets[2..4]
    );
    assert!(track.read_packets(&mut Cursor::new(&bytes), 4..4).unwrap().is_empty());
    assert!(track.read_packets(&mut Cursor::new(&bytes), 4..6).is_err());
}

#[test]
fn a_group_without_packets_is_an_error() {
    let group = PacketGroup::<Vec<u8>> {
        start_ticks: 0,
        packets: &[],
    };
    assert!(write_track(&mut Vec::new(), &audio_init(), 1_024, [group]).is_err());
}

#[test]
fn a_short_reader_is_an_io_error() {
    let bytes = file(
        &audio_init(),
        &[(0, [sample(5, 1_024, 0, true); 3].into_iter().collect())],
    );
    let track = parse(&bytes).unwrap();
    let error = track
        .read_packets(&mut Cursor::new(&bytes[..bytes.len() - 1]), 0..3)
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

fn any_samples() -> impl Strategy<Value = Samples> {
    let duration = prop_oneof![Just(3_000), 0..100_000_u32];
    let composition = prop_oneof![Just(0), -9_000..9_000_i32];
    let any_sample = (0..200_u32, duration, composition, any::<bool>())
        .prop_map(|(bytes, duration, composition, is_sync)| sample(bytes, duration, composition, is_sync));
    prop::collection::vec(any_sample, 1..20).prop_map(|samples| samples.into_iter().collect())
}

proptest! {
    #[test]
    fn any_table_survives_a_fragment(tables in prop::collection::vec((any::<u64>(), any_samples()), 1..4)) {
        let track = parse(&file(&video_init(), &tables)).unwrap();
        let read: Vec<_> = track.fragments.into_iter().map(|fragment| (fragment.start_ticks, fragment.samples)).collect();
        prop_assert_eq!(read, tables);
    }

    #[test]
    fn damage_never_panics_and_never_reaches_outside_of_the_file(
        which in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()]), 1..6),
        len in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let entry = [avc(), aac(), opus()][which].clone();
        let mut bytes = raw_init(&entry, 48_000, PLAIN);
        let init = Init::common(&bytes).unwrap();
        let fragments = file(&init, &[(0, pictures()), (12_000, pictures())]);
        bytes.extend(&fragments[init.as_bytes().len()..]);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(len.index(bytes.len()));
        }
        if let Ok(track) = parse(&bytes) {
            let mut end = track.init.len() as u64;
            for fragment in &track.fragments {
                prop_assert!(fragment.offset >= end);
                end = fragment.offset + fragment.bytes;
                prop_assert!(fragment.payload_offset > fragment.offset);
                prop_assert!(fragment.payload_offset + fragment.samples.total_bytes() <= end);
            }
            prop_assert!(end <= bytes.len() as u64);
            prop_assert!(track.read_packets(&mut Cursor::new(&bytes), 0..track.sample_count()).is_ok());
            prop_assert!(Init::common(&track.init).is_ok());
            let extents = track.fragments.iter().map(|fragment| Extent { offset: fragment.payload_offset, samples: &fragment.samples });
            let movie = MovieTrack { init: &track.init, media_start_ticks: 0, extents: extents.collect() };
            // Damaged times may leave nothing to present; that is an error, too.
            header(&[movie], end).ok();
        }
    }
}
