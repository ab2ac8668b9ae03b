//! Makes every rendition of a chunk in one pass: one decode, however many are asked for.

mod args;

use std::{cell::Cell, time::Instant};

use reelay_core::domain::{
    failure::Stage,
    job::Phase,
    plan::{Chunk, Plan},
};

use super::{Attempt, Progress, input::Served};
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// The file of a video rendition.
pub(super) fn video_file(index: usize) -> String {
    format!("v{index}.mp4")
}

/// The file of an audio rendition, as the encoder leaves it.
pub(super) fn audio_file(index: usize) -> String {
    format!("a{index}.mp4")
}

/// Encodes a chunk into the scratch folder.
pub(super) async fn encode(
    attempt: &Attempt<'_>,
    plan: &Plan,
    chunk: &Chunk,
    served: &Served,
    scratch: &Scratch,
    usage: &mut Usage,
) -> Result<(), TaskError> {
    attempt.enter(Phase::Encoding);
    let threads = threads(attempt.bench.memory_mib);
    let args = args::args(plan, chunk, cage::input_url(&served.url), threads);
    let mut report = Report {
        frames_total: chunk.frames(),
        frames_done: 0,
        fps: 0.0,
    };
    let moved = Cell::new(Instant::now());
    let limits = attempt.limits();
    let run = cage::run(
        &attempt.bench.tools,
        Tool::Ffmpeg,
        &args,
        scratch.path(),
        &limits,
        |line| {
            let before = report.frames_done;
            if let Some(progress) = report.push(line) {
                attempt.progress.send_replace(progress);
            }
            if report.frames_done > before {
                moved.set(Instant::now());
            }
        },
    );
    let stalled = async {
        loop {
            let quiet = moved.get().elapsed();
            let Some(left) = attempt.bench.stall.checked_sub(quiet) else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    };
    let ran = tokio::select! {
        ran = run => ran.map_err(|error| TaskError::cage(Stage::Encode, attempt.lease.attempt, error)),
        () = stalled => Err(TaskError::stalled(Stage::Encode)),
    };
    usage.then(served.judge(Stage::Encode, ran)?);
    Ok(())
}

/// As many threads as virtual CPUs come with the memory: 1,769 MB are one (AWS Lambda Developer Guide, "Configure Lambda
/// function memory").
fn threads(memory_mib: u32) -> u32 {
    memory_mib.div_ceil(1_769).clamp(1, super::MAX_CORES)
}

/// Reads `-progress`: blocks of `key=value` lines that end with `progress=`.
#[derive(Debug)]
struct Report {
    frames_total: u64,
    frames_done: u64,
    fps: f64,
}

impl Report {
    fn push(&mut self, line: &str) -> Option<Progress> {
        match line.split_once('=')? {
            // The muxer runs a little ahead of the count only at the very end.
            ("frame", value) => self.frames_done = value.trim().parse().unwrap_or(0).min(self.frames_total),
            ("fps", value) => self.fps = value.trim().parse().unwrap_or(0.0),
            ("progress", _) => {
                return Some(Progress {
                    frames_done: self.frames_done,
                    fps: self.fps,
                    phase: Phase::Encoding,
                });
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_blocks_are_read_and_never_run_over() {
        let mut report = Report {
            frames_total: 100,
            frames_done: 0,
            fps: 0.0,
        };
        assert_eq!(report.push("frame= 42"), None);
        assert_eq!(report.push("fps=12.5"), None);
        let progress = report.push("progress=continue").unwrap();
        assert_eq!((progress.frames_done, progress.fps), (42, 12.5));
        report.push("frame=142");
        report.push("fps=N/A");
        assert_eq!(report.push("progress=end").unwrap().frames_done, 100);
    }

    #[test]
    fn threads_come_with_memory() {
        assert_eq!([1_024, 1_769, 3_008, 10_240].map(threads), [1, 1, 2, 6]);
    }
}
