//! The work of a task. `plan` decides and does all of a short source; `encode` makes every rendition of a chunk;
//! `assemble` joins the chunks. One file or folder a stage, and one type ([`track::Track`]) that they hand on.

mod assemble;
mod chunk;
mod encode;
mod input;
mod normalise;
mod plan;
mod probe;
mod stills;
mod track;

use std::time::{Duration, Instant};

use reelay_core::{
    adapters::{
        AwsError,
        jobs::JobsTable,
        lease::{Fenced, Lease},
    },
    domain::{
        failure::{FailureCode, Stage},
        job::{Job, Metrics, Output, Phase},
        keys::AttemptPrefix,
        plan::{Limits as PlanLimits, Plan},
        task::{ChunkResult, TaskCost, TaskId},
    },
};
use tokio::sync::watch;

use crate::{
    cage::{self, Limits, Tool, Tools, Usage},
    error::TaskError,
    scratch::Scratch,
    transfer::Transfer,
};

/// Lambda's largest size has six virtual CPUs.
const MAX_CORES: u32 = 6;
/// Largest output: S3's limit for an object that is copied in one request.
const MAX_OUTPUT_BYTES: u64 = 5 << 30;
/// How long a look at a file may take.
const QUICK: Duration = Duration::from_mins(1);

/// What every task works with.
#[derive(Debug)]
pub(crate) struct Workbench {
    pub(crate) jobs: JobsTable,
    pub(crate) tools: Tools,
    pub(crate) transfer: Transfer,
    /// Scratch space of the function.
    pub(crate) scratch_bytes: u64,
    /// Memory of the function.
    pub(crate) memory_mib: u32,
    /// Bounds of a plan.
    pub(crate) limits: PlanLimits,
    /// How long an encoder may go without a new frame.
    pub(crate) stall: Duration,
    /// An MP4 of at least this size is joined without moving its payload.
    pub(crate) compose_min_bytes: u64,
}

/// How far a task has come, as its supervisor stores it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Progress {
    pub(crate) frames_done: u64,
    pub(crate) fps: f64,
    pub(crate) phase: Phase,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            frames_done: 0,
            fps: 0.0,
            phase: Phase::Probing,
        }
    }
}

/// What a task made, and so which write ends it.
#[derive(Debug)]
pub(crate) enum Made {
    /// All outputs of the job.
    Published {
        outputs: Vec<Output>,
        metrics: Box<Metrics>,
    },
    /// A plan, and chunks that need not be encoded again.
    Planned {
        plan: Box<Plan>,
        kept: Vec<ChunkResult>,
        cost: TaskCost,
    },
    /// A chunk.
    Chunk {
        result: Box<ChunkResult>,
        /// Whether the job can be played from its beginning now.
        makes_playable: bool,
    },
}

impl Made {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Published { .. } => "outputs",
            Self::Planned { .. } => "plan",
            Self::Chunk { .. } => "chunk",
        }
    }
}

/// One attempt at a task.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) bench: &'a Workbench,
    pub(crate) lease: &'a Lease,
    pub(crate) job: &'a Job,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
}

impl Attempt<'_> {
    /// Does the work. Cancel safety: dropping the future kills the children and removes the scratch folder; what was
    /// stored stays under this attempt's prefix, where nothing points to.
    pub(crate) async fn work(&self) -> Result<Made, TaskError> {
        match self.lease.task {
            TaskId::Plan => plan::work(self).await,
            TaskId::Encode(index) => {
                let plan = self.plan().await?;
                chunk::work(self, &plan, index).await
            }
            TaskId::Assemble => {
                let plan = self.plan().await?;
                assemble::work(self, &plan).await
            }
        }
    }

    /// The plan of this generation, which a task that follows it finds stored.
    async fn plan(&self) -> Result<Plan, TaskError> {
        let plan = self.bench.jobs.plan(&self.lease.job_id, self.lease.generation).await;
        plan.map_err(|error| TaskError::aws(Stage::Probe, error))?
            .ok_or_else(|| internal(Stage::Probe, "the job has no plan"))
    }

    fn enter(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    fn scratch(&self, needed_bytes: u64) -> Result<Scratch, TaskError> {
        Scratch::new(needed_bytes, self.bench.scratch_bytes)
    }

    /// What a child may take that decodes and encodes.
    fn limits(&self) -> Limits {
        let wall = self.deadline.saturating_duration_since(Instant::now());
        Limits {
            // The rest is the worker's own; address space is a little more than what is resident.
            memory_bytes: (u64::from(self.bench.memory_mib) << 20).saturating_mul(3) / 2,
            cpu: wall * MAX_CORES,
            file_bytes: MAX_OUTPUT_BYTES,
            wall,
        }
    }

    /// Runs ffmpeg to its end, for work whose progress nobody follows.
    async fn ffmpeg(&self, args: &[String], scratch: &Scratch, stage: Stage) -> Result<Usage, TaskError> {
        let tools = &self.bench.tools;
        cage::run(tools, Tool::Ffmpeg, args, scratch.path(), &self.limits(), |_| {})
            .await
            .map_err(|error| TaskError::cage(stage, self.lease.attempt, error))
    }

    /// What a child may take that only looks.
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

    fn prefix(&self) -> AttemptPrefix {
        AttemptPrefix {
            account: self.job.account_id.clone(),
            job: self.job.job_id.clone(),
            generation: self.lease.generation,
            task: self.lease.task,
            attempt: self.lease.attempt,
        }
    }

    /// What the attempt has used up to now.
    fn cost(&self, usage: &Usage, read_bytes: u64, written_bytes: u64) -> TaskCost {
        TaskCost {
            seconds: round(self.started.elapsed().as_secs_f64()),
            cpu_seconds: round(usage.cpu_seconds),
            peak_cpu_percent: round(usage.peak_cpu_percent),
            peak_memory_bytes: usage.peak_memory_bytes,
            read_bytes,
            written_bytes,
        }
    }
}

/// Stops when the lease is lost.
fn held(fenced: Result<Fenced, AwsError>, stage: Stage) -> Result<(), TaskError> {
    match fenced.map_err(|error| TaskError::aws(stage, error))? {
        Fenced::Held => Ok(()),
        Fenced::Lost => Err(TaskError::Stopped),
    }
}

/// Something that only a fault of ours can bring about.
fn internal(stage: Stage, message: &str) -> TaskError {
    TaskError::permanent(FailureCode::InternalError, stage, message)
}

/// An output that is not what was planned.
fn invalid(what: &str) -> TaskError {
    let message = format!("an output did not pass its check: {what}");
    TaskError::permanent(FailureCode::OutputInvalid, Stage::Verify, message)
}

/// Three decimals.
fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
