//! Every route of the API, in one table. A route that is added to a function and not here fails a test, so that what is
//! shown of all routes is shown of the new one too.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anyone,
    /// Whoever is signed in; a job's routes only its owner.
    User,
    /// Operators.
    Operator,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The function that answers it.
    pub function: &'static str,
    /// The verb.
    pub method: &'static str,
    /// The path below the base, as the router has it.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
}

const fn route(function: &'static str, method: &'static str, path: &'static str, access: Access) -> Route {
    Route {
        function,
        method,
        path,
        access,
    }
}

/// All of them.
pub const ROUTES: &[Route] = &[
    route("auth", "POST", "/auth/register", Access::Anyone),
    route("auth", "POST", "/auth/login", Access::Anyone),
    route("auth", "POST", "/auth/refresh", Access::Anyone),
    route("auth", "POST", "/auth/logout", Access::User),
    route("auth", "POST", "/auth/change-password", Access::User),
    route("auth", "GET", "/auth/me", Access::User),
    route("auth", "DELETE", "/auth/me", Access::User),
    route("upload", "POST", "/jobs", Access::User),
    route("upload", "POST", "/jobs/{id}/retry", Access::User),
    route("upload", "POST", "/jobs/{id}/cancel", Access::User),
    route("upload", "POST", "/jobs/{id}/upload/parts", Access::User),
    route("upload", "POST", "/jobs/{id}/upload/complete", Access::User),
    route("upload", "DELETE", "/jobs/{id}/upload", Access::User),
    route("upload", "GET", "/s3/params", Access::User),
    route("upload", "POST", "/s3/multipart", Access::User),
    route("upload", "GET", "/s3/multipart/{upload_id}", Access::User),
    route("upload", "DELETE", "/s3/multipart/{upload_id}", Access::User),
    route("upload", "GET", "/s3/multipart/{upload_id}/batch", Access::User),
    route("upload", "POST", "/s3/multipart/{upload_id}/complete", Access::User),
    route("upload", "GET", "/s3/multipart/{upload_id}/{part_number}", Access::User),
    route("status", "GET", "/jobs", Access::User),
    route("status", "GET", "/jobs/{id}", Access::User),
    route("status", "GET", "/jobs/{id}/progress", Access::User),
    route("status", "GET", "/jobs/{id}/metadata", Access::User),
    route("status", "GET", "/jobs/{id}/outputs", Access::User),
    route("status", "GET", "/jobs/{id}/thumbnail", Access::User),
    route("status", "GET", "/jobs/{id}/download", Access::User),
    route("status", "GET", "/jobs/{id}/hls/{file}", Access::User),
    route("status", "GET", "/jobs/{id}/source", Access::User),
    route("status", "GET", "/jobs/{id}/upload/parts", Access::User),
    route("status", "GET", "/videos", Access::User),
    route("status", "GET", "/videos/tasks", Access::User),
    route("status", "GET", "/videos/tasks/{id}", Access::User),
    route("status", "GET", "/videos/tasks/{id}/progress", Access::User),
    route("status", "GET", "/videos/tasks/{id}/thumbnail", Access::User),
    route("status", "GET", "/videos/{id}/status", Access::User),
    route("status", "GET", "/videos/{id}/metadata", Access::User),
    route("status", "GET", "/videos/{id}/download", Access::User),
    route("status", "GET", "/job/{id}/status", Access::User),
    route("upload", "POST", "/videos/upload", Access::User),
    route("upload", "POST", "/submit_job", Access::User),
    route("status", "GET", "/openapi.json", Access::Anyone),
    route("status", "GET", "/docs", Access::Anyone),
    route("upload", "DELETE", "/jobs/{id}", Access::User),
    route("upload", "DELETE", "/videos/{id}", Access::User),
    route("status", "GET", "/analytics/audit", Access::Operator),
];

impl Route {
    /// Its path for a job.
    pub fn path_for(&self, job_id: &str) -> String {
        self.path
            .replace("{id}", job_id)
            .replace("{file}", "index.m3u8")
            .replace("{upload_id}", "an-upload")
            .replace("{part_number}", "1")
    }

    /// Whether its answer depends on what is stored: all but the API's own document does.
    pub fn needs_tables(&self) -> bool {
        !["/openapi.json", "/docs"].contains(&self.path)
    }

    /// Whether it is about one job.
    pub fn is_of_a_job(&self) -> bool {
        self.path.contains("{id}")
    }

    /// A body that it takes.
    pub fn body(&self) -> Option<Value> {
        match (self.method, self.path) {
            ("POST", "/auth/register" | "/auth/login") => {
                Some(json!({"email": "routes@example.org", "password": crate::harness::PASSWORD}))
            }
            ("POST", "/auth/refresh") => Some(json!({"refresh_token": "a.b.c"})),
            // Refused to whoever is signed in, so that the others of the table find the account as it was.
            ("POST", "/auth/change-password") => {
                Some(json!({"current_password": "not this one", "new_password": crate::harness::PASSWORD}))
            }
            ("DELETE", "/auth/me") => Some(json!({"password": "not this one"})),
            ("POST", "/jobs/{id}/upload/parts") => Some(json!({"part_numbers": [1]})),
            ("POST", "/s3/multipart/{upload_id}/complete") => Some(json!({"parts": []})),
            ("POST", "/s3/multipart") => Some(json!({"filename": "a.mp4", "type": "video/mp4", "metadata": {}})),
            ("POST", "/jobs" | "/videos/upload" | "/submit_job") => Some(json!({"filename": "a.mp4", "size_bytes": 1})),
            ("POST", _) => Some(json!({})),
            _ => None,
        }
    }
}

/// The routes that the functions' routers have, read from their code: `function METHOD path`.
pub fn in_the_code() -> Result<BTreeSet<String>> {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&functions)? {
        let source = entry?.path().join("src");
        let function = source.parent().and_then(Path::file_name).context("no name")?;
        let function = function.to_string_lossy().into_owned();
        if function != "core" && source.is_dir() {
            read_folder(&source, &function, &mut found)?;
        }
    }
    Ok(found)
}

fn read_folder(folder: &Path, function: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, function, found)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            for call in std::fs::read_to_string(&path)?.split(".route(").skip(1) {
                // The arguments: a path in quotes, then `get(handler).post(handler)`.
                let Some((path, rest)) = call
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split_once('"'))
                else {
                    continue;
                };
                let rest = arguments(rest);
                for method in ["get", "post", "put", "patch", "delete"] {
                    let is_there = rest
                        .match_indices(&format!("{method}("))
                        .any(|(at, _)| !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                    if is_there {
                        found.insert(format!("{function} {} {path}", method.to_uppercase()));
                    }
                }
            }
        }
    }
    Ok(())
}

/// A call's text up to its closing parenthesis.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}
