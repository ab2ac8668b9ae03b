//! Answers that are packed. A signed URL is long, and a playlist of a long video names thousands: packed, it has a
//! twentieth of its size or less, since most of each URL is the same.

use std::io::Write as _;

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use flate2::{Compression, write::GzEncoder};

/// What is shorter is not worth it.
const MIN_BYTES: usize = 1_024;
/// What fits unpacked: Lambda carries 6 MB, and base64 makes three bytes four.
const MAX_UNPACKED_BYTES: usize = 4_500_000;

/// A body, and the headers that say how it is packed.
///
/// It is packed for clients that ask for it. For those that name no coding at all it is only when it would not fit
/// otherwise: RFC 9110 lets us (section 12.5.3), but not all of them expect it.
pub(crate) fn answer(headers: &HeaderMap, body: Vec<u8>) -> (Option<[(HeaderName, HeaderValue); 1]>, Vec<u8>) {
    let wanted = match headers.get(ACCEPT_ENCODING) {
        Some(codings) => codings.to_str().is_ok_and(takes_gzip) && body.len() >= MIN_BYTES,
        None => body.len() > MAX_UNPACKED_BYTES,
    };
    if !wanted {
        return (None, body);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(packed) => (Some([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]), packed),
        // Memory does not fail, so this is never taken; unpacked is right in any case.
        Err(_) => (None, body),
    }
}

/// Reads the value of `Accept-Encoding`.
fn takes_gzip(codings: &str) -> bool {
    let weight_of = |name: &str| {
        codings.split(',').find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(name));
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            named.then(|| weight.map_or(1.0, |weight| weight.parse::<f64>().unwrap_or(0.0)))
        })
    };
    weight_of("gzip").or_else(|| weight_of("*")).unwrap_or(0.0) > 0.0
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn asking(codings: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(codings))])
    }

    #[test]
    fn what_clients_accept_is_understood() {
        for yes in ["gzip", "br, GZIP;q=0.5", "*", "gzip, *;q=0", "deflate,gzip ; q=1"] {
            assert!(takes_gzip(yes), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "*;q=0", "gzip;q=0, *", "xgzip", "gzip;q=x"] {
            assert!(!takes_gzip(no), "{no}");
        }
    }

    #[test]
    fn a_packed_answer_unpacks_to_the_same() {
        let body = b"segment ".repeat(1_000);
        let (headers, packed) = answer(&asking("gzip"), body.clone());
        assert_eq!(headers.unwrap()[0].1, "gzip");
        let mut unpacked = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, body);
    }

    #[test]
    fn only_what_is_long_is_packed_unasked() {
        let packed = |headers: &HeaderMap, length| answer(headers, vec![0; length]).0.is_some();
        assert!(!packed(&HeaderMap::new(), 10_000) && packed(&HeaderMap::new(), MAX_UNPACKED_BYTES + 1));
        assert!(!packed(&asking("gzip"), 100) && packed(&asking("gzip"), 10_000));
        assert!(!packed(&asking("identity"), MAX_UNPACKED_BYTES + 1));
    }
}
