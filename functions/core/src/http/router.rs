//! One router a function: both bases, rate limits, problem documents, security headers, one log line a request.

use std::time::{Duration, Instant};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, RETRY_AFTER,
            STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use lambda_http::RequestExt as _;
use tower::Layer as _;
use tower_http::normalize_path::NormalizePathLayer;

use super::{ApiError, Code, Edge, audit::Trail, contract, limits::Meter, source::Source};
use crate::domain::{limits::Class, time::UtcTime};

/// The bases under which every route answers.
const BASES: [&str; 2] = ["/api/v1", "/api"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long before Lambda's own end a request is answered, whatever it waits for.
const ANSWER_BEFORE_END: Duration = Duration::from_millis(1_500);

/// Serves a function's own routes, given relative to the base, until Lambda ends the process.
pub async fn serve(own: Router, edge: Edge) -> Result<(), lambda_http::Error> {
    let mut based = Router::new();
    for base in BASES {
        based = based.nest(base, own.clone());
    }
    let app = based
        .fallback(unmatched)
        .method_not_allowed_fallback(unmatched)
        .layer(middleware::from_fn_with_state(edge, around));
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

/// The first and the last step of every request.
async fn around(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let source = Source::of(&request);
    let request_id = source.request_id.clone();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let class = Class::of(method.as_str(), relative(route.as_deref().unwrap_or_default()));
    let meter = Meter::new(edge.limits, class);
    let left = time_left(&request);

    let answer = async {
        if method == Method::TRACE {
            // It would send back what the client sent, credentials too.
            return unmatched(request.uri().clone()).await;
        }
        if class == Class::SignIn
            && let Err(error) = meter.charge(&source.subject()).await
        {
            return error.into_response();
        }
        request.extensions_mut().insert(meter.clone());
        request.extensions_mut().insert(Trail::new(edge.audit, source));
        next.run(request).await
    };
    let response = tokio::time::timeout(left, answer).await.unwrap_or_else(|_| {
        tracing::error!(request_id, code = "time_is_up", "a request was given up");
        ApiError::new(Code::ServiceUnavailable).into_response()
    });
    let mut response = decorate(response, &request_id);
    meter.tell(response.headers_mut());

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

/// A route without the base that it answers under.
fn relative(route: &str) -> &str {
    BASES
        .iter()
        .find_map(|base| route.strip_prefix(base).filter(|rest| rest.starts_with('/')))
        .unwrap_or(route)
}

/// How long a request may take.
fn time_left(request: &Request) -> Duration {
    // API Gateway waits no longer than this, and a request without a context has no function that ends.
    const LONGEST: Duration = Duration::from_secs(28);
    let Some(context) = request.lambda_context_ref() else {
        return LONGEST;
    };
    let end_ms = i64::try_from(context.deadline).unwrap_or(i64::MAX);
    let left_ms = u64::try_from(end_ms - UtcTime::now().epoch_ms()).unwrap_or(0);
    Duration::from_millis(left_ms)
        .saturating_sub(ANSWER_BEFORE_END)
        .min(LONGEST)
}

fn decorate(mut response: Response, request_id: &str) -> Response {
    let own = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = own.or_else(|| foreign(response.status())) {
        *response.status_mut() = error.code().status();
        *response.body_mut() = Body::from(serde_json::to_vec(&error.problem(request_id)).unwrap_or_default());
        set(&mut response, CONTENT_TYPE, "application/problem+json; charset=utf-8");
        if let Some(seconds) = error.retry_after_seconds() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
    } else if response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value == "application/json")
    {
        set(&mut response, CONTENT_TYPE, "application/json; charset=utf-8");
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        set(&mut response, WWW_AUTHENTICATE, "Bearer");
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    for (name, value) in SECURITY {
        default(&mut response, name, value);
    }
    // What has a tag may be kept, and asked for again; what is the same for everybody says so itself; all else is secret
    // or changes at once.
    let cache = if response.headers().contains_key(ETAG) {
        "private, no-cache"
    } else {
        "no-store"
    };
    default(&mut response, CACHE_CONTROL, cache);
    response
}

/// On every answer that says nothing else. An answer of this API is data: no browser has a reason to run, frame, sniff,
/// cache or tell of it.
const SECURITY: [(HeaderName, &str); 4] = [
    (STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
];

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

/// Sets a header unless it is there.
fn default(response: &mut Response, name: HeaderName, value: &'static str) {
    let headers = response.headers_mut();
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}

fn set(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use axum::Json;

    use super::*;

    #[test]
    fn a_route_is_the_same_under_both_bases() {
        assert_eq!(relative("/api/v1/auth/login"), "/auth/login");
        assert_eq!(relative("/api/auth/login"), "/auth/login");
        assert_eq!(relative("/apis/auth/login"), "/apis/auth/login");
    }

    #[test]
    fn a19_every_answer_has_its_headers_and_an_exact_type() {
        let json = Json(1).into_response();
        let problem = ApiError::new(Code::RateLimited).retry_after(7).into_response();
        let empty = StatusCode::NO_CONTENT.into_response();
        for (response, content_type, retry_after) in [
            (json, Some("application/json; charset=utf-8"), None),
            (problem, Some("application/problem+json; charset=utf-8"), Some("7")),
            (empty, None, None),
        ] {
            let response = decorate(response, "id");
            let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header(CONTENT_TYPE), content_type);
            assert_eq!(header(RETRY_AFTER), retry_after);
            assert_eq!(header(REQUEST_ID), Some("id"));
            for (name, value) in SECURITY {
                assert_eq!(header(name), Some(value));
            }
        }
    }
}
