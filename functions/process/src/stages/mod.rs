//! The work of a plan task whose source fits one invocation: fetch, probe, encode, stills, verify, publish. One file a
//! stage.

pub(crate) mod encode;
mod probe;
mod publish;
mod thumbnails;
mod verify;

use std::time::{Duration, Instant};

use reelay_core::{
    adapters::jobs::JobsTable,
    domain::{
        failure::{FailureCode, Stage},
        job::{Job, Output, Phase, PinnedSource},
        keys::AttemptPrefix,
        probe::Probe,
        time::UtcTime,
    },
};
use tokio::sync::watch;

use crate::{
    cage::{Limits, Tools, Usage},
    error::TaskError,
    scratch::Scratch,
    store::{Fenced, Lease},
    transfer::Transfer,
};

/// What every task works with.
#[derive(Debug)]
pub(crate) struct Workbench {
    pub(crate) jobs: JobsTable,
    pub(crate) tools: Tools,
    pub(crate) transfer: Transfer,
    /// Scratch space of the function.
    pub(crate) scratch_bytes: u64,
    /// Memory of the function.
    pub(crate) memory_bytes: u64,
}

/// How far a task has come, as its supervisor stores it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Progress {
    pub(crate) frames_done: u64,
    pub(crate) fps: f64,
    pub(crate) phase: Phase,
}

/// What was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) outputs: Vec<Output>,
    pub(crate) usage: Usage,
    pub(crate) media_seconds: f64,
}

/// One attempt at a task.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) bench: &'a Workbench,
    pub(crate) lease: &'a Lease,
    pub(crate) job: &'a Job,
    pub(crate) progress: watch::Sender<Option<Progress>>,
    pub(crate) deadline: Instant,
}

impl Attempt<'_> {
    /// Does the work. Cancel safety: dropping the future kills the children and removes the scratch folder; what was
    /// uploaded stays under this attempt's prefix, where nothing points to.
    pub(crate) async fn work(&self) -> Result<Made, TaskError> {
        let Some(source) = &self.job.source else {
            return Err(TaskError::permanent(
                FailureCode::InternalError,
                Stage::Fetch,
                "the job has no source",
            ));
        };
        let scratch = Scratch::new(self.job.size_bytes, self.bench.scratch_bytes)?;
        self.fetch(&scratch, source).await?;

        let mut usage = Usage::default();
        let probe = probe::probe(self, &scratch, &mut usage).await?;
        self.store_probe(&probe).await?;

        let plan = encode::Plan::new(&self.job.spec, &probe);
        encode::encode(self, &scratch, &plan, &mut usage).await?;

        self.enter(Phase::Packaging, probe.timeline.frames);
        thumbnails::take(self, &scratch, &plan, &mut usage).await?;
        let checked = verify::verify(self, &scratch, &plan, &mut usage).await?;
        let outputs = publish::publish(self, &scratch, &plan, checked).await?;
        Ok(Made {
            outputs,
            usage,
            media_seconds: probe.info.duration_seconds,
        })
    }

    async fn fetch(&self, scratch: &Scratch, source: &PinnedSource) -> Result<(), TaskError> {
        let key = self.job.source_key().to_string();
        self.bench
            .transfer
            .fetch(&key, source, self.job.size_bytes, &scratch.file(SOURCE_FILE))
            .await
            .map_err(|error| TaskError::aws(Stage::Fetch, error))
    }

    async fn store_probe(&self, probe: &Probe) -> Result<(), TaskError> {
        let stored = self
            .lease
            .probed(&self.bench.jobs, &probe.info, probe.timeline.frames, UtcTime::now())
            .await;
        match stored.map_err(|error| TaskError::aws(Stage::Probe, error))? {
            Fenced::Held => Ok(()),
            Fenced::Lost => Err(TaskError::Stopped),
        }
    }

    fn enter(&self, phase: Phase, frames_done: u64) {
        self.progress.send_modify(|progress| {
            let fps = progress.map_or(0.0, |progress| progress.fps);
            *progress = Some(Progress {
                frames_done,
                fps,
                phase,
            });
        });
    }

    /// Limits of a child that may take all the time that is left.
    fn limits(&self) -> Limits {
        let wall = self.deadline.saturating_duration_since(Instant::now());
        Limits {
            // The rest is the worker's own; address space is a little more than what is resident.
            memory_bytes: self.bench.memory_bytes.saturating_mul(3) / 2,
            cpu: wall * MAX_CORES,
            file_bytes: MAX_OUTPUT_BYTES,
            wall,
        }
    }

    /// Limits of a child that only looks.
    fn quick_limits(&self) -> Limits {
        let limits = self.limits();
        let wall = limits.wall.min(QUICK);
        Limits {
            wall,
            cpu: wall,
            file_bytes: 0,
            ..limits
        }
    }

    fn key(&self, file: &str) -> String {
        let prefix = AttemptPrefix {
            account: self.job.account_id.clone(),
            job: self.job.job_id.clone(),
            generation: self.lease.generation,
            attempt: self.lease.attempt,
        };
        prefix.key(file)
    }
}

/// The source's name in scratch space.
const SOURCE_FILE: &str = "source";
/// Lambda's largest size has six virtual CPUs.
const MAX_CORES: u32 = 6;
/// Largest output: S3's limit for an object that is copied in one request.
const MAX_OUTPUT_BYTES: u64 = 5 << 30;
/// How long a look at a file may take.
const QUICK: Duration = Duration::from_mins(1);
