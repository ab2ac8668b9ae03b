//! What was read and sent, how much may be, and what went wrong.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use reelay_core::adapters::AwsError;

/// Why a response breaks off.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadError {
    /// The budget is used up.
    #[error("more was read than the source is worth")]
    Exhausted,
    /// An object or a file could not be read.
    #[error("a piece could not be read: {0}")]
    Fault(Arc<AwsError>),
}

impl ReadError {
    /// The stable code of this error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Exhausted => "read_budget_exhausted",
            Self::Fault(error) => error.code(),
        }
    }

    /// Whether the same work may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Exhausted => false,
            Self::Fault(error) => error.is_retryable(),
        }
    }
}

/// Counts for a server.
#[derive(Debug)]
pub(super) struct Meter {
    max_bytes: u64,
    read_bytes: AtomicU64,
    reads: AtomicU64,
    sent_bytes: AtomicU64,
    exhausted: AtomicBool,
    fault: OnceLock<Arc<AwsError>>,
}

impl Meter {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            read_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            exhausted: AtomicBool::new(false),
            fault: OnceLock::new(),
        }
    }

    /// Counts a read that is about to begin, unless it is over the budget.
    pub(super) fn begin_read(&self, bytes: u64) -> Result<(), ReadError> {
        self.count(&self.read_bytes, bytes)?;
        self.reads.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Counts bytes that are about to be sent, unless they are over the budget. What the cache holds costs no read, but
    /// nobody may walk in circles through it either.
    pub(super) fn send(&self, bytes: u64) -> Result<(), ReadError> {
        self.count(&self.sent_bytes, bytes)
    }

    fn count(&self, counter: &AtomicU64, bytes: u64) -> Result<(), ReadError> {
        let add = |count: u64| count.checked_add(bytes).filter(|sum| *sum <= self.max_bytes);
        match counter.fetch_update(Relaxed, Relaxed, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(ReadError::Exhausted),
        }
    }

    /// Notes what broke a response off: the first fault stays.
    pub(super) fn note(&self, error: &ReadError) {
        let is_first = match error {
            ReadError::Exhausted => !self.exhausted.swap(true, Relaxed),
            ReadError::Fault(fault) => self.fault.set(Arc::clone(fault)).is_ok(),
        };
        if is_first {
            let (code, retryable) = (error.code(), error.is_retryable());
            tracing::warn!(%error, code, retryable, "a response broke off");
        }
    }

    pub(super) fn exhausted(&self) -> bool {
        self.exhausted.load(Relaxed)
    }

    pub(super) fn fault(&self) -> Option<Arc<AwsError>> {
        self.fault.get().cloned()
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Relaxed)
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }
}
