//! The processes of the worker function, and the tools that it runs.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::Harness;

/// How many of an input's last bytes tell it from all others.
const MARK_BYTES: usize = 64;
/// A frozen worker does not answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// Some tools run for a few hundredths of a second.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const PROGRAMS: [&str; 2] = ["ffmpeg", "ffprobe"];

/// How a source or an object ends. It is how a worker's tool is found: nothing in its arguments or environment tells
/// which job it works for, but the URL that it reads is there, and its worker serves it to everybody on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(Vec<u8>);

impl Mark {
    /// The end of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes[bytes.len().saturating_sub(MARK_BYTES)..].to_vec())
    }

    /// Puts a box that players skip at the end of an MP4 file, with content that no other file has.
    pub fn put(mut mp4: Vec<u8>) -> Result<(Vec<u8>, Self)> {
        let unique = [*uuid::Uuid::new_v4().as_bytes(); MARK_BYTES / 16].concat();
        mp4.extend(u32::try_from(unique.len() + 8)?.to_be_bytes());
        mp4.extend(b"free");
        mp4.extend(unique);
        let mark = Self::of(&mp4);
        Ok((mp4, mark))
    }
}

/// A running tool and the function process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    tool: i32,
    function: i32,
    /// The first frame of the chunk that it encodes; `None` when it does something else.
    pub first_frame: Option<u64>,
}

impl Harness {
    /// The tools that read an input with one of these ends.
    pub async fn tools_reading(&self, marks: &[Mark]) -> Vec<Encoder> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let looks = pids.filter_map(running_tool).map(async |(encoder, urls)| {
            for url in urls {
                if let Some(end) = self.end_of(&url).await
                    && marks.contains(&end)
                {
                    return Some(encoder);
                }
            }
            None
        });
        join_all(looks).await.into_iter().flatten().collect()
    }

    /// Waits for a tool that reads an input with one of these ends, and that is the one that is meant.
    pub async fn tool_reading(
        &self,
        marks: &[Mark],
        limit: Duration,
        is_meant: impl Fn(&Encoder) -> bool,
    ) -> Result<Encoder> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(found) = self.tools_reading(marks).await.into_iter().find(&is_meant) {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("no such tool within {} s", limit.as_secs())
    }

    async fn end_of(&self, url: &str) -> Option<Mark> {
        let request = self.http.get(url).header("range", format!("bytes=-{MARK_BYTES}"));
        let answer = request.timeout(ANSWER_LIMIT).send().await.ok()?;
        Some(Mark(answer.bytes().await.ok()?.to_vec()))
    }
}

/// A tool that reads from a worker, and what it reads.
fn running_tool(pid: i32) -> Option<(Encoder, Vec<String>)> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    // One that has ended and was not waited for yet has no arguments any more.
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = || arguments.split('\0');
    let urls = arguments().filter(|argument| argument.starts_with("http://127.0.0.1:"));
    let urls: Vec<String> = urls.map(str::to_owned).collect();
    if !PROGRAMS.contains(&name.trim()) || urls.is_empty() {
        return None;
    }
    let encoder = Encoder {
        tool: pid,
        function: parent(pid)?,
        first_frame: arguments().find_map(first_frame),
    };
    Some((encoder, urls))
}

/// The first frame that a filter graph lets through.
fn first_frame(graph: &str) -> Option<u64> {
    let (_, rest) = graph.split_once(",trim=start_pts=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Encoder {
    /// Kills the function's process, as a lost machine would.
    pub fn kill_function(self) -> Result<()> {
        self.signal_function(Signal::KILL)
    }

    /// Stops the function's process in its tracks, as Lambda freezes one. Its tool goes on.
    pub fn freeze_function(self) -> Result<()> {
        self.signal_function(Signal::STOP)
    }

    /// Lets a frozen function go on where it stopped.
    pub fn thaw_function(self) -> Result<()> {
        self.signal_function(Signal::CONT)
    }

    /// Stops the tool alone: its worker goes on, and sees no progress.
    pub fn freeze_tool(self) -> Result<()> {
        self.check_function()?;
        kill_process(Pid::from_raw(self.tool).context("no pid")?, Signal::STOP)?;
        Ok(())
    }

    fn signal_function(self, signal: Signal) -> Result<()> {
        self.check_function()?;
        kill_process(Pid::from_raw(self.function).context("no pid")?, signal)?;
        Ok(())
    }

    /// Whatever else starts an ffmpeg on this machine is none of ours.
    fn check_function(self) -> Result<()> {
        let program = fs::read_link(format!("/proc/{}/exe", self.function))?;
        ensure!(
            program.file_name().is_some_and(|name| name == "bootstrap"),
            "{} is no function",
            program.display()
        );
        Ok(())
    }

    /// The most memory that the function's process ever had resident.
    pub fn function_peak_bytes(self) -> Result<u64> {
        self.check_function()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.function))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak
            .and_then(|text| text.trim().strip_suffix(" kB"))
            .context("no peak")?;
        Ok(kib.trim().parse::<u64>()? * 1_024)
    }

    /// Whether the tool is gone.
    pub fn is_gone(self) -> bool {
        field(self.tool, 0).is_none_or(|state| state == "Z")
    }
}

/// A field of `/proc/<pid>/stat`, counted from the process' state.
fn field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index).map(str::to_owned)
}

fn parent(pid: i32) -> Option<i32> {
    field(pid, 1)?.parse().ok()
}

/// A process that this one started.
pub(crate) fn child(of: i32) -> Option<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| parent(*pid) == Some(of))
}
