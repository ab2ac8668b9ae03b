//! The plan task: what is it, what to make of it, and in how many pieces. A short source is done here and now.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::{
    adapters::AwsError,
    domain::{
        estimate::Machine,
        failure::{FailureCode, Stage},
        plan::{Input, Plan},
        probe::Probe,
        task::{ChunkResult, TaskId},
        time::UtcTime,
    },
};

use super::{
    Attempt, Made, assemble, chunk, held,
    input::{self, Served},
    normalise, probe,
};
use crate::{cage::Usage, error::TaskError};

/// How much slower one of Lambda's virtual CPUs is taken to be than the core that the estimate's figures are from.
const SLOWDOWN: f64 = 2.2;
/// Chunks whose objects are looked for at the same time.
const PARALLEL: usize = 16;
/// Workers that a job is taken to get.
const WORKERS: u32 = 4;

pub(super) async fn work(attempt: &Attempt<'_>) -> Result<Made, TaskError> {
    if let Some(made) = keep(attempt).await? {
        return Ok(made);
    }
    compare(attempt).await?;
    let scratch = attempt.scratch(0)?;
    let mut usage = Usage::default();
    let served = Served::start(attempt, input::source(attempt)?)?;
    let probed = served.judge(
        Stage::Probe,
        probe::probe(attempt, &scratch, &served.url, &mut usage).await,
    )?;
    let plan = new_plan(attempt, &probed.probe, Input::Source);
    if plan.is_single() {
        store_probe(attempt, &probed.probe, &plan).await?;
        let made = chunk::make(attempt, &plan, &plan.chunk(0), &served, &scratch, &mut usage).await?;
        return assemble::single(attempt, &plan, made, &scratch, usage, served.read_bytes()).await;
    }
    let sought = normalise::can_be_sought(attempt, &scratch, &served, &probed, &mut usage).await;
    let mut copied_bytes = 0;
    let mut reread_bytes = 0;
    let plan = if served.judge(Stage::Probe, sought)? {
        plan
    } else {
        let copy = normalise::normalise(attempt, &served, &probed, &mut usage).await?;
        // The copy has times of its own, so the frame grid is laid over it and not over the source.
        let copied = Served::start(attempt, input::stored(&copy))?;
        let of_copy = probe::probe(attempt, &scratch, &copied.url, &mut usage).await;
        let of_copy = copied.judge(Stage::Probe, of_copy)?;
        (copied_bytes, reread_bytes) = (copy.size_bytes, copied.read_bytes());
        new_plan(attempt, &of_copy.probe, Input::Normalised(copy))
    };
    store_probe(attempt, &probed.probe, &plan).await?;
    Ok(Made::Planned {
        plan: Box::new(plan),
        kept: Vec::new(),
        cost: attempt.cost(&usage, served.read_bytes() + reread_bytes, copied_bytes),
    })
}

/// Reads the whole source for its SHA-256, if one was declared that S3 has not compared. S3 compares what comes by one
/// PUT; of an upload in parts it only knows the parts.
async fn compare(attempt: &Attempt<'_>) -> Result<(), TaskError> {
    let declared = attempt.job.sha256.as_ref().filter(|_| !attempt.job.sha256_checked);
    let Some(declared) = declared else { return Ok(()) };
    let source = input::source(attempt)?;
    let digest = attempt.bench.transfer.digest(&source).await;
    let digest = digest.map_err(|error| TaskError::aws(Stage::Fetch, error))?;
    if digest.sha256 == *declared {
        return Ok(());
    }
    Err(TaskError::permanent(
        FailureCode::ChecksumMismatch,
        Stage::Fetch,
        "the uploaded file has another SHA-256 than was declared",
    ))
}

fn new_plan(attempt: &Attempt<'_>, probe: &Probe, input: Input) -> Plan {
    Plan::new(&attempt.job.spec, probe, input, &attempt.bench.limits, UtcTime::now())
}

async fn store_probe(attempt: &Attempt<'_>, probe: &Probe, plan: &Plan) -> Result<(), TaskError> {
    let machine = Machine {
        memory_mib: attempt.bench.memory_mib,
        workers: WORKERS,
        slowdown: SLOWDOWN,
    };
    let estimate = plan.estimate(probe.info.video.size().pixels(), &machine);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and far below 2^63"
    )]
    let seconds = estimate.wall_seconds.ceil() as u64;
    let (jobs, frames) = (&attempt.bench.jobs, plan.timeline.frames);
    let stored = attempt
        .lease
        .probed(jobs, &probe.info, frames, seconds, UtcTime::now())
        .await;
    held(stored, Stage::Probe)
}

/// The plan of an earlier attempt or generation, with the chunks that were finished by it. Source and spec of a job never
/// change, so neither does its plan, until what its tasks left behind expires.
async fn keep(attempt: &Attempt<'_>) -> Result<Option<Made>, TaskError> {
    let (jobs, lease, now) = (&attempt.bench.jobs, attempt.lease, UtcTime::now());
    let failed = |error| TaskError::aws(Stage::Probe, error);
    for generation in (1..=lease.generation).rev() {
        let Some(plan) = jobs.plan(&lease.job_id, generation).await.map_err(failed)? else {
            continue;
        };
        if !plan.can_be_kept(now) {
            return Ok(None);
        }
        let prefix = TaskId::encode_prefix(generation);
        let tasks = jobs.tasks(&lease.job_id, &prefix).await.map_err(failed)?;
        let results = tasks.into_iter().filter_map(|task| task.result);
        let kept = still_there(attempt, results.filter(|result| plan.can_keep(result, now))).await?;
        tracing::info!(job_id = %lease.job_id, generation, chunks = kept.len(), "a plan and its chunks are kept");
        return Ok(Some(Made::Planned {
            plan: Box::new(plan),
            kept,
            cost: attempt.cost(&Usage::default(), 0, 0),
        }));
    }
    Ok(None)
}

/// Those chunks whose objects all exist: outputs may expire sooner than a plan.
async fn still_there(
    attempt: &Attempt<'_>,
    results: impl Iterator<Item = ChunkResult>,
) -> Result<Vec<ChunkResult>, TaskError> {
    let transfer = &attempt.bench.transfer;
    let found: Vec<Option<ChunkResult>> = stream::iter(results)
        .map(async |result| {
            for track in result.videos.iter().chain(&result.audios) {
                if !transfer.exists(&track.object.key).await? || !transfer.exists(&track.table_key).await? {
                    return Ok(None);
                }
            }
            Ok::<_, AwsError>(Some(result))
        })
        .buffered(PARALLEL)
        .try_collect()
        .await
        .map_err(|error| TaskError::aws(Stage::Probe, error))?;
    Ok(found.into_iter().flatten().collect())
}
