//! Object keys: the one place that formats them.

use std::fmt;

use super::{
    id::{AccountId, JobId},
    task::TaskId,
};

/// The first segment of every source key; S3 notifies `intake` of nothing else.
pub const SOURCES: &str = "sources";
/// The first segment of the key of everything that may be published.
pub const OUTPUTS: &str = "outputs";
/// The first segment of the key of what only later tasks of a job read. The bucket lets it expire.
pub const WORK: &str = "work";

/// The key of a job's source. It holds nothing that the user chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceKey {
    /// Whose job it is.
    pub account: AccountId,
    /// The job.
    pub job: JobId,
}

impl SourceKey {
    /// Reads a key back, as an S3 event carries it after decoding.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let parsed = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(SOURCES), Some(account), Some(job), Some("source")) => Self {
                account: account.parse().ok()?,
                job: job.parse().ok()?,
            },
            _ => return None,
        };
        parts.next().is_none().then_some(parsed)
    }
}

impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SOURCES}/{}/{}/source", self.account, self.job)
    }
}

/// The prefix under which one attempt writes. Two attempts never share a key, so a late writer cannot change what
/// another one published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptPrefix {
    /// Whose job it is.
    pub account: AccountId,
    /// The job.
    pub job: JobId,
    /// The job's generation: 1, and one more for each retry by a person.
    pub generation: u32,
    /// The task.
    pub task: TaskId,
    /// The attempt at the task within the generation, from 1.
    pub attempt: u32,
}

impl AttemptPrefix {
    /// The key of a file of this attempt that may be published.
    #[must_use]
    pub fn output(&self, file: &str) -> String {
        self.under(OUTPUTS, file)
    }

    /// The key of a file of this attempt that only later tasks read.
    #[must_use]
    pub fn work(&self, file: &str) -> String {
        self.under(WORK, file)
    }

    fn under(&self, area: &str, file: &str) -> String {
        let Self {
            account,
            job,
            generation,
            task,
            attempt,
        } = self;
        let task = match task {
            TaskId::Plan => "plan".to_owned(),
            TaskId::Encode(chunk) => format!("c{chunk:04}"),
            TaskId::Assemble => "assemble".to_owned(),
        };
        format!("{area}/{account}/{job}/{generation}-{task}-{attempt}/{file}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_key_reads_back() {
        let key = SourceKey {
            account: AccountId::generate(),
            job: JobId::generate(),
        };
        assert_eq!(SourceKey::parse(&key.to_string()), Some(key));
    }

    #[test]
    fn other_keys_are_no_source_keys() {
        let good = SourceKey {
            account: AccountId::generate(),
            job: JobId::generate(),
        }
        .to_string();
        for bad in [
            "",
            "sources",
            "sources/a/b/source",
            &good.replace("sources", "outputs"),
            &format!("{good}/x"),
        ] {
            assert_eq!(SourceKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn attempts_never_share_a_key() {
        let first = AttemptPrefix {
            account: AccountId::generate(),
            job: JobId::generate(),
            generation: 1,
            task: TaskId::Encode(1),
            attempt: 11,
        };
        let others = [
            AttemptPrefix {
                generation: 11,
                attempt: 1,
                ..first.clone()
            },
            AttemptPrefix {
                task: TaskId::Encode(11),
                ..first.clone()
            },
            AttemptPrefix {
                task: TaskId::Assemble,
                ..first.clone()
            },
        ];
        for other in &others {
            assert_ne!(first.output("video.mp4"), other.output("video.mp4"));
        }
        assert_ne!(first.output("video.mp4"), first.work("video.mp4"));
    }
}
