//! The part of an S3 event notification that is read.
//!
//! S3 delivers at least once, in no order, and sends an `s3:TestEvent` without records when a notification is set up.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct S3Event {
    #[serde(default, rename = "Records")]
    pub(crate) records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) event_name: String,
    s3: Entity,
}

#[derive(Debug, Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    key: String,
    version_id: Option<String>,
}

impl Record {
    pub(crate) fn is_creation(&self) -> bool {
        self.event_name.trim_start_matches("s3:").starts_with("ObjectCreated:")
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.s3.bucket.name
    }

    /// The version that was created; absent in a bucket without versions.
    pub(crate) fn version_id(&self) -> Option<&str> {
        self.s3
            .object
            .version_id
            .as_deref()
            .filter(|id| !id.is_empty() && *id != "null")
    }

    /// The object's key. In the event it is encoded as in a form: `+` is a space.
    pub(crate) fn key(&self) -> String {
        percent_decode_str(&self.s3.object.key.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_as_forms_are() {
        let json = r#"{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},
            "object":{"key":"u%2Fa+b%2B%C3%BC.mp4","versionId":"null"}}}]}"#;
        let event: S3Event = serde_json::from_str(json).unwrap();
        let record = &event.records[0];
        assert_eq!(record.key(), "u/a b+ü.mp4");
        assert_eq!(record.version_id(), None);
        assert!(record.is_creation());
    }

    #[test]
    fn a_test_event_has_no_records() {
        let event: S3Event = serde_json::from_str(r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#).unwrap();
        assert!(event.records.is_empty());
    }
}
