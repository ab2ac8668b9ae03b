use proptest::prelude::*;

use super::*;
use crate::domain::{
    create::CreateJob,
    plan::{Input, Limits},
    probe::{Report, Tail},
    task::StoredObject,
    time::UtcTime,
};

const INDEX_KEY: &str = "outputs/a/j/1-assemble-1/index.m3u8";

/// A plan for a source of 1280x720 that lasts this long.
fn plan(rate: &str, seconds: f64, sample_rate_hz: Option<u32>) -> Plan {
    let sound = sample_rate_hz.map_or_else(String::new, |hz| {
        format!(
            r#",{{"index":1,"codec_type":"audio","codec_name":"aac","channels":2,"sample_rate":"{hz}","start_time":"0"}}"#
        )
    });
    let json = format!(
        r#"{{"streams":[{{"index":0,"codec_type":"video","codec_name":"h264","width":1280,"height":720,
        "r_frame_rate":"{rate}","avg_frame_rate":"{rate}","start_time":"0"}}{sound}],"format":{{}}}}"#
    );
    let mut tail = Tail::default();
    let frame = 1.0 / FrameRate::parse(rate).unwrap().as_f64();
    tail.push(&format!("{0:.6},{0:.6},{frame:.6}", seconds - frame));
    let probe = Report::parse(json.as_bytes())
        .unwrap()
        .into_probe(tail, Tail::default(), 1)
        .unwrap();
    let body = r#"{"filename":"a","size_bytes":1,"outputs":[{"format":"hls","qualities":["360p","720p"]}]}"#;
    let spec = serde_json::from_str::<CreateJob>(body)
        .unwrap()
        .validate(100)
        .unwrap()
        .spec;
    let limits = Limits {
        chunk_seconds: 24,
        single_seconds: 36,
        max_tasks: 500,
    };
    Plan::new(&spec, &probe, Input::Source, &limits, UtcTime::from_epoch_ms(0))
}

fn ladder(plan: &Plan) -> Ladder<'_> {
    Ladder {
        plan,
        hls: plan.hls.as_ref().unwrap(),
        index_key: INDEX_KEY,
        kind: Kind::Vod,
    }
}

fn track(chunk: u32, skip_bytes: u64, fragments: &[(u64, u64)]) -> TrackObject {
    TrackObject {
        object: StoredObject {
            key: format!("outputs/a/j/1-c{chunk:04}-1/h264-1280x720.mp4"),
            size_bytes: 1,
            sha256: String::new(),
        },
        table_key: String::new(),
        init_bytes: 800,
        init_sha256: String::new(),
        skip_bytes,
        fragments: fragments.to_vec(),
        timescale: 30_000,
    }
}

#[test]
fn segments_lie_behind_the_init_section_and_what_is_skipped() {
    let part = Part::from(&track(3, 50, &[(100, 7), (30, 5)]));
    let fragment = |offset_bytes, length_bytes, ticks| PlayedFragment {
        offset_bytes,
        length_bytes,
        ticks,
    };
    assert_eq!(part.fragments, [fragment(850, 100, 7), fragment(950, 30, 5)]);
    assert_eq!(
        (part.key.as_str(), part.init_bytes),
        ("outputs/a/j/1-c0003-1/h264-1280x720.mp4", 800)
    );
}

#[test]
fn a_media_playlist_counts_frames_of_all_chunks() {
    let plan = plan("30000/1001", 60.0, None);
    let parts = [
        Part::from(&track(0, 0, &[(1_000, 120 * 1_001), (900, 120 * 1_001)])),
        Part::from(&track(1, 0, &[(90, 10 * 1_001)])),
    ];
    let playlist = ladder(&plan).video(&parts).unwrap();
    let units: Vec<_> = playlist.segments.iter().map(|segment| segment.units).collect();
    assert_eq!(units, [120, 120, 10]);
    assert_eq!(playlist.init.uri, "../1-c0000-1/h264-1280x720.mp4");
    assert_eq!((playlist.init.offset_bytes, playlist.init.length_bytes), (0, 800));
    assert_eq!(playlist.segments[2].bytes.uri, "../1-c0001-1/h264-1280x720.mp4");
    assert_eq!(
        (playlist.unit_rate, playlist.target_duration_seconds),
        (plan.timeline.rate, 4)
    );
    assert_eq!(ladder(&plan).video(&[]), None);
    assert_eq!(ladder(&plan).audio(&parts), None, "no sound was planned");
}

