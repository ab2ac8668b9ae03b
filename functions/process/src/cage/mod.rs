//! The cage: the only place that starts child processes.
//!
//! ffmpeg decodes hostile files, so it gets nothing that it does not need: an empty environment, arguments as an
//! array, no standard input, names that we made, protocols and demuxers by allow-list, and limits on memory, CPU,
//! file size and open files. It runs in its own process group, is killed as a whole, and dies with its parent.
//! Dropping a running child kills it, so whoever stops waiting also stops the work.

mod sandbox;
mod tool;
mod usage;

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use reelay_core::domain::failure::FailureCode;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::unix::pipe,
};

pub(crate) use tool::{Tool, Tools, input, input_url};
pub(crate) use usage::Usage;

/// How much of what a child writes to standard error is kept.
const STDERR_TAIL_BYTES: usize = 16 * 1_024;
/// Longest line of standard output that is read.
const MAX_LINE_BYTES: usize = 64 * 1_024;
/// How often CPU use is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What a child may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Address space, in bytes.
    pub(crate) memory_bytes: u64,
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// Largest file that it may write, in bytes.
    pub(crate) file_bytes: u64,
    /// Time on the clock.
    pub(crate) wall: Duration,
}

/// How a child ended, other than well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CageError {
    /// It could not be started or watched.
    #[error("the child process could not be run")]
    Io(#[from] io::Error),
    /// It gave up by itself.
    #[error("the child process ended with code {0}")]
    Exit(i32),
    /// A signal ended it.
    #[error("signal {0} ended the child process")]
    Signal(i32),
    /// It ran out of time.
    #[error("the child process ran out of time")]
    Wall,
}

impl CageError {
    /// The code of the failure that this becomes, when the source is to blame; `None` when it is not.
    ///
    /// ffmpeg's exit code is the low byte of its negative error number (`AVERROR(ENOMEM)` is -12, so 244).
    pub(crate) fn failure_code(&self) -> Option<FailureCode> {
        match self {
            Self::Io(_) => None,
            Self::Wall | Self::Signal(libc::SIGXCPU) => Some(FailureCode::LimitTime),
            Self::Signal(libc::SIGXFSZ) => Some(FailureCode::LimitOutputSize),
            Self::Signal(libc::SIGKILL) => Some(FailureCode::LimitMemory),
            Self::Exit(code) if *code == low_byte(libc::ENOMEM) => Some(FailureCode::LimitMemory),
            Self::Exit(code) if *code == low_byte(libc::ENOSPC) => Some(FailureCode::NoSpace),
            Self::Exit(code) if *code == low_byte(libc::EFBIG) => Some(FailureCode::LimitOutputSize),
            Self::Exit(_) | Self::Signal(_) => Some(FailureCode::SourceCorrupt),
        }
    }
}

const fn low_byte(errno: i32) -> i32 {
    256 - errno
}

/// Runs a tool to its end, handing each line of its standard output to `on_line`.
///
/// `scratch` is its working directory and home. Cancel safety: when the future is dropped the child's whole process
/// group is killed.
pub(crate) async fn run(
    tools: &Tools,
    tool: Tool,
    args: &[String],
    scratch: &Path,
    limits: &Limits,
    mut on_line: impl FnMut(&str),
) -> Result<Usage, CageError> {
    let started = Instant::now();
    let mut child = sandbox::spawn(tools.path(tool), args, scratch, limits)?;
    let mut stdout = BufReader::new(pipe::Receiver::from_owned_fd(child.stdout)?);
    let mut stderr = pipe::Receiver::from_owned_fd(child.stderr)?;
    let mut tail = Tail::default();
    let mut sampler = usage::Sampler::new(child.group.pid());

    let talk = async {
        let lines = async {
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = (&mut stdout)
                    .take(MAX_LINE_BYTES as u64)
                    .read_until(b'\n', &mut line)
                    .await?;
                if read == 0 {
                    return io::Result::Ok(());
                }
                on_line(String::from_utf8_lossy(&line).trim_end());
            }
        };
        let errors = async {
            let mut buffer = vec![0; 4_096];
            loop {
                let read = stderr.read(&mut buffer).await?;
                if read == 0 {
                    return io::Result::Ok(());
                }
                tail.push(buffer.get(..read).unwrap_or_default());
            }
        };
        tokio::try_join!(lines, errors)
    };
    let sample = async {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        loop {
            ticks.tick().await;
            sampler.sample();
        }
    };
    let ended = async {
        talk.await?;
        child.group.wait().await
    };
    let status = tokio::select! {
        status = ended => status?,
        () = sample => return Err(CageError::Wall),
        () = tokio::time::sleep(limits.wall) => return Err(CageError::Wall),
    };
    let usage = Usage {
        cpu_seconds: status.cpu_seconds,
        peak_memory_bytes: status.peak_memory_bytes,
        peak_cpu_percent: sampler.peak_percent(status.cpu_seconds, started.elapsed()),
    };
    let result = match status.end {
        sandbox::End::Exit(0) => Ok(usage),
        sandbox::End::Exit(code) => Err(CageError::Exit(code)),
        sandbox::End::Signal(signal) => Err(CageError::Signal(signal)),
    };
    if let Err(error) = &result {
        tracing::warn!(tool = tool.name(), error = %error, said = %tail.readable(), "child process failed");
    }
    result
}

/// The end of what a child wrote to standard error.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > 2 * STDERR_TAIL_BYTES {
            let cut = self.0.len() - STDERR_TAIL_BYTES;
            self.0.drain(..cut);
        }
    }

    /// A short form that is safe in a log line: the source's own tags can be in it, so no control characters.
    fn readable(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let clean: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        clean.iter().skip(clean.len().saturating_sub(400)).collect()
    }
}

#[cfg(test)]
mod tests;
