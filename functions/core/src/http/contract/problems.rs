//! Errors: their schema, and what a client does about each.

use serde_json::{Value, json};

use super::schema::{list, object, said, text, words};
use crate::http::{ApiError, Code};

/// The `type` of a code's problem documents: its section of the page. A path, since a function does not know the name
/// that its stack is reached by; RFC 9457 resolves it against the request.
#[must_use]
pub fn problem_type(code: Code) -> String {
    format!("/api/v1/docs#{}", code.as_str())
}

/// What a client does about it.
pub(super) fn advice(code: Code) -> &'static str {
    match code {
        Code::InvalidRequest => "Correct the request: `errors` points at the field that cannot be read.",
        Code::InvalidCursor => "Begin at the first page: leave the cursor out.",
        Code::Unauthenticated => "Sign in, and send the token in `Authorization: Bearer`.",
        Code::InvalidCredentials => "Ask the person for address and password again.",
        Code::InvalidRefreshToken => "Sign in again: the session is over.",
        Code::Forbidden => "Ask an operator: the account may not see this.",
        Code::QuotaBytes => "Delete jobs, or wait until sources have expired.",
        Code::QuotaJobs => "Wait until some jobs have ended; `Retry-After` says when to ask.",
        Code::RateLimited => "Wait for `Retry-After` seconds; `RateLimit` says where you stand.",
        Code::LoginThrottled => "Wait for `Retry-After` seconds before the next login.",
        Code::UploadOver => "Look at the job: it needs no upload, or a new job has to be created.",
        Code::UploadIncomplete => "Send the parts that are missing, then complete it again.",
        Code::PartsMismatch => "Correct the parts that `errors` points at, or leave the list out.",
        Code::IdempotencyInProgress => "Send the same request again in a moment.",
        Code::IdempotencyMismatch => "Use a new key for another request.",
        Code::NotFound => "Check the id and the path. What belongs to another account is answered like this as well.",
        Code::MethodNotAllowed => "Use one of the methods in `Allow`.",
        Code::EmailTaken => "Sign in instead.",
        Code::NotReady => "Follow the job's progress, and ask again when it has got further.",
        Code::NotCancellable => "Nothing: the job is over.",
        Code::NotRetryable => {
            "Look at the job: it may be running already. Without an accepted source, create a new one."
        }
        Code::BodyTooLarge => "Send less. Sources go to the upload target, not here.",
        Code::UnsupportedMediaType => "Send JSON as `application/json`.",
        Code::ValidationFailed => "Correct each field that `errors` points at.",
        Code::SourceTooLarge => "Send a smaller source, or have the operator raise MaxSourceBytes.",
        Code::UnsupportedSourceType => "Declare the source's real type, or none.",
        Code::InternalError => "Try again once; then report it with the `request_id`.",
        Code::ServiceUnavailable => "Try again after `Retry-After` seconds.",
    }
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "Problem",
            object(
                "What went wrong (RFC 9457). Decide by `code`.",
                vec![
                    (
                        "type",
                        said(
                            json!({"type": "string", "format": "uri-reference"}),
                            "Where the code is explained.",
                        ),
                    ),
                    ("title", text()),
                    ("status", json!({"type": "integer", "minimum": 400, "maximum": 599})),
                    ("code", words(Code::ALL, Code::as_str)),
                    ("detail", said(text(), "One sentence for a person.")),
                    ("request_id", said(text(), "For reports; also in `x-request-id`.")),
                    ("errors", list(super::schema::reference("FieldError"))),
                ],
                &["detail", "errors"],
            ),
        ),
        (
            "FieldError",
            object(
                "One thing wrong with one field.",
                vec![
                    (
                        "pointer",
                        said(
                            text(),
                            "JSON pointer (RFC 6901) into the body; of a query, `/` and its name.",
                        ),
                    ),
                    ("message", text()),
                    ("code", said(text(), "What is wrong, where there is a name for it.")),
                ],
                &["code"],
            ),
        ),
    ]
}

/// What a client gets for a code.
pub(super) fn example(code: Code) -> Value {
    let error = match code {
        Code::InvalidRequest => ApiError::malformed("/size_bytes", "has the wrong type"),
        Code::ValidationFailed => ApiError::fields(vec![crate::domain::create::FieldError::new(
            "/thumbnails/count",
            "must be 0 to 20",
        )]),
        code => ApiError::new(code),
    };
    serde_json::to_value(error.problem("JKJaXmPLvHcESHA=")).unwrap_or_default()
}
