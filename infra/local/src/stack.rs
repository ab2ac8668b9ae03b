//! A stack: a build, deployed onto an emulator with a state folder.
//!
//! `up` keeps one in the background. A demo, a command or a test run has its own, which ends with it:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let stack = reelay_local::stack::ensure_up("local-test").await?;
//! println!("{}", stack.environment().get("API_URL")?);
//! # Ok(())
//! # }
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::build::Build;
use crate::deploy::deploy;
use crate::emulator::{self, Emulator, Identity};
use crate::environment::Environment;
use crate::process::{lock, try_lock};
use crate::terminal::note;
use crate::with::Setting;
use crate::workspace::Workspace;

/// What is deployed on a running emulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    base: String,
    fingerprint: String,
    environment: Environment,
}

impl Record {
    fn read(state: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state.join("stack.json")).ok()?).ok()
    }

    fn write(&self, state: &Path) -> Result<()> {
        let part = state.join("stack.json.part");
        fs::write(&part, serde_json::to_vec_pretty(self)?).context("cannot write stack.json")?;
        fs::rename(part, state.join("stack.json")).context("cannot write stack.json")
    }

    fn is_current(&self, build: &Build) -> bool {
        self.base == build.base && self.fingerprint == build.fingerprint
    }
}

/// A stack of our own. It ends with this value, or with this process.
#[derive(Debug)]
pub struct Stack {
    environment: Environment,
    // Fields are dropped in this order: the emulator first, then the claim on its folder.
    emulator: Emulator,
    state: PathBuf,
    _lock: File,
}

impl Stack {
    /// How to reach it.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The folder with the emulator's log.
    pub fn state(&self) -> &Path {
        &self.state
    }
}

/// Builds what has changed and starts an empty stack that ends with the returned value. `name` is its folder in the
/// cargo target folder; a second caller with the same name waits for the first one's stack to end.
pub async fn ensure_up(name: &str) -> Result<Stack> {
    ensure_up_with(name, &[]).await
}

/// As [`ensure_up`], with other parameters than samconfig.toml has, each as `NAME=VALUE`.
pub async fn ensure_up_with(name: &str, settings: &[&str]) -> Result<Stack> {
    let parse = |text: &&str| text.parse::<Setting>().map_err(|problem| anyhow!("{text:?} {problem}"));
    let settings = settings.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let workspace = Workspace::find().await?;
    let state = workspace.target.join(name);
    let claim = lock(&state.join("lock"), &state.display().to_string()).await?;
    let build = Build::make(&workspace, &state).await?;
    start_with(&workspace, &build, state, claim, &settings).await
}

/// `ensure_up` for callers that are not async, or are in a runtime that ends before the stack shall.
pub fn ensure_up_blocking(name: &str) -> Result<Stack> {
    let name = name.to_owned();
    let starter = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(ensure_up(&name))
    });
    starter.join().map_err(|_| anyhow!("the stack could not be started"))?
}

pub(crate) async fn start(workspace: &Workspace, build: &Build, state: PathBuf, claim: File) -> Result<Stack> {
    start_with(workspace, build, state, claim, &[]).await
}

/// `start` for a stack with other parameters than samconfig.toml has.
pub(crate) async fn start_with(
    workspace: &Workspace,
    build: &Build,
    state: PathBuf,
    claim: File,
    settings: &[Setting],
) -> Result<Stack> {
    note("stack: starting the emulator");
    let began = Instant::now();
    let _ = fs::remove_file(state.join("stack.json"));
    let (emulator, identity) = Emulator::start(workspace, &state, &build.tools.emulator, &build.ffmpeg).await?;
    let environment = deploy_onto(workspace, build, &identity, &state, settings).await?;
    note(format!("stack: ready after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(Stack {
        environment,
        emulator,
        state,
        _lock: claim,
    })
}

async fn deploy_onto(
    workspace: &Workspace,
    build: &Build,
    identity: &Identity,
    state: &Path,
    settings: &[Setting],
) -> Result<Environment> {
    note("stack: sam deploy");
    let environment = deploy(workspace, build, &identity.endpoint(), state, settings).await?;
    let record = Record {
        base: build.base.clone(),
        fingerprint: build.fingerprint.clone(),
        environment: environment.clone(),
    };
    record.write(state)?;
    Ok(environment)
}

/// Starts the background stack, or brings the running one up to date.
pub(crate) async fn up(workspace: &Workspace) -> Result<Environment> {
    let state = workspace.local();
    let claim = lock(&state.join("lock"), "the stack").await?;
    let build = Build::make(workspace, &state).await?;
    if let Some(identity) = Identity::running(&state)
        && let Some(record) = Record::read(&state)
        && record.base == build.base
    {
        if record.is_current(&build) {
            note("stack: running and up to date");
            return Ok(record.environment);
        }
        return deploy_onto(workspace, &build, &identity, &state, &[]).await;
    }
    let stack = start(workspace, &build, state, claim).await?;
    let environment = stack.environment.clone();
    stack.emulator.let_go()?;
    Ok(environment)
}

/// Ends the background stack. Returns whether there was one.
pub(crate) async fn down(workspace: &Workspace) -> Result<bool> {
    let state = workspace.local();
    let _claim = lock(&state.join("lock"), "the stack").await?;
    let was_running = emulator::stop(&state);
    let _ = fs::remove_file(state.join("stack.json"));
    Ok(was_running)
}

/// The background stack, if it runs.
pub(crate) fn running(workspace: &Workspace) -> Option<Environment> {
    let state = workspace.local();
    Identity::running(&state)?;
    Record::read(&state).map(|record| record.environment)
}

/// The background stack, if it runs this build.
pub(crate) fn running_current(workspace: &Workspace, build: &Build) -> Option<Environment> {
    let state = workspace.local();
    Identity::running(&state)?;
    Record::read(&state)
        .filter(|record| record.is_current(build))
        .map(|record| record.environment)
}

/// A new folder for a stack of one run. Folders of runs that were killed are removed.
pub(crate) fn own_folder(workspace: &Workspace) -> Result<(PathBuf, File)> {
    let runs = workspace.local().join("runs");
    fs::create_dir_all(&runs).with_context(|| format!("cannot make {}", runs.display()))?;
    for entry in fs::read_dir(&runs).into_iter().flatten().flatten() {
        // A lock that can be taken has no owner any more.
        if let Ok(Some(_claim)) = try_lock(&entry.path().join("lock")) {
            emulator::stop(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    for number in 1_u32.. {
        let state = runs.join(number.to_string());
        if let Some(claim) = try_lock(&state.join("lock"))? {
            return Ok((state, claim));
        }
    }
    Err(anyhow!("no free folder in {}", runs.display()))
}
