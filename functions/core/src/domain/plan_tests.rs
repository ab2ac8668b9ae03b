use proptest::prelude::*;

use super::*;
use crate::domain::{
    create::CreateJob,
    probe::{Report, Tail},
    timeline::FrameRate,
};

const LIMITS: Limits = Limits {
    chunk_seconds: 24,
    single_seconds: 36,
    max_tasks: 500,
};

fn probe(size: (u32, u32), rate: &str, seconds: f64, audio: bool) -> Probe {
    let sound = if audio {
        r#",{"index":1,"codec_type":"audio","codec_name":"aac","channels":2,"sample_rate":"44100","start_time":"0"}"#
    } else {
        ""
    };
    let json = format!(
        r#"{{"streams":[{{"index":0,"codec_type":"video","codec_name":"h264","width":{},"height":{},
        "r_frame_rate":"{rate}","avg_frame_rate":"{rate}","start_time":"0"}}{sound}],"format":{{}}}}"#,
        size.0, size.1
    );
    let mut tail = Tail::default();
    let frame = 1.0 / FrameRate::parse(rate).unwrap().as_f64();
    tail.push(&format!("{0:.6},{0:.6},{frame:.6}", seconds - frame));
    Report::parse(json.as_bytes())
        .unwrap()
        .into_probe(tail, Tail::default(), 1)
        .unwrap()
}

