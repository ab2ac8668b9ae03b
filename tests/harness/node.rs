//! Node.js with pinned packages. They are installed once into the target folder, as `package-lock.json` pins them; none of
//! them may run code while it is installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::account::sha256;

/// What the packages are made from.
const LISTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs the packages, as another test or run may do at the same time. The folder belongs to the hash of its lists,
/// which is written into it last: a changed pin, or a run that was cut off, makes it anew.
pub async fn install(scripts: &Path, folder: &Path) -> Result<PathBuf> {
    let folder = folder.to_owned();
    let lock = folder.with_extension("lock");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = tokio::task::spawn_blocking(move || {
        let file = File::create(lock)?;
        file.lock()?;
        std::io::Result::Ok(file)
    })
    .await??;
    let mut lists = Vec::new();
    for name in LISTS {
        lists.push(fs::read(scripts.join(name))?);
    }
    let wanted = lists.iter().map(|list| sha256(list)).collect::<String>();
    let marker = folder.join("made-from");
    if fs::read_to_string(&marker).is_ok_and(|made_from| made_from == wanted) {
        return Ok(folder);
    }
    let _ = fs::remove_file(&marker);
    for (name, list) in LISTS.iter().zip(&lists) {
        fs::write(folder.join(name), list)?;
    }
    let mut npm = command("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder);
    run(npm, "npm", &[]).await?;
    fs::write(marker, wanted)?;
    drop(lock);
    Ok(folder)
}

/// A program of the tests' own.
#[expect(clippy::disallowed_methods, reason = "these are the tests' own tools")]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

/// Runs a program that gets some input.
pub async fn run(mut command: Command, program: &str, input: &[u8]) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| {
        format!("cannot run {program}: install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm)")
    })?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    // A program that reads none of it tells why by itself.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!(
            "{program}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output)
}
