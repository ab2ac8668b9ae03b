use reelay_core::domain::{
    create::CreateJob,
    hls::{ByteRange, PlayedFragment},
    plan::{Input, Limits},
    probe::{Report, Tail},
    task::{StoredObject, TaskCost},
    time::UtcTime,
};

use super::*;

const INDEX_KEY: &str = "outputs/a/j/1-assemble-1/index.m3u8";
const INIT_BYTES: u64 = 800;
/// Bytes of the packet of sound before the first one that is heard.
const PRIMING_BYTES: u64 = 40;
/// The number of the sound among the renditions, behind the three videos.
const SOUND: usize = 3;
/// Ticks of a group of pictures at 25 frames a second.
const GOP_TICKS: u64 = 100 * 400;
/// Samples of a segment of sound.
const SOUND_TICKS: u64 = 188 * 1_024;

/// A plan of five chunks of six segments each: two rungs, sound, and an MP4 of a size of its own.
fn plan(with_audio: bool) -> Plan {
    let sound = if with_audio {
        r#",{"index":1,"codec_type":"audio","codec_name":"aac","channels":2,"sample_rate":"48000","start_time":"0"}"#
    } else {
        ""
    };
    let json = format!(
        r#"{{"streams":[{{"index":0,"codec_type":"video","codec_name":"h264","width":1280,"height":720,
        "r_frame_rate":"25/1","avg_frame_rate":"25/1","start_time":"0"}}{sound}],"format":{{}}}}"#
    );
    let mut tail = Tail::default();
    tail.push("119.960000,119.960000,0.040000");
    let probe = Report::parse(json.as_bytes())
        .unwrap()
        .into_probe(tail, Tail::default(), 1)
        .unwrap();
    let body = r#"{"filename":"a","size_bytes":1,"outputs":[{"format":"mp4","quality":"480p"},
        {"format":"hls","qualities":["360p","720p"]}]}"#;
    let request = serde_json::from_str::<CreateJob>(body).unwrap();
    let spec = request.validate(100).unwrap().spec;
    let limits = Limits {
        chunk_seconds: 24,
        single_seconds: 36,
        max_tasks: 500,
    };
    let plan = Plan::new(&spec, &probe, Input::Source, &limits, UtcTime::from_epoch_ms(0));
    assert_eq!((plan.chunks, plan.videos.len()), (5, 3));
    plan
}

/// Bytes of a segment: no two of a track have the same.
fn length_bytes(rendition: usize, chunk: u32, segment: u64) -> u64 {
    10_000 * (u64::try_from(rendition).unwrap() + 1) + u64::from(chunk) * 100 + segment
}

fn track(name: &str, rendition: usize, chunk: u32, ticks: u64) -> TrackObject {
    let is_audio = name == "aac";
    TrackObject {
        object: StoredObject {
            // The fourth chunk took two attempts.
            key: format!(
                "outputs/a/j/1-c{chunk:04}-{}/{name}.mp4",
                if chunk == 3 { 2 } else { 1 }
            ),
            size_bytes: 1,
            sha256: String::new(),
        },
        table_key: String::new(),
        init_bytes: INIT_BYTES,
        init_sha256: String::new(),
        skip_bytes: if is_audio && chunk == 0 { PRIMING_BYTES } else { 0 },
        fragments: (0..6).map(|n| (length_bytes(rendition, chunk, n), ticks)).collect(),
        timescale: if is_audio { 48_000 } else { 10_000 },
    }
}

fn result(plan: &Plan, chunk: u32) -> ChunkResult {
    let videos = plan.videos.iter().enumerate();
    ChunkResult {
        chunk,
        frames: plan.chunk(chunk).frames(),
        videos: videos
            .map(|(index, video)| track(&video.name(), index, chunk, GOP_TICKS))
            .collect(),
        audios: plan
            .audios
            .iter()
            .map(|_| track("aac", SOUND, chunk, SOUND_TICKS))
            .collect(),
        thumbnails: Vec::new(),
        cost: TaskCost::default(),
        made_at: UtcTime::from_epoch_ms(0),
    }
}

