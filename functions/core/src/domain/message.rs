//! What travels in the task queues: a versioned, tagged enum, so that messages in flight survive a deployment.

use serde::{Deserialize, Serialize};

use super::{id::JobId, task::TaskId};

/// The version that this code writes.
pub const VERSION: u32 = 1;

/// A task of a job, as a queue delivers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Task {
    /// Probe the source, decide what to do, and do it when it fits one invocation.
    Plan {
        /// The job.
        job_id: JobId,
        /// The generation that the task belongs to; an older one is dropped.
        generation: u32,
    },
    /// Encode one chunk.
    Encode {
        /// The job.
        job_id: JobId,
        /// The generation that the task belongs to.
        generation: u32,
        /// Which chunk, from 0.
        chunk: u32,
    },
    /// Join what was encoded.
    Assemble {
        /// The job.
        job_id: JobId,
        /// The generation that the task belongs to.
        generation: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    #[serde(flatten)]
    task: Task,
}

/// A message body that cannot be carried out. It is never acknowledged: the queue's dead-letter queue keeps it.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Written by a newer or an unknown version of this software.
    #[error("unknown message version {0}")]
    UnknownVersion(u64),
    /// No JSON, or not of a known shape.
    #[error("malformed message")]
    Malformed(#[source] serde_json::Error),
}

impl MessageError {
    /// The stable code of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownVersion(_) => "message_version_unknown",
            Self::Malformed(_) => "message_malformed",
        }
    }
}

impl Task {
    /// The message of a task of a job.
    #[must_use]
    pub fn new(job_id: JobId, generation: u32, task: TaskId) -> Self {
        match task {
            TaskId::Plan => Self::Plan { job_id, generation },
            TaskId::Encode(chunk) => Self::Encode {
                job_id,
                generation,
                chunk,
            },
            TaskId::Assemble => Self::Assemble { job_id, generation },
        }
    }

    /// Which task of which generation of which job it is.
    #[must_use]
    pub fn into_parts(self) -> (JobId, u32, TaskId) {
        match self {
            Self::Plan { job_id, generation } => (job_id, generation, TaskId::Plan),
            Self::Encode {
                job_id,
                generation,
                chunk,
            } => (job_id, generation, TaskId::Encode(chunk)),
            Self::Assemble { job_id, generation } => (job_id, generation, TaskId::Assemble),
        }
    }

    /// The task as a message body.
    ///
    /// # Errors
    /// Only if serialisation itself fails.
    pub fn to_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Envelope {
            version: VERSION,
            task: self.clone(),
        })
    }

    /// Reads a message body.
    pub fn from_body(body: &str) -> Result<Self, MessageError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let Version { version } = serde_json::from_str(body).map_err(MessageError::Malformed)?;
        if version != u64::from(VERSION) {
            return Err(MessageError::UnknownVersion(version));
        }
        let envelope: Envelope = serde_json::from_str(body).map_err(MessageError::Malformed)?;
        Ok(envelope.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads_back() {
        let job_id = JobId::generate();
        for id in [TaskId::Plan, TaskId::Encode(7), TaskId::Assemble] {
            let task = Task::new(job_id.clone(), 2, id);
            let read = Task::from_body(&task.to_body().unwrap()).unwrap();
            assert_eq!(read.into_parts(), (job_id.clone(), 2, id));
        }
    }

    #[test]
    fn unknown_versions_and_shapes_have_their_own_codes() {
        let newer = r#"{"version":2,"type":"plan","job_id":"x","generation":1}"#;
        assert_eq!(Task::from_body(newer).unwrap_err().code(), "message_version_unknown");
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"version":1,"type":"fly"}"#,
            r#"{"version":1,"type":"plan","job_id":"x","generation":1}"#,
        ] {
            assert_eq!(Task::from_body(bad).unwrap_err().code(), "message_malformed", "{bad}");
        }
    }
}
