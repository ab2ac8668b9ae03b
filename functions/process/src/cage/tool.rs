//! The two tools, found once, and the arguments that every call of them begins with.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use reelay_core::domain::probe::{MAX_PIXELS, MAX_STREAMS};

use crate::range::PATIENCE;

/// Demuxers that read one file and open nothing else. Playlists, concatenations, devices and network sessions are not
/// among them.
const DEMUXERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,mxf";
/// Protocols for files that are read, and for all that is written.
const PROTOCOLS: &str = "file,pipe";
/// Protocols for what is read of the range server; files are not among them.
const URL_PROTOCOLS: &str = "http,tcp";
/// How long a tool waits for the range server, in microseconds: longer than the server for what it reads, so that the
/// server says first what was wrong.
const URL_TIMEOUT_US: u128 = PATIENCE.as_micros() + 30_000_000;
/// What the kernel may take in of a response before the tool wants it. Else the kernel decides, up to tens of MB, which
/// a seek throws away.
const URL_BUFFER_BYTES: u32 = 64 << 10;

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
    let mut args = bounds(PROTOCOLS);
    args.extend(["-i".into(), format!("file:{}", path.display())]);
    args
}

/// The same for a URL of the range server.
///
/// Nothing is tried again: the server has tried enough, and it breaks off for good. There is no redirect to follow and
/// no tag of a radio station to ask for. Every seek is a connection of its own, since what is under way on the old one
/// cannot be taken back.
pub(crate) fn input_url(url: &str) -> Vec<String> {
    let mut args = bounds(URL_PROTOCOLS);
    args.extend(["-rw_timeout".into(), URL_TIMEOUT_US.to_string()]);
    args.extend(["-recv_buffer_size".into(), URL_BUFFER_BYTES.to_string()]);
    args.extend(
        [
            "-seekable",
            "1",
            "-multiple_requests",
            "0",
            "-reconnect",
            "0",
            "-icy",
            "0",
        ]
        .map(Into::into),
    );
    args.extend(["-i".into(), url.into()]);
    args
}

fn bounds(protocols: &str) -> Vec<String> {
    let mut args: Vec<String> = ["-protocol_whitelist", protocols, "-format_whitelist", DEMUXERS]
        .map(Into::into)
        .into();
    args.extend(["-max_streams".into(), MAX_STREAMS.to_string()]);
    args.extend(["-max_pixels".into(), MAX_PIXELS.to_string()]);
    args
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_that_opens_further_files_is_allowed() {
        for forbidden in ["hls", "dash", "concat", "sdp", "rtsp", "rtp", "image2", "tty", "lavfi"] {
            assert!(!DEMUXERS.split(',').any(|name| name == forbidden), "{forbidden}");
        }
    }

    /// The value of an option, which stands before the input that it is for.
    fn option(args: &[String], name: &str) -> Vec<String> {
        let at = args.iter().position(|arg| arg == name).unwrap();
        assert!(at < args.iter().position(|arg| arg == "-i").unwrap(), "{name}");
        assert_eq!(args.iter().filter(|arg| *arg == name).count(), 1, "{name}");
        args[at + 1].split(',').map(Into::into).collect()
    }

    #[test]
    fn a_file_leads_to_no_network_and_a_url_to_no_file() {
        let file = input(Path::new("/scratch/http:source"));
        assert_eq!(option(&file, "-protocol_whitelist"), ["file", "pipe"]);
        assert_eq!(file[file.len() - 2..], ["-i", "file:/scratch/http:source"]);

        let url = input_url("http://127.0.0.1:4000/x/source");
        assert_eq!(option(&url, "-protocol_whitelist"), ["http", "tcp"]);
        assert_eq!(url[url.len() - 2..], ["-i", "http://127.0.0.1:4000/x/source"]);

        for name in ["-format_whitelist", "-max_streams", "-max_pixels"] {
            assert_eq!(option(&file, name), option(&url, name), "{name}");
        }
    }

    #[test]
    fn the_range_server_gives_up_before_its_client() {
        let url = input_url("http://127.0.0.1:4000/x/source");
        let timeout = Duration::from_micros(option(&url, "-rw_timeout")[0].parse().unwrap());
        assert!(timeout >= PATIENCE + Duration::from_secs(15));
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
