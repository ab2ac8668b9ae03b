//! Objects in S3: signed URLs for clients, what the signed request must carry, and small objects, or small parts of large ones, read.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    error::SdkError,
    operation::get_object::{GetObjectError, GetObjectOutput},
    presigning::PresigningConfig,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{AwsError, call_error};
use crate::domain::{filename, keys::SourceKey};

/// A bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: Client,
    name: String,
}

/// A request that a client may send to S3 by itself.
#[derive(Debug, Clone)]
pub struct SignedRequest {
    /// Where to. Never logged: whoever has it may use it.
    pub url: String,
    /// Headers that are part of the signature; the request must carry exactly these.
    pub headers: BTreeMap<&'static str, String>,
}

/// What a browser does with a download, and the name that it stores it under. Any name will do: what is sent is made
/// [safe](filename::safe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Shows it.
    Inline(String),
    /// Stores it.
    Attachment(String),
}

impl Disposition {
    /// The header of RFC 6266: an ASCII form of the name for old clients, and the exact one by RFC 8187.
    fn header(&self) -> String {
        let (kind, name) = match self {
            Self::Inline(name) => ("inline", filename::safe(name)),
            Self::Attachment(name) => ("attachment", filename::safe(name)),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
        let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        let exact = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
        format!("{kind}; filename=\"{ascii}\"; filename*=UTF-8''{exact}")
    }
}

impl Bucket {
    /// The bucket of this name.
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self {
            client: Client::new(config),
            name,
        }
    }

    /// The client, for transfers of a function's own use case.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs an upload of exactly `size_bytes` bytes of exactly this type: both headers are part of the signature. So is
    /// a SHA-256 in hex, if there is one: S3 refuses content that has another one.
    pub async fn sign_upload(
        &self,
        key: &SourceKey,
        size_bytes: u64,
        content_type: &str,
        sha256: Option<&str>,
        lifetime: Duration,
    ) -> Result<SignedRequest, AwsError> {
        let sha256 = sha256
            .and_then(|text| hex::decode(text).ok())
            .map(|bytes| BASE64_STANDARD.encode(bytes));
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key.to_string())
            .content_length(i64::try_from(size_bytes).unwrap_or(i64::MAX))
            .content_type(content_type)
            .set_checksum_sha256(sha256.clone())
            .presigned(signing(lifetime)?)
            .await
            .map_err(|error| call_error("PutObject", &error))?;
        // Not the request's own list: in Lambda the SDK adds a trace header, which is not part of the signature.
        let mut headers = BTreeMap::from([
            ("content-length", size_bytes.to_string()),
            ("content-type", content_type.to_owned()),
        ]);
        headers.extend(sha256.map(|text| ("x-amz-checksum-sha256", text)));
        Ok(SignedRequest {
            url: request.uri().to_owned(),
            headers,
        })
    }

    /// Signs a download, of one version where there are several.
    pub async fn sign_download(
        &self,
        key: &str,
        version_id: Option<&str>,
        content_type: &str,
        disposition: Option<&Disposition>,
        lifetime: Duration,
    ) -> Result<String, AwsError> {
        let request = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version_id.map(Into::into))
            .response_content_type(content_type)
            .set_response_content_disposition(disposition.map(Disposition::header))
            .presigned(signing(lifetime)?)
            .await
            .map_err(|error| call_error("GetObject", &error))?;
        Ok(request.uri().to_owned())
    }

    /// Reads a small object whole; `None` when there is none. More than `max_bytes` is an error, and not read.
    ///
    /// S3 says that an object is missing only to who may list the bucket; others are denied access to it.
    pub async fn read(&self, key: &str, max_bytes: usize) -> Result<Option<Vec<u8>>, AwsError> {
        let answer = self.client.get_object().bucket(&self.name).key(key).send().await;
        collect(answer, max_bytes).await
    }

    /// Reads a range of bytes of an object, fewer where it ends before; `None` when there is no object. A range that
    /// begins at its end or after it is an error.
    pub async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, AwsError> {
        let length_bytes = range.end.saturating_sub(range.start);
        // A range header cannot mean nothing: its end is the last byte.
        if length_bytes == 0 {
            return Ok(Some(Vec::new()));
        }
        let request = self.client.get_object().bucket(&self.name).key(key);
        let answer = request.range(format!("bytes={}-{}", range.start, range.end - 1)).send();
        collect(answer.await, usize::try_from(length_bytes).unwrap_or(usize::MAX)).await
    }
}

/// The body of an answer; `None` when there is no object, and an error for more than `max_bytes`.
async fn collect(
    answer: Result<GetObjectOutput, SdkError<GetObjectError>>,
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, AwsError> {
    let mut body = match answer {
        Ok(object) => object.body,
        Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => return Ok(None),
        Err(error) => return Err(call_error("GetObject", &error)),
    };
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| AwsError::Call {
            operation: "GetObject",
            aws_code: "BodyBrokenOff".to_owned(),
            retryable: true,
        })?;
        if bytes.len() + piece.len() > max_bytes {
            return Err(AwsError::Item(
                format!("an object has more than {max_bytes} bytes").into(),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes))
}

pub(super) fn signing(lifetime: Duration) -> Result<PresigningConfig, AwsError> {
    PresigningConfig::expires_in(lifetime).map_err(|error| AwsError::Item(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u10_a_name_cannot_leave_its_header() {
        for name in [
            "a\"; \r\nSet-Cookie: x=1 ü.mp4",
            "\u{202e}4pm.ü",
            "../../ü",
            &"ü".repeat(500),
        ] {
            let header = Disposition::Attachment(name.to_owned()).header();
            assert!(header.is_ascii() && !header.contains(['\r', '\n']), "{header}");
            assert_eq!(header.matches('"').count(), 2, "{header}");
            assert!(header.contains("%C3%BC") && !header.contains("%E2%80%AE"), "{header}");
        }
        let header = Disposition::Inline("a b.mp4".into()).header();
        assert_eq!(header, "inline; filename=\"a b.mp4\"; filename*=UTF-8''a%20b%2Emp4");
    }
}
