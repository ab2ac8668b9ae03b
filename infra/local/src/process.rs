//! Child processes, processes of others, and locks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::terminal::note;

/// The cargo that runs us, else the one on the path.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A command that ends when we end: its process group is killed when we stop waiting for it, and the process itself
/// when we are killed.
#[expect(
    clippy::disallowed_methods,
    reason = "these children are tools; no foreign file is decoded here"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // The two variables would change what a venv's Python imports.
    command
        .stdin(Stdio::null())
        .process_group(0)
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME");
    end_with_parent(&mut command);
    command
}

#[expect(
    unsafe_code,
    reason = "only between fork and exec can a child be told to end with its parent"
)]
fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The signal is for a death from now on, so an earlier one must be seen here.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from(ErrorKind::Interrupted))
        }
    };
    // SAFETY: the closure makes system calls and allocates nothing, which is all that is allowed after a fork.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A command of the person who called us: it has our terminal, and what they type to end us ends it too.
#[expect(
    clippy::disallowed_methods,
    reason = "this child is what the caller named; no foreign file is decoded here"
)]
pub(crate) fn foreground_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    end_with_parent(&mut command);
    command
}

/// A command that may go on when we end; it has its own ways to end.
#[expect(
    clippy::disallowed_methods,
    reason = "this child is the emulator; no foreign file is decoded here"
)]
pub(crate) fn lasting_command(program: impl AsRef<OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

/// Runs a command to its end and returns its standard output. The error of a failure holds the end of what it wrote.
pub(crate) async fn run(mut command: Command, what: &str) -> Result<Vec<u8>> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (child, group) = spawn(&mut command)?;
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("waiting for {what}"))?;
    group.ended();
    if output.status.success() {
        return Ok(output.stdout);
    }
    let written = if output.stderr.trim_ascii().is_empty() {
        output.stdout
    } else {
        output.stderr
    };
    bail!(
        "{what} failed ({}):\n{}",
        output.status,
        last_lines(&String::from_utf8_lossy(&written), 20)
    )
}

/// Runs a command whose output a person sees as it comes.
pub(crate) async fn run_shown(mut command: Command, what: &str) -> Result<ExitStatus> {
    let (mut child, group) = spawn(&mut command)?;
    let status = child.wait().await.with_context(|| format!("waiting for {what}"))?;
    group.ended();
    Ok(status)
}

fn spawn(command: &mut Command) -> Result<(Child, Group)> {
    let child = command
        .spawn()
        .map_err(|error| explain(command.as_std().get_program(), error))?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok((child, Group(leader)))
}

/// Says in one line what to install when a program is not there.
pub(crate) fn explain(program: &OsStr, error: io::Error) -> Error {
    let name = program.to_string_lossy();
    if error.kind() != ErrorKind::NotFound || program.as_bytes().contains(&b'/') {
        return Error::new(error).context(format!("cannot run {name}"));
    }
    match install_hint(&name) {
        Some(hint) => anyhow!("{name} is missing: {hint}"),
        None => anyhow!("{name} is missing: install it"),
    }
}

/// How to get a program that we need.
pub(crate) fn install_hint(program: &str) -> Option<&'static str> {
    Some(match program {
        "python3" => "install Python 3.11 or newer with venv (Debian, Ubuntu: apt-get install python3 python3-venv)",
        "bash" => "install bash (Debian, Ubuntu: apt-get install bash)",
        "cargo" => "install Rust (https://rustup.rs)",
        "cc" => "install a C compiler and linker (Debian, Ubuntu: apt-get install build-essential)",
        _ => return None,
    })
}

/// A process group that is ended with this value, unless its leader has been waited for.
struct Group(Option<Pid>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // What Ctrl-C does, with a moment to remove half-written files.
            let _ = kill_process_group(leader, Signal::INT);
            thread::sleep(Duration::from_millis(200));
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: i32,
    pub(crate) session: i32,
    /// Clock ticks from boot to its start; with the pid it names a process for good.
    pub(crate) started: u64,
    ended: bool,
}

impl Entry {
    /// Reads `/proc/<pid>/stat`. A process that has ended and waits for its parent counts as gone.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&stat)).filter(|entry| !entry.ended)
    }

    fn parse(pid: i32, stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            ended: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Whether the process was started with this line in its environment.
    pub(crate) fn carries(&self, line: &str) -> bool {
        fs::read(format!("/proc/{}/environ", self.pid))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == line.as_bytes()))
    }

    pub(crate) fn kill(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// All processes.
pub(crate) fn process_table() -> Vec<Entry> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Entry::of)
        .collect()
}

/// Takes a lock file, waiting for whoever has it. The lock ends with the returned value, or with us.
pub(crate) async fn lock(path: &Path, what: &str) -> Result<File> {
    let mut told = false;
    loop {
        if let Some(file) = try_lock(path)? {
            return Ok(file);
        }
        if !told {
            note(format!("waiting for another run that uses {what}"));
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Takes a lock file if nobody has it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 5 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(
            Entry::parse(7, stat),
            Some(Entry {
                pid: 7,
                session: 6,
                started: 98765,
                ended: false
            })
        );
        assert_eq!(Entry::parse(7, "7 (cut"), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert!(process_table().iter().any(|entry| entry.pid == own));
        assert_eq!(
            Entry::of(own).map(|entry| entry.started),
            Entry::of(own).map(|entry| entry.started)
        );
    }

    #[test]
    fn the_end_of_a_text() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_install() {
        let error = explain(OsStr::new("python3"), ErrorKind::NotFound.into());
        assert!(
            error.to_string().starts_with("python3 is missing: install Python 3.11"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_command_that_is_not_waited_for_ends_with_its_children() {
        let mut shell = command("bash");
        shell.args(["-c", "sleep 987 & sleep 987; true"]);
        let waiting = run(shell, "sleeping");
        assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
        let sleeps = |entry: &Entry| {
            fs::read(format!("/proc/{}/cmdline", entry.pid)).is_ok_and(|line| line == b"sleep\x00987\x00")
        };
        // A signal has been sent when kill returns, but the process need not have ended yet.
        let ended = async {
            while process_table().iter().any(sleeps) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok());
    }

    #[test]
    fn a_lock_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }
}
