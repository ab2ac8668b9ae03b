//! Errors of the API: RFC 9457 problem documents with a stable code. This file is the one list of codes and statuses.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::contract;
use crate::{
    adapters::AwsError,
    domain::{
        create::{FieldError, SpecError},
        limits::Exceeded,
        upload::PartsError,
    },
};

macro_rules! codes {
    ($($(#[doc = $meaning:literal])* $name:ident => $text:literal, $status:ident, $title:literal;)*) => {
        /// The stable code of an API error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $meaning])* $name,)*
        }

        impl Code {
            /// Every code, for tables and tests.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as clients see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it means, in a few words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What it means, in sentences: the comment beside it in this file.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),*).trim_ascii(),)* }
            }
        }
    };
}

codes! {
    /// The body is no JSON, or not of the right shape.
    InvalidRequest => "invalid_request", BAD_REQUEST, "The request cannot be read";
    /// The cursor of a list is not one of ours.
    InvalidCursor => "invalid_cursor", BAD_REQUEST, "The cursor is not valid";
    /// No token, or none that holds.
    Unauthenticated => "unauthenticated", UNAUTHORIZED, "Sign in first";
    /// Address and password do not belong together.
    InvalidCredentials => "invalid_credentials", UNAUTHORIZED, "Address or password is wrong";
    /// A refresh token that is none, was used before, or whose session is over.
    InvalidRefreshToken => "invalid_refresh_token", UNAUTHORIZED, "The session cannot be refreshed";
    /// Signed in, but not as an operator.
    Forbidden => "forbidden", FORBIDDEN, "Operators only";
    /// Nothing here, or nothing of the caller's.
    NotFound => "not_found", NOT_FOUND, "There is no such resource";
    /// The path exists, the method does not.
    MethodNotAllowed => "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The address has an account.
    EmailTaken => "email_taken", CONFLICT, "The address has an account already";
    /// The job has not got that far.
    NotReady => "not_ready", CONFLICT, "The job has not got that far";
    /// The job is over, and not by a cancel.
    NotCancellable => "not_cancellable", CONFLICT, "The job is over and cannot be cancelled";
    /// The job did not end in a way that another run could change, or runs already.
    NotRetryable => "not_retryable", CONFLICT, "The job cannot be retried";
    /// The upload was ended, has expired, or never was one in parts.
    UploadOver => "upload_over", CONFLICT, "There is no upload under way";
    /// Not everything has been sent.
    UploadIncomplete => "upload_incomplete", CONFLICT, "Parts of the upload are missing";
    /// The same key came with the same request, which is not answered yet.
    IdempotencyInProgress => "idempotency_in_progress", CONFLICT, "The first request with this key is under way";
    /// No place for the bytes: waiting changes nothing, deleting jobs does. So it is a conflict with what is there, and not
    /// a 403, which would say that no such request may ever be made.
    QuotaBytes => "quota_bytes", CONFLICT, "The account's storage is full";
    /// Too many jobs at a time. Waiting helps, so it is a 429.
    QuotaJobs => "quota_jobs", TOO_MANY_REQUESTS, "Too many jobs are not over yet";
    /// More requests than the window has.
    RateLimited => "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// Too many failed logins; the same for addresses with and without an account.
    LoginThrottled => "login_throttled", TOO_MANY_REQUESTS, "Too many failed logins";
    /// The body is longer than any request of this API.
    BodyTooLarge => "body_too_large", PAYLOAD_TOO_LARGE, "The request body is too large";
    /// The body is declared as something other than JSON.
    UnsupportedMediaType => "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The request body must be JSON";
    /// Fields have values that are not accepted.
    ValidationFailed => "validation_failed", UNPROCESSABLE_ENTITY, "Some fields are not valid";
    /// The list names other parts than were sent.
    PartsMismatch => "parts_mismatch", UNPROCESSABLE_ENTITY, "The parts are not those that were sent";
    /// The same key came with another request.
    IdempotencyMismatch => "idempotency_mismatch", UNPROCESSABLE_ENTITY, "The key belongs to another request";
    /// The source is longer than the stack accepts.
    SourceTooLarge => "source_too_large", UNPROCESSABLE_ENTITY, "The source is too large";
    /// The declared content type cannot be processed.
    UnsupportedSourceType => "unsupported_source_type", UNPROCESSABLE_ENTITY, "The source's type is not supported";
    /// A fault of ours.
    InternalError => "internal_error", INTERNAL_SERVER_ERROR, "Something went wrong";
    /// Something that we depend on does not answer.
    ServiceUnavailable => "service_unavailable", SERVICE_UNAVAILABLE, "Try again shortly";
}

