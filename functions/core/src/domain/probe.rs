//! What ffprobe reports, normalised and bounded. The report describes hostile files: nothing in it is trusted to be
//! present, small or true.

use serde::{Deserialize, Serialize};

use super::{
    failure::FailureCode,
    geometry::{self, Size},
    spec::MAX_DURATION_SECONDS,
    timeline::{self, FrameRate, Timeline},
};

/// Most streams of a source.
pub const MAX_STREAMS: usize = 32;
/// Most pixels of a source picture: 8192 x 8192.
pub const MAX_PIXELS: u64 = 8_192 * 8_192;
/// How much of its declared duration a track may miss before the file counts as cut off; one part in twenty of long
/// files.
const CUT_OFF_US: i64 = 1_000_000;

/// Facts of a source, as the API shows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// ffprobe's name of the container.
    pub container: String,
    /// How long it plays.
    pub duration_seconds: f64,
    /// All streams together.
    pub bitrate_bps: Option<u64>,
    /// Length of the object.
    pub size_bytes: u64,
    /// The picture track that is used.
    pub video: VideoTrack,
    /// The sound track that is used.
    pub audio: Option<AudioTrack>,
}

/// Facts of a picture track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoTrack {
    /// ffprobe's name of the codec.
    pub codec: String,
    /// Width as shown: square pixels, turned.
    pub width_px: u32,
    /// Height as shown.
    pub height_px: u32,
    /// The rate of the outputs.
    pub frame_rate: FrameRate,
    /// ffprobe's name of the pixel format.
    pub pixel_format: Option<String>,
    /// How the picture is turned for display, clockwise: 0, 90, 180 or 270.
    pub rotation_degrees: u32,
}

/// Facts of a sound track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioTrack {
    /// ffprobe's name of the codec.
    pub codec: String,
    /// Channels.
    pub channels: u32,
    /// Samples a second.
    pub sample_rate_hz: u32,
}

impl VideoTrack {
    /// The size as shown.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            width_px: self.width_px,
            height_px: self.height_px,
        }
    }
}

/// A source that can be worked on, with what the work needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// What users see.
    pub info: SourceInfo,
    /// The frame grid.
    pub timeline: Timeline,
    /// Index of the picture track in the file.
    pub video_index: u32,
    /// Index of the sound track in the file.
    pub audio_index: Option<u32>,
    /// Where the sound ends, in microseconds from the timeline's origin, when that is known.
    pub audio_end_us: Option<i64>,
}

/// Why a source cannot be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The report is no JSON of the expected shape.
    #[error("the source's structure cannot be read")]
    Unreadable,
    /// There is no picture track.
    #[error("the source has no video track")]
    NoVideo,
    /// The picture track has no size, or its times make no sense.
    #[error("the source's video track is damaged")]
    Damaged,
    /// The file ends before its video does.
    #[error("the source is cut off: its video cannot be read to the end")]
    CutOff,
    /// More than [`MAX_STREAMS`].
    #[error("the source has more than {MAX_STREAMS} streams")]
    TooManyStreams,
    /// More than [`MAX_PIXELS`].
    #[error("the source's picture has more than {MAX_PIXELS} pixels")]
    TooManyPixels,
    /// Longer than [`MAX_DURATION_SECONDS`].
    #[error("the source plays longer than {MAX_DURATION_SECONDS} seconds")]
    TooLong,
}

impl ProbeError {
    /// The code of the failure that this becomes.
    #[must_use]
    pub fn code(self) -> FailureCode {
        match self {
            Self::Unreadable | Self::Damaged | Self::CutOff => FailureCode::SourceCorrupt,
            Self::NoVideo => FailureCode::UnsupportedFormat,
            Self::TooManyStreams => FailureCode::LimitStreams,
            Self::TooManyPixels => FailureCode::LimitPixels,
            Self::TooLong => FailureCode::LimitDuration,
        }
    }
}

/// Where the picture track's packets end. The end that a container declares is not believed: it lies in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tail {
    last_start_us: Option<i64>,
    last_end_us: Option<i64>,
}

