//! Makes all renditions of a source in one pass: one decode, however many are asked for.
//!
//! Frames are put on the job's absolute grid inside the filter graph: `setpts` moves the origin, `fps` makes the rate
//! constant, `tpad` holds the last frame and `trim` ends after exactly the planned number, whatever the source does.

use reelay_core::domain::{
    failure::Stage,
    geometry::{self, Size},
    job::Phase,
    probe::Probe,
    spec::{Compression, OutputSpec, Preset, Spec},
};

use super::{Attempt, Progress, SOURCE_FILE};
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// x264's quality for a rendition that no option sets.
const DEFAULT_CRF: u32 = 23;
/// Bit rate of sound that no option sets.
const DEFAULT_AUDIO_BPS: u64 = 128_000;
/// Seconds of the peak rate that the decoder's buffer holds.
const BUFFER_SECONDS: u64 = 2;

/// A rendition to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendition {
    pub(crate) spec: OutputSpec,
    pub(crate) size: Size,
    pub(crate) file: String,
    max_bitrate_bps: u64,
}

/// What to make of a source.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) probe: Probe,
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) thumbnail_size: Size,
    pub(crate) thumbnail_frames: Vec<u64>,
    compression: Compression,
}

impl Plan {
    pub(crate) fn new(spec: &Spec, probe: &Probe) -> Self {
        let display = probe.info.video.size();
        let renditions = spec.outputs.iter().map(|output| {
            let size = geometry::rendition_size(display, output.quality);
            let max_bitrate_bps = spec
                .compression
                .max_bitrate_bps
                .unwrap_or_else(|| geometry::default_max_bitrate_bps(size));
            Rendition {
                spec: *output,
                size,
                file: format!("{}.{}", output.id(), output.format.as_str()),
                max_bitrate_bps,
            }
        });
        Self {
            renditions: renditions.collect(),
            thumbnail_size: geometry::thumbnail_size(display),
            thumbnail_frames: probe.timeline.thumbnail_frames(spec.thumbnails.count),
            compression: spec.compression,
            probe: probe.clone(),
        }
    }

    /// The name of the n-th thumbnail, from 1.
    pub(crate) fn thumbnail_file(n: usize) -> String {
        format!("thumbnail-{n}.jpg")
    }

    /// The arguments that make it all, from `source` into the working directory.
    fn args(&self, input: Vec<String>) -> Vec<String> {
        let mut args: Vec<String> = "-nostdin -hide_banner -v error -y -progress pipe:1 -stats_period 0.5 -copyts"
            .split(' ')
            .map(Into::into)
            .collect();
        args.extend(input);
        args.extend(["-filter_complex".into(), self.graph()]);
        for n in 0..self.renditions.len() {
            args.extend(self.rendition_args(n));
        }
        args
    }

    /// The filter graph.
    fn graph(&self) -> String {
        let timeline = &self.probe.timeline;
        let origin = timeline.origin_expression();
        let renditions = self.renditions.len();
        let grid = format!(
            "[0:{}]setpts=PTS-{origin}/TB,fps={}:start_time=0,tpad=stop_mode=clone:stop=-1,\
             trim=start_pts=0:end_pts={},split={renditions}",
            self.probe.video_index, timeline.rate, timeline.frames
        );
        let mut chains = vec![grid + &pads("s", renditions)];
        for (n, rendition) in self.renditions.iter().enumerate() {
            let Size { width_px, height_px } = rendition.size;
            chains.push(format!(
                "[s{n}]scale={width_px}:{height_px}:flags=bicubic,setsar=1,format=yuv420p[v{n}]"
            ));
        }
        if let (Some(index), Some(audio)) = (self.probe.audio_index, &self.probe.info.audio) {
            let rate_hz = output_sample_rate_hz(audio.sample_rate_hz);
            let sound = format!(
                "[0:{index}]asetpts=PTS-{origin}/TB,aresample={rate_hz}:async=1:first_pts=0,\
                 aformat=channel_layouts=mono|stereo,asplit={renditions}"
            );
            chains.push(sound + &pads("a", renditions));
        }
        chains.join(";")
    }

    fn rendition_args(&self, n: usize) -> Vec<String> {
        let Some(rendition) = self.renditions.get(n) else {
            return Vec::new();
        };
        let compression = &self.compression;
        let gop = self.probe.timeline.gop_frames().to_string();
        let bitrate = rendition.max_bitrate_bps;
        let mut args: Vec<String> = vec!["-map".into(), format!("[v{n}]")];
        if self.probe.audio_index.is_some() {
            args.extend([
                "-map".into(),
                format!("[a{n}]"),
                "-c:a".into(),
                "aac".into(),
                "-b:a".into(),
            ]);
            args.push(compression.audio_bitrate_bps.unwrap_or(DEFAULT_AUDIO_BPS).to_string());
        }
        let preset = compression.preset.unwrap_or(Preset::Veryfast).as_str();
        let crf = compression.crf.unwrap_or(DEFAULT_CRF).to_string();
        args.extend(["-c:v", "libx264", "-profile:v", "high", "-preset", preset, "-crf", &crf].map(Into::into));
        args.extend([
            "-maxrate".into(),
            bitrate.to_string(),
            "-bufsize".into(),
            (bitrate * BUFFER_SECONDS).to_string(),
        ]);
        // Closed groups of a fixed length: every fourth second can be cut and sought.
        args.extend(["-g", &gop, "-keyint_min", &gop, "-sc_threshold", "0"].map(Into::into));
        // Tags of the source (place, device, owner) stay behind; the index comes first.
        let fixed = "-map_metadata -1 -map_chapters -1 -bitexact -movflags +faststart -f mp4";
        args.extend(fixed.split(' ').map(Into::into));
        args.push(format!("file:{}", rendition.file));
        args
    }
}

