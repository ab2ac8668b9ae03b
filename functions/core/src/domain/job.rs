//! The job: its state, what is stored of it, and what is shown.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    create::NewJob,
    estimate,
    failure::Failure,
    id::{AccountId, JobId},
    keys::SourceKey,
    magic::Kind,
    probe::SourceInfo,
    spec::{Priority, Spec},
    time::UtcTime,
    upload::{Multipart, Parts},
    words::words,
};

/// Most attempts at a task, the first one included.
pub const MAX_ATTEMPTS: u32 = 3;
/// How long a claim lasts without a heartbeat.
pub const LEASE: Duration = Duration::from_mins(1);
/// How often a worker renews its claim.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Jobs on a page of a list that does not say how many.
pub const DEFAULT_PAGE_JOBS: usize = 25;
/// Most jobs on a page of a list.
pub const MAX_PAGE_JOBS: usize = 100;
/// What is shown at most before a job is COMPLETED.
const MAX_UNFINISHED_PERCENT: f64 = 99.0;

words! {
    /// Where a job stands.
    Status {
        /// Waiting for the upload.
        Pending = "PENDING",
        /// Waiting for a worker.
        Queued = "QUEUED",
        /// Workers have it.
        InProgress = "IN_PROGRESS",
        /// Done; outputs are published.
        Completed = "COMPLETED",
        /// Given up.
        Failed = "FAILED",
        /// Stopped by its owner.
        Cancelled = "CANCELLED",
        /// The upload never came.
        Expired = "EXPIRED",
    }
}

impl Status {
    /// Whether nothing can change any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Queued | Self::InProgress => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Expired => true,
        }
    }

    /// The states from which this one may be entered. Every state change is a write on condition of these.
    #[must_use]
    pub fn predecessors(self) -> &'static [Self] {
        match self {
            Self::Pending => &[],
            Self::Queued | Self::Expired => &[Self::Pending],
            Self::InProgress => &[Self::Queued, Self::InProgress],
            Self::Completed => &[Self::InProgress],
            Self::Failed | Self::Cancelled => &[Self::Pending, Self::Queued, Self::InProgress],
        }
    }
}

words! {
    /// What a worker is doing.
    Phase {
        /// Looking at the source.
        Probing = "probing",
        /// Encoding.
        Encoding = "encoding",
        /// Checking and publishing.
        Packaging = "packaging",
    }
}

/// A source, pinned: whatever is uploaded to the same key later, this is what is processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedSource {
    /// The object's version.
    pub version_id: String,
    /// Its entity tag.
    pub etag: String,
}

/// The job item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub job_id: JobId,
    /// Whose it is.
    pub account_id: AccountId,
    /// Where it stands.
    pub status: Status,
    /// What the worker is doing; only while in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// 1, and one more for each retry by a person.
    pub generation: u32,
    /// Claims of the running generation's tasks so far: the most that any one of them needed.
    pub attempts: u32,
    /// Which queue.
    pub priority: Priority,
    /// The kind, by content; known once the upload was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// What to make.
    pub spec: Spec,
    /// The source's name at the user's side.
    pub filename: String,
    /// Echoed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Echoed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Echoed.
    #[serde(default, with = "json_text", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Exact length of the source.
    pub size_bytes: u64,
    /// The declared type.
    pub content_type: String,
    /// How long the caller says it plays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared_duration_seconds: Option<f64>,
    /// As said at submission.
    pub estimated_processing_seconds: u64,
    /// The pinned source; known once the upload was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PinnedSource>,
    /// Facts of the source; known once it was probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_info: Option<SourceInfo>,
    /// Encode tasks of the running generation, once it was planned; 0 for a source that needs none.
    #[serde(default)]
    pub tasks_total: u32,
    /// How many of them are not done.
    #[serde(default)]
    pub tasks_remaining: u32,
    /// Frames encoded so far. Never goes back within a generation: a second attempt at a chunk counts only what it does
    /// beyond the first.
    #[serde(default)]
    pub frames_done: u64,
    /// Frames to encode; 0 before the probe.
    #[serde(default)]
    pub frames_total: u64,
    /// Frames a second of the worker that reported last; [`Job::speed_fps`] is what is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Whether something can be played yet.
    #[serde(default)]
    pub playable: bool,
    /// The pointer: which attempt's outputs are the job's. Nothing else makes an output visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_attempt: Option<u32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// When it was asked for.
    pub created_at: UtcTime,
    /// When the upload was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<UtcTime>,
    /// When a worker first claimed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UtcTime>,
    /// When it reached a terminal state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<UtcTime>,
    /// The last change.
    pub updated_at: UtcTime,
    /// When it was deleted. From then on it exists for the sweep only, which removes what it consists of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<UtcTime>,
    /// When its objects were removed for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects_removed_at: Option<UtcTime>,
    /// Until when the upload may begin; one in parts must be complete by then.
    pub upload_expires_at: UtcTime,
    /// The upload in parts, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipart: Option<Multipart>,
    /// What the source's SHA-256 must be, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether S3 has compared it. If not, the worker does.
    #[serde(default)]
    pub sha256_checked: bool,
}