fn spec(outputs: &str) -> Spec {
    let body = format!(r#"{{"filename":"a","size_bytes":1,"outputs":{outputs}}}"#);
    serde_json::from_str::<CreateJob>(&body)
        .unwrap()
        .validate(100)
        .unwrap()
        .spec
}

fn plan(outputs: &str, probe: &Probe) -> Plan {
    Plan::new(&spec(outputs), probe, Input::Source, &LIMITS, UtcTime::from_epoch_ms(0))
}

#[test]
fn outputs_of_one_codec_and_size_share_an_encode() {
    let probe = probe((1_920, 1_080), "25/1", 60.0, true);
    let plan = plan(
        r#"[{"format":"mp4","quality":"720p"},{"format":"hls","qualities":["360p","720p"]},{"format":"webm","quality":"720p"}]"#,
        &probe,
    );
    let names: Vec<_> = plan.videos.iter().map(VideoRendition::name).collect();
    assert_eq!(names, ["h264-1280x720", "vp9-1280x720", "h264-640x360"]);
    assert_eq!(
        plan.videos.iter().map(|video| video.published).collect::<Vec<_>>(),
        [true, false, true],
        "what HLS plays is published, whoever asked first"
    );
    let hls = plan.hls.as_ref().unwrap();
    assert_eq!(hls.rungs.iter().map(|rung| rung.video).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(
        (plan.audios.len(), hls.audio, plan.files[1].audio),
        (2, Some(0), Some(1))
    );
    assert_eq!(
        plan.largest_video().map(|index| plan.videos[index].size.height_px),
        Some(720)
    );
}

#[test]
fn a_ladder_ends_at_the_source() {
    let hls = r#"[{"format":"hls"}]"#;
    let names = |size| -> Vec<String> {
        let plan = plan(hls, &probe(size, "25/1", 60.0, false));
        assert!(plan.audios.is_empty());
        plan.videos.iter().map(VideoRendition::name).collect()
    };
    assert_eq!(
        names((1_920, 1_080)),
        ["h264-640x360", "h264-854x480", "h264-1280x720", "h264-1920x1080"]
    );
    assert_eq!(names((720, 1_280)), ["h264-360x640", "h264-480x854", "h264-720x1280"]);
    assert_eq!(names((641, 361)), ["h264-640x360"]);
    assert_eq!(names((320, 180)), ["h264-320x180"]);
}

#[test]
fn short_sources_are_done_at_once() {
    for (seconds, chunks) in [
        (0.04, 1),
        (35.9, 1),
        (36.0, 1),
        (36.1, 2),
        (49.0, 2),
        (53.9, 2),
        (54.1, 3),
    ] {
        let plan = plan(r#"[{"format":"mp4"}]"#, &probe((640, 360), "25/1", seconds, true));
        assert_eq!(plan.chunks, chunks, "{seconds} s");
        assert_eq!(plan.tasks().len(), if chunks == 1 { 0 } else { chunks as usize + 1 });
    }
}

#[test]
fn large_pictures_have_shorter_chunks() {
    let frames = |size, quality: &str| {
        let outputs = format!(r#"[{{"format":"mp4","quality":"{quality}"}}]"#);
        plan(&outputs, &probe(size, "30/1", 600.0, true)).chunk_frames
    };
    assert_eq!(frames((3_840, 2_160), "2160p"), 360);
    assert_eq!(frames((3_840, 2_160), "1080p"), 720);
    assert_eq!(frames((1_920, 1_080), "2160p"), 720);
}

#[test]
fn a_chunk_is_sought_a_second_early_and_the_first_not_at_all() {
    let plan = plan(r#"[{"format":"mp4"}]"#, &probe((640, 360), "30000/1001", 100.0, true));
    assert_eq!(plan.chunk_frames, 720);
    assert_eq!(plan.seek_us(&plan.chunk(0)), None);
    assert_eq!(plan.seek_us(&plan.chunk(1)), Some(24_024_000 - 1_000_000));
}

#[test]
fn every_still_belongs_to_one_chunk() {
    let plan = plan(r#"[{"format":"mp4"}]"#, &probe((640, 360), "25/1", 100.0, true));
    let of_chunks: Vec<_> = (0..plan.chunks)
        .flat_map(|index| plan.thumbnails_of(&plan.chunk(index)))
        .collect();
    assert_eq!(of_chunks, [(1, 416), (2, 1_250), (3, 2_083)]);
}

#[test]
fn a_plan_reads_back() {
    let plan = plan(
        r#"[{"format":"mp4"},{"format":"hls"}]"#,
        &probe((1_920, 1_080), "30000/1001", 100.0, true),
    );
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

proptest! {
    #[test]
    fn chunks_tile_the_timeline(
        rate in prop::sample::select(vec!["25/1", "30000/1001", "24000/1001", "60/1", "15/2", "5/1"]),
        frames in 1_u64..3_000_000,
        chunk_seconds in 4_u32..120,
        single_seconds in 0_u32..200,
        max_tasks in 3_u32..2_000,
        large in any::<bool>(),
    ) {
        let rate = FrameRate::parse(rate).unwrap();
        let timeline = Timeline::new(rate, 0, 0, rate.duration_us(frames));
        let limits = Limits { chunk_seconds, single_seconds, max_tasks };
        let mut plan = plan(r#"[{"format":"mp4"}]"#, &probe((640, 360), "25/1", 10.0, true));
        let (chunk_frames, count) = chunks(&timeline, if large { 2_160 } else { 720 }, &limits);
        plan.timeline = timeline;
        plan.chunk_frames = chunk_frames;
        plan.chunks = count;

        let gop = timeline.gop_frames();
        prop_assert!(chunk_frames % gop == 0, "a chunk is a whole number of segments");
        prop_assert!(count == 1 || count + OTHER_TASKS <= max_tasks);
        let mut next = 0;
        for index in 0..count {
            let chunk = plan.chunk(index);
            prop_assert_eq!(chunk.first_frame, next);
            prop_assert!(chunk.frames() > 0);
            prop_assert!(chunk.last || chunk.frames() == chunk_frames);
            prop_assert!(count == 1 || chunk.frames() * 4 >= chunk_frames && chunk.frames() * 4 < chunk_frames * 5 + 4);
            next = chunk.end_frame;
        }
        prop_assert_eq!(next, timeline.frames);
        if frames <= rate.frames_in(i64::from(single_seconds) * 1_000_000) {
            prop_assert_eq!(count, 1);
        }
    }

    #[test]
    fn no_rung_is_larger_than_the_source(w in 2_u32..5_000, h in 2_u32..5_000) {
        let plan = plan(r#"[{"format":"hls"},{"format":"mp4","quality":"2160p"}]"#, &probe((w, h), "25/1", 10.0, false));
        for video in &plan.videos {
            prop_assert!(video.size.width_px <= w && video.size.height_px <= h);
            prop_assert!(video.size.width_px % 2 == 0 && video.size.height_px % 2 == 0);
        }
        let mut names: Vec<_> = plan.videos.iter().map(VideoRendition::name).collect();
        names.dedup();
        prop_assert_eq!(names.len(), plan.videos.len());
    }
}
