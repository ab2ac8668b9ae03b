//! The tools that are made once: two Python venvs, and ffmpeg.
//!
//! Every Python package is pinned and checked by hash (`requirements-*.txt`). A venv belongs to the hash of its list,
//! which is written into it last: a changed pin, or a run that was cut off, makes it anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::environment::Environment;
use crate::process::{command, install_hint, lock, run};
use crate::terminal::note;
use crate::workspace::Workspace;

/// The Python tools.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The emulator's venv: the emulator, boto3.
    pub emulator: Venv,
    /// The SAM CLI's venv.
    pub sam: Venv,
}

impl Tools {
    /// Makes what is not there yet.
    pub async fn ensure(workspace: &Workspace) -> Result<Self> {
        let _lock = lock(&workspace.tools().join("lock"), "the tools").await?;
        Ok(Self {
            emulator: Venv::ensure(workspace, "emulator").await?,
            sam: Venv::ensure(workspace, "sam").await?,
        })
    }
}

impl Tools {
    /// Where the tools are. `SAM_PATH` holds what `sam build` looks for on the path.
    pub(crate) fn environment(&self, ffmpeg: &Ffmpeg) -> Environment {
        let mut environment = Environment::default();
        environment.set("EMULATOR_PYTHON", self.emulator.bin("python").to_string_lossy());
        environment.set("SAM", self.sam.bin("sam").to_string_lossy());
        environment.set("SAM_PATH", self.sam.0.join("bin").to_string_lossy());
        environment.set("FFMPEG", ffmpeg.bin("ffmpeg").to_string_lossy());
        environment.set("FFPROBE", ffmpeg.bin("ffprobe").to_string_lossy());
        environment
    }
}

/// A folder of Python packages.
#[derive(Clone, Debug)]
pub struct Venv(PathBuf);

impl Venv {
    fn new(workspace: &Workspace, name: &str) -> Self {
        Self(workspace.tools().join(name))
    }

    /// A program of the venv.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// Whether the venv is whole and made from the current list.
    pub(crate) fn is_current(workspace: &Workspace, name: &str) -> bool {
        let written = fs::read_to_string(Self::new(workspace, name).marker());
        written.is_ok_and(|hash| requirements_hash(workspace, name).is_ok_and(|wanted| wanted == hash))
    }

    fn marker(&self) -> PathBuf {
        self.0.join("made-from")
    }

    async fn ensure(workspace: &Workspace, name: &str) -> Result<Self> {
        let venv = Self::new(workspace, name);
        if Self::is_current(workspace, name) {
            return Ok(venv);
        }
        check_python().await?;
        note(format!("tools: installing the {name} packages (once)"));
        let began = Instant::now();
        // The marker goes first: from here on the venv is not whole.
        let _ = fs::remove_file(venv.marker());
        let mut make = command("python3");
        make.args(["-m", "venv", "--clear"]).arg(&venv.0);
        run(make, "python3 -m venv").await?;
        let mut install = command(venv.bin("python"));
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--no-compile",
        ]);
        // Wheels only: no package may run code of its own while it is installed.
        install.args([
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
        ]);
        install.arg(requirements(workspace, name));
        run(install, "pip install").await?;
        fs::write(venv.marker(), requirements_hash(workspace, name)?)
            .with_context(|| format!("cannot write into {}", venv.0.display()))?;
        note(format!("tools: {name} ready in {} s", began.elapsed().as_secs()));
        Ok(venv)
    }
}

fn requirements(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.own(format!("requirements-{name}.txt"))
}

fn requirements_hash(workspace: &Workspace, name: &str) -> Result<String> {
    hash_files(&[requirements(workspace, name)])
}

