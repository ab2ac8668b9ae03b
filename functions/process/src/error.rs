//! How a task ends, other than well; decides what happens to it next.

use std::io;

use reelay_core::{
    adapters::AwsError,
    domain::failure::{Failure, FailureCode, Stage},
};

use crate::cage::CageError;

/// Why a task did not finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// The source or the request is to blame: the job fails at once.
    #[error("{}", .0.message)]
    Permanent(Box<Failure>),
    /// A passing fault: the task is given back, until its attempts are used up.
    #[error("a passing fault")]
    Transient {
        /// Where.
        stage: Stage,
        /// What.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The lease is lost or the job has ended: nothing more is written.
    #[error("the task is not ours any more")]
    Stopped,
}

impl TaskError {
    /// A failure that the source or the request is to blame for. The attempt is filled in by the worker.
    pub(crate) fn permanent(code: FailureCode, stage: Stage, message: impl Into<String>) -> Self {
        Self::Permanent(Box::new(Failure::new(code, stage, 0, message)))
    }

    /// A fault of the machine.
    pub(crate) fn internal(stage: Stage, error: &io::Error) -> Self {
        Self::Transient {
            stage,
            source: io::Error::from(error.kind()).into(),
        }
    }

    /// A fault of a service.
    pub(crate) fn aws(stage: Stage, error: AwsError) -> Self {
        Self::Transient {
            stage,
            source: error.into(),
        }
    }

    /// A child that ran but did not get on.
    pub(crate) fn stalled(stage: Stage) -> Self {
        Self::Transient {
            stage,
            source: "the child process made no progress".into(),
        }
    }

    /// What a child process' end means at a stage.
    pub(crate) fn cage(stage: Stage, attempt: u32, error: CageError) -> Self {
        // A crash of the tool gets one more try: it may have been the machine.
        let crashed = matches!(
            error,
            CageError::Signal(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS | libc::SIGILL)
        );
        match error.failure_code() {
            Some(code) if !(crashed && attempt == 1) => Self::permanent(code, stage, message(code)),
            _ => Self::Transient {
                stage,
                source: error.into(),
            },
        }
    }

    /// The stable code of this error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Permanent(failure) => failure.code.as_str(),
            Self::Transient { .. } => "transient",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the task is worth another attempt.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Transient { .. } => true,
            Self::Permanent(_) | Self::Stopped => false,
        }
    }
}

fn message(code: FailureCode) -> &'static str {
    match code {
        FailureCode::LimitTime => "the work took longer than it may",
        FailureCode::LimitMemory => "the work needed more memory than it may",
        FailureCode::LimitOutputSize => "an output grew larger than it may",
        FailureCode::NoSpace => "the worker's scratch space was full",
        _ => "the source cannot be decoded",
    }
}