#[test]
fn a_multivariant_playlist_names_every_rung_and_the_sound() {
    let avc = Codec::Avc {
        profile: 0x64,
        compatibility: 0,
        level: 0x1f,
        width_px: 1_280,
        height_px: 720,
    };
    let aac = Codec::Aac {
        object_type: 2,
        channels: 1,
        sample_rate_hz: 44_100,
    };
    let facts = |codec, bps| TrackFacts {
        bandwidth: Bandwidth {
            peak_bps: 2 * bps,
            average_bps: bps,
        },
        codec,
    };
    let plan = plan("25/1", 60.0, Some(44_100));
    let ladder = ladder(&plan);
    let videos = [facts(&avc, 500_000), facts(&avc, 1_000_000)];
    let whole = ladder.multivariant(&videos, Some(facts(&aac, 64_000)));
    let [small, large] = whole.variants.as_slice() else {
        panic!("{whole}")
    };
    assert_eq!(
        (small.uri.as_str(), large.uri.as_str()),
        ("video-360p.m3u8", "video-720p.m3u8")
    );
    assert_eq!((small.size.width_px, large.size.width_px), (640, 1_280));
    assert_eq!(large.codecs, ["avc1.64001f", "mp4a.40.2"]);
    assert_eq!(large.bandwidth.peak_bps, 2_128_000);
    let audio = whole.audio.unwrap();
    assert_eq!((audio.uri.as_str(), audio.channels), (AUDIO_FILE, 1));
    let silent = ladder.multivariant(&videos, None);
    assert_eq!((silent.audio, silent.variants[0].codecs.len()), (None, 1));
}

#[test]
fn a_rung_is_limited_by_its_rate_and_the_buffer() {
    let plan = plan("25/1", 60.0, None);
    let ladder = ladder(&plan);
    // Four seconds at 2.8 Mbit/s, and two more in the buffer.
    assert_eq!(ladder.video_limit_bps(&ladder.hls.rungs[1]), 4_200_000);
    assert_eq!(ladder.audio_aim_bps(), DEFAULT_AUDIO_BPS);
}

proptest! {
    #[test]
    fn no_planned_segment_exceeds_the_target(
        rate in prop::sample::select(vec!["30000/1001", "24000/1001", "25/1", "60/1", "15/2", "10/1", "11/10", "9/8"]),
        seconds in 40.0_f64..300.0,
        sample_rate_hz in prop::option::of(prop::sample::select(vec![8_000_u32, 44_100, 48_000])),
    ) {
        let plan = plan(rate, seconds, sample_rate_hz);
        let ladder = ladder(&plan);
        let target = ladder.target_duration_seconds();
        let rate = plan.timeline.rate;
        prop_assert!(target_duration_seconds(rate, plan.timeline.gop_frames()) <= target);
        for rendition in &plan.audios {
            let grid = plan.audio_grid(rendition).unwrap();
            let sample_rate = FrameRate::new(grid.sample_rate_hz(), 1).unwrap();
            for index in 0..plan.chunks {
                let chunk = plan.chunk(index);
                let cut = grid.cut(chunk.first_frame, chunk.end_frame, chunk.last);
                for (segment, packets) in cut.segments.iter().enumerate() {
                    // The priming packet is no part of the first segment.
                    let packets = packets - u64::from(index == 0 && segment == 0);
                    let units = packets * rendition.codec.packet_samples();
                    prop_assert!(target_duration_seconds(sample_rate, units) <= target);
                }
            }
        }
    }
}
