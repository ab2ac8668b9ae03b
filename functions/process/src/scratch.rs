//! Scratch space: one folder an attempt, with names that we made, gone when the attempt is.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::TaskError;
use reelay_core::domain::failure::{FailureCode, Stage};

/// What outputs may need beside the source: half of its length (renditions are capped far below what cameras write),
/// and this much at least. An output that needs more ends with `no_space`, not with a cut file.
const MIN_OUTPUT_BYTES: u64 = 64 << 20;

/// An attempt's folder. Removed with all that is in it when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// Makes a folder, on condition that a source of this length and its outputs fit.
    pub(crate) fn new(size_bytes: u64, budget_bytes: u64) -> Result<Self, TaskError> {
        let folder = tempfile::Builder::new()
            .prefix("reelay-")
            .tempdir()
            .map_err(|error| TaskError::internal(Stage::Fetch, &error))?;
        let free = rustix::fs::statvfs(folder.path())
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| TaskError::internal(Stage::Fetch, &error.into()))?;
        let needed = size_bytes.saturating_add((size_bytes / 2).max(MIN_OUTPUT_BYTES));
        if needed > free.min(budget_bytes) {
            let message = "source and outputs do not fit the worker's scratch space";
            return Err(TaskError::permanent(FailureCode::NoSpace, Stage::Fetch, message));
        }
        Ok(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_the_attempt() {
        let scratch = Scratch::new(10, 1 << 30).unwrap();
        std::fs::write(scratch.file("source"), b"x").unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_fetched() {
        let error = Scratch::new(1 << 30, 1 << 30).unwrap_err();
        assert!(matches!(error, TaskError::Permanent(failure) if failure.code == FailureCode::NoSpace));
    }
}
