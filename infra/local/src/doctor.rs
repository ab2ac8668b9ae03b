//! What this machine has and lacks, one line each.

use std::time::Instant;

use anyhow::{Result, bail};
use rustix::fs::statvfs;

use crate::deploy::with_emulator;
use crate::emulator::{Emulator, Identity};
use crate::process::{cargo, command, install_hint, last_lines, run};
use crate::stack;
use crate::terminal::{bytes, say};
use crate::tools::{Ffmpeg, Tools, Venv, check_python};
use crate::workspace::Workspace;

/// The venvs, a debug build, media in memory.
const WANTED_BYTES: u64 = 8_000_000_000;

/// Prints the lines; fails when something is missing.
pub(crate) async fn check(contract: bool) -> Result<()> {
    let workspace = Workspace::find().await?;
    let mut missing = 0;
    let mut line = |name: &str, result: Result<String>| {
        let (mark, text) = match result {
            Ok(text) => ("ok", text),
            Err(error) => {
                missing += 1;
                ("MISSING", last_lines(&format!("{error:#}"), 1))
            }
        };
        say(format!("{mark:<8}{name:<11}{text}"))
    };
    line("system", system())?;
    line("cargo", version_of(cargo().to_string_lossy().as_ref(), "cargo").await)?;
    line("cc", version_of("cc", "cc").await)?;
    line("bash", version_of("bash", "bash").await)?;
    line("python3", check_python().await)?;
    line("disk", disk(&workspace))?;
    line("ports", port())?;
    // These are made when they are needed, so their absence is nothing to repair.
    say(format!("{:<8}{:<11}{}", "info", "tools", tools(&workspace)))?;
    say(format!("{:<8}{:<11}{}", "info", "ffmpeg", ffmpeg(&workspace).await))?;
    say(format!("{:<8}{:<11}{}", "info", "stack", stack_state(&workspace)))?;
    if missing > 0 {
        bail!("{missing} of these must be installed first");
    }
    if contract {
        let began = Instant::now();
        say(check_contract(&workspace).await?.trim_end())?;
        say(format!(
            "the emulator behaves as assumed ({:.1} s)",
            began.elapsed().as_secs_f64()
        ))?;
    }
    Ok(())
}

fn system() -> Result<String> {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    if system != "linux" {
        bail!("{system}: the functions are Linux programs and run here as they are; use Linux or a virtual machine");
    }
    Ok(format!("{system} {machine}"))
}

async fn version_of(program: &str, name: &str) -> Result<String> {
    let mut ask = command(program);
    ask.arg("--version");
    match run(ask, name).await {
        Ok(answer) => Ok(String::from_utf8_lossy(&answer)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()),
        Err(_) => bail!("{}", install_hint(name).unwrap_or("install it")),
    }
}

fn disk(workspace: &Workspace) -> Result<String> {
    let place = if workspace.target.exists() {
        &workspace.target
    } else {
        &workspace.root
    };
    let space = statvfs(place)?;
    let free = space.f_bavail * space.f_frsize;
    if free < WANTED_BYTES {
        bail!(
            "{} free, {} are needed for a build: make room",
            bytes(free),
            bytes(WANTED_BYTES)
        );
    }
    Ok(format!("{} free", bytes(free)))
}

fn port() -> Result<String> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(format!(
        "loopback gives ports, such as {}",
        listener.local_addr()?.port()
    ))
}

fn tools(workspace: &Workspace) -> String {
    let states = ["emulator", "sam"].map(|name| {
        format!(
            "{name} {}",
            if Venv::is_current(workspace, name) {
                "ready"
            } else {
                "not installed yet"
            }
        )
    });
    states.join(", ")
}

async fn ffmpeg(workspace: &Workspace) -> String {
    match Ffmpeg::existing(workspace).await {
        Some(pair) => match pair.version().await {
            Ok(version) => format!("{version} in {}", pair.root().display()),
            Err(error) => format!("does not run: {error:#}"),
        },
        None => "not installed yet".to_owned(),
    }
}

fn stack_state(workspace: &Workspace) -> String {
    match (Identity::running(&workspace.local()), stack::running(workspace)) {
        (Some(identity), Some(_)) => format!("running at {} (process {})", identity.endpoint(), identity.pid()),
        (Some(_), None) => "starting".to_owned(),
        _ => "not running".to_owned(),
    }
}

/// Runs contract.py on an emulator of its own, and returns what it says.
async fn check_contract(workspace: &Workspace) -> Result<String> {
    let (tools, ffmpeg) = (Tools::ensure(workspace).await?, Ffmpeg::ensure(workspace).await?);
    let (state, _claim) = stack::own_folder(workspace)?;
    let (_emulator, identity) = Emulator::start(workspace, &state, &tools.emulator, &ffmpeg).await?;
    let mut check = with_emulator(command(tools.emulator.bin("python")), &identity.endpoint(), &state);
    check.arg(workspace.own("emulator/contract.py")).arg(&state);
    let written = run(check, "the check of the emulator").await?;
    Ok(String::from_utf8_lossy(&written).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when a new version of the emulator behaves in another way, and says which work-around can go.
    #[tokio::test]
    async fn the_emulator_behaves_as_assumed() {
        let workspace = Workspace::find().await.unwrap();
        if let Err(error) = check_contract(&workspace).await {
            panic!("{error:#}");
        }
    }
}
