//! JSON bodies, with errors that point at the field.

use axum::{
    body::{self, Bytes},
    extract::{FromRequest, Request},
    http::header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;

use super::{ApiError, Code};
use crate::domain::json::Object;

/// Largest body of any request.
pub const MAX_BODY_BYTES: usize = 64 * 1_024;

/// A JSON body of type `T`.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read(request).await?).map(Self)
    }
}

/// A JSON body of type `T`, and its text as it came.
#[derive(Debug)]
pub struct JsonText<T>(pub T, pub Bytes);

impl<T, S> FromRequest<S> for JsonText<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let text = read(request).await?;
        Ok(Self(parse(&text)?, text))
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    let declared = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    let essence = declared.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if essence.is_some_and(|text| text != "application/json" && !text.ends_with("+json")) {
        return Err(ApiError::new(Code::UnsupportedMediaType));
    }
    // Nothing is unpacked here: a small body stays a small body.
    let encoding = request.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::new(Code::UnsupportedMediaType).detail("the body must not be compressed"));
    }
    body::to_bytes(request.into_body(), MAX_BODY_BYTES)
        .await
        .map_err(|_| ApiError::new(Code::BodyTooLarge).detail(format!("at most {MAX_BODY_BYTES} bytes")))
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize::<_, Object<T>>(&mut json).map_err(|error| {
        let message = if error.inner().is_data() {
            "has the wrong type"
        } else {
            "is not valid JSON"
        };
        ApiError::malformed(pointer(error.path()), message)
    })?;
    json.end().map_err(|_| ApiError::malformed("", "is not valid JSON"))?;
    Ok(value)
}

/// A path within a value as a JSON pointer (RFC 6901).
pub(super) fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            serde_path_to_error::Segment::Seq { index } => Some(format!("/{index}")),
            serde_path_to_error::Segment::Map { key } => {
                Some(format!("/{}", key.replace('~', "~0").replace('/', "~1")))
            }
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn code_of(body: &str) -> Option<Code> {
        parse::<HashMap<String, Vec<u32>>>(&Bytes::copy_from_slice(body.as_bytes()))
            .err()
            .map(|error| error.code())
    }

    #[test]
    fn only_whole_and_fitting_json_is_read() {
        assert_eq!(code_of(r#"{"a":[1,2]}"#), None);
        for bad in [
            "",
            "{",
            r#"{"a":"x"}"#,
            r#"{"a":[1]} tail"#,
            &"[".repeat(10_000),
            "\u{0}",
        ] {
            assert_eq!(code_of(bad), Some(Code::InvalidRequest), "{bad:.20}");
        }
    }

    #[test]
    fn a20_bytes_that_are_no_text_are_refused() {
        let error = parse::<HashMap<String, String>>(&Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err();
        let problem = serde_json::to_value(error.problem("")).unwrap();
        assert_eq!(
            (error.code(), &problem["errors"][0]["pointer"]),
            (Code::InvalidRequest, &"/a".into())
        );
    }

    #[test]
    fn the_error_points_at_the_field() {
        let bytes = Bytes::from_static(br#"{"a":[1,"x"]}"#);
        let error = parse::<HashMap<String, Vec<u32>>>(&bytes).unwrap_err();
        let problem = serde_json::to_value(error.problem("")).unwrap();
        assert_eq!(problem["errors"][0]["pointer"], "/a/1");
    }
}
