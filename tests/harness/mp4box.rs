//! A second reader of MP4: MP4Box.js of the GPAC project, which shares no code with ffmpeg.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::harness::Harness;
use crate::node;

/// The script and the list of its packages.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/mp4box");

/// What it found in a file.
#[derive(Debug, Deserialize)]
pub struct Movie {
    complaints: Vec<String>,
    /// In the file's order.
    pub tracks: Vec<Track>,
}

/// A track, by its tables and by what could be read of it.
#[derive(Debug, Deserialize)]
pub struct Track {
    /// As in the attribute CODECS of a playlist.
    pub codec: String,
    /// Samples that the tables name.
    pub samples: usize,
    /// Those that lie in the file.
    pub read_samples: usize,
    /// Their bytes.
    pub read_bytes: u64,
    /// Those that decoding can begin with.
    pub sync_samples: usize,
}

impl Harness {
    /// Reads a file to its last sample. A complaint is an error.
    pub async fn movie(&self, file: &Path) -> Result<Movie> {
        let tools = node::install(Path::new(SCRIPTS), &self.shared.target.join("tools/mp4box")).await?;
        let mut command = node::command("node");
        command.arg(Path::new(SCRIPTS).join("boxes.mjs")).arg(tools).arg(file);
        let output = node::run(command, "node", &[]).await?;
        let movie: Movie = serde_json::from_slice(&output.stdout).context("MP4Box.js")?;
        ensure!(movie.complaints.is_empty(), "{}: {movie:?}", file.display());
        Ok(movie)
    }
}
