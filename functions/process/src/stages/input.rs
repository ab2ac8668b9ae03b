//! What a task reads: the pinned source or its normalised copy, through the worker's range server.

use std::sync::Arc;

use reelay_core::domain::{
    failure::{FailureCode, Stage},
    plan::Input,
    task::StoredObject,
};

use super::{Attempt, internal};
use crate::{
    error::TaskError,
    range::{Blob, Budget, RangeServer, ReadError},
    transfer::{Bucket, ObjectRef},
};

/// Memory for blocks of the source.
const CACHE_BYTES: u64 = 64 << 20;
/// How often the whole of the input may be read by one task, and what may come on top of it for small ones: indexes are
/// read again at every opening.
const MAX_READS: u64 = 4;
const SPARE_BYTES: u64 = 256 << 20;

/// An input that is being served.
#[derive(Debug)]
pub(super) struct Served {
    server: RangeServer,
    /// Where ffmpeg finds it.
    pub(super) url: String,
}

/// The uploaded source, as it was pinned.
pub(super) fn source(attempt: &Attempt<'_>) -> Result<ObjectRef, TaskError> {
    let Some(pinned) = &attempt.job.source else {
        return Err(internal(Stage::Fetch, "the job has no source"));
    };
    let key = attempt.job.source_key().to_string();
    Ok(ObjectRef::source(key, pinned, attempt.job.size_bytes))
}

/// An object that a task of this job stored.
pub(super) fn stored(object: &StoredObject) -> ObjectRef {
    ObjectRef {
        bucket: Bucket::Output,
        key: object.key.clone(),
        version_id: None,
        etag: None,
        size_bytes: object.size_bytes,
    }
}

/// What a plan's input names.
pub(super) fn planned(attempt: &Attempt<'_>, input: &Input) -> Result<ObjectRef, TaskError> {
    match input {
        Input::Source => source(attempt),
        Input::Normalised(object) => Ok(stored(object)),
    }
}

impl Served {
    /// Serves an object.
    pub(super) fn start(attempt: &Attempt<'_>, object: ObjectRef) -> Result<Self, TaskError> {
        let size_bytes = object.size_bytes;
        let server = server(attempt, size_bytes)?;
        let url = server.add("source", Blob::object(object));
        Ok(Self { server, url })
    }

    /// What was read of it so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.server.bytes_read()
    }

    /// What an error of a child means: a read that failed explains it better than what the child made of that. And
    /// since ffmpeg may take a broken read for the end of the file, success counts only when nothing failed, too.
    pub(super) fn judge<T>(&self, stage: Stage, result: Result<T, TaskError>) -> Result<T, TaskError> {
        judge(&self.server, stage, result)
    }
}

/// A server for inputs of so many bytes in all.
pub(super) fn server(attempt: &Attempt<'_>, size_bytes: u64) -> Result<RangeServer, TaskError> {
    let budget = Budget {
        cache_bytes: CACHE_BYTES,
        max_bytes: size_bytes.saturating_mul(MAX_READS).saturating_add(SPARE_BYTES),
    };
    RangeServer::start(Arc::new(attempt.bench.transfer.clone()), budget)
        .map_err(|error| TaskError::internal(Stage::Fetch, &error))
}

/// See [`Served::judge`].
pub(super) fn judge<T>(server: &RangeServer, stage: Stage, result: Result<T, TaskError>) -> Result<T, TaskError> {
    match server.check() {
        Ok(()) => result,
        Err(ReadError::Exhausted) => Err(TaskError::permanent(
            FailureCode::SourceCorrupt,
            stage,
            "the source makes its reader go back and forth without end",
        )),
        Err(error) => Err(TaskError::Transient {
            stage,
            source: error.into(),
        }),
    }
}
