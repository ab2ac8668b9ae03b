//! The signing keys of access tokens, from Secrets Manager, kept for a while.
//!
//! A secret has two live versions: a new value becomes `AWSCURRENT` and moves the one before to `AWSPREVIOUS` by itself.
//! So a rotation is one call, and what the old key has signed holds until the next one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use tokio::sync::Mutex;

use super::{AwsError, call_error};

/// How long fetched versions are used before they are fetched again: the longest time that a key which was rotated out
/// is still believed.
const LIFETIME: Duration = Duration::from_mins(5);
/// How much longer they are used while Secrets Manager does not answer.
const GRACE: Duration = Duration::from_mins(15);
/// The shortest time between two fetches. A stranger may name keys that do not exist as often as he likes.
const PAUSE: Duration = Duration::from_secs(10);
/// Shortest value, in bytes: HMAC-SHA-256 wants a key as long as its digest (RFC 7518 section 3.2).
const MIN_BYTES: usize = 32;

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// A secret text. Its debug form does not show it.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The live versions of a secret.
#[derive(Debug)]
pub struct Versions {
    /// What to sign with.
    pub current: SecretText,
    /// What was signed with before; there is none until the first rotation.
    pub previous: Option<SecretText>,
}

impl Versions {
    /// All of them, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &SecretText> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

#[derive(Debug)]
struct Cached {
    versions: Arc<Versions>,
    fetched: Instant,
    tried: Instant,
}

/// One secret, fetched when it is first needed.
#[derive(Debug)]
pub struct Secret {
    client: Client,
    id: String,
    cached: Mutex<Option<Cached>>,
}

impl Secret {
    /// The secret with this name or ARN.
    #[must_use]
    pub fn new(config: &SdkConfig, id: String) -> Self {
        Self {
            client: Client::new(config),
            id,
            cached: Mutex::new(None),
        }
    }

    /// The live versions, as they were at most five minutes ago.
    pub async fn versions(&self) -> Result<Arc<Versions>, AwsError> {
        self.fetched_within(LIFETIME).await
    }

    /// The live versions as they are now, for when a key is asked for that is not among those known. Fetches at most
    /// once in ten seconds.
    pub async fn refetched(&self) -> Result<Arc<Versions>, AwsError> {
        self.fetched_within(PAUSE).await
    }

    async fn fetched_within(&self, age: Duration) -> Result<Arc<Versions>, AwsError> {
        // Held during the fetch, so that all who need it wait for the one.
        let mut cached = self.cached.lock().await;
        if let Some(known) = cached.as_ref()
            && (known.fetched.elapsed() < age || known.tried.elapsed() < PAUSE)
        {
            return Ok(Arc::clone(&known.versions));
        }
        let tried = Instant::now();
        match (self.fetch().await, cached.as_mut()) {
            (Ok(versions), _) => {
                let versions = Arc::new(versions);
                *cached = Some(Cached {
                    versions: Arc::clone(&versions),
                    fetched: tried,
                    tried,
                });
                Ok(versions)
            }
            (Err(error), Some(known)) if known.fetched.elapsed() < LIFETIME + GRACE => {
                tracing::warn!(%error, code = error.code(), "the signing keys could not be fetched again");
                known.tried = tried;
                Ok(Arc::clone(&known.versions))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn fetch(&self) -> Result<Versions, AwsError> {
        // In this order: a rotation between the two shows the same key twice, never two keys without the one in between.
        let current = self.version(CURRENT).await?;
        let previous = match self.version(PREVIOUS).await {
            Err(AwsError::Call { aws_code, .. }) if aws_code == "ResourceNotFoundException" => None,
            previous => previous?,
        };
        // Too short to sign with: nobody gets in until there is a longer one.
        let current = current.ok_or_else(|| AwsError::Call {
            operation: "GetSecretValue",
            aws_code: "SecretTooShort".into(),
            retryable: true,
        })?;
        Ok(Versions { current, previous })
    }

    /// A version of the secret, if it is long enough for a key.
    async fn version(&self, stage: &str) -> Result<Option<SecretText>, AwsError> {
        let output = self
            .client
            .get_secret_value()
            .secret_id(&self.id)
            .version_stage(stage)
            .send()
            .await
            .map_err(|error| call_error("GetSecretValue", &error))?;
        let text = output.secret_string.unwrap_or_default();
        Ok(Some(SecretText(text)).filter(|text| text.expose().len() >= MIN_BYTES))
    }
}
