//! The processes that encode: the worker function's, and its children.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A running encoder and the function process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    ffmpeg: i32,
    function: i32,
}

impl Encoder {
    /// The encoder that works on a source of exactly this length. Its working directory is the attempt's folder, which
    /// holds the source; nothing in its arguments or environment tells which job it works for.
    pub fn of_source(size_bytes: u64) -> Option<Self> {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ffmpeg = pids
            .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "ffmpeg"))
            .find(|pid| holds_file(Path::new(&format!("/proc/{pid}/cwd")), size_bytes))?;
        Some(Self {
            ffmpeg,
            function: parent(ffmpeg)?,
        })
    }

    /// Kills the function's process, as a lost machine would.
    pub fn kill_function(self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Stops the function's process in its tracks, as Lambda freezes one. Its encoder goes on.
    pub fn freeze_function(self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen function go on where it stopped.
    pub fn thaw_function(self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(self, signal: Signal) -> Result<()> {
        let program = fs::read_link(format!("/proc/{}/exe", self.function))?;
        // Whatever else starts an ffmpeg on this machine is none of ours.
        ensure!(
            program.file_name().is_some_and(|name| name == "bootstrap"),
            "{} is no function",
            program.display()
        );
        kill_process(Pid::from_raw(self.function).context("no pid")?, signal)?;
        Ok(())
    }

    /// Whether the encoder is gone.
    pub fn is_gone(self) -> bool {
        state(self.ffmpeg).is_none_or(|state| state == "Z")
    }
}

fn holds_file(folder: &Path, size_bytes: u64) -> bool {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .any(|file| file.is_file() && file.len() == size_bytes)
}

/// A field of `/proc/<pid>/stat`, counted from the process' state.
fn field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index).map(str::to_owned)
}

fn state(pid: i32) -> Option<String> {
    field(pid, 0)
}

fn parent(pid: i32) -> Option<i32> {
    field(pid, 1)?.parse().ok()
}
