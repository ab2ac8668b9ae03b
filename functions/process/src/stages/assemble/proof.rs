//! What was planned of each rendition and what its tables say, and the refusal of everything that differs.

use reelay_core::domain::{
    failure::Stage,
    id::JobId,
    job::{Output, OutputType, Proof},
    mp4::Fragment,
    plan::Plan,
    task::StoredObject,
};
use serde::Serialize;

use super::super::{Attempt, invalid, round, track::Track};
use crate::error::TaskError;

/// The file of the evidence.
const FILE: &str = "proof.json";
/// Largest step between frames, in frames: one, and nothing in between.
const LARGEST_GAP_FRAMES: f64 = 1.5;

/// All that was checked of a job, as it is published.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    job_id: JobId,
    generation: u32,
    renditions: Vec<Rendition>,
}

#[derive(Debug, Serialize)]
struct Rendition {
    id: String,
    // Not the whole proof flattened: its count of objects has the name of their list.
    expected_frames: u64,
    counted_frames: u64,
    largest_gap_ms: f64,
    audio_drift_ms: Option<f64>,
    object_bytes: u64,
    objects: Vec<StoredObject>,
}

impl Evidence {
    pub(super) fn new(job_id: &JobId, generation: u32) -> Self {
        Self {
            job_id: job_id.clone(),
            generation,
            renditions: Vec::new(),
        }
    }

    /// Adds a rendition that consists of these objects.
    pub(super) fn add(&mut self, id: &str, counted: Counted, objects: Vec<StoredObject>) -> Proof {
        let proof = Proof {
            expected_frames: counted.expected_frames,
            counted_frames: counted.frames,
            largest_gap_ms: counted.largest_gap_ms,
            audio_drift_ms: counted.audio_drift_ms,
            objects: u32::try_from(objects.len()).unwrap_or(u32::MAX),
            object_bytes: objects.iter().map(|object| object.size_bytes).sum(),
        };
        self.renditions.push(Rendition {
            id: id.into(),
            expected_frames: proof.expected_frames,
            counted_frames: proof.counted_frames,
            largest_gap_ms: proof.largest_gap_ms,
            audio_drift_ms: proof.audio_drift_ms,
            object_bytes: proof.object_bytes,
            objects,
        });
        proof
    }

    pub(super) async fn store(&self, attempt: &Attempt<'_>) -> Result<Output, TaskError> {
        let bytes = serde_json::to_vec(self).map_err(|_| invalid("its evidence cannot be written"))?;
        let key = attempt.prefix().output(FILE);
        let content_type = "application/json";
        let stored = attempt.bench.transfer.store_bytes(bytes, &key, content_type).await;
        let stored = stored.map_err(|error| TaskError::aws(Stage::Publish, error))?;
        Ok(Output {
            id: "proof".into(),
            output_type: OutputType::Proof,
            format: "json".into(),
            quality: None,
            width_px: 0,
            height_px: 0,
            duration_seconds: None,
            frames: None,
            bitrate_bps: None,
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
            content_type: content_type.into(),
            key,
            proof: None,
        })
    }
}

/// What the tables of a rendition say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counted {
    expected_frames: u64,
    pub(super) frames: u64,
    largest_gap_ms: f64,
    audio_drift_ms: Option<f64>,
}

/// Counts a rendition and refuses what is not as planned.
pub(super) fn count(plan: &Plan, video: &Track, audio: Option<(&Track, usize)>) -> Result<Counted, TaskError> {
    let frames = video.played().map(|fragment| fragment.samples.len() as u64).sum();
    if frames != plan.timeline.frames {
        return Err(invalid("it has another number of frames"));
    }
    let (_, frame_ticks) = plan.timeline.rate.timescale();
    let largest_gap_ms = milliseconds(gap_ticks(video, u64::from(frame_ticks)), video.timescale);
    let allowed_ms = LARGEST_GAP_FRAMES * milliseconds(u64::from(frame_ticks), video.timescale);
    if largest_gap_ms > allowed_ms {
        return Err(invalid("there is a gap between its frames"));
    }
    let audio_drift_ms = match audio {
        Some((track, index)) => Some(drift_ms(plan, track, index)?),
        None => None,
    };
    Ok(Counted {
        expected_frames: plan.timeline.frames,
        frames,
        largest_gap_ms: round(largest_gap_ms),
        audio_drift_ms: audio_drift_ms.map(round),
    })
}

/// The longest step from one frame's decoding to the next one's, over all seams. The first frame counts from the
/// track's beginning.
fn gap_ticks(track: &Track, frame_ticks: u64) -> u64 {
    let (mut end, mut largest) = (0, 0);
    for fragment in track.played() {
        let seam = fragment.start_ticks.abs_diff(end) + frame_ticks;
        largest = largest
            .max(seam)
            .max(u64::from(fragment.samples.longest_duration_ticks()));
        end = fragment.end_ticks();
    }
    largest
}

/// How far the end of the sound is from where it was planned; the last packet may be longer than what is in it.
fn drift_ms(plan: &Plan, track: &Track, index: usize) -> Result<f64, TaskError> {
    let rendition = plan.audios.get(index);
    let grid = rendition.and_then(|rendition| Some((rendition.codec, plan.audio_grid(rendition)?)));
    let Some((codec, grid)) = grid else {
        return Err(invalid("it has sound that was not planned"));
    };
    let packets: u64 = track.fragments().map(|fragment| fragment.samples.len() as u64).sum();
    if packets != grid.packets() {
        return Err(invalid("its sound has another length"));
    }
    let mut fragments = track.played().peekable();
    while let Some(fragment) = fragments.next() {
        if fragments
            .peek()
            .is_some_and(|next| next.start_ticks != fragment.end_ticks())
        {
            return Err(invalid("there is a gap in its sound"));
        }
    }
    let end = track.played().last().map_or(0, Fragment::end_ticks);
    #[expect(clippy::cast_precision_loss, reason = "sample counts are far below 2^53")]
    let drift = (end as f64 - grid.total_samples() as f64) * 1_000.0 / f64::from(grid.sample_rate_hz());
    if drift.abs() >= milliseconds(codec.packet_samples(), grid.sample_rate_hz()) {
        return Err(invalid("its sound is not as long as planned"));
    }
    Ok(drift)
}

fn milliseconds(ticks: u64, timescale: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let ticks = ticks as f64;
    ticks * 1_000.0 / f64::from(timescale.max(1))
}
