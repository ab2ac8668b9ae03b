//! The contract as an `OpenAPI` 3.1 document.

use std::sync::LazyLock;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{operation::Operation, operations, problems, schema, schemas};
use crate::http::Code;

static DOCUMENT: LazyLock<Value> = LazyLock::new(build);
static JSON: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_string());

/// The document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// Its text.
#[must_use]
pub fn json() -> &'static str {
    &JSON
}

/// The chapter of paths that are answered like others.
const ALIASES: &str = "Alternative paths";

const ABOUT: &str = "Self-hosted media processing. Create a job, send its source to the upload target, follow its progress, \
fetch what it made.\n\nThe base is `/api/v1`; `/api` is the same, and a trailing slash changes nothing. Times are RFC 3339 in \
UTC; names carry their unit. Objects may get more fields, so ignore what you do not know. Errors are problem documents \
(RFC 9457) with a stable `code`. Before a request reaches this API, API Gateway itself may answer 413, 429 or 503 with a \
`message` only.";

fn build() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        for (path, id) in operation.paths() {
            let method = operation.method.to_ascii_lowercase();
            let item = paths.entry(path).or_insert_with(|| json!({}));
            item[method] = describe(operation, path, id);
        }
    }
    let schemas: Map<_, _> = schemas()
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let mut tags: Vec<&str> = Vec::new();
    for operation in operations() {
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
    }
    tags.push(ALIASES);
    let tags: Vec<_> = tags.into_iter().map(|name| json!({"name": name})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Reelay", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/api/v1"}, {"url": "/api", "description": "The same without the version."}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "The `access_token` of a login."}},
            "headers": headers(),
        },
    })
}

/// The headers that answers refer to.
fn headers() -> Value {
    let header = |description: &str, schema: Value| json!({"description": description, "schema": schema});
    json!({
        "ETag": header("Of this answer.", schema::text()),
        "RateLimit": header("Where the caller stands.", schema::text()),
        "RateLimit-Policy": header("How many requests in how many seconds.", schema::text()),
        "Location": header("Where to go.", json!({"type": "string", "format": "uri-reference"})),
        "Retry-After": header("Seconds after which another try is worth it.", schema::count()),
        "WWW-Authenticate": header("What is missing.", schema::text()),
        "X-Request-Id": header("The request's id, for reports.", schema::text()),
    })
}

fn header_references(names: &[&str]) -> Value {
    let all = names.iter().chain(&["X-Request-Id"]);
    all.map(|name| {
        (
            (*name).to_owned(),
            json!({"$ref": format!("#/components/headers/{name}")}),
        )
    })
    .collect::<Map<_, _>>()
    .into()
}

fn describe(operation: &Operation, path: &str, id: &str) -> Value {
    let is_alias = path != operation.path;
    let mut described = json!({
        "operationId": id,
        "tags": [if is_alias { ALIASES } else { operation.tag }],
        "summary": operation.summary,
        "responses": responses(operation),
        "security": if operation.signed_in { json!([{"token": []}]) } else { json!([]) },
    });
    let same = format!("The same as `{} {}`.", operation.method, operation.path);
    let description = match (is_alias, operation.description) {
        (true, _) => same.as_str(),
        (false, description) => description,
    };
    if !description.is_empty() {
        described["description"] = json!(description);
    }
    if !operation.parameters.is_empty() {
        described["parameters"] = json!(operation.parameters);
    }
    if let Some((schema, example)) = &operation.request {
        described["requestBody"] = json!({"required": true, "content": {"application/json": {
            "schema": schema::reference(schema), "example": example}}});
    }
    described
}

fn responses(operation: &Operation) -> Value {
    let answer = &operation.answer;
    let mut headers = answer.headers.to_vec();
    if operation.signed_in {
        headers.extend(["RateLimit", "RateLimit-Policy"]);
    }
    let mut good = json!({"description": answer.description, "headers": header_references(&headers)});
    if let Some(content) = &answer.content {
        good["content"] = json!({content.media_type: {"schema": content.schema, "example": content.example}});
    }
    if answer.names_a_job {
        good["links"] = links();
    }
    let mut responses = Map::new();
    responses.insert(answer.status.to_string(), good);
    if answer.is_tagged {
        let unchanged = json!({"description": "As `If-None-Match` names it.", "headers": header_references(&["ETag"])});
        responses.insert("304".to_owned(), unchanged);
    }
    let codes = operation.all_problems();
    for codes in codes.chunk_by(|a, b| a.status() == b.status()) {
        if let Some(first) = codes.first() {
            responses.insert(first.status().as_u16().to_string(), problem(first.status(), codes));
        }
    }
    responses.into()
}

/// The answer for all codes of one status.
fn problem(status: StatusCode, codes: &[Code]) -> Value {
    let titles: Vec<_> = codes
        .iter()
        .map(|code| format!("`{}`: {}.", code.as_str(), code.title()))
        .collect();
    let examples: Map<_, _> = codes
        .iter()
        .map(|code| (code.as_str().to_owned(), json!({"value": problems::example(*code)})))
        .collect();
    let headers: &[_] = match status {
        StatusCode::UNAUTHORIZED => &["WWW-Authenticate"],
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => &["Retry-After"],
        _ => &[],
    };
    let schema = json!({"allOf": [schema::reference("Problem"), {"type": "object", "properties": {
        "code": schema::words(codes, Code::as_str), "status": {"const": status.as_u16()}}}]});
    json!({"description": titles.join(" "), "headers": header_references(headers),
        "content": {"application/problem+json": {"schema": schema, "examples": examples}}})
}

/// What can be done with a job that was just made.
fn links() -> Value {
    let of_a_job = operations().iter().filter(|operation| operation.path.contains("{id}"));
    of_a_job
        .map(|operation| {
            let link = json!({"operationId": operation.id, "parameters": {"id": "$response.body#/id"}});
            (operation.id.to_owned(), link)
        })
        .collect::<Map<_, _>>()
        .into()
}
