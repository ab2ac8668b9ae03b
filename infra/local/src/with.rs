//! A command on a stack of its own, with parameters of its own.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::str::FromStr;

use anyhow::{Result, bail};

use crate::build::Build;
use crate::process::{foreground_command, run_shown};
use crate::stack;
use crate::workspace::Workspace;

/// A parameter of the template and its value, as `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting(String);

impl Setting {
    /// `NAME=VALUE`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Setting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err("has no parameter's name before the `=`");
        }
        // The SAM CLI takes quotes and spaces apart in ways of its own.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,*".contains(c);
        if value.is_empty() || !value.chars().all(is_plain) {
            return Err("has a value with other characters than letters, digits and _-./:@%+,*");
        }
        Ok(Self(text.to_owned()))
    }
}

/// The end of a command that is not success: its exit code becomes ours.
#[derive(Debug)]
pub(crate) struct CommandFailed(pub(crate) u8);

impl fmt::Display for CommandFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the command ended with exit code {}", self.0)
    }
}

impl std::error::Error for CommandFailed {}

/// Starts an empty stack, runs a command with its environment, and ends the stack.
pub(crate) async fn run(settings: &[Setting], command: &[OsString]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        bail!("there is no command");
    };
    let workspace = Workspace::find().await?;
    let (state, claim) = stack::own_folder(&workspace)?;
    let build = Build::make(&workspace, &state).await?;
    let stack = stack::start_with(&workspace, &build, state, claim, settings).await?;
    let mut child = foreground_command(program);
    child.args(arguments).envs(stack.environment().iter());
    let status = run_shown(child, "the command").await?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Err(CommandFailed(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_name_and_a_plain_value() {
        for good in [
            "ChunkSeconds=24",
            "MailSender=a@b.test",
            "AllowedOrigins=http://a:1,http://b",
        ] {
            assert_eq!(good.parse::<Setting>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "ChunkSeconds",
            "=24",
            "Chunk Seconds=24",
            "ChunkSeconds=",
            "A=b c",
            "A=\"b\"",
            "A=b'c",
        ] {
            assert!(bad.parse::<Setting>().is_err(), "{bad}");
        }
    }
}
