//! What is deployed: the functions, the layer and the template that names them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{cargo, command, lock, run, run_shown};
use crate::terminal::note;
use crate::tools::{Ffmpeg, Tools, hash_files};
use crate::workspace::Workspace;

/// A finished build.
#[derive(Clone, Debug)]
pub struct Build {
    /// The template whose code paths are finished zips.
    pub template: PathBuf,
    /// Changes when a deployment would change the stack.
    pub fingerprint: String,
    /// Changes when a running emulator is no longer the one we would start.
    pub base: String,
    /// The Python tools.
    pub tools: Tools,
    /// What the functions find on their path.
    pub ffmpeg: Ffmpeg,
}

#[derive(Deserialize)]
struct Assembled {
    template: PathBuf,
    fingerprint: String,
}

impl Build {
    /// Makes the tools, compiles the functions and packs them for the stack of a state folder. What is current is not
    /// made again.
    pub(crate) async fn make(workspace: &Workspace, state: &Path) -> Result<Self> {
        let tools = async { tokio::try_join!(Tools::ensure(workspace), Ffmpeg::ensure(workspace)) };
        // Side by side: one waits for the network, the other for the compiler.
        let ((tools, ffmpeg), ()) = tokio::try_join!(tools, compile(workspace))?;

        let _lock = lock(&workspace.local().join("lock-cache"), "the cache of zips").await?;
        let mut assemble = command(tools.sam.bin("python"));
        assemble.arg(workspace.own("emulator/assemble.py"));
        assemble
            .arg(workspace.root.join("template.yaml"))
            .arg(workspace.target.join("debug"));
        assemble
            .arg(ffmpeg.root())
            .arg(workspace.cache())
            .arg(state.join("build"));
        let output = run(assemble, "packing the functions").await?;
        let assembled: Assembled = serde_json::from_slice(&output).context("assemble.py wrote something else")?;

        let settings = [
            workspace.root.join("samconfig.toml"),
            workspace.own("emulator/settle.py"),
        ];
        let emulator = [
            "requirements-emulator.txt",
            "emulator/serve.py",
            "emulator/guard.py",
            "emulator/repairs.py",
        ]
        .map(|name| workspace.own(name));
        Ok(Self {
            template: assembled.template,
            fingerprint: format!("{} {}", assembled.fingerprint, hash_files(&settings)?),
            base: format!("{} {}", hash_files(&emulator)?, ffmpeg.root().display()),
            tools,
            ffmpeg,
        })
    }
}

/// One cargo call for all binaries, so that one set of features is compiled: the one that `cargo test` compiles too.
async fn compile(workspace: &Workspace) -> Result<()> {
    note("build: cargo build");
    let mut build = command(cargo());
    build
        .current_dir(&workspace.root)
        .args(["build", "--workspace", "--bins"]);
    let status = run_shown(build, "cargo build").await?;
    if !status.success() {
        bail!("cargo build failed ({status})");
    }
    Ok(())
}
