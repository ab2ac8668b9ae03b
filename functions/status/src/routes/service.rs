//! The API about itself: the same answers for everybody.

use axum::{
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use reelay_core::http::contract;

/// Long enough for one reader, short enough after an update.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

pub(super) async fn openapi() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, CACHE),
    ];
    (headers, contract::json()).into_response()
}

pub(super) async fn docs() -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(contract::content_security_policy()),
        ),
        (CACHE_CONTROL, CACHE),
    ];
    (headers, contract::html()).into_response()
}
