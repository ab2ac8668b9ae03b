//! URIs of playlists: keys of a job's objects, relative to the playlist's own.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::domain::keys::OUTPUTS;

/// All but what RFC 3986 calls unreserved. A colon is among them: before the first slash it would end a scheme.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Segments of the prefix that all outputs of a job share: the area, the account and the job.
const JOB_PREFIX_SEGMENTS: usize = 3;

/// How a playlist under `from_key` names the object under `to_key`: a relative URI, as short as it can be.
#[must_use]
pub fn relative_uri(from_key: &str, to_key: &str) -> String {
    let from: Vec<&str> = from_key.split('/').collect();
    let to: Vec<&str> = to_key.split('/').collect();
    // The last segment is a file's name and never part of what both have in common.
    let depth = from.len().min(to.len()) - 1;
    let shared = (0..depth).take_while(|index| from[*index] == to[*index]).count();
    let ups = from.len() - 1 - shared;
    let down = to[shared..]
        .iter()
        .map(|segment| utf8_percent_encode(segment, RESERVED).to_string());
    let steps: Vec<String> = std::iter::repeat_n("..".to_owned(), ups).chain(down).collect();
    steps.join("/")
}

/// Where a relative URI in an object of a job's outputs points: to an object of the same job, or `None`.
///
/// Percent signs are resolved before dots are, as every URL parser does it, so no spelling of `..` gets further.
pub(super) fn resolve(base_key: &str, uri: &str) -> Option<String> {
    let mut path: Vec<String> = base_key.split('/').map(str::to_owned).collect();
    path.pop();
    let in_a_job = path.len() >= JOB_PREFIX_SEGMENTS && path.first().is_some_and(|area| area == OUTPUTS);
    if !in_a_job || !path.iter().all(|segment| is_name(segment)) {
        return None;
    }
    // An absolute path begins with an empty segment, and a scheme, a query and a fragment need these.
    if uri.contains([':', '?', '#', '\\']) {
        return None;
    }
    let mut ends_in_a_name = false;
    for segment in uri.split('/') {
        let segment = percent_decode_str(segment).decode_utf8().ok()?;
        ends_in_a_name = is_name(&segment);
        match &*segment {
            "." => {}
            ".." if path.len() > JOB_PREFIX_SEGMENTS => drop(path.pop()),
            name if ends_in_a_name => path.push(name.to_owned()),
            _ => return None,
        }
    }
    ends_in_a_name.then(|| path.join("/"))
}

/// Whether this names something in a folder, wherever it is read.
fn is_name(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && !segment.contains(|c: char| c == '/' || c == '\\' || c.is_control())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "outputs/acct_1/job_1/1-assemble-1/video-720p.m3u8";

    #[test]
    fn relative_uris_are_short() {
        let uri = |to| relative_uri(BASE, to);
        assert_eq!(uri("outputs/acct_1/job_1/1-c0007-1/v720.mp4"), "../1-c0007-1/v720.mp4");
        assert_eq!(uri("outputs/acct_1/job_1/1-assemble-1/audio.m3u8"), "audio.m3u8");
        assert_eq!(uri("outputs/acct_1/job_1/1-assemble-1/a:b c.mp4"), "a%3Ab%20c.mp4");
        assert_eq!(uri("outputs/acct_1/job_1/1-assemble-1"), "../1-assemble-1");
    }

    #[test]
    fn what_is_no_object_of_the_job_does_not_resolve() {
        assert_eq!(
            resolve(BASE, "./.././1-c0000-1//../a.mp4"),
            None,
            "an empty segment is no folder"
        );
        for bad in [
            "",
            ".",
            "..",
            "../",
            "a/",
            "/a.mp4",
            "//host/a.mp4",
            "https://host/a.mp4",
            "data:,x",
            "a.mp4?x=1",
            "a.mp4#t=1",
            "../../a.mp4/../../job_2/1-c0000-1/a.mp4",
            "../../../job_2/1-c0000-1/a.mp4",
            "../../../job_1/1-c0000-1/a.mp4",
            "%2e%2e/%2E%2E/%2e./job_2/a.mp4",
            "..%2f..%2f..%2fjob_2/a.mp4",
            "..\\..\\a.mp4",
            "a%00.mp4",
            "%ff.mp4",
        ] {
            assert_eq!(resolve(BASE, bad), None, "{bad}");
        }
        for base in [
            "",
            "outputs/acct_1/a.m3u8",
            "sources/acct_1/job_1/a.m3u8",
            "outputs//job_1/a.m3u8",
            "outputs/../job_1/a.m3u8",
        ] {
            assert_eq!(resolve(base, "a.mp4"), None, "{base}");
        }
    }

    #[test]
    fn objects_of_the_job_resolve() {
        let good = [
            ("v.mp4", "outputs/acct_1/job_1/1-assemble-1/v.mp4"),
            ("./../1-c0001-1/v.mp4", "outputs/acct_1/job_1/1-c0001-1/v.mp4"),
            ("%2e%2e/1-c0001-1/v.mp4", "outputs/acct_1/job_1/1-c0001-1/v.mp4"),
        ];
        for (uri, key) in good {
            assert_eq!(resolve(BASE, uri).as_deref(), Some(key));
        }
    }

    fn segment() -> impl Strategy<Value = String> {
        "[^/\\\\]{1,12}".prop_filter("a name", |segment| is_name(segment))
    }

    proptest! {
        #[test]
        fn a_relative_uri_resolves_to_its_key(
            from in prop::collection::vec(segment(), 1..4),
            to in prop::collection::vec(segment(), 1..4),
        ) {
            let key = |rest: &[String]| format!("outputs/a/j/{}", rest.join("/"));
            let uri = relative_uri(&key(&from), &key(&to));
            prop_assert!(uri.is_ascii());
            prop_assert_eq!(resolve(&key(&from), &uri), Some(key(&to)));
        }

        #[test]
        fn nothing_resolves_out_of_the_job(uri in "[./%2eEfFaj]{0,40}") {
            if let Some(key) = resolve("outputs/a/j/1-assemble-1/x.m3u8", &uri) {
                prop_assert!(key.starts_with("outputs/a/j/") && !key.split('/').any(|segment| segment == ".."));
            }
        }
    }
}
