//! Uploads whose event was lost: whether the object is there, and telling intake so.

use aws_config::SdkConfig;
use aws_sdk_lambda::{primitives::Blob, types::InvocationType};
use aws_sdk_s3::operation::head_object::HeadObjectError;
use reelay_core::{
    adapters::{AwsError, call_error, objects::Bucket},
    domain::{keys::SourceKey, time::UtcTime},
};
use serde_json::{Value, json};

/// The source bucket, and the function that it notifies.
#[derive(Debug)]
pub(crate) struct Sources {
    bucket: Bucket,
    lambda: aws_sdk_lambda::Client,
    intake: String,
}

/// An uploaded object.
#[derive(Debug)]
pub(crate) struct Upload {
    version_id: Option<String>,
    etag: String,
    size_bytes: i64,
}

impl Sources {
    /// The bucket and the function of these names.
    pub(crate) fn new(config: &SdkConfig, bucket: String, intake: String) -> Self {
        Self {
            bucket: Bucket::new(config, bucket),
            lambda: aws_sdk_lambda::Client::new(config),
            intake,
        }
    }

    /// Looks for the object of a source. `None` when there is none; that it may not be looked at is an error.
    pub(crate) async fn find(&self, key: &SourceKey) -> Result<Option<Upload>, AwsError> {
        let head = self.bucket.client().head_object();
        let head = head.bucket(self.bucket.name()).key(key.to_string());
        match head.send().await {
            Ok(head) => Ok(Some(Upload {
                version_id: head.version_id,
                etag: head.e_tag.unwrap_or_default().replace('"', ""),
                size_bytes: head.content_length.unwrap_or(0),
            })),
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => Err(call_error("HeadObject", &error)),
        }
    }

    /// Ends an upload in parts. Returns whether it was under way.
    pub(crate) async fn abort(&self, key: &SourceKey, upload_id: &str) -> Result<bool, AwsError> {
        self.bucket.abort_parts(key, upload_id).await
    }

    /// Calls intake as the bucket would have, and does not wait for it: its own retries and its dead-letter queue are the
    /// same as for any upload.
    pub(crate) async fn announce(&self, key: &SourceKey, upload: &Upload, now: UtcTime) -> Result<(), AwsError> {
        let event = created(self.bucket.name(), key, upload, now);
        self.lambda
            .invoke()
            .function_name(&self.intake)
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(event.to_string()))
            .send()
            .await
            .map_err(|error| call_error("Invoke", &error))?;
        Ok(())
    }
}

/// The notification of an upload, with what is known of it. A source's key has nothing that would have to be encoded.
fn created(bucket: &str, key: &SourceKey, upload: &Upload, now: UtcTime) -> Value {
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": now,
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "sweep",
            "bucket": {"name": bucket},
            "object": {
                "key": key.to_string(),
                "size": upload.size_bytes,
                "eTag": upload.etag,
                "versionId": upload.version_id,
            },
        },
    }]})
}

#[cfg(test)]
mod tests {
    use reelay_core::domain::id::{AccountId, JobId};

    use super::*;

    /// Asserts that a value has the names of another one, or some of them, with values of the same kinds.
    fn assert_within(ours: &Value, theirs: &Value, place: &str) {
        match (ours, theirs) {
            (Value::Object(fields), Value::Object(known)) => {
                for (name, value) in fields {
                    let known = known.get(name).unwrap_or_else(|| panic!("{place} has no {name}"));
                    assert_within(value, known, name);
                }
            }
            (Value::Array(items), Value::Array(known)) => {
                for (item, known) in items.iter().zip(known) {
                    assert_within(item, known, place);
                }
            }
            _ => assert_eq!(std::mem::discriminant(ours), std::mem::discriminant(theirs), "{place}"),
        }
    }

    #[test]
    fn the_event_has_the_shape_of_the_buckets_own() {
        let key = SourceKey {
            account: AccountId::generate(),
            job: JobId::generate(),
        };
        let upload = Upload {
            version_id: Some("v".into()),
            etag: "e".into(),
            size_bytes: 3,
        };
        let event = created("bucket", &key, &upload, UtcTime::from_epoch_ms(0));
        let real = include_str!("../../../tests/events/intake-s3.json");
        assert_within(&event, &serde_json::from_str(real).unwrap(), "the event");
        let object = &event["Records"][0]["s3"]["object"];
        assert_eq!(
            (&object["key"], &object["versionId"]),
            (&json!(key.to_string()), &json!("v"))
        );
    }
}
