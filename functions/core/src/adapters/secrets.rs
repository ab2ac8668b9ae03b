//! The signing key of access tokens, from Secrets Manager, kept for a while.

use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use tokio::sync::Mutex;

use super::{AwsError, call_error};

/// How long a fetched key is used before it is fetched again: the longest time that a rotation takes to be seen.
const LIFETIME: Duration = Duration::from_mins(5);

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

/// One secret, fetched when it is first needed.
#[derive(Debug)]
pub struct Secret {
    client: Client,
    id: String,
    cached: Mutex<Option<(Instant, SecretText)>>,
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

    /// The secret's current value.
    pub async fn get(&self) -> Result<SecretText, AwsError> {
        let mut cached = self.cached.lock().await;
        if let Some((fetched, text)) = cached.as_ref()
            && fetched.elapsed() < LIFETIME
        {
            return Ok(text.clone());
        }
        let output = self
            .client
            .get_secret_value()
            .secret_id(&self.id)
            .send()
            .await
            .map_err(|error| call_error("GetSecretValue", &error))?;
        let text = SecretText(output.secret_string.unwrap_or_default());
        *cached = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}
