//! The command line.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::terminal::{note, say};
use crate::tools::{Ffmpeg, Tools};
use crate::with::{CommandFailed, Setting};
use crate::workspace::Workspace;
use crate::{demo, doctor, logs, stack, with};

#[derive(Debug, Parser)]
#[command(
    name = "cargo local",
    bin_name = "cargo local",
    about = "Runs the whole stack on this machine."
)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Process one file from upload to mail, with the outputs in ./out. Without FILE, a clip of 20 s is made.
    Demo {
        /// A video.
        file: Option<PathBuf>,
    },
    /// Start the stack in the background, or bring the running one up to date.
    Up,
    /// Stop the stack. Its state is not kept.
    Down,
    /// Run a command on a stack of its own, which ends with it. Its environment is what `env` prints.
    With {
        /// A parameter of template.yaml that has another value here, such as `ChunkSeconds=24`. May be repeated.
        #[arg(long = "set", value_name = "NAME=VALUE")]
        settings: Vec<Setting>,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Show what the functions logged.
    Logs {
        /// One function, such as `process`; all without it.
        function: Option<String>,
        /// Go on with what comes.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print how to reach the running stack, as KEY=VALUE lines.
    Env,
    /// Install the pinned tools and print where they are, as KEY=VALUE lines.
    Tools,
    /// Check what this machine has and lacks.
    Doctor {
        /// Also check that the emulator behaves as the work-arounds for it assume.
        #[arg(long)]
        contract: bool,
    },
}

/// An error that is the caller's, found before anything was started: exit code 2.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// An end that was asked for by a signal: exit code 128 and its number.
#[derive(Debug)]
struct Interrupted(u8);

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: children are told to end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(arguments.action)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `cargo local env | head -1` is no failure.
            let closed = error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe);
            if closed {
                return ExitCode::SUCCESS;
            }
            note(format!("cargo local: {error:#}"));
            if error.is::<Refusal>() {
                return ExitCode::from(2);
            }
            if let Some(failed) = error.downcast_ref::<CommandFailed>() {
                return ExitCode::from(failed.0);
            }
            ExitCode::from(error.downcast_ref::<Interrupted>().map_or(1, |end| 128 + end.0))
        }
    }
}

/// Dropping the action's future ends all that it started.
async fn run(action: Action) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let number = tokio::select! {
        result = perform(action) => return result,
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
        _ = hang_up.recv() => 1,
    };
    Err(Interrupted(number).into())
}

async fn perform(action: Action) -> Result<()> {
    match action {
        Action::Demo { file } => demo::run(file.as_deref()).await,
        Action::Up => {
            for line in stack::up(&Workspace::find().await?).await?.lines() {
                say(line)?;
            }
            Ok(())
        }
        Action::Down => {
            let was_running = stack::down(&Workspace::find().await?).await?;
            note(if was_running {
                "stack: stopped"
            } else {
                "stack: was not running"
            });
            Ok(())
        }
        Action::With { settings, command } => with::run(&settings, &command).await,
        Action::Logs { function, follow } => logs::show(&Workspace::find().await?, function.as_deref(), follow).await,
        Action::Env => {
            let Some(environment) = stack::running(&Workspace::find().await?) else {
                bail!("no stack is running; start one with `cargo local up`");
            };
            for line in environment.lines() {
                say(line)?;
            }
            Ok(())
        }
        Action::Tools => {
            let workspace = Workspace::find().await?;
            let (tools, ffmpeg) = (Tools::ensure(&workspace).await?, Ffmpeg::ensure(&workspace).await?);
            for line in tools.environment(&ffmpeg).lines() {
                say(line)?;
            }
            Ok(())
        }
        Action::Doctor { contract } => doctor::check(contract).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_command_has_options_of_its_own() {
        let line = [
            "cargo local",
            "with",
            "--set",
            "ChunkSeconds=24",
            "--",
            "aws",
            "--set",
            "x",
        ];
        let arguments = Arguments::try_parse_from(line).unwrap();
        let Action::With { settings, command } = arguments.action else {
            panic!("another action");
        };
        assert_eq!((settings.len(), command.len()), (1, 3));
        assert!(Arguments::try_parse_from(["cargo local", "with", "--set", "ChunkSeconds", "--", "true"]).is_err());
        assert!(Arguments::try_parse_from(["cargo local", "with"]).is_err());
    }

    #[test]
    fn a_file_name_may_hold_anything() {
        let arguments = Arguments::try_parse_from(["cargo local", "demo", "it's \"my\" vidéo.mp4"]).unwrap();
        assert!(matches!(arguments.action, Action::Demo { file: Some(_) }));
    }
}
