//! What talks to AWS: one SDK configuration, one error, and one module a service.

use std::time::Duration;

pub use aws_config::SdkConfig;
use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

#[cfg(feature = "dynamodb")]
pub mod accounts;
#[cfg(feature = "dynamodb")]
pub mod audit;
pub mod deletion;
#[cfg(feature = "dynamodb")]
pub mod dynamo;
#[cfg(feature = "dynamodb")]
pub mod jobs;
#[cfg(feature = "dynamodb")]
pub mod lease;
#[cfg(feature = "s3")]
pub mod multipart;
#[cfg(feature = "s3")]
pub mod objects;
#[cfg(feature = "sqs")]
pub mod queue;
#[cfg(feature = "secrets")]
pub mod secrets;
#[cfg(feature = "dynamodb")]
pub mod tasks;
#[cfg(feature = "dynamodb")]
pub mod throttle;
#[cfg(feature = "dynamodb")]
pub mod usage;
#[cfg(feature = "dynamodb")]
pub mod windows;

/// How long one try of a call may take. Uploads and downloads of objects set their own.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of a call, the first one included.
const TRIES: u32 = 4;

/// The same for functions that somebody waits for. A request ends at API Gateway's and the function's own time limit, so
/// what does not answer has to be given up in time for an answer that says so: all tries of a call together take no longer
/// than this.
const EDGE_LIMIT: Duration = Duration::from_secs(6);
/// One try of it.
const EDGE_TRY_TIMEOUT: Duration = Duration::from_secs(3);
/// Tries of it.
const EDGE_TRIES: u32 = 3;

/// Loads the one configuration that all clients of a function share.
///
/// Region, credentials and endpoint come from the environment, as Lambda sets it.
pub async fn sdk_config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .read_timeout(TRY_TIMEOUT)
        .operation_attempt_timeout(TRY_TIMEOUT)
        .build();
    load(timeouts, TRIES).await
}

/// [`sdk_config`] for the functions behind the API.
pub async fn edge_sdk_config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .read_timeout(EDGE_TRY_TIMEOUT)
        .operation_attempt_timeout(EDGE_TRY_TIMEOUT)
        .operation_timeout(EDGE_LIMIT)
        .build();
    load(timeouts, EDGE_TRIES).await
}

async fn load(timeouts: TimeoutConfig, tries: u32) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(tries))
        .load()
        .await
}

/// A call to AWS that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// The service refused it, or did not answer.
    #[error("{operation} failed with {aws_code}")]
    Call {
        /// The operation's name.
        operation: &'static str,
        /// The service's own code, or what happened on the way there.
        aws_code: String,
        /// Whether it is worth another try later.
        retryable: bool,
    },
    /// A stored item does not have the shape that this code writes.
    #[error("a stored item cannot be read")]
    Item(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another write came first.
    #[error("{operation} met a condition that no longer holds")]
    Conflict {
        /// The operation's name.
        operation: &'static str,
    },
}

impl AwsError {
    /// The stable code of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Call { .. } => "service_unavailable",
            Self::Item(_) => "item_unreadable",
            Self::Conflict { .. } => "conflict",
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call { retryable, .. } => *retryable,
            Self::Item(_) | Self::Conflict { .. } => false,
        }
    }
}

/// Codes that no later try can change: the caller or its permissions are wrong.
const PERMANENT: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "InvalidParameterValue",
    "MessageRejected",
    "NoSuchBucket",
    "NoSuchKey",
    "NoSuchVersion",
    "NotFound",
    "ResourceNotFoundException",
    "ValidationException",
];

/// Turns an SDK error into ours; `operation` is named in logs.
pub fn call_error<E>(operation: &'static str, error: &E) -> AwsError
where
    E: ProvideErrorMetadata,
{
    let aws_code = error.code().unwrap_or("NoAnswer").to_owned();
    let retryable = !PERMANENT.contains(&aws_code.as_str());
    AwsError::Call {
        operation,
        aws_code,
        retryable,
    }
}
