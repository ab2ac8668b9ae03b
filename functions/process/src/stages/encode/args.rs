//! ffmpeg's arguments for a chunk.
//!
//! Frames are put on the job's absolute grid inside the filter graph: `setpts` moves the origin, `fps` makes the rate
//! constant from the chunk's first frame on, `tpad` holds the last frame and `trim` ends after exactly the planned
//! number, whatever the source does. Seeking begins a second early and drops nothing, so that the frame that is shown
//! when the chunk begins is there. Each track is muxed as CMAF with absolute times: what every chunk of a rendition
//! starts with is the same, byte by byte, and its fragments are the final segments.

use reelay_core::domain::{
    audio::{AudioCodec, AudioCut},
    geometry::Size,
    hls::{BUFFER_SECONDS, DEFAULT_AUDIO_BPS},
    plan::{AudioSource, Chunk, Plan, VideoCodec, VideoRendition},
    spec::{Compression, Preset},
};

use super::{audio_file, video_file};

/// x264's quality for a rendition that no option sets.
const DEFAULT_CRF: u32 = 23;
/// How much higher VP9's number for the same look is: its scale goes to 63, and 31 is what its authors advise for 1080p.
const VP9_CRF_OFFSET: u32 = 8;
/// Highest value of VP9's scale.
const VP9_MAX_CRF: u32 = 63;
/// Bits a second of a channel for each step of the AAC encoder's quality, measured over music in stereo: 43 kb/s at 0.3,
/// 151 at 1, 305 at 2.
const AAC_BPS_PER_QUALITY: f64 = 75_000.0;
/// Range in which that holds.
const AAC_QUALITY: (f64, f64) = (0.1, 4.0);

/// From this length on, in seconds, a hole in the sound is filled with silence and an overlap is cut, so that a chunk and
/// the one before it agree on where the sound is. It is more than the clock of any container errs by. ffmpeg's own 0.1
/// would let the sound run early behind the hole that its muxer leaves at the beginning of fragmented MP4.
const HOLE_SECONDS: f64 = 0.02;

/// All arguments, for an input that `input` opens, into files of the working directory.
pub(super) fn args(plan: &Plan, chunk: &Chunk, input: Vec<String>, threads: u32) -> Vec<String> {
    let mut args = words("-nostdin -hide_banner -v error -y -progress pipe:1 -stats_period 0.5 -copyts");
    if let Some(us) = plan.seek_us(chunk) {
        args.extend(words("-seek_timestamp 1 -noaccurate_seek -ss"));
        args.push(format!("{us}us"));
    }
    args.extend(["-threads".into(), threads.to_string()]);
    args.extend(input);
    args.extend(["-filter_complex".into(), graph(plan, chunk)]);
    for (index, video) in plan.videos.iter().enumerate() {
        args.extend(["-map".into(), format!("[v{index}]")]);
        args.extend(video_args(plan, video, threads));
        args.push(format!("file:{}", video_file(index)));
    }
    if let Some(source) = &plan.audio {
        for (index, audio) in plan.audios.iter().enumerate() {
            args.extend(["-map".into(), format!("[a{index}]")]);
            args.extend(audio_args(audio.codec, source, &plan.compression));
            args.push(format!("file:{}", audio_file(index)));
        }
    }
    args
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(Into::into).collect()
}

/// The filter graph.
fn graph(plan: &Plan, chunk: &Chunk) -> String {
    let timeline = &plan.timeline;
    let origin = timeline.origin_expression();
    let (num, den) = timeline.rate.fraction();
    let Chunk {
        first_frame, end_frame, ..
    } = chunk;
    let grid = format!(
        "[0:{}]setpts=PTS-{origin}/TB,fps={}:start_time={first_frame}*{den}/{num},tpad=stop_mode=clone:stop=-1,\
         trim=start_pts={first_frame}:end_pts={end_frame},split={}",
        plan.video_index,
        timeline.rate,
        plan.videos.len()
    );
    let mut chains = vec![grid + &pads("s", plan.videos.len())];
    for (index, video) in plan.videos.iter().enumerate() {
        let Size { width_px, height_px } = video.size;
        chains.push(format!(
            "[s{index}]scale={width_px}:{height_px}:flags=bicubic,setsar=1,format=yuv420p[v{index}]"
        ));
    }
    if let Some(source) = &plan.audio {
        chains.push(format!(
            "[0:{}]asetpts=PTS-{origin}/TB,asplit={}{}",
            source.index,
            plan.audios.len(),
            pads("b", plan.audios.len())
        ));
        for (index, audio) in plan.audios.iter().enumerate() {
            let Some(grid) = plan.audio_grid(audio) else { continue };
            let AudioCut {
                first_sample,
                end_sample,
                ..
            } = grid.cut(*first_frame, *end_frame, chunk.last);
            // The rate first and by itself: `first_pts` counts samples of what comes in.
            chains.push(format!(
                "[b{index}]aresample={},aresample=async=1:min_hard_comp={HOLE_SECONDS}:first_pts={first_sample},\
                 aformat=channel_layouts=mono|stereo,apad,\
                 atrim=start_pts={first_sample}:end_pts={end_sample},asetpts=PTS-STARTPTS[a{index}]",
                grid.sample_rate_hz()
            ));
        }
    }
    chains.join(";")
}