/// `[s0][s1]...`: the labels of `count` branches.
fn pads(name: &str, count: usize) -> String {
    (0..count).map(|n| format!("[{name}{n}]")).collect::<Vec<_>>().concat()
}

/// 44.1 kHz stays; every other rate becomes 48 kHz.
fn output_sample_rate_hz(source_hz: u32) -> u32 {
    if source_hz == 44_100 { 44_100 } else { 48_000 }
}

pub(super) async fn encode(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    plan: &Plan,
    usage: &mut Usage,
) -> Result<(), TaskError> {
    let args = plan.args(cage::input(&scratch.file(SOURCE_FILE)));
    let mut report = Report {
        frames_total: plan.probe.timeline.frames,
        frames_done: 0,
        fps: 0.0,
    };
    let used = cage::run(
        &attempt.bench.tools,
        Tool::Ffmpeg,
        &args,
        scratch.path(),
        &attempt.limits(),
        |line| {
            if let Some(progress) = report.push(line) {
                attempt.progress.send_replace(Some(progress));
            }
        },
    )
    .await
    .map_err(|error| TaskError::cage(Stage::Encode, attempt.lease.attempt, error))?;
    usage.then(used);
    Ok(())
}

/// Reads `-progress`: blocks of `key=value` lines that end with `progress=`.
#[derive(Debug)]
struct Report {
    frames_total: u64,
    frames_done: u64,
    fps: f64,
}

impl Report {
    fn push(&mut self, line: &str) -> Option<Progress> {
        match line.split_once('=')? {
            // The muxer runs a little ahead of the count only at the very end.
            ("frame", value) => self.frames_done = value.trim().parse().unwrap_or(0).min(self.frames_total),
            ("fps", value) => self.fps = value.trim().parse().unwrap_or(0.0),
            ("progress", _) => {
                return Some(Progress {
                    frames_done: self.frames_done,
                    fps: self.fps,
                    phase: Phase::Encoding,
                });
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use reelay_core::domain::{create::CreateJob, probe::Tail};

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
        tail.push("9.976633,9.9,0.033367");
        let probe = reelay_core::domain::probe::Report::parse(json.as_bytes())
            .unwrap()
            .into_probe(tail, 1)
            .unwrap();
        let spec = serde_json::from_str::<CreateJob>(body)
            .unwrap()
            .validate(100)
            .unwrap()
            .spec;
        Plan::new(&spec, &probe)
    }

    #[test]
    fn one_decode_feeds_every_rendition() {
        let body = r#"{"filename":"a","size_bytes":1,"outputs":[{"format":"mp4","qualities":["480p","720p"]}]}"#;
        let args = plan(body, true).args(vec!["-i".into(), "file:source".into()]);
        assert_eq!(args.iter().filter(|arg| *arg == "-i").count(), 1);
        let graph = &args[args.iter().position(|arg| arg == "-filter_complex").unwrap() + 1];
        assert!(
            graph.starts_with("[0:0]setpts=PTS-(0/1000000-0*1001/30000)/TB,fps=30000/1001:start_time=0,"),
            "{graph}"
        );
        assert!(
            graph.contains("trim=start_pts=0:end_pts=300,split=2[s0][s1]"),
            "{graph}"
        );
        assert!(
            graph.contains("[s0]scale=854:480") && graph.contains("[s1]scale=1280:720"),
            "{graph}"
        );
        assert!(
            graph.contains("aresample=44100") && graph.ends_with("asplit=2[a0][a1]"),
            "{graph}"
        );
    }

    #[test]
    fn options_reach_the_encoder_and_silence_has_no_audio_track() {
        let body = r#"{"filename":"a","size_bytes":1,"thumbnails":{"count":0},
            "compression":{"crf":30,"preset":"slow","max_bitrate_bps":1000000}}"#;
        let args = plan(body, false).args(Vec::new()).join(" ");
        assert!(
            args.contains("-preset slow -crf 30 -maxrate 1000000 -bufsize 2000000 -g 120 -keyint_min 120"),
            "{args}"
        );
        assert!(!args.contains("aac"), "{args}");
    }

    #[test]
    fn progress_blocks_are_read_and_never_run_over() {
        let mut report = Report {
            frames_total: 100,
            frames_done: 0,
            fps: 0.0,
        };
        assert_eq!(report.push("frame= 42"), None);
        assert_eq!(report.push("fps=12.5"), None);
        let progress = report.push("progress=continue").unwrap();
        assert_eq!((progress.frames_done, progress.fps), (42, 12.5));
        report.push("frame=142");
        report.push("fps=N/A");
        assert_eq!(report.push("progress=end").unwrap().frames_done, 100);
    }
}