/// The encode tasks, of which these are done.
fn tasks(plan: &Plan, done: &[u32]) -> Vec<TaskItem> {
    let task = |chunk| TaskItem {
        item: TaskId::Encode(chunk).item(2),
        state: if done.contains(&chunk) {
            TaskState::Done
        } else {
            TaskState::Running
        },
        attempts: 1,
        lease_expires_ms: 0,
        started_ms: 0,
        sent_ms: 0,
        took_ms: 0,
        frames_done: 0,
        result: done.contains(&chunk).then(|| result(plan, chunk)),
        cost: None,
        updated_at: UtcTime::from_epoch_ms(0),
    };
    (0..plan.chunks).map(task).collect()
}

/// The playlist that is stored when the job is done, from where the fragments lie in the files.
fn stored(plan: &Plan, name: &str, rendition: usize, ticks: u64) -> MediaPlaylist {
    let parts: Vec<_> = (0..plan.chunks)
        .map(|chunk| {
            let first_bytes = INIT_BYTES + track(name, rendition, chunk, ticks).skip_bytes;
            let fragments = (0..6).map(|n| PlayedFragment {
                offset_bytes: first_bytes + (0..n).map(|n| length_bytes(rendition, chunk, n)).sum::<u64>(),
                length_bytes: length_bytes(rendition, chunk, n),
                ticks,
            });
            Part {
                key: track(name, rendition, chunk, ticks).object.key,
                init_bytes: INIT_BYTES,
                fragments: fragments.collect(),
            }
        })
        .collect();
    let ladder = Ladder {
        plan,
        hls: plan.hls.as_ref().unwrap(),
        index_key: INDEX_KEY,
        kind: Kind::Vod,
    };
    let playlist = if name == "aac" {
        ladder.audio(&parts)
    } else {
        ladder.video(&parts)
    };
    playlist.unwrap()
}

fn count(plan: &Plan, done: &[u32], file: &str) -> Option<usize> {
    let tasks = tasks(plan, done);
    let growing = Growing::new(plan, &tasks, INDEX_KEY)?;
    Some(growing.media(file)?.segments.len())
}