/// ffprobe's `-show_format -show_streams` as JSON.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Container,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Container {
    format_name: Option<String>,
    bit_rate: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Stream {
    index: u32,
    codec_type: Option<String>,
    codec_name: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    pix_fmt: Option<String>,
    sample_aspect_ratio: Option<String>,
    r_frame_rate: Option<String>,
    avg_frame_rate: Option<String>,
    start_time: Option<String>,
    duration: Option<String>,
    channels: Option<u32>,
    sample_rate: Option<String>,
    #[serde(default)]
    disposition: Disposition,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Disposition {
    #[serde(default)]
    default: u8,
    #[serde(default)]
    attached_pic: u8,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Tags {
    rotate: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

impl Report {
    /// Reads ffprobe's output.
    pub fn parse(json: &[u8]) -> Result<Self, ProbeError> {
        serde_json::from_slice(json).map_err(|_| ProbeError::Unreadable)
    }

    /// Only this family declares a track's duration in a table that also places every frame.
    fn is_iso_media(&self) -> bool {
        self.format
            .format_name
            .as_deref()
            .is_some_and(|name| name.split(',').any(|name| name == "mp4"))
    }

    fn best(&self, codec_type: &str) -> Option<&Stream> {
        let tracks = || {
            let of_type = move |stream: &&Stream| {
                stream.codec_type.as_deref() == Some(codec_type)
                    && stream.disposition.attached_pic == 0
                    && stream
                        .codec_name
                        .as_deref()
                        .is_some_and(|name| name != "unknown" && name != "none")
            };
            self.streams.iter().filter(of_type)
        };
        tracks()
            .find(|stream| stream.disposition.default == 1)
            .or_else(|| tracks().next())
    }

    /// The index of the picture track that will be used.
    pub fn video_index(&self) -> Result<u32, ProbeError> {
        if self.streams.len() > MAX_STREAMS {
            return Err(ProbeError::TooManyStreams);
        }
        self.best("video").map(|stream| stream.index).ok_or(ProbeError::NoVideo)
    }

    /// The index of the sound track that will be used.
    #[must_use]
    pub fn audio_index(&self) -> Option<u32> {
        self.sound().map(|stream| stream.index)
    }

    fn sound(&self) -> Option<&Stream> {
        self.best("audio")
            .filter(|stream| stream.channels.is_some_and(|channels| channels > 0))
    }

    /// ffprobe's names of the codecs of the tracks that are used: picture first.
    #[must_use]
    pub fn codecs(&self) -> Vec<&str> {
        let tracks = [self.best("video"), self.sound()];
        tracks
            .into_iter()
            .flatten()
            .filter_map(|stream| stream.codec_name.as_deref())
            .collect()
    }

    /// Whether the container is of a family that can be sought by its index. Of the others, some find a time by
    /// guessing, and land behind the key frame that is needed.
    #[must_use]
    pub fn may_be_sought(&self) -> bool {
        let name = self.format.format_name.as_deref().unwrap_or_default();
        name.split(',')
            .any(|name| matches!(name, "mp4" | "matroska" | "webm" | "avi"))
    }

    /// Joins the reports to what the work needs: of the whole file, of the picture's end and of the sound's end.
    pub fn into_probe(self, tail: Tail, audio_tail: Tail, size_bytes: u64) -> Result<Probe, ProbeError> {
        let video_index = self.video_index()?;
        let video = self.best("video").ok_or(ProbeError::NoVideo)?;
        let audio = self.sound();

        let coded = match (video.width, video.height) {
            (Some(width_px), Some(height_px)) if width_px > 0 && height_px > 0 => Size { width_px, height_px },
            _ => return Err(ProbeError::Damaged),
        };
        let rotation = video.rotation_degrees();
        let shown = geometry::display_size(coded, video.sample_aspect(), rotation);
        let pixels = |size: Size| u64::from(size.width_px) * u64::from(size.height_px);
        if pixels(coded).max(pixels(shown)) > MAX_PIXELS {
            return Err(ProbeError::TooManyPixels);
        }

        let rate = FrameRate::choose(
            video.r_frame_rate.as_deref().and_then(FrameRate::parse),
            video.avg_frame_rate.as_deref().and_then(FrameRate::parse),
        );
        let video_start_us = video.start_time.as_deref().and_then(parse_us).unwrap_or(0);
        let video_end_us = tail.end_us(rate).ok_or(ProbeError::CutOff)?;
        let declared_us = video.duration.as_deref().and_then(parse_us).unwrap_or(0);
        if self.is_iso_media() && declared_us - (video_end_us - video_start_us) > CUT_OFF_US.max(declared_us / 20) {
            return Err(ProbeError::CutOff);
        }
        let audio_start_us = audio.and_then(|stream| stream.start_time.as_deref()).and_then(parse_us);
        let earliest_us = audio_start_us.map_or(video_start_us, |us| us.min(video_start_us));
        if timeline::seconds(video_end_us.saturating_sub(earliest_us)) > MAX_DURATION_SECONDS {
            return Err(ProbeError::TooLong);
        }
        if video_end_us < video_start_us {
            return Err(ProbeError::Damaged);
        }
        let timeline = Timeline::new(rate, earliest_us, video_start_us, video_end_us);
        let audio_end_us = audio_tail
            .last_end_us
            .or(audio_tail.last_start_us)
            .map(|us| us.saturating_sub(timeline.source_time_us(0)))
            .filter(|us| timeline::seconds(*us) <= MAX_DURATION_SECONDS);

        let info = SourceInfo {
            container: short(self.format.format_name.as_deref().unwrap_or("unknown")),
            duration_seconds: timeline.duration_seconds(),
            bitrate_bps: self.format.bit_rate.as_deref().and_then(|text| text.parse().ok()),
            size_bytes,
            video: VideoTrack {
                codec: short(video.codec_name.as_deref().unwrap_or("unknown")),
                width_px: shown.width_px,
                height_px: shown.height_px,
                frame_rate: rate,
                pixel_format: video.pix_fmt.as_deref().map(short),
                rotation_degrees: rotation.rem_euclid(360).unsigned_abs(),
            },
            audio: audio.map(|stream| AudioTrack {
                codec: short(stream.codec_name.as_deref().unwrap_or("unknown")),
                channels: stream.channels.unwrap_or(0),
                sample_rate_hz: stream
                    .sample_rate
                    .as_deref()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0),
            }),
        };
        Ok(Probe {
            info,
            timeline,
            video_index,
            audio_index: audio.map(|stream| stream.index),
            audio_end_us,
        })
    }
}

impl Tail {
    /// The entries of a packet that [`Tail::push`] reads, in ffprobe's order, as `-of csv=p=0` prints them.
    pub const ENTRIES: &'static str = "packet=pts_time,dts_time,duration_time";

    /// Takes in one packet's line. A packet without a presentation time (AVI) counts by its decoding time.
    pub fn push(&mut self, line: &str) {
        let mut fields = line.trim().split(',').map(parse_us);
        let (pts, dts) = (fields.next().flatten(), fields.next().flatten());
        let duration = fields.next().flatten().filter(|us| *us > 0);
        if let Some(start) = pts.or(dts) {
            self.last_start_us = self.last_start_us.max(Some(start));
            self.last_end_us = self
                .last_end_us
                .max(duration.and_then(|duration| start.checked_add(duration)));
        }
    }

    /// Whether no packet was seen.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.last_start_us.is_none()
    }

    /// The end of the last frame; a packet without a duration lasts one frame.
    fn end_us(self, rate: FrameRate) -> Option<i64> {
        let by_frame = self.last_start_us?.checked_add(rate.duration_us(1));
        self.last_end_us
            .max(by_frame.filter(|_| self.last_end_us <= self.last_start_us))
    }
}

impl Stream {
    /// Clockwise, in multiples of 90.
    fn rotation_degrees(&self) -> i32 {
        let matrix = self
            .side_data_list
            .iter()
            .find_map(|data| data.rotation)
            .map(|degrees| -degrees);
        let tag = self.tags.rotate.as_deref().and_then(|text| text.parse::<f64>().ok());
        let degrees = matrix.or(tag).filter(|degrees| degrees.abs() <= 3_600.0).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
        let quarter_turns = (degrees / 90.0).round() as i32;
        (quarter_turns * 90).rem_euclid(360)
    }

    fn sample_aspect(&self) -> (u32, u32) {
        let parsed = self.sample_aspect_ratio.as_deref().and_then(|text| {
            let (num, den) = text.split_once(':')?;
            Some((num.parse().ok()?, den.parse().ok()?))
        });
        parsed.unwrap_or((1, 1))
    }
}

/// Seconds as ffprobe writes them, as microseconds; `None` for `N/A` and for what no file means.
fn parse_us(text: &str) -> Option<i64> {
    let seconds: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the check")]
    let us = (seconds.abs() < 1e9).then(|| (seconds * 1e6).round() as i64);
    us
}

/// Names come from the tool, not from the file, but one bound costs nothing.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn video() -> Value {
        json!({"index": 0, "codec_type": "video", "codec_name": "h264", "width": 1920, "height": 1080,
            "pix_fmt": "yuv420p", "sample_aspect_ratio": "1:1", "r_frame_rate": "25/1", "avg_frame_rate": "25/1",
            "start_time": "0.000000", "duration": "10.000000"})
    }

    fn probe(streams: &Value, lines: &[&str]) -> Result<Probe, ProbeError> {
        let report = json!({"streams": streams, "format": {"format_name": "mov,mp4,m4a"}});
        let mut tail = Tail::default();
        for line in lines {
            tail.push(line);
        }
        Report::parse(report.to_string().as_bytes())?.into_probe(tail, Tail::default(), 1_000)
    }

    const WHOLE: &[&str] = &["9.960000,9.960000,0.040000"];

    #[test]
    fn the_last_packet_is_believed_before_declared_durations() {
        let lines = ["9.92,9.88,0.04", "11.96,9.92,0.04", "N/A,N/A,N/A", "11.92,9.96,", ""];
        let probe = probe(&json!([video()]), &lines).unwrap();
        assert_eq!(probe.timeline.frames, 300);
        assert!((probe.info.duration_seconds - 12.0).abs() < 1e-9);
    }

    #[test]
    fn packets_without_presentation_time_or_duration_count() {
        assert_eq!(
            probe(&json!([video()]), &["N/A,9.96,N/A"]).unwrap().timeline.frames,
            250
        );
    }

    #[test]
    fn a_file_that_ends_before_its_video_is_cut_off() {
        assert_eq!(probe(&json!([video()]), &[]).unwrap_err(), ProbeError::CutOff);
        assert_eq!(
            probe(&json!([video()]), &["6.0,6.0,0.04"]).unwrap_err(),
            ProbeError::CutOff
        );
        assert!(probe(&json!([video()]), &["9.2,9.2,0.04"]).is_ok());
    }

    #[test]
    fn phone_video_is_shown_upright() {
        let mut stream = video();
        stream["side_data_list"] = json!([{"side_data_type": "Display Matrix", "rotation": -90}]);
        let info = probe(&json!([stream]), WHOLE).unwrap().info;
        assert_eq!(
            (info.video.width_px, info.video.height_px, info.video.rotation_degrees),
            (1_080, 1_920, 90)
        );
    }

    #[test]
    fn cover_art_is_no_video_and_the_default_track_wins() {
        let mut cover = video();
        cover["disposition"] = json!({"attached_pic": 1});
        assert_eq!(probe(&json!([cover]), WHOLE).unwrap_err(), ProbeError::NoVideo);
        let sound = |index: u32, default: u8| {
            json!({"index": index, "codec_type": "audio", "codec_name": "aac", "channels": 2, "sample_rate": "44100",
                "start_time": "-0.5", "disposition": {"default": default}})
        };
        let probe = probe(&json!([video(), sound(1, 0), sound(2, 1)]), WHOLE).unwrap();
        assert_eq!(probe.audio_index, Some(2));
        assert_eq!(
            probe.timeline.frames, 263,
            "the grid begins with the sound, half a second before the picture"
        );
    }

    #[test]
    fn limits_have_their_own_errors() {
        let mut huge = video();
        huge["width"] = json!(65_000);
        assert_eq!(
            probe(&json!([huge]), WHOLE).unwrap_err().code(),
            FailureCode::LimitPixels
        );
        let many: Vec<_> = (0..=MAX_STREAMS).map(|_| video()).collect();
        assert_eq!(
            probe(&json!(many), WHOLE).unwrap_err().code(),
            FailureCode::LimitStreams
        );
        assert_eq!(
            probe(&json!([video()]), &["100000,100000,"]).unwrap_err().code(),
            FailureCode::LimitDuration
        );
        assert_eq!(
            Report::parse(b"not json").unwrap_err().code(),
            FailureCode::SourceCorrupt
        );
    }

    proptest! {
        #[test]
        fn any_report_is_answered(w in any::<u32>(), h in any::<u32>(), start in ".{0,12}", rate in ".{0,12}", turn in any::<f64>()) {
            let mut stream = video();
            stream["width"] = json!(w);
            stream["height"] = json!(h);
            stream["start_time"] = json!(start);
            stream["r_frame_rate"] = json!(rate);
            stream["side_data_list"] = json!([{"rotation": turn}]);
            let _ = probe(&json!([stream]), &[&start]);
        }
    }
}