impl Job {
    /// A job that waits for its upload.
    #[must_use]
    pub fn pending(job_id: JobId, account_id: AccountId, new: NewJob, now: UtcTime, upload_window: Duration) -> Self {
        Self {
            job_id,
            account_id,
            status: Status::Pending,
            phase: None,
            generation: 1,
            attempts: 0,
            priority: new.priority,
            kind: None,
            spec: new.spec,
            filename: new.filename,
            title: new.title,
            description: new.description,
            metadata: new.metadata,
            size_bytes: new.size_bytes,
            content_type: new.content_type,
            declared_duration_seconds: new.duration_seconds,
            estimated_processing_seconds: estimate::processing_seconds(new.duration_seconds, new.size_bytes),
            source: None,
            source_info: None,
            tasks_total: 0,
            tasks_remaining: 0,
            frames_done: 0,
            frames_total: 0,
            fps: None,
            playable: false,
            published_attempt: None,
            error: None,
            created_at: now,
            queued_at: None,
            started_at: None,
            completed_at: None,
            updated_at: now,
            deleted_at: None,
            objects_removed_at: None,
            upload_expires_at: now.plus(upload_window),
            multipart: None,
            sha256: new.sha256,
            sha256_checked: false,
        }
    }

    /// Where its source lies.
    #[must_use]
    pub fn source_key(&self) -> SourceKey {
        SourceKey {
            account: self.account_id.clone(),
            job: self.job_id.clone(),
        }
    }

    /// How the source is cut, when it is sent in parts.
    #[must_use]
    pub fn parts(&self) -> Option<Parts> {
        self.multipart.as_ref().map(|multipart| Parts {
            size_bytes: self.size_bytes,
            part_size_bytes: multipart.part_size_bytes,
        })
    }

    /// The name to show for it.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.title
            .as_deref()
            .filter(|title| !title.is_empty())
            .unwrap_or(&self.filename)
    }

    /// How much is done: 0 to 100, 100 only when COMPLETED.
    #[must_use]
    pub fn progress_percent(&self) -> f64 {
        if self.status == Status::Completed {
            return 100.0;
        }
        if self.frames_total == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "frame counts are far below 2^53")]
        let share = self.frames_done as f64 / self.frames_total as f64;
        ((share * 1_000.0).floor() / 10.0).min(MAX_UNFINISHED_PERCENT)
    }

    /// Encode tasks of the running generation that are done.
    #[must_use]
    pub fn tasks_done(&self) -> u32 {
        self.tasks_total.saturating_sub(self.tasks_remaining)
    }

    /// Frames encoded a second, to one decimal.
    #[must_use]
    pub fn speed_fps(&self) -> Option<f64> {
        self.speed().map(tenths)
    }

    /// Seconds until all frames are encoded at this speed, to one decimal.
    #[must_use]
    pub fn eta_seconds(&self) -> Option<f64> {
        let fps = self.speed().filter(|fps| *fps > 0.0)?;
        let left = self
            .frames_total
            .checked_sub(self.frames_done)
            .filter(|_| self.status == Status::InProgress)?;
        #[expect(clippy::cast_precision_loss, reason = "frame counts are far below 2^53")]
        let seconds = left as f64 / fps;
        Some(tenths(seconds))
    }

    /// Frames encoded a second. The stored speed is that of the worker who told last, and so of the whole job only when
    /// it has one worker; the speed of many is the mean since the job was begun.
    fn speed(&self) -> Option<f64> {
        if self.tasks_total == 0 {
            return self.fps;
        }
        let started_at = self.started_at.filter(|_| self.status == Status::InProgress)?;
        let seconds = self.updated_at.seconds_since(started_at);
        if self.frames_done == 0 || seconds <= 0.0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "frame counts are far below 2^53")]
        let frames = self.frames_done as f64;
        Some(frames / seconds)
    }
}

