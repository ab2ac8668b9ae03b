//! Sources in the shapes that real recordings have.

use std::ffi::OsString;
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::barcode::Painter;
use crate::beeps::{Sound, beeps_at};
use crate::studio::{Studio, words};

/// A source made here.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The frames' numbers in the order in which they are shown.
    pub numbers: Vec<u16>,
    /// Frames a second, as a fraction: frame n shows what happened n / rate seconds after the recording began.
    pub rate: (u32, u32),
    /// The numbers of the shown frames with which a beep begins that can be heard.
    pub beeps: Vec<u32>,
}

/// The shapes that real recordings have. All but the first differ from it in what their name says; the picture is H.264
/// with B-frames, the sound AAC in stereo at 48 kHz and both are in an MP4 file, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recording {
    /// 30 frames a second, index at the end.
    Constant,
    /// 30000/1001 frames a second.
    Ntsc,
    /// Every seventh frame is missing, every fifth is 6 ms late, and for 3 s around second 8 (then 24, 40, ...) nothing
    /// new is shown.
    Variable,
    /// Open groups of pictures, with B-frames that refer to each other.
    OpenGop,
    /// H.265.
    Hevc,
    /// Cut without encoding between two key frames: an edit list hides the first 51 frames.
    EditList,
    /// A telephone's: stored lying, shown upright by its display matrix.
    Rotated,
    /// No sound.
    Silent,
    /// Sound in 5.1.
    Surround,
    /// Sound at 44.1 kHz, without noise that the decoder makes up: what it makes up depends on where it began.
    Sound44100,
    /// Three tracks of sound; only the first has beeps.
    SeveralTracks,
    /// Sound that goes on for 3 s after the picture.
    SoundLonger,
    /// Sound that ends 4 s before the picture.
    SoundShorter,
    /// Sound that begins half a second after the picture.
    SoundLate,
    /// A picture that begins half a second after the sound, with frame 15.
    PictureLate,
    /// MPEG-TS, which begins at 1.4 s.
    MpegTs,
    /// Matroska that begins at 5 s.
    MatroskaLate,
    /// MPEG-4 Part 2 and MP3 in AVI.
    Avi,
    /// Flash video, sound at 44.1 kHz.
    Flv,
    /// Windows Media Video and Audio.
    Wmv,
    /// Fragmented MP4 without an index.
    Fragmented,
    /// The index first.
    IndexFirst,
    /// VP9 and Opus, in `WebM`.
    Webm,
    /// `QuickTime` with uncompressed sound.
    QuickTime,
}

impl Recording {
    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        FILES.iter().map(|(recording, _)| *recording)
    }

    fn file(self) -> Option<&'static str> {
        FILES
            .iter()
            .find(|(recording, _)| *recording == self)
            .map(|(_, file)| *file)
    }

    /// Whether a frame is in the source at all. The filter of `VARIABLE` says the same.
    fn keeps(self, number: u32) -> bool {
        let missing = number % 7 == 3 && !number.is_multiple_of(30);
        self != Self::Variable || !(missing || (196..285).contains(&(number % 480)))
    }
}

const FILES: [(Recording, &str); 24] = [
    (Recording::Constant, "constant.mp4"),
    (Recording::Ntsc, "ntsc.mp4"),
    (Recording::Variable, "variable.mp4"),
    (Recording::OpenGop, "open-gop.mp4"),
    (Recording::Hevc, "hevc.mp4"),
    (Recording::EditList, "edit-list.mp4"),
    (Recording::Rotated, "rotated.mp4"),
    (Recording::Silent, "silent.mp4"),
    (Recording::Surround, "surround.mp4"),
    (Recording::Sound44100, "sound-44100.mp4"),
    (Recording::SeveralTracks, "several-tracks.mp4"),
    (Recording::SoundLonger, "sound-longer.mp4"),
    (Recording::SoundShorter, "sound-shorter.mp4"),
    (Recording::SoundLate, "sound-late.mp4"),
    (Recording::PictureLate, "picture-late.mp4"),
    (Recording::MpegTs, "broadcast.ts"),
    (Recording::MatroskaLate, "late.mkv"),
    (Recording::Avi, "old.avi"),
    (Recording::Flv, "flash.flv"),
    (Recording::Wmv, "windows.wmv"),
    (Recording::Fragmented, "fragmented.mp4"),
    (Recording::IndexFirst, "index-first.mp4"),
    (Recording::Webm, "web.webm"),
    (Recording::QuickTime, "camera.mov"),
];

