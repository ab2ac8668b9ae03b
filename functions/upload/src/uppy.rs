//! The routes that Uppy's plugin `AwsS3` asks, so that a web page needs no code of its own but its address and the
//! token. What they are called and what they answer is Uppy's; what they do is what the routes of jobs do.
//!
//! A file becomes a job. The file's `meta` says what to make: `size_bytes` (required: an upload is bound to its length),
//! and any other field of a create request; what is not text there comes as JSON text.

use std::collections::{BTreeMap, HashMap};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::HeaderMap,
};
use reelay_core::{
    domain::{
        create::{CreateJob, FieldError, NewJob},
        job::Job,
        keys::SourceKey,
        time::UtcTime,
        upload::{MAX_PARTS, MIN_PART_BYTES, NamedPart},
    },
    http::{ApiError, Caller, Code, JsonBody, JsonText, Trail},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{create::Created, idempotency::Request, routes::AppState, target::upload_over};

/// Fields of a create request that are text; all others are JSON.
const TEXTS: [&str; 5] = ["priority", "title", "description", "target_format", "sha256"];
const VALUES: [&str; 7] = [
    "size_bytes",
    "part_size_bytes",
    "duration_seconds",
    "outputs",
    "thumbnails",
    "compression",
    "metadata",
];

type Queried<T> = Result<Query<T>, QueryRejection>;

#[derive(Deserialize)]
pub(crate) struct CreateBody {
    filename: Option<String>,
    #[serde(rename = "type")]
    content_type: Option<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Deserialize)]