/// `[s0][s1]...`: the labels of `count` branches.
fn pads(name: &str, count: usize) -> String {
    (0..count).map(|n| format!("[{name}{n}]")).collect::<Vec<_>>().concat()
}

fn video_args(plan: &Plan, video: &VideoRendition, threads: u32) -> Vec<String> {
    let compression = &plan.compression;
    let bitrate = video.max_bitrate_bps;
    let gop = plan.timeline.gop_frames().to_string();
    let (timescale, _) = plan.timeline.rate.timescale();
    let preset = compression.preset.unwrap_or(Preset::Veryfast);
    let crf = compression.crf.unwrap_or(DEFAULT_CRF);
    let mut args = match video.codec {
        VideoCodec::H264 => {
            let mut args = words("-c:v libx264 -profile:v high -preset");
            args.extend([preset.as_str().into(), "-crf".into(), crf.to_string()]);
            args.extend(["-maxrate".into(), bitrate.to_string()]);
            args.extend(["-bufsize".into(), (bitrate * BUFFER_SECONDS).to_string()]);
            // Groups are closed, and nothing but the distance makes a key frame.
            args.extend(words("-sc_threshold 0"));
            args
        }
        VideoCodec::Vp9 => {
            let mut args = words("-c:v libvpx-vp9 -deadline good -row-mt 1 -cpu-used");
            args.extend([vp9_speed(preset).to_string(), "-crf".into()]);
            args.push((crf + VP9_CRF_OFFSET).min(VP9_MAX_CRF).to_string());
            // With a quality, the bit rate is what it may not exceed.
            args.extend(["-b:v".into(), bitrate.to_string()]);
            args
        }
    };
    args.extend(["-threads".into(), threads.to_string()]);
    args.extend(["-g".into(), gop.clone(), "-keyint_min".into(), gop]);
    args.extend(["-video_track_timescale".into(), timescale.to_string()]);
    // Tags of the source (place, device, owner) stay behind.
    args.extend(words(
        "-map_metadata -1 -map_chapters -1 -bitexact -f mp4 -movflags +cmaf+frag_keyframe+empty_moov+frag_discont",
    ));
    args
}

/// libvpx's speed that goes with an x264 preset: 5 is the fastest of its "good" mode.
fn vp9_speed(preset: Preset) -> u32 {
    match preset {
        Preset::Ultrafast | Preset::Superfast | Preset::Veryfast => 5,
        Preset::Faster | Preset::Fast => 4,
        Preset::Medium => 3,
        Preset::Slow => 2,
        Preset::Slower => 1,
        Preset::Veryslow => 0,
    }
}

fn audio_args(codec: AudioCodec, source: &AudioSource, compression: &Compression) -> Vec<String> {
    let bps = compression.audio_bitrate_bps.unwrap_or(DEFAULT_AUDIO_BPS);
    let channels = source.channels.clamp(1, 2);
    let mut args = match codec {
        AudioCodec::Aac => {
            // The rate loop of the constant mode takes twenty seconds to settle; the variable one has none, so chunks
            // meet without a step.
            #[expect(clippy::cast_precision_loss, reason = "bit rates are far below 2^53")]
            let quality = bps as f64 / (AAC_BPS_PER_QUALITY * f64::from(channels));
            let quality = quality.clamp(AAC_QUALITY.0, AAC_QUALITY.1);
            words(&format!("-c:a aac -q:a {quality:.3}"))
        }
        AudioCodec::Opus => words(&format!("-c:a libopus -vbr on -b:a {bps}")),
    };
    args.extend(words(
        "-map_metadata -1 -map_chapters -1 -bitexact -f mp4 -movflags +empty_moov+default_base_moof -frag_duration 4000000",
    ));
    args
}

