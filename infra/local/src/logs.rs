//! What the functions logged, from the emulator's CloudWatch Logs.

use anyhow::{Result, bail};

use crate::deploy::with_emulator;
use crate::process::{command, run_shown};
use crate::stack;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Shows the log of one function or of all, and goes on with it if asked.
pub(crate) async fn show(workspace: &Workspace, function: Option<&str>, follow: bool) -> Result<()> {
    let Some(environment) = stack::running(workspace) else {
        bail!("no stack is running; start one with `cargo local up`");
    };
    let tools = Tools::ensure(workspace).await?;
    let endpoint = environment.get("AWS_ENDPOINT_URL")?;
    let mut show = with_emulator(command(tools.emulator.bin("python")), endpoint, &workspace.local());
    show.arg(workspace.own("emulator/logs.py"))
        .arg(environment.get("STACK_NAME")?);
    show.args(function).args(follow.then_some("--follow"));
    let status = run_shown(show, "logs").await?;
    if !status.success() {
        bail!("the logs could not be read");
    }
    Ok(())
}
