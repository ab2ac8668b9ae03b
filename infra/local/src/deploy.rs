//! The template onto the emulator, by the real SAM CLI.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::build::Build;
use crate::environment::Environment;
use crate::process::{command, run};
use crate::with::Setting;
use crate::workspace::Workspace;

/// The stack's name, as `samconfig.toml` has it for the environment `local`.
const STACK_NAME: &str = "reelay";
const REGION: &str = "us-east-1";

/// Deploys what has changed, sets what the emulator dropped, and returns how to reach the stack.
pub(crate) async fn deploy(
    workspace: &Workspace,
    build: &Build,
    endpoint: &str,
    state: &Path,
    settings: &[Setting],
) -> Result<Environment> {
    let template = workspace.root.join("template.yaml");
    let samconfig = workspace.root.join("samconfig.toml");
    let mut sam = with_emulator(command(build.tools.sam.bin("sam")), endpoint, state);
    sam.arg("deploy").arg("--template-file").arg(&build.template);
    sam.arg("--config-file").arg(&samconfig).args(["--config-env", "local"]);
    sam.args([
        "--stack-name",
        STACK_NAME,
        "--region",
        REGION,
        "--no-confirm-changeset",
        "--no-progressbar",
    ]);
    if !settings.is_empty() {
        let mut merge = command(build.tools.emulator.bin("python"));
        merge.env("PYTHONPYCACHEPREFIX", workspace.tools().join("pycache"));
        merge.arg(workspace.own("emulator/parameters.py"));
        merge.arg(&template).arg(&samconfig);
        merge.args(settings.iter().map(Setting::as_str));
        let written = run(merge, "reading the parameters").await?;
        let all: Vec<String> = serde_json::from_slice(&written).context("parameters.py wrote something else")?;
        sam.arg("--parameter-overrides").args(all);
    }
    // The emulator is done at once; the default asks every five seconds.
    sam.env("SAM_CLI_POLL_DELAY", "0.2")
        .env("SAM_CLI_TELEMETRY", "0")
        .env("__SAM_CLI_APP_DIR", state.join("sam"));
    let written = run(sam, "sam deploy").await?;
    std::fs::write(state.join("deploy.log"), written).context("cannot write deploy.log")?;

    let mut settle = with_emulator(command(build.tools.emulator.bin("python")), endpoint, state);
    settle.arg(workspace.own("emulator/settle.py")).arg(&template);
    settle.arg(STACK_NAME).arg(state.join("allowed-origins"));
    let written = run(settle, "settling the stack").await?;
    let mut environment: Environment = serde_json::from_slice(&written).context("settle.py wrote something else")?;
    environment.set("FFMPEG", build.ffmpeg.bin("ffmpeg").to_string_lossy());
    environment.set("FFPROBE", build.ffmpeg.bin("ffprobe").to_string_lossy());
    Ok(environment)
}

/// A command that can reach the emulator and nothing of a person's own AWS account.
pub(crate) fn with_emulator(mut command: Command, endpoint: &str, state: &Path) -> Command {
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", state)
        .env("LANG", "C.UTF-8");
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", REGION)
        .env("AWS_DEFAULT_REGION", REGION);
    // The emulator knows no other key, and takes any secret with it.
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test");
    command
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}
