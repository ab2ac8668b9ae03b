//! What to do with a source: the ladder, the chunks and the tasks. Pure, so that a test can ask it anything.

use serde::{Deserialize, Serialize};

use super::{
    audio::{AudioCodec, AudioGrid},
    geometry::{self, Size},
    probe::Probe,
    spec::{Compression, Format, OutputSpec, Quality, Spec},
    task::{ChunkResult, StoredObject, TaskId},
    time::UtcTime,
    timeline::Timeline,
};

/// The version of a stored plan; chunks of another version are not kept by a retry.
pub const PLAN_VERSION: u32 = 1;
/// How far before a chunk decoding begins. One second covers what a seek by decoding time can miss: the leading pictures
/// of an open group, and a frame that is held over the boundary.
const LEAD_US: i64 = 1_000_000;
/// From this short side on, a chunk is half as long: encoding a second takes four times as long as at 1080p.
const LARGE_SHORT_SIDE_PX: u32 = 1_441;
/// The rungs of an HLS output for which none was asked.
const DEFAULT_LADDER: &[Quality] = &[Quality::P360, Quality::P480, Quality::P720, Quality::P1080];
/// How long what a task made is taken for there, in milliseconds: five of the seven days that the bucket keeps it.
const KEPT_MS: i64 = 5 * 24 * 3_600 * 1_000;
/// The plan and the assemble task.
const OTHER_TASKS: u32 = 2;

/// Bounds of a plan; parameters of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a chunk is to be, in seconds.
    pub chunk_seconds: u32,
    /// Sources up to this length are done in one invocation, in seconds.
    pub single_seconds: u32,
    /// Most tasks of a job.
    pub max_tasks: u32,
}

/// How the picture of a rendition is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// For MP4 and HLS.
    H264,
    /// For WebM.
    Vp9,
}

impl VideoCodec {
    /// Its name, as files, logs and ffprobe have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Vp9 => "vp9",
        }
    }
}

/// One encoded version of the picture. Several outputs may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoRendition {
    /// The codec.
    pub codec: VideoCodec,
    /// The size.
    pub size: Size,
    /// Highest bit rate.
    pub max_bitrate_bps: u64,
    /// Whether its chunks are published themselves, as segments.
    pub published: bool,
}

impl VideoRendition {
    /// The name of its files, such as `h264-1280x720`.
    #[must_use]
    pub fn name(&self) -> String {
        let Size { width_px, height_px } = self.size;
        format!("{}-{width_px}x{height_px}", self.codec.as_str())
    }
}

/// One encoded version of the sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioRendition {
    /// The codec.
    pub codec: AudioCodec,
    /// Whether its chunks are published themselves, as segments.
    pub published: bool,
}

/// The sound track of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioSource {
    /// Index in the file.
    pub index: u32,
    /// Samples a second.
    pub sample_rate_hz: u32,
    /// Channels.
    pub channels: u32,
    /// Its end, in microseconds from the timeline's origin, where that is after the picture's.
    pub end_us: Option<i64>,
}

/// A file to join from one rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOutput {
    /// What was asked for.
    pub spec: OutputSpec,
    /// Index of the video rendition.
    pub video: usize,
    /// Index of the audio rendition.
    pub audio: Option<usize>,
}

/// A rung of the HLS output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Its name.
    pub quality: Quality,
    /// Index of the video rendition.
    pub video: usize,
}

/// The HLS output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HlsOutput {
    /// The rungs, smallest first; no two of one size.
    pub rungs: Vec<Rung>,
    /// Index of the audio rendition.
    pub audio: Option<usize>,
}

/// What encode tasks read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Input {
    /// The uploaded source.
    Source,
    /// A copy of its streams in a container that can be sought.
    Normalised(StoredObject),
}

/// A range of the timeline that one task encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its number, from 0.
    pub index: u32,
    /// Its first frame.
    pub first_frame: u64,
    /// The frame after its last.
    pub end_frame: u64,
    /// Whether it is the last one.
    pub last: bool,
}

impl Chunk {
    /// How many frames it has.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.end_frame - self.first_frame
    }
}

/// All that the tasks of a job need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// When it was made.
    pub planned_at: UtcTime,
    /// What to read.
    pub input: Input,
    /// The frame grid.
    pub timeline: Timeline,
    /// Frames of a chunk; the last one may have up to a quarter more, or fewer.
    pub chunk_frames: u64,
    /// How many chunks.
    pub chunks: u32,
    /// Index of the picture track in the file.
    pub video_index: u32,
    /// The sound track.
    pub audio: Option<AudioSource>,
    /// Video renditions, each encoded once.
    pub videos: Vec<VideoRendition>,
    /// Audio renditions.
    pub audios: Vec<AudioRendition>,
    /// Files to join.
    pub files: Vec<FileOutput>,
    /// The HLS output.
    pub hls: Option<HlsOutput>,
    /// The frames at which stills are taken.
    pub thumbnail_frames: Vec<u64>,
    /// Their size.
    pub thumbnail_size: Size,
    /// Encoder settings.
    pub compression: Compression,
}