/// How a source is made: painted and encoded, then perhaps written anew without encoding. Arguments are ffmpeg's.
#[derive(Debug)]
struct Recipe {
    rate: (u32, u32),
    painted: Range<u32>,
    /// The first frame that is shown.
    shown_from: u32,
    tracks: Vec<Sound>,
    picture: &'static str,
    sound: &'static str,
    container: &'static str,
    /// What the second run has before its input.
    rewrite: Option<&'static str>,
}

const H264: &str = "-c:v libx264 -preset ultrafast -crf 24 -bf 2";
const OPEN_GOP: &str = "-c:v libx264 -preset superfast -crf 24 \
                        -x264-params open-gop=1:keyint=75:min-keyint=30:bframes=4:b-pyramid=2:ref=3";
const HEVC: &str = "-c:v libx265 -preset ultrafast -crf 26 -tag:v hvc1 -x265-params log-level=error";
/// Stamps are moved before frames are dropped, so that both go by the frames' numbers. Without a duration, the last
/// frame would lie behind the end of the edit list.
const VARIABLE: &str = "-vf settb=1/90000,setpts='PTS+540*eq(mod(N,5),1)',\
                        select='not(eq(mod(n,7),3)*gt(mod(n,30),0)+between(mod(n,480),196,284))' \
                        -enc_time_base 1/90000 -video_track_timescale 90000 -bsf:v setts=pts=PTS:dts=DTS:duration=3000 \
                        -c:v libx264 -preset ultrafast -crf 24 -bf 2 -g 300";
const VP9: &str = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 2M";
const LANGUAGES: &str = "-metadata:s:a:0 language=eng -metadata:s:a:1 language=fra -metadata:s:a:2 language=deu \
                         -disposition:a:0 default";
const FRAGMENTED: &str = "-movflags +frag_keyframe+empty_moov+default_base_moof";

impl Recipe {
    fn new(recording: Recording, seconds: u32) -> Self {
        let rate = if recording == Recording::Ntsc {
            (30_000, 1001)
        } else {
            (30, 1)
        };
        let frames = seconds * rate.0 / rate.1;
        let sound = Sound {
            frame_rate: rate,
            sample_rate_hz: 48_000,
            channels: 2,
            frames: (0, frames),
            beeps_until: frames,
        };
        let mut recipe = Self {
            rate,
            painted: 0..frames,
            shown_from: 0,
            tracks: vec![sound],
            picture: H264,
            sound: "-c:a aac -b:a 128k",
            container: "",
            rewrite: None,
        };
        recipe.adapt(recording, sound);
        recipe
    }

    /// Changes what a recording has of its own.
    fn adapt(&mut self, recording: Recording, sound: Sound) {
        let frames = sound.frames.1;
        let begins_late = 15;
        match recording {
            Recording::Constant | Recording::Ntsc | Recording::MpegTs => {}
            Recording::Variable => self.picture = VARIABLE,
            Recording::OpenGop => self.picture = OPEN_GOP,
            Recording::Hevc => self.picture = HEVC,
            Recording::EditList => (self.shown_from, self.rewrite) = (51, Some("-ss 1.7")),
            Recording::Rotated => self.rewrite = Some("-display_rotation -90"),
            Recording::Silent => self.tracks.clear(),
            Recording::Surround => {
                self.tracks[0].channels = 6;
                self.sound = "-c:a aac -b:a 384k";
            }
            Recording::Sound44100 => {
                self.tracks[0].sample_rate_hz = 44_100;
                self.sound = "-c:a aac -b:a 128k -aac_pns 0";
            }
            Recording::Flv => self.tracks[0].sample_rate_hz = 44_100,
            Recording::SeveralTracks => {
                self.tracks.extend(
                    [Sound {
                        beeps_until: 0,
                        ..sound
                    }; 2],
                );
                self.container = LANGUAGES;
            }
            Recording::SoundLonger => self.tracks[0].frames.1 = frames + 90,
            Recording::SoundShorter => self.tracks[0].frames.1 = frames - 120,
            Recording::SoundLate => self.tracks[0].frames.0 = begins_late,
            Recording::PictureLate => (self.painted.start, self.shown_from) = (begins_late, begins_late),
            Recording::MatroskaLate => self.container = "-output_ts_offset 5",
            Recording::Avi => {
                self.picture = "-c:v mpeg4 -q:v 5 -bf 2 -g 250";
                self.sound = "-c:a libmp3lame -b:a 128k";
            }
            Recording::Wmv => (self.picture, self.sound) = ("-c:v wmv2 -q:v 5", "-c:a wmav2 -b:a 128k"),
            Recording::Fragmented => self.container = FRAGMENTED,
            Recording::IndexFirst => self.container = "-movflags +faststart",
            Recording::Webm => (self.picture, self.sound) = (VP9, "-c:a libopus -b:a 96k"),
            Recording::QuickTime => self.sound = "-c:a pcm_s16le",
        }
    }

