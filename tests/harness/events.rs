//! The events of `tests/events`: one for each trigger of each function, as AWS sends it.
//!
//! They are whole as they stand, for `sam local invoke --event`; here, ids and names of the running stack are put in.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Reads an event by its file name.
pub fn read(name: &str) -> Result<Value> {
    let path = format!("{}/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    serde_json::from_str(&text).context(path)
}

/// Puts values in, each at a JSON pointer that must be there.
pub fn with(mut event: Value, values: &[(&str, Value)]) -> Result<Value> {
    for (pointer, value) in values {
        let place = event
            .pointer_mut(pointer)
            .with_context(|| format!("the event has no {pointer}"))?;
        place.clone_from(value);
    }
    Ok(event)
}

/// The notification of a finished upload.
pub fn upload_finished(bucket: &str, key: &str, version_id: &str, size_bytes: usize) -> Result<Value> {
    with(
        read("intake-s3")?,
        &[
            ("/Records/0/s3/bucket/name", json!(bucket)),
            ("/Records/0/s3/bucket/arn", json!(format!("arn:aws:s3:::{bucket}"))),
            ("/Records/0/s3/object/key", json!(key)),
            ("/Records/0/s3/object/versionId", json!(version_id)),
            ("/Records/0/s3/object/size", json!(size_bytes)),
        ],
    )
}

/// The delivery of a message from the low-priority queue.
pub fn message(message_id: &str, body: &str) -> Result<Value> {
    with(
        read("process-sqs-low")?,
        &[
            ("/Records/0/messageId", json!(message_id)),
            ("/Records/0/body", json!(body)),
        ],
    )
}

/// A request to a function behind the API, as API Gateway hands it on.
pub fn request(function: &str, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Result<Value> {
    let path = json!(format!("/api/v1{path}"));
    let mut event = with(
        read(&format!("{function}-http"))?,
        &[
            ("/rawPath", path.clone()),
            ("/requestContext/http/path", path),
            ("/requestContext/http/method", json!(method)),
        ],
    )?;
    let headers = event["headers"].as_object_mut().context("no headers")?;
    headers.remove("authorization");
    if let Some(token) = token {
        headers.insert("authorization".into(), json!(format!("Bearer {token}")));
    }
    headers.insert("content-type".into(), json!("application/json"));
    event["body"] = json!(body.map(Value::to_string).unwrap_or_default());
    Ok(event)
}

/// The same request from somewhere else.
pub fn from_address(event: Value, address: &str) -> Result<Value> {
    with(event, &[("/requestContext/http/sourceIp", json!(address))])
}
