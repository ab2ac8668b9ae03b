//! The two tools, found once, and the arguments that every call of them begins with.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use reelay_core::domain::probe::{MAX_PIXELS, MAX_STREAMS};

/// Demuxers that read one file and open nothing else. Playlists, concatenations, devices and network sessions are not
/// among them.
const DEMUXERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,mxf";
/// Protocols for input and output.
const PROTOCOLS: &str = "file,pipe";

/// A tool of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Ffmpeg,
    Ffprobe,
}

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ffmpeg => "ffmpeg",
            Self::Ffprobe => "ffprobe",
        }
    }
}

/// Where the tools are.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
}

/// A tool is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not on the PATH: the function needs the ffmpeg layer")]
pub(crate) struct ToolMissing(&'static str);

impl FromStr for Tools {
    type Err = ToolMissing;

    /// Finds the tools in a search path; Lambda's has a layer's `/opt/bin`.
    fn from_str(search_path: &str) -> Result<Self, ToolMissing> {
        let find = |tool: Tool| {
            let folders = search_path.split(':').filter(|folder| folder.starts_with('/'));
            let mut candidates = folders.map(|folder| Path::new(folder).join(tool.name()));
            candidates.find(|path| path.is_file()).ok_or(ToolMissing(tool.name()))
        };
        Ok(Self {
            ffmpeg: find(Tool::Ffmpeg)?,
            ffprobe: find(Tool::Ffprobe)?,
        })
    }
}

impl Tools {
    pub(super) fn path(&self, tool: Tool) -> &Path {
        match tool {
            Tool::Ffmpeg => &self.ffmpeg,
            Tool::Ffprobe => &self.ffprobe,
        }
    }
}

/// The arguments that open a file of ours as the input, under the allow-lists and the bounds of a hostile source.
pub(crate) fn input(path: &Path) -> Vec<String> {
    let mut args: Vec<String> = ["-protocol_whitelist", PROTOCOLS, "-format_whitelist", DEMUXERS]
        .map(Into::into)
        .into();
    args.extend(["-max_streams".into(), MAX_STREAMS.to_string()]);
    args.extend(["-max_pixels".into(), MAX_PIXELS.to_string()]);
    args.extend(["-i".into(), format!("file:{}", path.display())]);
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_opens_further_files_is_allowed() {
        for forbidden in ["hls", "dash", "concat", "sdp", "rtsp", "rtp", "image2", "tty", "lavfi"] {
            assert!(!DEMUXERS.split(',').any(|name| name == forbidden), "{forbidden}");
        }
        assert!(!PROTOCOLS.contains("http"));
    }

    #[test]
    fn a_missing_tool_is_named() {
        assert!(
            "relative:/nonexistent"
                .parse::<Tools>()
                .unwrap_err()
                .to_string()
                .contains("ffmpeg")
        );
    }
}
