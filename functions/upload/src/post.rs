//! Uploads by form: a POST policy, as browsers' upload widgets expect it. The SDK signs requests, but no policies.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use aws_config::SdkConfig;
use aws_sdk_s3::config::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reelay_core::{
    adapters::{AwsError, objects::Bucket},
    domain::{job::Job, time::UtcTime},
};
use serde_json::json;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs policies with the function's own credentials.
#[derive(Debug, Clone)]
pub(crate) struct PostSigner {
    credentials: Option<SharedCredentialsProvider>,
    region: String,
}

/// A form that a browser may send to S3.
#[derive(Debug)]
pub(crate) struct PostForm {
    pub(crate) url: String,
    /// The file comes after them.
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl PostSigner {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self {
            credentials: config.credentials_provider(),
            region: config.region().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// Signs the upload of a job's source: to its key, of its length and its type, and nothing else.
    pub(crate) async fn sign(
        &self,
        bucket: &Bucket,
        job: &Job,
        lifetime: Duration,
        now: UtcTime,
    ) -> Result<PostForm, AwsError> {
        let refused = |aws_code: &str| AwsError::Call {
            operation: "PostPolicy",
            aws_code: aws_code.to_owned(),
            retryable: true,
        };
        let Some(provider) = &self.credentials else {
            return Err(refused("NoCredentials"));
        };
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|_| refused("NoCredentials"))?;
        let key = job.source_key();
        // 2026-01-02T03:04:05.678Z -> 20260102T030405Z
        let stamp: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let stamp = format!("{}Z", stamp.split('.').next().unwrap_or_default());
        let day = stamp.get(..8).unwrap_or_default();
        let mut fields = BTreeMap::from([
            ("key", key.to_string()),
            ("Content-Type", job.content_type.clone()),
            ("x-amz-algorithm", ALGORITHM.to_owned()),
            (
                "x-amz-credential",
                format!("{}/{day}/{}/s3/aws4_request", credentials.access_key_id(), self.region),
            ),
            ("x-amz-date", stamp.clone()),
        ]);
        if let Some(token) = credentials.session_token() {
            fields.insert("x-amz-security-token", token.to_owned());
        }
        let policy = policy(bucket.name(), &fields, job.size_bytes, now.plus(lifetime));
        let at = Duration::from_secs(u64::try_from(now.epoch_seconds()).unwrap_or(0));
        let signing_key = generate_signing_key(
            credentials.secret_access_key(),
            SystemTime::UNIX_EPOCH + at,
            &self.region,
            "s3",
        );
        fields.insert("x-amz-signature", calculate_signature(signing_key, policy.as_bytes()));
        fields.insert("policy", policy);

        // The SDK knows how a bucket is addressed; a form goes to the bucket itself.
        let object = bucket
            .sign_upload(&key, job.size_bytes, &job.content_type, None, lifetime)
            .await?;
        let url = object.url.split('?').next().unwrap_or_default();
        let url = url.strip_suffix(&key.to_string()).unwrap_or(url).to_owned();
        Ok(PostForm { url, fields })
    }
}

/// The policy that goes with these fields, as it is sent.
fn policy(bucket: &str, fields: &BTreeMap<&'static str, String>, size_bytes: u64, expiration: UtcTime) -> String {
    let mut conditions = vec![
        json!({"bucket": bucket}),
        json!(["content-length-range", size_bytes, size_bytes]),
    ];
    conditions.extend(
        fields
            .iter()
            .map(|(name, value)| json!(["eq", format!("${name}"), value])),
    );
    BASE64_STANDARD.encode(json!({"expiration": expiration, "conditions": conditions}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_leaves_no_choice() {
        let fields = BTreeMap::from([("key", "sources/a/b/source".to_owned()), ("x-amz-date", "d".to_owned())]);
        let text = policy("bucket", &fields, 7, UtcTime::from_epoch_ms(0));
        let policy: serde_json::Value = serde_json::from_slice(&BASE64_STANDARD.decode(text).unwrap()).unwrap();
        assert_eq!(
            policy,
            json!({
                "expiration": "1970-01-01T00:00:00.000Z",
                "conditions": [
                    {"bucket": "bucket"},
                    ["content-length-range", 7, 7],
                    ["eq", "$key", "sources/a/b/source"],
                    ["eq", "$x-amz-date", "d"],
                ],
            })
        );
    }
}