    /// What has come of it.
    fn source(&self, path: PathBuf, recording: Recording) -> Result<Source> {
        let shown = (self.shown_from..self.painted.end).filter(|&number| recording.keeps(number));
        let heard = self.tracks.first().map_or(0..0, |track| track.frames.0..track.frames.1);
        Ok(Source {
            path,
            numbers: shown.clone().map(u16::try_from).collect::<Result<_, _>>()?,
            rate: self.rate,
            beeps: shown
                .filter(|number| beeps_at(*number) && heard.contains(number))
                .collect(),
        })
    }

    /// ffmpeg's arguments for an input that begins with a frame.
    fn begin(&self, number: u32) -> String {
        let (frames, seconds) = self.rate;
        let offset = f64::from(number) * f64::from(seconds) / f64::from(frames);
        format!("-itsoffset {offset:.6}")
    }

    /// The arguments of the first run: pictures come by the standard input, sounds from files.
    fn arguments(&self, (width, height): (u32, u32), sounds: &[PathBuf]) -> Vec<OsString> {
        let (frames, seconds) = self.rate;
        let mut arguments = words(&format!(
            "-loglevel error -y -f rawvideo -pix_fmt yuv420p -video_size {width}x{height} \
             -framerate {frames}/{seconds} {} -i pipe:0",
            self.begin(self.painted.start)
        ));
        for (track, path) in self.tracks.iter().zip(sounds) {
            let layout = if track.channels == 6 { "5.1" } else { "stereo" };
            let (rate, begin) = (track.sample_rate_hz, self.begin(track.frames.0));
            arguments.extend(words(&format!("-f s16le -ar {rate} -ch_layout {layout} {begin} -i")));
            arguments.push(path.into());
        }
        for input in 0..=sounds.len() {
            arguments.extend(words(&format!("-map {input}")));
        }
        for part in [
            "-fps_mode passthrough -pix_fmt yuv420p",
            self.picture,
            self.sound,
            self.container,
        ] {
            arguments.extend(words(part));
        }
        arguments
    }
}

impl Studio {
    /// Makes a source of 640 by 360 pixels.
    pub async fn source(&self, recording: Recording, seconds: u32) -> Result<Source> {
        self.source_of_size(recording, seconds, (640, 360)).await
    }

    /// Makes a source of at least 6 s with any size of 16:9 (as it is stored) whose width is a multiple of 80.
    pub async fn source_of_size(&self, recording: Recording, seconds: u32, size: (u32, u32)) -> Result<Source> {
        ensure!(seconds >= 6, "{recording:?} needs 6 s");
        let recipe = Recipe::new(recording, seconds);
        let file = recording.file().context("a recording without a file")?;
        let path = self.path(&format!("{seconds}s-{}p-{file}", size.1));
        let first = self.path(&format!("first-{file}"));
        let painter = Painter::new(
            (size.0.try_into()?, size.1.try_into()?),
            recording == Recording::Rotated,
        )?;
        self.record(&recipe, painter, &first, size).await?;
        if let Some(before) = recipe.rewrite {
            let mut arguments = words(&format!("-loglevel error -y {before} -i"));
            arguments.push(first.clone().into());
            arguments.extend(words("-map 0 -c copy"));
            arguments.push(path.clone().into());
            self.ffmpeg(&arguments).await?;
            std::fs::remove_file(first)?;
        } else {
            std::fs::rename(first, &path)?;
        }
        recipe.source(path, recording)
    }

    async fn record(&self, recipe: &Recipe, painter: Painter, path: &Path, size: (u32, u32)) -> Result<()> {
        let sounds = (0..recipe.tracks.len()).map(|index| path.with_extension(format!("{index}.pcm")));
        let sounds: Vec<PathBuf> = sounds.collect();
        for (track, sound) in recipe.tracks.iter().zip(&sounds) {
            track.write(BufWriter::new(File::create(sound)?))?;
        }
        let mut arguments = recipe.arguments(size, &sounds);
        arguments.push(path.into());
        self.encode(&arguments, painter, recipe.painted.clone()).await?;
        Ok(sounds.iter().try_for_each(std::fs::remove_file)?)
    }
}
