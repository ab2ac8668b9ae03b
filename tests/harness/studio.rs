//! Media: made out of nothing by ffmpeg, and looked at by ffprobe.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::barcode::Painter;
use crate::harness::Harness;

/// A folder of media that goes with the test.
#[derive(Debug)]
pub struct Studio {
    folder: TempDir,
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
}

/// A clip with moving content.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// How long it plays.
    pub seconds: u32,
    /// Width and height.
    pub size: (u32, u32),
    /// Frames a second.
    pub rate: u32,
    /// Whether there is sound.
    pub sound: bool,
    /// How it is encoded, as ffmpeg's arguments.
    pub encoding: &'a [&'a str],
}

/// H.264 and AAC, fast rather than small.
pub const MP4: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "50",
    "-c:a",
    "aac",
    "-b:a",
    "96k",
    "-f",
    "mp4",
];
/// The same with the index before the media.
pub const MP4_FASTSTART: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "50",
    "-c:a",
    "aac",
    "-b:a",
    "96k",
    "-f",
    "mp4",
    "-movflags",
    "+faststart",
];
/// VP9 and Opus.
pub const WEBM: &[&str] = &[
    "-c:v",
    "libvpx-vp9",
    "-deadline",
    "realtime",
    "-cpu-used",
    "8",
    "-b:v",
    "600k",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "libopus",
    "-f",
    "webm",
];

impl Default for Clip<'_> {
    fn default() -> Self {
        Self {
            seconds: 4,
            size: (640, 360),
            rate: 25,
            sound: true,
            encoding: MP4,
        }
    }
}

impl Studio {
    /// An empty one.
    pub fn open(harness: &Harness) -> Result<Self> {
        Ok(Self {
            folder: tempfile::Builder::new().prefix("reelay-e2e-").tempdir()?,
            ffmpeg: harness.shared.ffmpeg.clone(),
            ffprobe: harness.shared.ffprobe.clone(),
        })
    }

    /// A file's place in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a clip.
    pub async fn clip(&self, name: &str, clip: &Clip<'_>) -> Result<PathBuf> {
        let (width, height) = clip.size;
        let Clip { seconds, rate, .. } = clip;
        let picture = format!("testsrc2=size={width}x{height}:rate={rate}:duration={seconds}");
        let sound = format!("sine=frequency=330:beep_factor=4:sample_rate=48000:duration={seconds}");
        let mut arguments = vec!["-f", "lavfi", "-i", &picture];
        if clip.sound {
            arguments.extend(["-f", "lavfi", "-i", &sound]);
        }
        arguments.extend(clip.encoding);
        self.make(name, &arguments).await
    }

    /// Runs ffmpeg with arguments of the caller's.
    pub async fn make(&self, name: &str, arguments: &[&str]) -> Result<PathBuf> {
        let path = self.path(name);
        let mut words: Vec<&OsStr> = ["-nostdin", "-loglevel", "error", "-y"].map(OsStr::new).into();
        words.extend(arguments.iter().map(OsStr::new));
        words.push(path.as_os_str());
        self.ffmpeg(&words).await?;
        Ok(path)
    }

    /// Runs ffmpeg.
    pub(crate) async fn ffmpeg(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
        run(&self.ffmpeg, arguments, None).await
    }

    /// Runs ffmpeg with painted pictures as its standard input.
    pub(crate) async fn encode(
        &self,
        arguments: &[impl AsRef<OsStr>],
        painter: Painter,
        numbers: Range<u32>,
    ) -> Result<Output> {
        run(&self.ffmpeg, arguments, Some((painter, numbers))).await
    }

    /// Runs ffprobe.
    pub(crate) async fn ffprobe(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
        run(&self.ffprobe, arguments, None).await
    }

    /// Stores bytes as a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Decodes the whole of a file and tells about its streams; a file that does not decode is an error.
    pub async fn look(&self, path: &Path) -> Result<Look> {
        let mut arguments = words("-v error -count_frames -show_format -show_streams -of json");
        arguments.push(path.into());
        let output = self.ffprobe(&arguments).await?;
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(complaints.trim().is_empty(), "{}: {complaints}", path.display());
        Ok(Look(serde_json::from_slice(&output.stdout)?))
    }

    /// Tells about a file's streams without decoding it.
    pub async fn glance(&self, path: &Path) -> Result<Look> {
        let mut arguments = words("-v error -show_format -show_streams -of json");
        arguments.push(path.into());
        Ok(Look(serde_json::from_slice(&self.ffprobe(&arguments).await?.stdout)?))
    }

    /// Decodes the whole of a file as strictly as ffmpeg can; anything that it has to say is an error.
    pub async fn decode_strictly(&self, path: &Path) -> Result<()> {
        let mut arguments = words("-v error -xerror -err_detect explode -i");
        arguments.push(path.into());
        arguments.extend(words("-f null -"));
        let complaints = self.ffmpeg(&arguments).await?.stderr;
        let complaints = String::from_utf8_lossy(&complaints);
        ensure!(complaints.trim().is_empty(), "{}: {complaints}", path.display());
        Ok(())
    }

