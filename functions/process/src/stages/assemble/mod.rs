//! Joins chunks into outputs, checks them, and says what was checked.

mod files;
mod hls;
mod proof;
mod remux;
mod verify;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::domain::{
    failure::Stage,
    job::{Metrics, Output, OutputType, Phase},
    mp4::Init,
    plan::Plan,
    spec::OutputSpec,
    task::{ChunkResult, StoredObject, TaskCost, TaskId, TrackObject},
    time::UtcTime,
};
use sha2::{Digest as _, Sha256};

use self::proof::Evidence;
use super::{
    Attempt, Made,
    chunk::{self, MadeChunk},
    input, internal, invalid, round,
    track::{Part, Place, Table, Track, unreadable},
};
use crate::{cage::Usage, error::TaskError, scratch::Scratch};

/// Tables that are read at the same time.
const PARALLEL: usize = 32;
/// The plan and the assembly.
const OTHER_TASKS: u32 = 2;
/// A container's own share of a file, with room to spare: one part in this many.
const OVERHEAD_SHARE: u64 = 16;

/// All that was encoded for a job.
#[derive(Debug)]
struct Encoded {
    videos: Vec<Track>,
    audios: Vec<Track>,
    stills: Vec<(u32, StoredObject)>,
    /// What the tasks used that made it.
    cost: TaskCost,
    tasks: u32,
}

/// Ends a source that is one chunk, in the attempt that encoded it.
pub(super) async fn single(
    attempt: &Attempt<'_>,
    plan: &Plan,
    made: MadeChunk,
    scratch: &Scratch,
    usage: Usage,
    read_bytes: u64,
) -> Result<Made, TaskError> {
    attempt.enter(Phase::Packaging);
    let stills = chunk::store_stills(attempt, &made, scratch).await?;
    let mut tracks = Vec::new();
    let videos = made.videos.len();
    for track in made.videos.into_iter().chain(made.audios) {
        let stored = chunk::store_published(attempt, &track).await?;
        tracks.push(track.into_track(stored));
    }
    let audios = tracks.split_off(videos);
    let encoded = Encoded {
        videos: tracks,
        audios,
        stills,
        cost: TaskCost::default(),
        tasks: 0,
    };
    publish(attempt, plan, encoded, usage, read_bytes).await
}

/// The assemble task.
pub(super) async fn work(attempt: &Attempt<'_>, plan: &Plan) -> Result<Made, TaskError> {
    attempt.enter(Phase::Packaging);
    let (jobs, lease) = (&attempt.bench.jobs, attempt.lease);
    let tasks = jobs
        .tasks(&lease.job_id, &TaskId::prefix(lease.generation))
        .await
        .map_err(|error| TaskError::aws(Stage::Fetch, error))?;
    let mut cost = tasks.iter().find_map(|task| task.cost).unwrap_or_default();
    let results: Vec<ChunkResult> = tasks.into_iter().filter_map(|task| task.result).collect();
    let in_order = results.iter().map(|result| result.chunk).eq(0..plan.chunks);
    if !in_order {
        return Err(internal(Stage::Fetch, "a chunk is missing"));
    }
    for result in &results {
        cost.add(&result.cost);
    }
    let encoded = Encoded {
        videos: tracks(attempt, plan.videos.len(), &results, |result| &result.videos).await?,
        audios: tracks(attempt, plan.audios.len(), &results, |result| &result.audios).await?,
        stills: results.iter().flat_map(|result| result.thumbnails.clone()).collect(),
        cost,
        tasks: plan.chunks + OTHER_TASKS - 1,
    };
    publish(attempt, plan, encoded, Usage::default(), 0).await
}

/// Puts the chunks' parts of each rendition in a row.
async fn tracks(
    attempt: &Attempt<'_>,
    count: usize,
    results: &[ChunkResult],
    of: impl Fn(&ChunkResult) -> &Vec<TrackObject>,
) -> Result<Vec<Track>, TaskError> {
    let mut tracks = Vec::with_capacity(count);
    for index in 0..count {
        let objects: Vec<&TrackObject> = results.iter().filter_map(|result| of(result).get(index)).collect();
        if objects.len() != results.len() {
            return Err(internal(Stage::Fetch, "a chunk lacks a rendition"));
        }
        tracks.push(track(attempt, &objects).await?);
    }
    Ok(tracks)
}

