//! The tasks of a job: which there are, where each stands, and what an encoded chunk leaves behind for the others.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{time::UtcTime, words::words};

/// A task of a generation of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskId {
    /// Probe the source and decide; does the whole work of a short source.
    Plan,
    /// Encode a chunk, counted from 0.
    Encode(u32),
    /// Join the chunks.
    Assemble,
}

impl TaskId {
    /// The sort-key prefix of a generation's tasks.
    #[must_use]
    pub fn prefix(generation: u32) -> String {
        format!("task#{generation}#")
    }

    /// The sort-key prefix of a generation's encode tasks.
    #[must_use]
    pub fn encode_prefix(generation: u32) -> String {
        format!("task#{generation}#encode#")
    }

    /// The task's sort key. Chunks sort in their order.
    #[must_use]
    pub fn item(self, generation: u32) -> String {
        format!("task#{generation}#{self}")
    }

    /// Reads a sort key back: the generation and the task.
    #[must_use]
    pub fn parse(item: &str) -> Option<(u32, Self)> {
        let (generation, task) = item.strip_prefix("task#")?.split_once('#')?;
        let task = match task.split_once('#') {
            None if task == "plan" => Self::Plan,
            None if task == "assemble" => Self::Assemble,
            Some(("encode", chunk)) => Self::Encode(chunk.parse().ok()?),
            _ => return None,
        };
        Some((generation.parse().ok()?, task))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan => f.write_str("plan"),
            Self::Encode(chunk) => write!(f, "encode#{chunk:04}"),
            Self::Assemble => f.write_str("assemble"),
        }
    }
}

words! {
    /// Where a task stands.
    TaskState {
        /// Waits for other tasks.
        Blocked = "BLOCKED",
        /// Waits for a worker.
        Ready = "READY",
        /// A worker has it, for as long as its lease lasts.
        Running = "RUNNING",
        /// Finished.
        Done = "DONE",
        /// Given up.
        Failed = "FAILED",
    }
}

/// A task item, as far as others than its own worker read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskItem {
    /// Its sort key.
    pub item: String,
    /// Where it stands.
    pub state: TaskState,
    /// Claims so far.
    #[serde(default)]
    pub attempts: u32,
    /// When the running claim runs out, in milliseconds since 1970.
    #[serde(default)]
    pub lease_expires_ms: i64,
    /// When the running claim began, in milliseconds since 1970.
    #[serde(default)]
    pub started_ms: i64,
    /// When its message was last sent, in milliseconds since 1970.
    #[serde(default)]
    pub sent_ms: i64,
    /// How long the finished attempt took, in milliseconds.
    #[serde(default)]
    pub took_ms: i64,
    /// Most frames that any of its attempts has encoded.
    #[serde(default)]
    pub frames_done: u64,
    /// What an encode task made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ChunkResult>,
    /// What the plan task used; an encode task tells it with its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<TaskCost>,
    /// Its last change.
    pub updated_at: UtcTime,
}

impl TaskItem {
    /// Which task it is.
    #[must_use]
    pub fn id(&self) -> Option<TaskId> {
        TaskId::parse(&self.item).map(|(_, task)| task)
    }
}

/// What an encode task made. Kept by later generations of the same job, so it names its objects in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkResult {
    /// The chunk.
    pub chunk: u32,
    /// Its frames, as counted in every rendition.
    pub frames: u64,
    /// One for each video rendition of the plan, in its order.
    pub videos: Vec<TrackObject>,
    /// One for each audio rendition of the plan, in its order.
    pub audios: Vec<TrackObject>,
    /// Stills that lie in this chunk: number from 1, and object.
    pub thumbnails: Vec<(u32, StoredObject)>,
    /// What it took.
    pub cost: TaskCost,
    /// When it was made.
    pub made_at: UtcTime,
}

/// An object in the output bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-256 over all of it, in hex.
    pub sha256: String,
}

/// One rendition's part of a chunk: a CMAF file of an init segment and fragments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackObject {
    /// Where it lies.
    pub object: StoredObject,
    /// The key of its sample tables: the [`Fragment`](super::mp4::Fragment)s as JSON, read when chunks are joined.
    pub table_key: String,
    /// Length of the init segment, at the object's beginning.
    pub init_bytes: u64,
    /// SHA-256 of the init segment, in hex: the same in all chunks.
    pub init_sha256: String,
    /// Bytes between the init segment and the first fragment that is played: the priming packet of sound.
    pub skip_bytes: u64,
    /// The fragments in order: length in bytes and in ticks of the track's time scale.
    pub fragments: Vec<(u64, u64)>,
    /// Ticks of a second.
    pub timescale: u32,
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskCost {
    /// Time on the clock, from the claim.
    pub seconds: f64,
    /// CPU time of the child processes.
    pub cpu_seconds: f64,
    /// Highest CPU use of a child over one second; 100 is one core.
    pub peak_cpu_percent: f64,
    /// Highest resident memory of a child.
    pub peak_memory_bytes: u64,
    /// Bytes read from the source, or from its normalised copy.
    pub read_bytes: u64,
    /// Bytes written to the output bucket.
    pub written_bytes: u64,
}

impl TaskCost {
    /// Adds what another task used; peaks stay peaks.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
        self.peak_cpu_percent = self.peak_cpu_percent.max(other.peak_cpu_percent);
        self.peak_memory_bytes = self.peak_memory_bytes.max(other.peak_memory_bytes);
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_read_back_and_chunks_sort_in_order() {
        for task in [TaskId::Plan, TaskId::Encode(0), TaskId::Encode(4_321), TaskId::Assemble] {
            assert_eq!(TaskId::parse(&task.item(3)), Some((3, task)));
        }
        assert!(TaskId::Encode(9).item(1) < TaskId::Encode(10).item(1));
        assert!(TaskId::Encode(9).item(1).starts_with(&TaskId::encode_prefix(1)));
        for bad in [
            "",
            "job",
            "task#1",
            "task#x#plan",
            "task#1#encode#",
            "task#1#encode#x",
            "task#1#fly",
        ] {
            assert_eq!(TaskId::parse(bad), None, "{bad}");
        }
    }
}