/// An object that is stored as its JSON text: what is echoed must not be bounded by what a table's own maps can hold
/// (32 levels, numbers below 10^126, no empty names), and comes back as it was sent.
mod json_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use serde_json::{Map, Value};

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        object: &Option<Map<String, Value>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match object {
            Some(object) => serializer.serialize_str(&Value::Object(object.clone()).to_string()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Map<String, Value>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| serde_json::from_str(&text).map_err(D::Error::custom))
            .transpose()
    }
}

/// One decimal.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

words! {
    /// What an output is for.
    OutputType {
        /// An encoded version of the source.
        Rendition = "rendition",
        /// A small still.
        Thumbnail = "thumbnail",
        /// What was checked of all objects of the job.
        Proof = "proof",
    }
}

/// A published object of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Its id within the job.
    pub id: String,
    /// What it is for.
    #[serde(rename = "type")]
    pub output_type: OutputType,
    /// The container, as the API spells it.
    pub format: String,
    /// The rung that was asked for.
    pub quality: Option<String>,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// How long it plays.
    pub duration_seconds: Option<f64>,
    /// Frames, as counted in the finished file.
    pub frames: Option<u64>,
    /// Measured over the whole file.
    pub bitrate_bps: Option<u64>,
    /// Length of the object.
    pub size_bytes: u64,
    /// SHA-256 of the object, in hex.
    pub sha256: String,
    /// Its media type.
    pub content_type: String,
    /// Its object key.
    pub key: String,
    /// What was counted in it; renditions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What was planned of a rendition and what was found in it. A job whose figures differ by more than is allowed fails.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Frames of the plan.
    pub expected_frames: u64,
    /// Frames counted in the finished objects.
    pub counted_frames: u64,
    /// Longest step from one frame's time to the next one's.
    pub largest_gap_ms: f64,
    /// How much longer the sound is than planned, or shorter when negative.
    pub audio_drift_ms: Option<f64>,
    /// Objects that the rendition consists of.
    pub objects: u32,
    /// Bytes of them all.
    pub object_bytes: u64,
}

