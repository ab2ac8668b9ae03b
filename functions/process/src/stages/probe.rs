//! Looks at a source: streams and container first, then where its tracks really end.

use reelay_core::domain::{
    failure::Stage,
    probe::{Probe, ProbeError, Report, Tail},
};

use super::Attempt;
use crate::{
    cage::{self, Tool, Usage},
    error::TaskError,
    scratch::Scratch,
};

/// Longest report that is read.
const MAX_REPORT_BYTES: usize = 1 << 20;
/// A time after the end of any source: ffprobe then reads from the last key frame on.
const FAR: &str = "999999%";

/// What was found, and what the container allows.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) probe: Probe,
    /// ffprobe's names of the codecs of the used tracks.
    pub(super) codecs: Vec<String>,
    /// Whether the container is of a family that can be sought.
    pub(super) may_be_sought: bool,
}

pub(super) async fn probe(
    attempt: &Attempt<'_>,
    scratch: &Scratch,
    url: &str,
    usage: &mut Usage,
) -> Result<Probed, TaskError> {
    let looker = Looker { attempt, scratch, url };
    let report = looker.report(usage).await?;
    let video_index = report.video_index().map_err(refused)?;
    let tail = looker.tail(video_index, usage).await?;
    let audio_tail = match report.audio_index() {
        // The sound's end only matters where it is after the picture's; that it cannot be read is no reason to fail.
        Some(index) => looker.tail(index, usage).await.unwrap_or_default(),
        None => Tail::default(),
    };
    Ok(Probed {
        codecs: report.codecs().into_iter().map(Into::into).collect(),
        may_be_sought: report.may_be_sought(),
        probe: report
            .into_probe(tail, audio_tail, attempt.job.size_bytes)
            .map_err(refused)?,
    })
}

fn refused(error: ProbeError) -> TaskError {
    TaskError::permanent(error.code(), Stage::Probe, error.to_string())
}

/// Asks ffprobe about one input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looker<'a> {
    pub(super) attempt: &'a Attempt<'a>,
    pub(super) scratch: &'a Scratch,
    pub(super) url: &'a str,
}

impl Looker<'_> {
    async fn report(&self, usage: &mut Usage) -> Result<Report, TaskError> {
        let mut json = String::new();
        self.ask(&["-show_format", "-show_streams", "-of", "json"], usage, |line| {
            if json.len() < MAX_REPORT_BYTES {
                json.push_str(line);
                json.push('\n');
            }
        })
        .await?;
        Report::parse(json.as_bytes()).map_err(refused)
    }

    /// The end of a track. Where a container cannot seek, nothing comes back, and all packets are listed instead.
    async fn tail(&self, index: u32, usage: &mut Usage) -> Result<Tail, TaskError> {
        let index = index.to_string();
        let mut tail = Tail::default();
        let entries = [
            "-of",
            "csv=p=0",
            "-show_entries",
            Tail::ENTRIES,
            "-select_streams",
            &index,
        ];
        let far = [&entries[..], &["-read_intervals", FAR]].concat();
        // An error is taken up below: reading all of it meets the same one.
        let _ = self.ask(&far, usage, |line| tail.push(line)).await;
        if tail.is_empty() {
            self.ask(&entries, usage, |line| tail.push(line)).await?;
        }
        Ok(tail)
    }

    /// Runs ffprobe on the input.
    pub(super) async fn ask(
        &self,
        what: &[&str],
        usage: &mut Usage,
        on_line: impl FnMut(&str),
    ) -> Result<(), TaskError> {
        let mut args: Vec<String> = ["-v", "error"].iter().chain(what).map(ToString::to_string).collect();
        args.extend(cage::input_url(self.url));
        let attempt = self.attempt;
        let used = cage::run(
            &attempt.bench.tools,
            Tool::Ffprobe,
            &args,
            self.scratch.path(),
            &attempt.quick_limits(),
            on_line,
        )
        .await
        .map_err(|error| TaskError::cage(Stage::Probe, attempt.lease.attempt, error))?;
        usage.then(used);
        Ok(())
    }
}
