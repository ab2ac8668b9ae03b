//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::{self, cargo};

/// The checkout and its target folder.
#[derive(Clone, Debug, Deserialize)]
pub struct Workspace {
    /// The folder with template.yaml.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    /// Where cargo builds: a person may have moved it, so cargo is asked.
    #[serde(rename = "target_directory")]
    pub target: PathBuf,
}

impl Workspace {
    /// Finds the workspace of the current folder.
    pub async fn find() -> Result<Self> {
        let mut command = process::command(cargo());
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = process::run(command, "cargo metadata").await?;
        serde_json::from_slice(&output).context("cargo metadata wrote something else than expected")
    }

    /// What `cargo local up` keeps.
    pub fn local(&self) -> PathBuf {
        self.target.join("local")
    }

    /// Zips of the functions and the layer, which all stacks take from.
    pub fn cache(&self) -> PathBuf {
        self.local().join("cache")
    }

    /// Tools that are made once.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A file of this crate.
    pub fn own(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join("infra/local").join(path)
    }
}
