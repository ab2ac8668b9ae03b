//! The file that a demo processes: checked before anything is started, or made.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::Refusal;
use crate::process::{command, run};
use crate::terminal::{note, printable};
use crate::tools::Ffmpeg;
use crate::workspace::Workspace;

/// Extensions that are a video to the API. What is in the file decides later; this is only what is declared.
const CONTENT_TYPES: [(&str, &str); 14] = [
    ("3gp", "video/3gpp"),
    ("avi", "video/x-msvideo"),
    ("flv", "video/x-flv"),
    ("m2ts", "video/mp2t"),
    ("m4v", "video/x-m4v"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("ogv", "video/ogg"),
    ("ts", "video/mp2t"),
    ("webm", "video/webm"),
    ("wmv", "video/x-ms-wmv"),
];

/// A file that can be read and is not empty.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// The last part of the path: nobody else needs to know where it was.
    pub(super) name: String,
    pub(super) size_bytes: u64,
}

impl Source {
    /// Checks a file of the caller's.
    pub(super) fn check(path: &Path) -> Result<Self, Refusal> {
        let shown = printable(&path.to_string_lossy());
        let refuse = |reason: &str| Refusal(format!("{shown}: {reason}"));
        let explain = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => refuse("there is no such file"),
            ErrorKind::PermissionDenied => refuse("you may not read this file"),
            _ => refuse(&format!("cannot be read: {error}")),
        };
        // Opening a pipe would wait for its other end, so the kind comes first.
        let metadata = fs::metadata(path).map_err(explain)?;
        if metadata.is_dir() {
            return Err(refuse("this is a directory; name one file"));
        }
        if !metadata.is_file() {
            return Err(refuse("this is not a regular file"));
        }
        File::open(path).map_err(explain)?;
        if metadata.len() == 0 {
            return Err(refuse("the file is empty"));
        }
        let name = path
            .file_name()
            .map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            path: path.to_owned(),
            name,
            size_bytes: metadata.len(),
        })
    }

    /// A clip of 20 s with movement, detail and sound. It is made once.
    pub(super) async fn make(workspace: &Workspace) -> Result<Self> {
        let path = workspace.local().join("reelay demo.mp4");
        if let Ok(source) = Self::check(&path) {
            return Ok(source);
        }
        note("demo: making a clip of 20 s");
        let ffmpeg = Ffmpeg::prebuilt(workspace)
            .await
            .context("no FILE was given, and a clip cannot be made")?;
        fs::create_dir_all(workspace.local()).context("cannot make a folder")?;
        let part = tempfile::Builder::new()
            .suffix(".part.mp4")
            .tempfile_in(workspace.local())?
            .into_temp_path();
        let mut make = command(ffmpeg.bin("ffmpeg"));
        make.args(["-nostdin", "-loglevel", "error", "-y"]);
        make.args(["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=20"]);
        make.args([
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=330:beep_factor=4:sample_rate=48000:duration=20",
        ]);
        // Fast rather than small: this is a source.
        make.args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-crf",
            "20",
            "-pix_fmt",
            "yuv420p",
        ]);
        make.args(["-c:a", "aac", "-b:a", "128k", "-shortest"]).arg(&*part);
        run(make, "making a clip").await?;
        part.persist(&path).context("cannot keep the clip")?;
        Ok(Self::check(&path)?)
    }

    /// The type to declare, if the name tells one. The content decides in any case.
    pub(super) fn content_type(&self) -> Option<&'static str> {
        let extension = Path::new(&self.name)
            .extension()?
            .to_string_lossy()
            .to_ascii_lowercase();
        CONTENT_TYPES
            .iter()
            .find(|(known, _)| *known == extension)
            .map(|(_, content_type)| *content_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        Source::check(path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_file_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        assert!(refusal(&folder.path().join("none.mp4")).ends_with("there is no such file"));
        assert!(refusal(folder.path()).ends_with("this is a directory; name one file"));
        fs::write(folder.path().join("empty.mp4"), "").unwrap();
        assert!(refusal(&folder.path().join("empty.mp4")).ends_with("the file is empty"));
        assert!(refusal(Path::new("/dev/null")).ends_with("this is not a regular file"));
    }

    #[test]
    fn the_name_is_the_last_part_of_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's \"my\" vidéo ☃.MOV");
        fs::write(&path, "x").unwrap();
        let source = Source::check(&path).unwrap();
        assert_eq!(source.name, "it's \"my\" vidéo ☃.MOV");
        assert_eq!(source.content_type(), Some("video/quicktime"));
        assert_eq!(source.size_bytes, 1);
    }
}
