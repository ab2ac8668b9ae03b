//! One router a function: both bases, problem documents, security headers, one log line a request.

use std::time::Instant;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request},
    http::{
        HeaderName, HeaderValue, StatusCode, Uri,
        header::{
            ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use lambda_http::{RequestExt as _, request::RequestContext};
use tower::Layer as _;
use tower_http::normalize_path::NormalizePathLayer;

use super::{ApiError, Code, contract, error::RETRY_AFTER_SECONDS};

/// The bases under which every route answers.
const BASES: [&str; 2] = ["/api/v1", "/api"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves a function's own routes, given relative to the base, until Lambda ends the process.
pub async fn serve(own: Router) -> Result<(), lambda_http::Error> {
    let mut based = Router::new();
    for base in BASES {
        based = based.nest(base, own.clone());
    }
    let app = based
        .fallback(unmatched)
        .method_not_allowed_fallback(unmatched)
        .layer(middleware::from_fn(finish));
    // Outside of the router, since it changes the path that is routed by.
    lambda_http::run(NormalizePathLayer::trim_trailing_slash().layer(app)).await
}

/// What none of this function's routes takes. Another function's may: API Gateway sends a method that no route has to
/// one function for all, so what the path allows is asked of the contract and not of the own routes.
async fn unmatched(uri: Uri) -> Response {
    let relative = BASES.iter().find_map(|base| uri.path().strip_prefix(base));
    let methods = relative.map(contract::methods_at).unwrap_or_default();
    if methods.is_empty() {
        return ApiError::new(Code::NotFound).into_response();
    }
    let allowed = methods.into_iter().collect::<Vec<_>>().join(", ");
    let mut response = ApiError::new(Code::MethodNotAllowed).into_response();
    if let Ok(value) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// The last step of every request.
async fn finish(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        _ => None,
    }
    .unwrap_or_default();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());

    let response = next.run(request).await;
    let response = decorate(response, &request_id);

    tracing::info!(
        request_id,
        method = %method,
        // The template, never the path: that holds ids.
        route = route.as_deref().unwrap_or("none"),
        status = response.status().as_u16(),
        duration_ms = started.elapsed().as_secs_f64() * 1_000.0,
        "request"
    );
    response
}

fn decorate(mut response: Response, request_id: &str) -> Response {
    let own = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = own.or_else(|| foreign(response.status())) {
        *response.status_mut() = error.code().status();
        *response.body_mut() = Body::from(serde_json::to_vec(&error.problem(request_id)).unwrap_or_default());
        set(&mut response, CONTENT_TYPE, "application/problem+json");
    }
    match response.status() {
        StatusCode::UNAUTHORIZED => set(&mut response, WWW_AUTHENTICATE, "Bearer"),
        StatusCode::SERVICE_UNAVAILABLE => {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        _ => {}
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    set(
        &mut response,
        STRICT_TRANSPORT_SECURITY,
        "max-age=31536000; includeSubDomains",
    );
    set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    // What is the same for everybody says so itself.
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// An error that an extractor of axum's own answers with, such as a path whose escapes are no UTF-8.
fn foreign(status: StatusCode) -> Option<ApiError> {
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        status if status.is_client_error() => Code::InvalidRequest,
        status if status.is_server_error() => Code::InternalError,
        _ => return None,
    };
    Some(ApiError::new(code))
}

fn set(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}