    /// As [`look`](Self::look), for bytes.
    pub async fn look_at(&self, name: &str, bytes: &[u8]) -> Result<Look> {
        self.look(&self.write(name, bytes)?).await
    }
}

/// Arguments that hold no blanks.
pub(crate) fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// Arguments that open an input. A playlist in a file may name URLs.
pub(crate) fn input_words(input: &OsStr) -> Vec<OsString> {
    let mut arguments = words("-protocol_whitelist file,http,tcp,crypto,data -i");
    arguments.push(input.to_owned());
    arguments
}

/// Runs a program; with pictures, it gets them by its standard input.
#[expect(
    clippy::disallowed_methods,
    reason = "these are the tests' own tools, on the tests' own files"
)]
async fn run(
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    pictures: Option<(Painter, Range<u32>)>,
) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.stdin(if pictures.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    if let (Some((mut painter, numbers)), Some(stdin)) = (pictures, child.stdin.take()) {
        painter.feed(numbers, stdin).await?;
    }
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "{} {:?}: {}",
        program.display(),
        arguments.iter().map(AsRef::as_ref).collect::<Vec<&OsStr>>(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// What ffprobe says of a file.
#[derive(Debug)]
pub struct Look(Value);

impl Look {
    /// The one stream of a type; more than one is an error, none is `None`.
    fn stream(&self, codec_type: &str) -> Result<Option<&Value>> {
        let streams = self.0["streams"].as_array().context("no streams")?;
        let mut found = streams.iter().filter(|stream| stream["codec_type"] == codec_type);
        let first = found.next();
        ensure!(found.next().is_none(), "more than one {codec_type} stream");
        Ok(first)
    }

    /// The first stream of a type, however many there are.
    pub fn first(&self, codec_type: &str) -> Option<&Value> {
        let mut streams = self.0["streams"].as_array()?.iter();
        streams.find(|stream| stream["codec_type"] == codec_type)
    }

    /// The picture.
    pub fn video(&self) -> Result<&Value> {
        self.stream("video")?.context("no video stream")
    }

    /// The sound.
    pub fn audio(&self) -> Result<Option<&Value>> {
        self.stream("audio")
    }

    /// Width and height of the picture.
    pub fn size(&self) -> Result<(u64, u64)> {
        let video = self.video()?;
        Ok((
            video["width"].as_u64().context("no width")?,
            video["height"].as_u64().context("no height")?,
        ))
    }

    /// Frames that were decoded.
    pub fn frames(&self) -> Result<u64> {
        let frames = self.video()?["nb_read_frames"].as_str().context("no frames")?;
        Ok(frames.parse()?)
    }

    /// How long the file plays.
    pub fn duration_seconds(&self) -> Result<f64> {
        let duration = self.0["format"]["duration"].as_str().context("no duration")?;
        Ok(duration.parse()?)
    }
}

/// The boxes of an MP4 file, outermost only: where each begins, and its type.
pub fn boxes(bytes: &[u8]) -> Result<Vec<(usize, String)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let head: [u8; 8] = bytes.get(at..at + 8).context("a box ends too early")?.try_into()?;
        let [a, b, c, d, kind @ ..] = head;
        let length = match u32::from_be_bytes([a, b, c, d]) {
            0 => bytes.len() - at,
            1 => {
                let long: [u8; 8] = bytes.get(at + 8..at + 16).context("a box ends too early")?.try_into()?;
                usize::try_from(u64::from_be_bytes(long))?
            }
            short => usize::try_from(short)?,
        };
        ensure!(length >= 8, "a box of {length} bytes");
        found.push((at, String::from_utf8_lossy(&kind).into_owned()));
        at += length;
    }
    ensure!(at == bytes.len(), "the last box is cut off");
    Ok(found)
}

/// Where the first box of a type begins.
pub fn box_at(bytes: &[u8], kind: &str) -> Result<usize> {
    let boxes = boxes(bytes)?;
    let found = boxes.iter().find(|(_, name)| name == kind);
    found
        .map(|(at, _)| *at)
        .with_context(|| format!("no {kind} in {boxes:?}"))
}

/// Brings an MP4 file to a length, by a box at its end that players skip.
pub fn padded(mut mp4: Vec<u8>, length: usize) -> Result<Vec<u8>> {
    let missing = length.checked_sub(mp4.len()).context("the file is longer already")?;
    ensure!(missing >= 8, "a box has at least 8 bytes");
    mp4.extend(u32::try_from(missing)?.to_be_bytes());
    mp4.extend(b"free");
    mp4.resize(length, 0);
    Ok(mp4)
}