pub(crate) struct KeyQuery {
    key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchQuery {
    key: String,
    part_numbers: String,
}

#[derive(Deserialize)]
pub(crate) struct CompleteBody {
    parts: Vec<NamedPart>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedPart {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

/// `GET /s3/params`: a job, and a form for its source.
pub(crate) async fn params(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    headers: HeaderMap,
    query: Queried<Vec<(String, String)>>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(bad_query)?;
    let text = json!(query).to_string();
    let mut fields: HashMap<String, String> = query.into_iter().collect();
    let body = CreateBody {
        filename: fields.remove("filename"),
        content_type: fields.remove("type"),
        metadata: fields
            .into_iter()
            .filter_map(|(name, value)| {
                let name = name.strip_prefix("metadata[")?.strip_suffix(']')?.to_owned();
                Some((name, Value::String(value)))
            })
            .collect(),
    };
    let new = new_job(body, "put", state.max_source_bytes)?;
    let request = Request::read(&headers, &caller.account.account_id, "GET /s3/params", text.as_bytes())?;
    let Created { job, .. } = state.create(&caller, &trail, new, request).await?;
    let now = UtcTime::now();
    let lifetime = state.lifetime(&job, now).ok_or_else(|| upload_over(&job))?;
    let form = state.posts.sign(&state.sources, &job, lifetime, now).await?;
    Ok(Json(json!({
        "method": "POST",
        "url": form.url,
        "fields": form.fields,
        "expires": lifetime.as_secs(),
        "job_id": job.job_id,
    })))
}

/// `POST /s3/multipart`: a job, whose source is sent in parts.
pub(crate) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
    headers: HeaderMap,
    JsonText(body, text): JsonText<CreateBody>,
) -> Result<Json<Value>, ApiError> {
    let new = new_job(body, "multipart", state.max_source_bytes)?;
    let request = Request::read(&headers, &caller.account.account_id, "POST /s3/multipart", &text)?;
    let Created { job, .. } = state.create(&caller, &trail, new, request).await?;
    let multipart = job.multipart.as_ref().ok_or_else(|| upload_over(&job))?;
    Ok(Json(json!({
        "key": job.source_key().to_string(),
        "uploadId": multipart.upload_id,
        "bucket": state.sources.name(),
        "job_id": job.job_id,
    })))
}

/// `GET /s3/multipart/{upload_id}`: the parts that are there.
pub(crate) async fn parts(
    State(state): State<AppState>,
    caller: Caller,
    Path(upload_id): Path<String>,
    query: Queried<KeyQuery>,
) -> Result<Json<Vec<ListedPart>>, ApiError> {
    let Query(KeyQuery { key }) = query.map_err(bad_query)?;
    let job = state.of_upload(&caller, &key, &upload_id).await?;
    let stored = state.sources.parts(&job.source_key(), &upload_id).await?;
    let stored = stored.ok_or_else(|| upload_over(&job))?;
    let listed = stored.into_iter().map(|part| ListedPart {
        part_number: part.part_number,
        etag: part.etag,
        size: part.size_bytes,
    });
    Ok(Json(listed.collect()))
}

/// `GET /s3/multipart/{upload_id}/{part_number}`: where a part goes.
pub(crate) async fn sign(
    State(state): State<AppState>,
    caller: Caller,
    Path((upload_id, number)): Path<(String, String)>,
    query: Queried<KeyQuery>,
) -> Result<Json<Value>, ApiError> {
    let Query(KeyQuery { key }) = query.map_err(bad_query)?;
    let job = state.of_upload(&caller, &key, &upload_id).await?;
    let number = number.parse().map_err(|_| ApiError::new(Code::NotFound))?;
    let target = state.sign_parts(&job, &[number]).await?.pop();
    let target = target.ok_or_else(|| upload_over(&job))?;
    let expires = target.expires_at.seconds_since(UtcTime::now()).round();
    Ok(Json(json!({"url": target.url, "expires": expires})))
}

/// `GET /s3/multipart/{upload_id}/batch`: where several parts go.
pub(crate) async fn batch(
    State(state): State<AppState>,
    caller: Caller,
    Path(upload_id): Path<String>,
    query: Queried<BatchQuery>,
) -> Result<Json<Value>, ApiError> {
    let Query(BatchQuery { key, part_numbers }) = query.map_err(bad_query)?;
    let job = state.of_upload(&caller, &key, &upload_id).await?;
    let numbers: Result<Vec<u32>, _> = part_numbers.split(',').map(|text| text.trim().parse()).collect();
    let numbers =
        numbers.map_err(|_| ApiError::fields(vec![FieldError::new("/partNumbers", "must be numbers of parts")]))?;
    let targets = state.sign_parts(&job, &numbers).await?;
    let urls: BTreeMap<String, String> = targets
        .into_iter()
        .map(|target| (target.part_number.to_string(), target.url))
        .collect();
    Ok(Json(json!({ "presignedUrls": urls })))
}

/// `POST /s3/multipart/{upload_id}/complete`.
pub(crate) async fn complete(
    State(state): State<AppState>,
    caller: Caller,
    Path(upload_id): Path<String>,
    query: Queried<KeyQuery>,
    JsonBody(body): JsonBody<CompleteBody>,
) -> Result<Json<Value>, ApiError> {
    let Query(KeyQuery { key }) = query.map_err(bad_query)?;
    let job = state.of_upload(&caller, &key, &upload_id).await?;
    let job = state.complete_upload(job, Some(&body.parts)).await?;
    Ok(Json(json!({
        "location": format!("/api/v1/jobs/{}", job.job_id),
        "key": key,
        "bucket": state.sources.name(),
        "job_id": job.job_id,
    })))
}

/// `DELETE /s3/multipart/{upload_id}`.
pub(crate) async fn abort(
    State(state): State<AppState>,
    caller: Caller,
    Path(upload_id): Path<String>,
    query: Queried<KeyQuery>,
) -> Result<Json<Value>, ApiError> {
    let Query(KeyQuery { key }) = query.map_err(bad_query)?;
    let job = state.of_upload(&caller, &key, &upload_id).await?;
    state.abort_upload(&job).await?;
    Ok(Json(json!({})))
}

fn bad_query(_: QueryRejection) -> ApiError {
    ApiError::new(Code::InvalidRequest).detail("the query string cannot be read")
}

impl AppState {
    /// The caller's job of a key and an upload. The key comes from the client, so it only says where to look.
    async fn of_upload(&self, caller: &Caller, key: &str, upload_id: &str) -> Result<Job, ApiError> {
        let not_found = || ApiError::new(Code::NotFound);
        let account = &caller.account.account_id;
        let key = SourceKey::parse(key)
            .filter(|key| key.account == *account)
            .ok_or_else(not_found)?;
        let job = self.jobs.job(&key.job).await?;
        let is_it = |job: &Job| {
            let known = job.multipart.as_ref().map(|multipart| multipart.upload_id.as_str());
            job.account_id == *account && known == Some(upload_id)
        };
        job.filter(is_it).ok_or_else(not_found)
    }
}

/// The create request that a file and its `meta` stand for.
fn new_job(body: CreateBody, method: &str, max_source_bytes: u64) -> Result<NewJob, ApiError> {
    let mut fields = Map::new();
    fields.insert("filename".into(), json!(body.filename));
    // A browser that does not know a file's type says so by an empty one.
    let content_type = body.content_type.filter(|text| !text.is_empty());
    fields.insert("content_type".into(), json!(content_type));
    fields.insert("upload".into(), json!(method));
    let mut errors = Vec::new();
    for (name, value) in body.metadata {
        if TEXTS.contains(&name.as_str()) {
            fields.insert(name, value);
        } else if VALUES.contains(&name.as_str()) {
            // A query string has nothing but text.
            let value = match value {
                Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
                value => value,
            };
            fields.insert(name, value);
        }
    }
    match fields.get("size_bytes").and_then(Value::as_u64) {
        Some(size_bytes) if method == "multipart" && !fields.contains_key("part_size_bytes") => {
            // What Uppy cuts by, unless it is told otherwise.
            let part_size_bytes = size_bytes.div_ceil(MAX_PARTS).max(MIN_PART_BYTES);
            fields.insert("part_size_bytes".into(), json!(part_size_bytes));
        }
        Some(_) => {}
        None => errors.push(FieldError::new(
            "/metadata/size_bytes",
            "is required: set the file's meta field `size_bytes` to its length",
        )),
    }
    if !errors.is_empty() {
        return Err(ApiError::fields(errors));
    }
    let request: CreateJob = serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string().replace('.', "/");
        ApiError::malformed(format!("/metadata/{path}"), "has the wrong type")
    })?;
    Ok(request.validate(max_source_bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(metadata: &Value) -> CreateBody {
        serde_json::from_value(json!({"filename": "a.mp4", "type": "video/mp4", "metadata": metadata})).unwrap()
    }

    #[test]
    fn meta_is_a_create_request() {
        let meta = json!({
            "name": "a.mp4", "relativePath": null, "size_bytes": "6000000", "priority": "high",
            "outputs": "[{\"format\":\"webm\"}]", "title": "12",
        });
        let new = new_job(body(&meta), "multipart", 1 << 30).unwrap();
        assert_eq!((new.size_bytes, new.part_size_bytes), (6_000_000, Some(5 << 20)));
        assert_eq!((new.priority.as_str(), new.title.as_deref()), ("high", Some("12")));
        assert_eq!(new.spec.outputs[0].id(), "webm");
    }

    #[test]
    fn nothing_is_accepted_without_its_length() {
        let error = new_job(body(&json!({"name": "a.mp4"})), "put", 1 << 30).unwrap_err();
        assert_eq!(error.code(), Code::ValidationFailed);
        let error = new_job(body(&json!({"size_bytes": 1, "outputs": "x"})), "put", 1 << 30).unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
    }
}
