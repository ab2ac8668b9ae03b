//! The stacks of a test run: one for all journeys, and a second one for those that reach limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use reelay_local::stack::Stack;
use reelay_local::tools::Ffmpeg;
use reelay_local::workspace::Workspace;
use tokio::sync::OnceCell;

/// Names a file with the lines of `cargo local env`. When it is set, no stack is started: the one it tells of is used.
const ATTACH: &str = "REELAY_E2E_ENV_FILE";
/// The stack's folder in the target folder.
const NAME: &str = "local-e2e";

/// The second stack's folder.
const STRICT: &str = "local-e2e-strict";
/// Limits of the second stack, low enough to be reached. The window is as long as two hundred requests may take.
const STRICT_SETTINGS: [&str; 6] = [
    "RateWindowSeconds=30",
    "SignInLimit=60",
    "WriteLimit=100",
    "AddressFreeFailures=5",
    "MaxJobsInFlight=7",
    "MaxStoredBytes=1000000",
];

/// How to reach the stack, and what is beside it on this machine.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) target: PathBuf,
    /// A pair that can also make media out of nothing, which the functions' own need not.
    pub(crate) ffmpeg: PathBuf,
    pub(crate) ffprobe: PathBuf,
    /// Ends with this process: the emulator follows the pipe that this holds, so a crash of the tests ends it too.
    _stack: Option<Stack>,
}

/// A failed start is kept as well: without it every test would try again.
static SHARED: OnceCell<Result<Shared, String>> = OnceCell::const_new();

/// The stack, started by whoever asks first.
pub(crate) async fn shared() -> Result<&'static Shared> {
    let shared = SHARED
        .get_or_init(async || start().await.map_err(|error| format!("{error:#}")))
        .await;
    shared.as_ref().map_err(|error| anyhow!("there is no stack: {error}"))
}

/// As [`SHARED`], for the second stack. It is never one that runs already.
static SECOND: OnceCell<Result<Shared, String>> = OnceCell::const_new();

/// The second stack.
pub(crate) async fn strict() -> Result<&'static Shared> {
    let start = async || {
        let stack = reelay_local::stack::ensure_up_with(STRICT, &STRICT_SETTINGS).await?;
        beside(variables(&stack), Some(stack)).await
    };
    let second = SECOND
        .get_or_init(async || start().await.map_err(|error: anyhow::Error| format!("{error:#}")))
        .await;
    second
        .as_ref()
        .map_err(|error| anyhow!("there is no second stack: {error}"))
}

#[expect(clippy::disallowed_methods, reason = "this is the configuration of the tests")]
fn attached() -> Option<String> {
    std::env::var(ATTACH).ok().filter(|path| !path.is_empty())
}

/// Another stack, which ends with this process as well.
pub(crate) async fn apart(name: &str) -> Result<&'static Shared> {
    // Names of a stack are shared as 'static; this one is as long-lived as the process.
    own(name).await.map(|shared| &*Box::leak(Box::new(shared)))
}

async fn start() -> Result<Shared> {
    let Some(path) = attached() else {
        return own(NAME).await;
    };
    let lines = std::fs::read_to_string(&path).with_context(|| format!("{ATTACH}: cannot read {path}"))?;
    beside(read_lines(&lines)?, None).await
}

async fn own(name: &str) -> Result<Shared> {
    let stack = reelay_local::stack::ensure_up(name).await?;
    beside(variables(&stack), Some(stack)).await
}

fn variables(stack: &Stack) -> BTreeMap<String, String> {
    let pairs = stack.environment().iter();
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn beside(environment: BTreeMap<String, String>, stack: Option<Stack>) -> Result<Shared> {
    let workspace = Workspace::find().await?;
    let media = Ffmpeg::prebuilt(&workspace).await?;
    Ok(Shared {
        environment,
        target: workspace.target,
        ffmpeg: media.bin("ffmpeg"),
        ffprobe: media.bin("ffprobe"),
        _stack: stack,
    })
}

/// Reads `NAME=value` lines, with values as a shell would quote them.
fn read_lines(text: &str) -> Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let Some((name, value)) = line.split_once('=') else {
            bail!("{ATTACH}: {line:?} is no NAME=value line");
        };
        let quoted = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        pairs.insert(name.to_owned(), quoted.unwrap_or(value).replace(r"'\''", "'"));
    }
    Ok(pairs)
}