impl Plan {
    /// Plans the work.
    #[must_use]
    pub fn new(spec: &Spec, probe: &Probe, input: Input, limits: &Limits, now: UtcTime) -> Self {
        let display = probe.info.video.size();
        let mut ladder = Ladder {
            display,
            compression: spec.compression,
            has_audio: probe.audio_index.is_some(),
            videos: Vec::new(),
            audios: Vec::new(),
        };
        let files = ladder.files(&spec.outputs);
        let hls = ladder.hls(&spec.outputs);
        let largest_px = ladder.videos.iter().map(|video| video.size.short_side_px()).max();
        let (chunk_frames, chunks) = chunks(&probe.timeline, largest_px.unwrap_or(0), limits);
        let audio = probe.info.audio.as_ref().zip(probe.audio_index);
        Self {
            version: PLAN_VERSION,
            planned_at: now,
            input,
            timeline: probe.timeline,
            chunk_frames,
            chunks,
            video_index: probe.video_index,
            audio: audio.map(|(track, index)| AudioSource {
                index,
                sample_rate_hz: track.sample_rate_hz,
                channels: track.channels,
                end_us: probe.audio_end_us,
            }),
            videos: ladder.videos,
            audios: ladder.audios,
            files,
            hls,
            thumbnail_frames: probe.timeline.thumbnail_frames(spec.thumbnails.count),
            thumbnail_size: geometry::thumbnail_size(display),
            compression: spec.compression,
        }
    }

    /// Whether another generation of the same job can work by this plan. What tasks leave for each other expires, so an
    /// old plan is made anew.
    #[must_use]
    pub fn can_be_kept(&self, now: UtcTime) -> bool {
        self.version == PLAN_VERSION && now.epoch_ms() - self.planned_at.epoch_ms() < KEPT_MS
    }

    /// Whether another generation of the same job can use what a chunk's task made by this plan.
    #[must_use]
    pub fn can_keep(&self, result: &ChunkResult, now: UtcTime) -> bool {
        result.chunk < self.chunks
            && result.frames == self.chunk(result.chunk).frames()
            && now.epoch_ms() - result.made_at.epoch_ms() < KEPT_MS
    }

    /// Whether one invocation does it all.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.chunks == 1
    }

    /// One of its chunks; those beyond the last are empty.
    #[must_use]
    pub fn chunk(&self, index: u32) -> Chunk {
        let last = index + 1 >= self.chunks;
        let first_frame = u64::from(index)
            .saturating_mul(self.chunk_frames)
            .min(self.timeline.frames);
        Chunk {
            index,
            first_frame,
            end_frame: if last {
                self.timeline.frames
            } else {
                first_frame + self.chunk_frames
            },
            last,
        }
    }

    /// The tasks that follow the plan task: nothing for a source that was done already.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskId> {
        if self.is_single() {
            return Vec::new();
        }
        (0..self.chunks).map(TaskId::Encode).chain([TaskId::Assemble]).collect()
    }

    /// Where ffmpeg is to begin to read for a chunk, in microseconds of the source's own time; from the beginning for
    /// the first.
    #[must_use]
    pub fn seek_us(&self, chunk: &Chunk) -> Option<i64> {
        (chunk.first_frame > 0).then(|| self.timeline.source_time_us(chunk.first_frame) - LEAD_US)
    }

    /// The packet grid of an audio rendition.
    #[must_use]
    pub fn audio_grid(&self, rendition: &AudioRendition) -> Option<AudioGrid> {
        let source = self.audio?;
        Some(AudioGrid::new(
            rendition.codec,
            source.sample_rate_hz,
            self.timeline,
            source.end_us,
        ))
    }

    /// The stills of a chunk: number from 1, and frame.
    #[must_use]
    pub fn thumbnails_of(&self, chunk: &Chunk) -> Vec<(u32, u64)> {
        (1_u32..)
            .zip(self.thumbnail_frames.iter().copied())
            .filter(|(_, frame)| (chunk.first_frame..chunk.end_frame).contains(frame))
            .collect()
    }

    /// The largest video rendition, from which stills are taken.
    #[must_use]
    pub fn largest_video(&self) -> Option<usize> {
        (0..self.videos.len()).max_by_key(|index| self.videos.get(*index).map(|video| video.size.pixels()))
    }
}

