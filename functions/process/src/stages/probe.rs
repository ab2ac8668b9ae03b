//! Looks at a source: streams and container first, then where its video really ends.

use reelay_core::domain::{
    failure::Stage,
    probe::{Probe, ProbeError, Report, Tail},
};

use super::{Attempt, SOURCE_FILE};
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// Longest report that is read.
const MAX_REPORT_BYTES: usize = 1 << 20;
/// A time after the end of any source: ffprobe then reads from the last key frame on.
const FAR: &str = "999999%";

pub(super) async fn probe(attempt: &Attempt<'_>, scratch: &Scratch, usage: &mut Usage) -> Result<Probe, TaskError> {
    let report = report(attempt, scratch, usage).await?;
    let video_index = report.video_index().map_err(refused)?;
    // Where a container cannot seek, nothing comes back, and all packets are listed instead.
    let mut tail = tail(attempt, scratch, video_index, Some(FAR), usage)
        .await
        .unwrap_or_default();
    if tail.is_empty() {
        tail = self::tail(attempt, scratch, video_index, None, usage).await?;
    }
    report.into_probe(tail, attempt.job.size_bytes).map_err(refused)
}

fn refused(error: ProbeError) -> TaskError {
    TaskError::permanent(error.code(), Stage::Probe, error.to_string())
}

async fn report(attempt: &Attempt<'_>, scratch: &Scratch, usage: &mut Usage) -> Result<Report, TaskError> {
    let mut args: Vec<String> = ["-v", "error", "-show_format", "-show_streams", "-of", "json"]
        .map(Into::into)
        .into();
    args.extend(cage::input(&scratch.file(SOURCE_FILE)));
    let mut json = String::new();
    let used = cage::run(
        &attempt.bench.tools,
        Tool::Ffprobe,
        &args,
        scratch.path(),
        &attempt.quick_limits(),
        |line| {
            if json.len() < MAX_REPORT_BYTES {
                json.push_str(line);
                json.push('\n');
            }
        },
    )
    .await
    .map_err(|error| TaskError::cage(Stage::Probe, attempt.lease.attempt, error))?;
    usage.then(used);
    Report::parse(json.as_bytes()).map_err(refused)
}

async fn tail(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    video_index: u32,
    from: Option<&str>,
    usage: &mut Usage,
) -> Result<Tail, TaskError> {
    let mut args: Vec<String> = ["-v", "error", "-of", "csv=p=0", "-show_entries", Tail::ENTRIES]
        .map(Into::into)
        .into();
    args.extend(["-select_streams".into(), video_index.to_string()]);
    if let Some(from) = from {
        args.extend(["-read_intervals".into(), from.into()]);
    }
    args.extend(cage::input(&scratch.file(SOURCE_FILE)));
    let mut tail = Tail::default();
    let used = cage::run(
        &attempt.bench.tools,
        Tool::Ffprobe,
        &args,
        scratch.path(),
        &attempt.quick_limits(),
        |line| tail.push(line),
    )
    .await
    .map_err(|error| TaskError::cage(Stage::Probe, attempt.lease.attempt, error))?;
    usage.then(used);
    Ok(tail)
}