#[test]
fn the_first_chunk_alone_is_played() {
    let plan = plan(true);
    let tasks = tasks(&plan, &[0]);
    let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap();
    for file in ["video-360p.m3u8", "video-720p.m3u8", "audio.m3u8"] {
        let playlist = growing.media(file).unwrap();
        assert_eq!((playlist.kind, playlist.segments.len()), (Kind::Event, 6), "{file}");
        let text = playlist.to_string();
        assert!(text.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n") && !text.contains("#EXT-X-ENDLIST"));
    }
    let sound = growing.media("audio.m3u8").unwrap();
    let first = ByteRange {
        uri: "../1-c0000-1/aac.mp4".to_owned(),
        offset_bytes: INIT_BYTES + PRIMING_BYTES,
        length_bytes: length_bytes(SOUND, 0, 0),
    };
    assert_eq!(sound.segments[0].bytes, first);
    for file in ["video-480p.m3u8", "video-1080p.m3u8", "proof.m3u8"] {
        assert_eq!(growing.media(file), None, "{file} is no playlist of this job");
    }
}

#[test]
fn a_gap_is_not_crossed() {
    let plan = plan(true);
    for file in ["video-720p.m3u8", "audio.m3u8"] {
        assert_eq!(count(&plan, &[0, 1, 3, 4], file), Some(12));
        assert_eq!(count(&plan, &[1, 2, 3, 4], file), None);
        assert_eq!(count(&plan, &[], file), None);
    }
}

#[test]
fn a_chunk_that_lacks_a_rendition_ends_all_playlists() {
    let plan = plan(true);
    let mut tasks = tasks(&plan, &[0, 1, 2]);
    tasks[1].result.as_mut().unwrap().audios.clear();
    let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap();
    assert_eq!(growing.media("video-720p.m3u8").unwrap().segments.len(), 6);
}

#[test]
fn segments_never_move_and_are_those_of_the_stored_playlists() {
    let plan = plan(true);
    let playlists = [
        ("video-360p.m3u8", "h264-640x360", 1, GOP_TICKS),
        ("video-720p.m3u8", "h264-1280x720", 2, GOP_TICKS),
        ("audio.m3u8", "aac", SOUND, SOUND_TICKS),
    ];
    for (file, name, rendition, ticks) in playlists {
        let whole = stored(&plan, name, rendition, ticks);
        let mut before = String::new();
        for done in 1..=plan.chunks {
            let tasks = tasks(&plan, &(0..done).collect::<Vec<_>>());
            let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap().media(file).unwrap();
            let text = growing.to_string();
            assert!(text.starts_with(&before), "{file} only grows");
            before = text;
            assert_eq!(growing.segments, whole.segments[..growing.segments.len()]);
            assert_eq!(growing.segments.len(), usize::try_from(done).unwrap() * 6);
            assert_eq!(
                (&growing.init, growing.target_duration_seconds),
                (&whole.init, whole.target_duration_seconds)
            );
        }
        let end = whole
            .to_string()
            .replace("TYPE:VOD", "TYPE:EVENT\n#EXT-X-START:TIME-OFFSET=0");
        assert_eq!(before + "#EXT-X-ENDLIST\n", end);
    }
}

fn avc() -> Codec {
    Codec::Avc {
        profile: 0x64,
        compatibility: 0,
        level: 0x1f,
        width_px: 1_280,
        height_px: 720,
    }
}

fn aac() -> Codec {
    Codec::Aac {
        object_type: 2,
        channels: 2,
        sample_rate_hz: 48_000,
    }
}

#[test]
fn the_multivariant_playlist_promises_what_the_plan_allows() {
    let plan = plan(true);
    let tasks = tasks(&plan, &[0]);
    let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap();
    let index = growing.index(&[avc(), avc()], Some(&aac())).unwrap();
    // 0.8 and 2.8 Mbit/s and half as much again for the buffer; 128 kbit/s of sound.
    let peaks: Vec<_> = index.variants.iter().map(|rung| rung.bandwidth.peak_bps).collect();
    assert_eq!(peaks, [1_328_000, 4_328_000]);
    // 20 and 30 kB in four seconds, and 40 kB of sound: what is there already is far less.
    let averages: Vec<_> = index.variants.iter().map(|rung| rung.bandwidth.average_bps).collect();
    let sound = growing.media("audio.m3u8").unwrap().bandwidth();
    let video = growing.media("video-720p.m3u8").unwrap().bandwidth();
    assert_eq!(averages[1], video.average_bps + sound.average_bps);
    assert!(averages[1] < 200_000);
    assert_eq!(index.variants[0].codecs, ["avc1.64001f", "mp4a.40.2"]);
    assert!(index.to_string().contains("\nvideo-720p.m3u8\n"));
}

#[test]
fn more_than_the_plan_allows_is_told_when_it_is_there() {
    let plan = plan(true);
    let mut tasks = tasks(&plan, &[0]);
    let first = tasks[0].result.as_mut().unwrap();
    first.videos[2].fragments[0].0 = 5_000_000;
    first.audios[0].fragments[0].0 = 400_000;
    let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap();
    let index = growing.index(&[avc(), avc()], Some(&aac())).unwrap();
    assert!(index.variants[1].bandwidth.peak_bps > 10_000_000 + 790_000);
}

#[test]
fn the_first_tracks_are_those_of_the_rungs() {
    let plan = plan(true);
    let tasks = tasks(&plan, &[0, 1]);
    let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap();
    let first = growing.first().unwrap();
    let keys: Vec<_> = first.videos.iter().map(|track| track.object.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "outputs/a/j/1-c0000-1/h264-640x360.mp4",
            "outputs/a/j/1-c0000-1/h264-1280x720.mp4"
        ]
    );
    assert_eq!(first.audio.unwrap().object.key, "outputs/a/j/1-c0000-1/aac.mp4");
    assert!(growing.index(&[avc()], Some(&aac())).is_none());
    assert!(growing.index(&[avc(), avc()], None).is_none());
}

#[test]
fn silence_has_no_playlist_of_sound() {
    let plan = plan(false);
    let tasks = tasks(&plan, &[0]);
    let growing = Growing::new(&plan, &tasks, INDEX_KEY).unwrap();
    assert_eq!(growing.media("audio.m3u8"), None);
    assert!(growing.first().unwrap().audio.is_none());
    let index = growing.index(&[avc(), avc()], None).unwrap();
    assert_eq!((index.audio, index.variants[0].codecs.len()), (None, 1));
}