async fn track(attempt: &Attempt<'_>, objects: &[&TrackObject]) -> Result<Track, TaskError> {
    let Some(first) = objects.first() else {
        return Err(internal(Stage::Fetch, "there are no chunks"));
    };
    if objects.iter().any(|object| object.init_sha256 != first.init_sha256) {
        return Err(invalid("its chunks begin differently"));
    }
    let transfer = &attempt.bench.transfer;
    let failed = |error| TaskError::aws(Stage::Fetch, error);
    let object = input::stored(&first.object);
    let init = transfer
        .read_range(&object, 0, first.init_bytes)
        .await
        .map_err(failed)?;
    if hex::encode(Sha256::digest(&init)) != first.init_sha256 {
        return Err(invalid("its first chunk has changed"));
    }
    let codec = Init::codec(&init).map_err(unreadable)?;
    let parts = stream::iter(objects.iter().copied())
        .map(async |object| {
            let table = transfer.read_output(&object.table_key).await.map_err(failed)?;
            let table: Table =
                serde_json::from_slice(&table).map_err(|_| internal(Stage::Fetch, "a table cannot be read"))?;
            Ok::<_, TaskError>(Part {
                place: Place::Object(object.object.clone()),
                size_bytes: object.object.size_bytes,
                table,
            })
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    Ok(Track {
        init: init.to_vec(),
        timescale: first.timescale,
        codec,
        parts,
    })
}

/// Makes every output, checks it and stores it. Nothing points to any of them until the job completes.
async fn publish(
    attempt: &Attempt<'_>,
    plan: &Plan,
    encoded: Encoded,
    mut usage: Usage,
    mut read_bytes: u64,
) -> Result<Made, TaskError> {
    let mut outputs = Vec::new();
    let mut evidence = Evidence::new(&attempt.lease.job_id, attempt.lease.generation);
    for file in &plan.files {
        outputs.push(
            files::make(
                attempt,
                plan,
                &encoded,
                file,
                &mut evidence,
                &mut usage,
                &mut read_bytes,
            )
            .await?,
        );
    }
    if let Some(hls) = &plan.hls {
        outputs.extend(hls::make(attempt, plan, &encoded, hls, &mut evidence).await?);
    }
    for (n, still) in &encoded.stills {
        outputs.push(thumbnail(plan, *n, still));
    }
    outputs.push(evidence.store(attempt).await?);
    let metrics = metrics(attempt, plan, &encoded, &outputs, &usage, read_bytes);
    Ok(Made::Published {
        outputs,
        metrics: Box::new(metrics),
    })
}

fn thumbnail(plan: &Plan, n: u32, still: &StoredObject) -> Output {
    Output {
        // Two digits, so that text order is time order.
        id: format!("thumbnail-{n:02}"),
        output_type: OutputType::Thumbnail,
        format: "jpeg".into(),
        quality: None,
        width_px: plan.thumbnail_size.width_px,
        height_px: plan.thumbnail_size.height_px,
        duration_seconds: None,
        frames: None,
        bitrate_bps: None,
        size_bytes: still.size_bytes,
        sha256: still.sha256.clone(),
        content_type: "image/jpeg".into(),
        key: still.key.clone(),
        proof: None,
    }
}

fn metrics(
    attempt: &Attempt<'_>,
    plan: &Plan,
    encoded: &Encoded,
    outputs: &[Output],
    usage: &Usage,
    read_bytes: u64,
) -> Metrics {
    let output_bytes = outputs.iter().map(|output| output.size_bytes).sum();
    let mut cost = attempt.cost(usage, read_bytes, 0);
    cost.add(&encoded.cost);
    let started_at = attempt.job.started_at.unwrap_or(attempt.job.created_at);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let seconds = (UtcTime::now().epoch_ms() - started_at.epoch_ms()) as f64 / 1_000.0;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let peak_memory_mb = cost.peak_memory_bytes as f64 / 1e6;
    let gib = f64::from(attempt.bench.memory_mib) / 1_024.0;
    Metrics {
        processing_seconds: round(seconds),
        tasks: encoded.tasks + 1,
        task_seconds: round(cost.seconds),
        cpu_seconds: round(cost.cpu_seconds),
        peak_cpu_percent: cost.peak_cpu_percent,
        peak_memory_mb: round(peak_memory_mb),
        source_bytes: attempt.job.size_bytes,
        read_bytes: cost.read_bytes,
        output_bytes,
        billed_gb_seconds: round(gib * cost.seconds),
        speed_ratio: round(plan.timeline.duration_seconds() / seconds.max(0.001)),
    }
}

/// A rendition's id and name parts, as its output shows them.
fn quality_name(spec: OutputSpec) -> Option<String> {
    spec.quality.map(|quality| quality.as_str().into())
}

fn bitrate_bps(size_bytes: u64, duration_seconds: f64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a figure for people"
    )]
    let bps = (size_bytes as f64 * 8.0 / duration_seconds.max(0.001)).round() as u64;
    bps
}