/// What a job really used; written once, at completion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// From the first claim to the end, on the clock.
    pub processing_seconds: f64,
    /// Tasks that were finished, this generation's and those that it kept of earlier ones.
    #[serde(default)]
    pub tasks: u32,
    /// Time on the clock of all finished tasks together.
    #[serde(default)]
    pub task_seconds: f64,
    /// CPU time of the child processes.
    pub cpu_seconds: f64,
    /// Highest CPU use of the child processes over one second; 100 is one core.
    pub peak_cpu_percent: f64,
    /// Highest resident memory of a child process.
    pub peak_memory_mb: f64,
    /// Length of the source.
    pub source_bytes: u64,
    /// Bytes that all finished tasks read of it, or of its normalised copy.
    #[serde(default)]
    pub read_bytes: u64,
    /// Bytes published.
    pub output_bytes: u64,
    /// What Lambda bills for the finished tasks.
    pub billed_gb_seconds: f64,
    /// Media seconds for each processing second.
    pub speed_ratio: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::create::CreateJob;

    fn job() -> Job {
        let body = r#"{"filename":"a.mp4","size_bytes":10,"metadata":{"n":1.5}}"#;
        let new = serde_json::from_str::<CreateJob>(body).unwrap().validate(100).unwrap();
        let now = UtcTime::from_epoch_ms(0);
        Job::pending(
            JobId::generate(),
            AccountId::generate(),
            new,
            now,
            Duration::from_mins(1),
        )
    }

    #[test]
    fn nothing_leaves_a_terminal_state() {
        for next in Status::ALL {
            assert!(next.predecessors().iter().all(|from| !from.is_terminal()), "{next:?}");
        }
    }

    #[test]
    fn every_state_but_the_first_can_be_entered() {
        let unreachable: Vec<_> = Status::ALL
            .iter()
            .filter(|status| status.predecessors().is_empty())
            .collect();
        assert_eq!(unreachable, [&Status::Pending]);
    }

    #[test]
    fn metadata_of_any_shape_is_stored_as_text() {
        let mut nested = json!(1e300);
        for _ in 0..100 {
            nested = json!({"": nested});
        }
        let job = Job {
            metadata: nested.as_object().cloned(),
            ..job()
        };
        let stored = serde_json::to_value(&job).unwrap();
        assert!(stored["metadata"].is_string());
        assert_eq!(serde_json::from_value::<Job>(stored).unwrap(), job);
    }

    #[test]
    fn a_stored_job_reads_back() {
        let job = job();
        let json = serde_json::to_value(&job).unwrap();
        assert_eq!(serde_json::from_value::<Job>(json).unwrap(), job);
    }

    /// A job that has been encoding for ten seconds.
    fn running(tasks_total: u32, frames_done: u64) -> Job {
        Job {
            status: Status::InProgress,
            tasks_total,
            tasks_remaining: tasks_total / 2,
            frames_done,
            frames_total: 3_000,
            fps: Some(25.04),
            started_at: Some(UtcTime::from_epoch_ms(5_000)),
            updated_at: UtcTime::from_epoch_ms(15_000),
            ..job()
        }
    }

    #[test]
    fn the_speed_of_one_worker_is_as_it_was_told() {
        let job = running(0, 1_748);
        assert_eq!((job.speed_fps(), job.eta_seconds()), (Some(25.0), Some(50.0)));
        let stopped = Job { fps: Some(0.0), ..job };
        assert_eq!((stopped.speed_fps(), stopped.eta_seconds()), (Some(0.0), None));
        assert_eq!(stopped.tasks_done(), 0);
    }

    #[test]
    fn the_speed_of_many_workers_is_that_of_all() {
        let job = running(8, 2_000);
        assert_eq!((job.speed_fps(), job.eta_seconds()), (Some(200.0), Some(5.0)));
        assert_eq!(job.tasks_done(), 4);
        let slow = Job {
            frames_done: 1_001,
            ..job
        };
        assert_eq!((slow.speed_fps(), slow.eta_seconds()), (Some(100.1), Some(20.0)));
    }

    #[test]
    fn many_workers_have_no_speed_before_the_first_frame_and_after_the_end() {
        let job = running(8, 2_000);
        let unmeasured = [
            Job {
                frames_done: 0,
                ..job.clone()
            },
            Job {
                started_at: None,
                ..job.clone()
            },
            Job {
                started_at: Some(job.updated_at),
                ..job.clone()
            },
            Job {
                status: Status::Completed,
                ..job.clone()
            },
            Job {
                status: Status::Cancelled,
                ..job
            },
        ];
        for job in unmeasured {
            assert_eq!((job.speed_fps(), job.eta_seconds()), (None, None), "{job:?}");
        }
    }

    proptest! {
        #[test]
        fn progress_is_bounded_and_full_only_at_the_end(done in 0_u64..1_000, total in 0_u64..1_000) {
            let mut job = job();
            job.frames_done = done;
            job.frames_total = total;
            for status in Status::ALL {
                job.status = *status;
                let percent = job.progress_percent();
                prop_assert!((0.0..=100.0).contains(&percent));
                prop_assert_eq!(percent >= 100.0, *status == Status::Completed);
            }
        }
    }
}
