//! The little of HTTP/1.1 (RFC 9110) that reading a file takes.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Frame},
    header::{self, HeaderValue},
};

use super::{Shared, meter::ReadError, reading::Reading};

/// A response's body.
pub(super) type Payload = UnsyncBoxBody<Bytes, ReadError>;

/// What a request asks for of so many bytes.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    /// None of the bytes that are there.
    Nothing,
    /// What cannot be read, or more than one range.
    Unclear,
}

/// Answers a request. An error closes the connection without an answer.
pub(super) fn respond<B: Body>(request: &Request<B>, shared: &Shared) -> Result<Response<Payload>, ReadError> {
    if shared.meter.exhausted() {
        return Err(ReadError::Exhausted);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
        return Ok(response);
    }
    let Some(blob) = shared.blob(request.uri().path()) else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    let size_bytes = blob.size_bytes();
    let (status, range) = match wanted(request.headers(), size_bytes) {
        Wanted::All => (StatusCode::OK, 0..size_bytes),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            content_range(&mut response, &format!("bytes */{size_bytes}"));
            return Ok(response);
        }
        Wanted::Unclear => return Ok(empty(StatusCode::BAD_REQUEST)),
    };
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {}-{}/{size_bytes}", range.start, range.end.saturating_sub(1));
        content_range(&mut response, &value);
    }
    if request.method() == Method::GET {
        let reading = Reading::new(blob, shared.blocks.clone(), shared.meter.clone(), range);
        *response.body_mut() = payload(reading);
    }
    Ok(response)
}

/// The connection asks for the next bytes when it has room for them, which is all the pacing there is.
fn payload(reading: Reading) -> Payload {
    let slices = stream::try_unfold(reading, async |mut reading| {
        let bytes = reading.next().await?;
        Ok(bytes.map(|bytes| (bytes, reading)))
    });
    StreamBody::new(slices.map_ok(Frame::data)).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<Payload> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn content_range(response: &mut Response<Payload>, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
}

fn wanted(headers: &HeaderMap, size_bytes: u64) -> Wanted {
    let mut values = headers.get_all(header::RANGE).iter();
    let Some(value) = values.next() else {
        return Wanted::All;
    };
    if values.next().is_some() {
        return Wanted::Unclear;
    }
    let value = value.to_str().ok().and_then(|value| value.strip_prefix("bytes="));
    let Some((first, last)) = value.and_then(|value| value.split_once('-')) else {
        return Wanted::Unclear;
    };
    let range = match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => first..size_bytes,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size_bytes),
        (None, Some(count)) if first.is_empty() => size_bytes.saturating_sub(count)..size_bytes,
        _ => return Wanted::Unclear,
    };
    if range.is_empty() {
        Wanted::Nothing
    } else {
        Wanted::Part(range)
    }
}

/// Digits only: `u64::from_str` takes a plus sign as well.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ten(value: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(value).unwrap());
        wanted(&headers, 10)
    }

    #[test]
    fn one_range_is_understood() {
        assert_eq!(wanted(&HeaderMap::new(), 10), Wanted::All);
        for (value, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=3-5", 3..6),
            ("bytes=3-", 3..10),
            ("bytes=9-99", 9..10),
            ("bytes=0-18446744073709551615", 0..10),
            ("bytes=-4", 6..10),
            ("bytes=-99", 0..10),
        ] {
            assert_eq!(of_ten(value), Wanted::Part(range), "{value}");
        }
    }

    #[test]
    fn a_range_of_nothing_is_told_from_no_range() {
        for value in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(of_ten(value), Wanted::Nothing, "{value}");
        }
        for value in [
            "bytes=",
            "bytes=-",
            "bytes=5-3",
            "bytes=+1-3",
            "bytes=1-3,5-6",
            "bytes=a-b",
            "bytes=--1",
            "bytes= 1-2",
            "bytes=99999999999999999999-",
            "items=1-2",
            "1-2",
        ] {
            assert_eq!(of_ten(value), Wanted::Unclear, "{value}");
        }
        let mut two = HeaderMap::new();
        two.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        two.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(wanted(&two, 10), Wanted::Unclear);
    }
}