/// Seconds after which a 503 is worth another try.
pub const RETRY_AFTER_SECONDS: u32 = 2;
/// When an account with too many jobs should ask again: about as long as a short job takes.
const QUOTA_RETRY_AFTER_SECONDS: u32 = 30;

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: Code,
    detail: Option<String>,
    errors: Vec<FieldError>,
    retry_after_seconds: Option<u32>,
}

/// The document that clients get.
#[derive(Debug, Serialize)]
pub(super) struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl ApiError {
    /// An error that its code says all about.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            detail: None,
            errors: Vec::new(),
            retry_after_seconds: (code.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS),
        }
    }

    /// Adds a sentence for the person at the client; it must hold nothing internal.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says when it is worth another try.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Fields that are not valid.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            ..Self::new(Code::ValidationFailed)
        }
    }

    /// One field of a body that could not be read.
    #[must_use]
    pub fn malformed(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            errors: vec![FieldError::new(pointer, message)],
            ..Self::new(Code::InvalidRequest)
        }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    pub(super) fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after_seconds
    }

    pub(super) fn problem<'a>(&'a self, request_id: &'a str) -> Problem<'a> {
        Problem {
            r#type: contract::problem_type(self.code),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.as_str(),
            detail: self.detail.as_deref(),
            request_id,
            errors: &self.errors,
        }
    }
}

impl IntoResponse for ApiError {
    /// Only carries the error outwards; the router renders it, since it knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AwsError> for ApiError {
    fn from(error: AwsError) -> Self {
        tracing::error!(error = %error, code = error.code(), "a call to a service failed");
        Self::new(if error.is_retryable() {
            Code::ServiceUnavailable
        } else {
            Code::InternalError
        })
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Jobs { limit } => Self::new(Code::QuotaJobs)
                .detail(format!("at most {limit} jobs may be unfinished at a time"))
                .retry_after(QUOTA_RETRY_AFTER_SECONDS),
            Exceeded::Bytes { limit } => Self::new(Code::QuotaBytes).detail(format!(
                "sources and outputs may take {limit} bytes together; delete jobs to make room"
            )),
        }
    }
}

impl From<SpecError> for ApiError {
    fn from(error: SpecError) -> Self {
        let detail = error.to_string();
        match error {
            SpecError::Invalid(errors) => Self::fields(errors),
            SpecError::SourceTooLarge { .. } => Self::new(Code::SourceTooLarge).detail(detail),
            SpecError::UnsupportedSourceType => Self::new(Code::UnsupportedSourceType).detail(detail),
        }
    }
}

impl From<PartsError> for ApiError {
    fn from(error: PartsError) -> Self {
        let detail = error.to_string();
        match error {
            PartsError::Incomplete { .. } => Self::new(Code::UploadIncomplete).detail(detail),
            PartsError::Mismatch(errors) => Self {
                errors,
                ..Self::new(Code::PartsMismatch)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_one_name_and_an_error_status() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(
                code.status().is_client_error() || code.status().is_server_error(),
                "{code:?}"
            );
            let problem = serde_json::to_value(ApiError::new(*code).problem("id")).unwrap();
            assert_eq!(problem["status"], code.status().as_u16());
            assert_eq!(problem["request_id"], "id");
        }
    }
}
