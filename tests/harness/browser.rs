//! A real browser: Chromium, driven by `tests/browser/play.mjs`, which plays a job's outputs and tells what was seen, and
//! by `upload.mjs`, which uploads sources with Uppy.
//!
//! Chromium and Node.js are the machine's own. The packages that the scripts need are installed once into the
//! target folder, as `package-lock.json` pins them; none of them may run code while it is installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::Harness;
use crate::node;

/// The script, its page and the list of its packages.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser");
/// Names another Chromium than Debian's.
const CHROMIUM: &str = "CHROMIUM";
const DEBIANS_CHROMIUM: &str = "/usr/bin/chromium";
/// A web app's origin that the stack allows: the default of the template's parameter `AllowedOrigins`.
const ORIGIN: &str = "http://localhost:3000";
/// All that is to be played takes far less.
const PLAY_LIMIT: Duration = Duration::from_secs(100);
/// Two files of 60 MB on a busy machine.
const UPLOAD_LIMIT: Duration = Duration::from_mins(4);

/// A browser of this machine.
#[derive(Debug)]
pub struct Browser {
    chromium: PathBuf,
    tools: PathBuf,
    /// Chromium's profile; goes with the test.
    scratch: TempDir,
}

/// What the browser is to do. All videos show the same frames.
#[derive(Clone, Debug, Serialize)]
pub struct Wish {
    /// The API's base, whose requests get the token.
    pub api_url: String,
    /// The bearer token.
    pub token: String,
    /// A multivariant playlist.
    pub hls_url: String,
    /// Files to play.
    pub files: Vec<FileUrl>,
    /// Where to look which frame is shown. Each must show another frame than the one before.
    pub looks_seconds: Vec<f64>,
    /// Where to play across.
    pub seams_seconds: Vec<f64>,
}

/// A file to play.
#[derive(Clone, Debug, Serialize)]
pub struct FileUrl {
    /// What to call it.
    pub name: String,
    /// Where it is.
    pub url: String,
}

/// What was seen.
#[derive(Clone, Debug, Deserialize)]
pub struct Played {
    /// Chromium's version.
    pub browser: String,
    /// By hls.js.
    pub hls: PlayedHls,
    /// Without it.
    pub files: Vec<PlayedFile>,
    /// All that the page was answered.
    pub answers: Vec<PageAnswer>,
}

/// What hls.js made of the playlists.
#[derive(Clone, Debug, Deserialize)]
pub struct PlayedHls {
    /// In its own order: by bit rate.
    pub levels: Vec<PlayedLevel>,
    /// How many tracks of sound can be chosen.
    pub audio_tracks: usize,
    /// Everything that it complained about.
    pub errors: Vec<HlsError>,
    /// What the browser complained about.
    pub video_error: Option<String>,
}

/// A complaint of hls.js.
#[derive(Clone, Debug, Deserialize)]
pub struct HlsError {
    /// Such as `mediaError`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// Such as `bufferStalledError`.
    pub details: String,
    /// Whether it gave up.
    pub fatal: bool,
    /// More words.
    pub reason: Option<String>,
}

/// A rung as hls.js read it, and how it played.
#[derive(Clone, Debug, Deserialize)]
pub struct PlayedLevel {
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// The attribute CODECS.
    pub codecs: String,
    /// The attribute RESOLUTION.
    pub resolution: String,
    /// What was seen.
    pub watched: Watched,
}

/// How a file played.
#[derive(Clone, Debug, Deserialize)]
pub struct PlayedFile {
    /// As in the wish.
    pub name: String,
    /// What was seen.
    pub watched: Watched,
    /// What the browser complained about.
    pub video_error: Option<String>,
}

/// What was seen of one video.
#[derive(Clone, Debug, Deserialize)]
pub struct Watched {
    /// Width of the decoded picture.
    pub width_px: u32,
    /// Its height.
    pub height_px: u32,
    /// How long it plays.
    pub duration_seconds: f64,
    /// The frame at each look.
    pub looked: Vec<Shown>,
    /// One for each seam.
    pub crossings: Vec<Crossing>,
    /// How much sound was decoded.
    pub audio_decoded_bytes: u64,
    /// The buffered ranges in seconds, of an HLS level only.
    pub buffered: Option<Buffered>,
}

/// Begin and end of each buffered range, in seconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Buffered {
    /// Of the picture.
    pub video: Vec<(f64, f64)>,
    /// Of the sound.
    pub audio: Vec<(f64, f64)>,
}

/// A frame that was shown: its time stamp in seconds, and its number if that could be read.
pub type Shown = (f64, Option<u32>);

/// Playback from before a seam to behind it.
#[derive(Clone, Debug, Deserialize)]
pub struct Crossing {
    /// Where the seam is.
    pub seam_seconds: f64,
    /// For how long sound or picture stood still, at most.
    pub stalled_ms: f64,
    /// How often the browser had to wait for media.
    pub waits: u32,
    /// The frames that were shown; a busy machine leaves some out.
    pub frames: Vec<Shown>,
}

/// An answer that the page got.
#[derive(Clone, Debug, Deserialize)]
pub struct PageAnswer {
    /// What it asked for, without the query.
    pub url: String,
    /// The status.
    pub status: u16,
    /// Whether it showed a token.
    pub authorized: bool,
}

impl Browser {
    /// Looks for Chromium, and installs what drives it unless that was done before.
    pub async fn open(harness: &Harness) -> Result<Self> {
        let chromium = chromium();
        ensure!(
            chromium.is_file(),
            "Chromium is missing ({}): install it (Debian: apt-get install chromium), or name yours in {CHROMIUM}",
            chromium.display()
        );
        Ok(Self {
            chromium,
            tools: node::install(Path::new(SCRIPTS), &harness.shared.target.join("tools/browser")).await?,
            scratch: tempfile::Builder::new().prefix("reelay-browser-").tempdir()?,
        })
    }

    /// Plays everything. What the script cannot do at all is an error; what is wrong with the media is in the answer.
    pub async fn play(&self, wish: &Wish) -> Result<Played> {
        self.drive("play.mjs", serde_json::to_value(wish)?, PLAY_LIMIT).await
    }

    /// Uploads files with Uppy; see the script for what it is asked and what it tells.
    pub async fn upload(&self, wish: Value) -> Result<Value> {
        self.drive("upload.mjs", wish, UPLOAD_LIMIT).await
    }

    async fn drive<T: DeserializeOwned>(&self, script: &str, mut asked: Value, limit: Duration) -> Result<T> {
        asked["origin"] = ORIGIN.into();
        let mut node = node::command("node");
        node.arg(Path::new(SCRIPTS).join(script))
            .args([&self.tools, &self.chromium])
            .env("TMPDIR", self.scratch.path());
        let asked = serde_json::to_vec(&asked)?;
        let driving = node::run(node, "node", &asked);
        let output = tokio::time::timeout(limit, driving)
            .await
            .with_context(|| format!("the browser: not within {} s", limit.as_secs()))??;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the browser told {}", String::from_utf8_lossy(&output.stdout)))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the configuration of the tests")]
fn chromium() -> PathBuf {
    std::env::var(CHROMIUM).map_or_else(|_| DEBIANS_CHROMIUM.into(), PathBuf::from)
}
