//! A function under the Lambda Runtime Interface Emulator: the program that stands for Lambda in AWS' own images, as
//! the SAM CLI brings it. It runs the binary as Lambda would, without the emulator of everything else in between.
//!
//! It takes one call at a time and breaks on a second, so each call gets one of its own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::harness::Harness;
use crate::{SHORT_LIMIT, eventually, worker};

/// A function that waits for its one call.
#[derive(Debug)]
pub struct Rie {
    process: Child,
    url: String,
}

/// Where the process of a function is found, while somebody waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct RieHandle(i32);

impl Rie {
    /// For what happens to the function during its call.
    pub fn handle(&self) -> Result<RieHandle> {
        let pid = self.process.id().context("the emulator has ended")?;
        Ok(RieHandle(i32::try_from(pid)?))
    }
}

impl RieHandle {
    /// Kills the function's process, as a lost machine would. It is there from the first call on.
    pub fn kill_function(self) -> Result<()> {
        let function = worker::child(self.0).context("the function has not been started")?;
        Ok(kill_process(Pid::from_raw(function).context("no pid")?, Signal::KILL)?)
    }
}

impl Harness {
    /// Runs a function, by its crate's name, on one event, with the environment of the deployed one.
    pub async fn run_under_rie(&self, function: &str, event: &Value) -> Result<Value> {
        self.run_under_rie_with(function, event, &[]).await
    }

    /// As [`run_under_rie`](Self::run_under_rie), with other values of some variables.
    pub async fn run_under_rie_with(&self, function: &str, event: &Value, variables: &[(&str, &str)]) -> Result<Value> {
        let rie = self.rie(function, variables).await?;
        self.call(rie, event).await
    }

    /// Starts a function, with some variables of its environment set otherwise.
    pub async fn rie(&self, function: &str, variables: &[(&str, &str)]) -> Result<Rie> {
        let binary = self.shared.target.join("debug").join(function);
        let [front, back] = free_addresses()?;
        let mut emulator = command(&rie(&self.shared.target)?);
        emulator
            .args([
                "--runtime-interface-emulator-address",
                &front,
                "--runtime-api-address",
                &back,
            ])
            .arg(&binary);
        emulator.env_clear().envs(self.rie_environment(function).await?);
        emulator.envs(variables.iter().copied());
        let mut process = emulator.spawn().context("the runtime interface emulator")?;
        // It listens a moment after its start; nothing reaches the function before.
        eventually("the runtime interface emulator", SHORT_LIMIT, async || {
            if let Some(status) = process.try_wait()? {
                bail!("the runtime interface emulator ended: {status}");
            }
            Ok(tokio::net::TcpStream::connect(&front).await.ok())
        })
        .await?;
        let url = format!("http://{front}/2015-03-31/functions/function/invocations");
        Ok(Rie { process, url })
    }

    /// Makes the one call and ends the function.
    pub async fn call(&self, mut rie: Rie, event: &Value) -> Result<Value> {
        let answer = self.send(self.request(Method::POST, &rie.url).json(event), 200).await?;
        rie.process.kill().await?;
        let value: Value = answer.json()?;
        if value.get("errorType").is_some() {
            bail!("the function failed: {value}");
        }
        Ok(value)
    }

    async fn rie_environment(&self, function: &str) -> Result<BTreeMap<String, String>> {
        let name = format!("{}_FUNCTION", function.to_uppercase());
        let mut environment = self.function_environment(&name).await?;
        // On Lambda the layer is on the path; here it is wherever the stack has it.
        let tools = Path::new(self.name("FFMPEG")?).parent().context("no folder")?;
        let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
        set("PATH", &format!("{}:/usr/bin:/bin", tools.display()));
        set("AWS_LAMBDA_FUNCTION_NAME", self.name(&name)?);
        set("AWS_LAMBDA_FUNCTION_TIMEOUT", "60");
        set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512");
        for name in [
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        ] {
            set(name, self.name(name)?);
        }
        Ok(environment)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the tests' own tool; the function in it has its own cage"
)]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Two loopback addresses that nobody listens on.
fn free_addresses() -> Result<[String; 2]> {
    // Both are held until both are known, else they could be the same.
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [front, back] = listeners.map(|listener| listener.local_addr());
    Ok([front?.to_string(), back?.to_string()])
}

/// The emulator in the SAM CLI's venv; the folder in between has the Python version in its name.
fn rie(target: &Path) -> Result<PathBuf> {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "x86_64"
    };
    let inside = format!("site-packages/samcli/local/rapid/aws-lambda-rie-{architecture}");
    let venv = target.join("tools/sam/lib");
    let versions = std::fs::read_dir(&venv).with_context(|| venv.display().to_string())?;
    let mut candidates = versions.flatten().map(|version| version.path().join(&inside));
    candidates
        .find(|path| path.is_file())
        .with_context(|| format!("no {inside} in {}", venv.display()))
}