#[cfg(test)]
mod tests {
    use reelay_core::domain::{
        create::CreateJob,
        plan::{Input, Limits},
        probe::{Report, Tail},
        time::UtcTime,
    };

    use super::*;

    fn plan(body: &str, with_audio: bool) -> Plan {
        let audio = if with_audio {
            r#",{"index":1,"codec_type":"audio","codec_name":"aac","channels":6,"sample_rate":"44100","start_time":"0"}"#
        } else {
            ""
        };
        let json = format!(
            r#"{{"streams":[{{"index":0,"codec_type":"video","codec_name":"h264","width":1920,"height":1080,
            "r_frame_rate":"30000/1001","avg_frame_rate":"30000/1001","start_time":"0"}}{audio}],"format":{{}}}}"#
        );
        let mut tail = Tail::default();
        tail.push("59.966633,59.9,0.033367");
        let probe = Report::parse(json.as_bytes())
            .unwrap()
            .into_probe(tail, Tail::default(), 1)
            .unwrap();
        let new = serde_json::from_str::<CreateJob>(body).unwrap().validate(100).unwrap();
        let limits = Limits {
            chunk_seconds: 24,
            single_seconds: 36,
            max_tasks: 100,
        };
        Plan::new(&new.spec, &probe, Input::Source, &limits, UtcTime::from_epoch_ms(0))
    }

    fn line(plan: &Plan, chunk: u32) -> String {
        args(plan, &plan.chunk(chunk), vec!["-i".into(), "INPUT".into()], 2).join(" ")
    }

    #[test]
    fn one_decode_feeds_every_rendition_and_nothing_is_sought_for_the_first_chunk() {
        let body = r#"{"filename":"a","size_bytes":1,"outputs":[{"format":"hls","qualities":["480p","720p"]},{"format":"webm"}]}"#;
        let line = line(&plan(body, true), 0);
        assert_eq!(line.matches(" -i ").count(), 1);
        assert!(!line.contains("-ss "), "{line}");
        for part in [
            "[0:0]setpts=PTS-(0/1000000-0*1001/30000)/TB,fps=30000/1001:start_time=0*1001/30000,",
            "trim=start_pts=0:end_pts=720,split=3[s0][s1][s2];",
            "[s0]scale=1920:1080",
            "[s1]scale=854:480",
            "[s2]scale=1280:720",
            "asplit=2[b0][b1];",
            "[b0]aresample=48000,aresample=async=1:min_hard_comp=0.02:first_pts=0,",
            "[b1]aresample=44100,aresample=async=1:min_hard_comp=0.02:first_pts=0,",
            "-c:v libvpx-vp9",
            "-c:a libopus -vbr on -b:a 128000",
            "-c:a aac -q:a 0.853",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn a_later_chunk_is_sought_early_and_cut_on_the_grid() {
        let body = r#"{"filename":"a","size_bytes":1}"#;
        let line = line(&plan(body, true), 1);
        assert!(
            line.contains("-seek_timestamp 1 -noaccurate_seek -ss 23024000us -threads 2 -i INPUT"),
            "{line}"
        );
        assert!(line.contains("start_time=720*1001/30000,"), "{line}");
        assert!(line.contains("trim=start_pts=720:end_pts="), "{line}");
        // 24.024 s are 1,059,458.4 samples; 8 packets of 1,024 before the one after them.
        assert!(line.contains("first_pts=1052672,"), "{line}");
    }

    #[test]
    fn options_reach_the_encoder_and_silence_has_no_audio_track() {
        let body = r#"{"filename":"a","size_bytes":1,"thumbnails":{"count":0},
            "compression":{"crf":30,"preset":"slow","max_bitrate_bps":1000000}}"#;
        let line = line(&plan(body, false), 0);
        assert!(
            line.contains("-preset slow -crf 30 -maxrate 1000000 -bufsize 2000000 -sc_threshold 0 -threads 2 -g 120"),
            "{line}"
        );
        assert!(!line.contains("aac"), "{line}");
    }

    #[test]
    fn settings_of_one_codec_become_those_of_the_other() {
        let body = r#"{"filename":"a","size_bytes":1,"target_format":"webm",
            "compression":{"crf":51,"preset":"medium","audio_bitrate_bps":64000}}"#;
        let line = line(&plan(body, true), 0);
        assert!(line.contains("-cpu-used 3 -crf 59 -b:v 5000000"), "{line}");
        assert!(line.contains("-b:a 64000"), "{line}");
    }
}
