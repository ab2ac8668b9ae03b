//! Entity tags: whoever asks again and again is not sent again what has not changed.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::Response,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{ApiError, Code};

/// Answers with a body and its tag, or with 304 when the request names that tag already.
pub fn answer<T: Serialize>(asked: &HeaderMap, body: &T) -> Result<Response, ApiError> {
    let bytes = serde_json::to_vec(body).map_err(|_| ApiError::new(Code::InternalError))?;
    let digest = Sha256::digest(&bytes);
    let tag = format!("\"{}\"", hex::encode(&digest[..16]));
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|value| names(value, &tag));
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::from(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    let tag = HeaderValue::from_str(&tag).map_err(|_| ApiError::new(Code::InternalError))?;
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// Whether a list of tags names one, by the weak comparison of RFC 9110.
fn names(list: &HeaderValue, tag: &str) -> bool {
    let list = list.to_str().unwrap_or_default();
    list.split(',')
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(tags: &[&str], body: &str) -> Response {
        let headers = tags.iter().map(|tag| (IF_NONE_MATCH, tag.parse().unwrap()));
        answer(&headers.collect(), &body).unwrap()
    }

    #[test]
    fn a_known_body_is_not_sent_again() {
        let first = ask(&[], "a");
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = ask(&[&known], "a");
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()[ETAG], tag.as_str());
        }
        assert_eq!(ask(&[&tag], "b").status(), StatusCode::OK);
        assert_eq!(ask(&["\"x\""], "a").status(), StatusCode::OK);
    }
}