/// Frames of a chunk and how many chunks there are.
///
/// A chunk is a whole number of groups of pictures, near the wanted length, and longer when there would be more tasks
/// than allowed. A tail below a quarter of a chunk joins its neighbour: starting a task costs more than it is worth.
fn chunks(timeline: &Timeline, largest_short_side_px: u32, limits: &Limits) -> (u64, u32) {
    let gop = timeline.gop_frames();
    let seconds = if largest_short_side_px >= LARGE_SHORT_SIDE_PX {
        limits.chunk_seconds.div_ceil(2)
    } else {
        limits.chunk_seconds
    };
    let single = timeline.rate.frames_in(i64::from(limits.single_seconds) * 1_000_000);
    let most = u64::from(limits.max_tasks.saturating_sub(OTHER_TASKS).max(1));
    if timeline.frames <= single.max(gop) || most == 1 {
        return (timeline.frames.div_ceil(gop) * gop, 1);
    }
    let wanted = timeline.rate.frames_in(i64::from(seconds) * 1_000_000);
    let gops = ((wanted + gop / 2) / gop).max(1);
    let least_gops = timeline.frames.div_ceil(most).div_ceil(gop);
    let chunk = gops.max(least_gops) * gop;
    let (whole, tail) = (timeline.frames / chunk, timeline.frames % chunk);
    let count = if tail * 4 >= chunk || whole == 0 {
        whole + 1
    } else {
        whole
    };
    (chunk, u32::try_from(count).unwrap_or(u32::MAX))
}

/// Collects renditions so that each is encoded once, however many outputs use it.
struct Ladder {
    display: Size,
    compression: Compression,
    has_audio: bool,
    videos: Vec<VideoRendition>,
    audios: Vec<AudioRendition>,
}

impl Ladder {
    fn files(&mut self, outputs: &[OutputSpec]) -> Vec<FileOutput> {
        let mut files = Vec::new();
        for spec in outputs {
            let (video, audio) = match spec.format {
                Format::Mp4 => (VideoCodec::H264, AudioCodec::Aac),
                Format::Webm => (VideoCodec::Vp9, AudioCodec::Opus),
                Format::Hls => continue,
            };
            files.push(FileOutput {
                spec: *spec,
                video: self.video(video, spec.quality, false),
                audio: self.audio(audio, false),
            });
        }
        files
    }

    fn hls(&mut self, outputs: &[OutputSpec]) -> Option<HlsOutput> {
        let asked = || outputs.iter().filter(|spec| spec.format == Format::Hls);
        asked().next()?;
        let mut qualities: Vec<Quality> = asked().filter_map(|spec| spec.quality).collect();
        if asked().any(|spec| spec.quality.is_none()) {
            qualities.extend(DEFAULT_LADDER);
        }
        qualities.sort_by_key(|quality| quality.short_side_px());
        let mut rungs: Vec<Rung> = Vec::new();
        for quality in qualities {
            let video = self.video(VideoCodec::H264, Some(quality), true);
            // Above the source all rungs are the source's own size, and that once is enough.
            if rungs.iter().all(|rung| rung.video != video) {
                rungs.push(Rung { quality, video });
            }
        }
        Some(HlsOutput {
            rungs,
            audio: self.audio(AudioCodec::Aac, true),
        })
    }

    fn video(&mut self, codec: VideoCodec, quality: Option<Quality>, published: bool) -> usize {
        let size = geometry::rendition_size(self.display, quality);
        let known = self
            .videos
            .iter()
            .position(|video| video.codec == codec && video.size == size);
        let index = known.unwrap_or(self.videos.len());
        if known.is_none() {
            let max_bitrate_bps = self.compression.max_bitrate_bps;
            self.videos.push(VideoRendition {
                codec,
                size,
                max_bitrate_bps: max_bitrate_bps.unwrap_or_else(|| geometry::default_max_bitrate_bps(size)),
                published,
            });
        } else if let Some(video) = self.videos.get_mut(index) {
            video.published |= published;
        }
        index
    }

    fn audio(&mut self, codec: AudioCodec, published: bool) -> Option<usize> {
        if !self.has_audio {
            return None;
        }
        let known = self.audios.iter().position(|audio| audio.codec == codec);
        let index = known.unwrap_or(self.audios.len());
        if known.is_none() {
            self.audios.push(AudioRendition { codec, published });
        } else if let Some(audio) = self.audios.get_mut(index) {
            audio.published |= published;
        }
        Some(index)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
