//! Query strings, with errors that point at the field.

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;

use super::{ApiError, body::pointer};

/// A query string of type `T`. An error's pointer is `/` and the field's name.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T, S> FromRequestParts<S> for QueryOf<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let fields = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(fields).map_err(|error| {
        // A field that is there twice has no path.
        let message = error.inner().to_string();
        let name = message
            .strip_prefix("duplicate field `")
            .and_then(|rest| rest.strip_suffix('`'));
        match name {
            Some(name) => ApiError::malformed(format!("/{name}"), "is there twice"),
            None => ApiError::malformed(pointer(error.path()), "cannot be read"),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Page {
        limit: Option<i32>,
        cursor: Option<String>,
    }

    #[test]
    fn the_error_points_at_the_field() {
        let page = parse::<Page>("limit=7&cursor=a%20b&other=1").unwrap();
        assert_eq!((page.limit, page.cursor.as_deref()), (Some(7), Some("a b")));
        for bad in ["limit=x", "limit=", "limit=99999999999999", "limit=1&limit=2"] {
            let error = parse::<Page>(bad).unwrap_err();
            let problem = serde_json::to_value(error.problem("")).unwrap();
            assert_eq!(problem["code"], "invalid_request", "{bad}");
            assert_eq!(problem["errors"][0]["pointer"], "/limit", "{bad}");
        }
    }
}