/// One hash over the contents of files.
pub(crate) fn hash_files(paths: &[PathBuf]) -> Result<String> {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    for path in paths {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        digest.update((content.len() as u64).to_be_bytes());
        digest.update(content);
    }
    Ok(hex(&digest.finalize()))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Refuses a Python that cannot make a venv, with what to install.
pub(crate) async fn check_python() -> Result<String> {
    let mut ask = command("python3");
    ask.args([
        "-c",
        "import sys; print('.'.join(map(str, sys.version_info[:3])), sys.version_info >= (3, 11))",
    ]);
    let answer = String::from_utf8_lossy(&run(ask, "python3").await?).trim().to_owned();
    let hint = install_hint("python3").unwrap_or_default();
    let Some((version, "True")) = answer.split_once(' ') else {
        bail!("python3 is too old ({answer}): {hint}");
    };
    let mut ask = command("python3");
    ask.args(["-c", "import ensurepip, venv"]);
    if run(ask, "python3").await.is_err() {
        bail!("python3 has no venv module: {hint}");
    }
    Ok(version.to_owned())
}

/// A folder with `bin/ffmpeg` and `bin/ffprobe`.
#[derive(Clone, Debug)]
pub struct Ffmpeg(PathBuf);

impl Ffmpeg {
    /// The pair that the functions run: the own build if there is one, else a prebuilt pair.
    pub async fn ensure(workspace: &Workspace) -> Result<Self> {
        match Self::own_build(workspace).await {
            Some(pair) => Ok(pair),
            None => Self::prebuilt(workspace).await,
        }
    }

    /// The pair that `ensure` would return, if it is there already.
    pub(crate) async fn existing(workspace: &Workspace) -> Option<Self> {
        let prebuilt = Self(workspace.tools().join("ffmpeg"));
        Self::own_build(workspace)
            .await
            .or_else(|| prebuilt.bin("ffmpeg").is_file().then_some(prebuilt))
    }

    async fn own_build(workspace: &Workspace) -> Option<Self> {
        let mut ask = command("bash");
        ask.arg(workspace.root.join("layers/ffmpeg/build.sh")).args([
            "--print-cached",
            "--arch",
            lambda_architecture(),
        ]);
        let answer = run(ask, "layers/ffmpeg/build.sh").await.ok()?;
        let pair = Self(PathBuf::from(String::from_utf8_lossy(&answer).trim()));
        pair.bin("ffmpeg").is_file().then_some(pair)
    }

    /// A pair that can also make media out of nothing; the own build is too strict for that.
    pub async fn prebuilt(workspace: &Workspace) -> Result<Self> {
        let _lock = lock(&workspace.tools().join("lock-ffmpeg"), "the tools").await?;
        let root = workspace.tools().join("ffmpeg");
        let mut place = command("bash");
        place
            .arg(workspace.root.join("layers/ffmpeg/prebuilt.sh"))
            .arg("--out")
            .arg(&root);
        run(place, "layers/ffmpeg/prebuilt.sh").await?;
        Ok(Self(root))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// One of the two programs.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// What `ffmpeg -version` says first.
    pub(crate) async fn version(&self) -> Result<String> {
        let mut ask = command(self.bin("ffmpeg"));
        ask.arg("-version");
        let answer = run(ask, "ffmpeg").await?;
        let text = String::from_utf8_lossy(&answer);
        Ok(text.split_ascii_whitespace().nth(2).unwrap_or("unknown").to_owned())
    }
}

/// This machine's processor as Lambda calls it.
fn lambda_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_bytes_between_files_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&a, "12").unwrap();
        fs::write(&b, "3").unwrap();
        let before = hash_files(&[a.clone(), b.clone()]).unwrap();
        fs::write(&a, "1").unwrap();
        fs::write(&b, "23").unwrap();
        assert_ne!(before, hash_files(&[a, b]).unwrap());
    }

    #[test]
    fn a_venv_without_its_marker_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace {
            root: folder.path().to_owned(),
            target: folder.path().join("target"),
        };
        fs::create_dir_all(folder.path().join("infra/local")).unwrap();
        fs::write(requirements(&workspace, "emulator"), "package==1").unwrap();
        assert!(!Venv::is_current(&workspace, "emulator"));
        let venv = Venv::new(&workspace, "emulator");
        fs::create_dir_all(&venv.0).unwrap();
        fs::write(venv.marker(), requirements_hash(&workspace, "emulator").unwrap()).unwrap();
        assert!(Venv::is_current(&workspace, "emulator"));
        fs::write(requirements(&workspace, "emulator"), "package==2").unwrap();
        assert!(!Venv::is_current(&workspace, "emulator"));
    }
}
