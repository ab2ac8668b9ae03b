//! Operations and schemas of uploads in parts, and of those that Uppy's plugin `AwsS3` asks for. The names in the latter are
//! Uppy's.

use serde_json::{Value, json};

use super::{
    create::LARGEST_SOURCE_BYTES,
    jobs::{self, JOB_ID, job_in_path},
    operation::Operation,
    schema::{count, count_of, id, in_path, in_query, list, nullable, object, reference, said, text, time},
};
use crate::{
    domain::upload::{MAX_PARTS, MIN_PART_BYTES},
    http::Code,
};

const TAG: &str = "Uploads in parts";
const UPPY: &str = "Uploads by Uppy";
const UPLOAD_ID: &str = "VXBsb2FkIElE";
const ETAG: &str = "\"9b2cf535f27731c974343645a3985328\"";
/// Most parts that one request signs.
const MAX_SIGNED_PARTS: usize = 100;

pub(super) fn operations() -> Vec<Operation> {
    [in_parts(), begun_by_uppy(), done_by_uppy()].concat()
}

fn in_parts() -> Vec<Operation> {
    let listed = json!({"upload_id": UPLOAD_ID, "part_size_bytes": 8_388_608, "part_count": 9,
        "parts": [{"part_number": 1, "etag": ETAG, "size_bytes": 8_388_608}],
        "expires_at": "2026-03-01T15:30:00.000Z"});
    vec![
        Operation::new("status", "GET", "/jobs/{id}/upload/parts", "listParts")
            .says(
                TAG,
                "Which parts are there",
                "Where to go on after the network, or the page, was lost.",
            )
            .takes(job_in_path())
            .answers(200, "The parts.", "PartList", listed)
            .problems(&[Code::UploadOver]),
        Operation::new("upload", "POST", "/jobs/{id}/upload/parts", "signParts")
            .says(TAG, "Where more parts go", "")
            .takes(job_in_path())
            .body("SignParts", json!({"part_numbers": [2, 3]}))
            .answers(
                200,
                "A request for each.",
                "SignedParts",
                json!({"parts": [part_target()]}),
            )
            .problems(&[Code::UploadOver, Code::ValidationFailed]),
        Operation::new("upload", "POST", "/jobs/{id}/upload/complete", "completeUpload")
            .says(
                TAG,
                "Have the parts put together",
                "What storage has decides. Completing twice is fine.",
            )
            .takes(job_in_path())
            .body("CompleteParts", json!({"parts": [{"part_number": 1, "etag": ETAG}]}))
            .answers(200, "The job.", "Job", jobs::queued())
            .problems(&[Code::UploadOver, Code::UploadIncomplete, Code::PartsMismatch]),
        Operation::new("upload", "DELETE", "/jobs/{id}/upload", "abortUpload")
            .says(TAG, "End an upload", "Its job is CANCELLED. Twice is fine.")
            .takes(job_in_path())
            .problems(&[Code::UploadOver]),
    ]
}

fn part_target() -> Value {
    json!({"part_number": 2, "size_bytes": 8_388_608,
        "url": "https://s3.example.com/sources/source?partNumber=2&X-Amz-Signature=...",
        "headers": {"content-length": "8388608"}, "expires_at": "2026-03-01T09:45:00.000Z"})
}

/// The source's key, which is what Uppy knows an upload by.
fn key() -> String {
    format!("sources/acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b/{JOB_ID}/source")
}

fn begun_by_uppy() -> Vec<Operation> {
    let key = key();
    let meta = |name: &str, schema, example| {
        in_query(
            &format!("metadata[{name}]"),
            "A field of a create request; what is not text comes as JSON text.",
            schema,
            example,
        )
    };
    let made = [
        Code::ValidationFailed,
        Code::SourceTooLarge,
        Code::UnsupportedSourceType,
        Code::QuotaBytes,
        Code::QuotaJobs,
        Code::IdempotencyInProgress,
        Code::IdempotencyMismatch,
        Code::NotFound,
    ];
    vec![
        Operation::new("upload", "GET", "/s3/params", "getUppyParams")
            .says(UPPY, "A job, and a form for its source", "")
            .takes(jobs::idempotency_key())
            .takes(required(in_query("filename", "", text(), json!("holiday.mp4"))))
            .takes(in_query("type", "The media type.", text(), json!("video/mp4")))
            .takes(required(meta(
                "size_bytes",
                count_of(&(1..=LARGEST_SOURCE_BYTES)),
                json!(73_400_320),
            )))
            .answers(
                200,
                "The form.",
                "UppyForm",
                json!({"method": "POST", "url": "https://s3.example.com/sources", "fields": {"key": key},
                    "expires": 900, "job_id": JOB_ID}),
            )
            .problems(&made),
        Operation::new("upload", "POST", "/s3/multipart", "createUppyUpload")
            .says(UPPY, "A job, whose source is sent in parts", "")
            .takes(jobs::idempotency_key())
            .body(
                "UppyFile",
                json!({"filename": "holiday.mp4", "type": "video/mp4", "metadata": {"size_bytes": 73_400_320}}),
            )
            .answers(
                200,
                "The upload.",
                "UppyUpload",
                json!({"key": key, "uploadId": UPLOAD_ID, "bucket": "reelay-source", "job_id": JOB_ID}),
            )
            .problems(&made),
    ]
}

fn done_by_uppy() -> Vec<Operation> {
    let key = key();
    let of_an_upload = |method, path, name| {
        Operation::new("upload", method, path, name)
            .takes(in_path(
                "upload_id",
                "`uploadId` of the creation.",
                text(),
                json!(UPLOAD_ID),
            ))
            .takes(required(in_query("key", "`key` of the creation.", text(), json!(key))))
            .problems(&[Code::NotFound])
    };
    vec![
        of_an_upload("GET", "/s3/multipart/{upload_id}", "listUppyParts")
            .says(UPPY, "The parts that are there", "")
            .answers_with(
                200,
                "The parts.",
                "application/json",
                list(reference("UppyPart")),
                json!([{"PartNumber": 1, "ETag": ETAG, "Size": 8_388_608}]),
            )
            .problems(&[Code::UploadOver]),
        of_an_upload("GET", "/s3/multipart/{upload_id}/batch", "signUppyParts")
            .says(UPPY, "Where several parts go", "")
            .takes(required(in_query(
                "partNumbers",
                "Numbers with commas between them.",
                json!({"type": "string", "pattern": "^[0-9]+(,[0-9]+)*$"}),
                json!("1,2"),
            )))
            .answers(
                200,
                "A URL for each.",
                "UppyUrls",
                json!({"presignedUrls": {"1": "https://s3.example.com/sources/source?partNumber=1"}}),
            )
            .problems(&[Code::UploadOver, Code::ValidationFailed]),
        of_an_upload("GET", "/s3/multipart/{upload_id}/{part_number}", "signUppyPart")
            .says(UPPY, "Where a part goes", "")
            .takes(in_path("part_number", "From 1.", count_of(&(1..=MAX_PARTS)), json!(1)))
            .answers(
                200,
                "Its URL.",
                "UppyUrl",
                json!({"url": "https://s3.example.com/sources/source?partNumber=1", "expires": 900}),
            )
            .problems(&[Code::UploadOver, Code::ValidationFailed]),
        of_an_upload("POST", "/s3/multipart/{upload_id}/complete", "completeUppyUpload")
            .says(UPPY, "Have the parts put together", "")
            .body("UppyParts", json!({"parts": [{"PartNumber": 1, "ETag": ETAG}]}))
            .answers(
                200,
                "The upload.",
                "UppyCompleted",
                json!({"location": format!("/api/v1/jobs/{JOB_ID}"), "key": key, "bucket": "reelay-source",
                    "job_id": JOB_ID}),
            )
            .problems(&[Code::UploadOver, Code::UploadIncomplete, Code::PartsMismatch]),
        of_an_upload("DELETE", "/s3/multipart/{upload_id}", "abortUppyUpload")
            .says(UPPY, "End an upload", "")
            .answers_with(200, "Done.", "application/json", json!({"type": "object"}), json!({}))
            .problems(&[Code::UploadOver]),
    ]
}

/// A parameter that may not be left out.
fn required(mut parameter: Value) -> Value {
    parameter["required"] = json!(true);
    parameter
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    [schemas_of_parts(), schemas_of_uppy()].concat()
}

fn map() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

/// A part as a client names it.
fn named_part(number: &'static str, tag: &'static str) -> Value {
    object(
        "A part, as it was sent.",
        vec![(number, count_of(&(1..=MAX_PARTS))), (tag, text())],
        &[],
    )
}

fn schemas_of_parts() -> Vec<(&'static str, Value)> {
    vec![
        (
            "PartList",
            object(
                "The parts that storage has.",
                vec![
                    ("upload_id", text()),
                    (
                        "part_size_bytes",
                        said(
                            json!({"type": "integer", "minimum": MIN_PART_BYTES}),
                            "Of every part but the last.",
                        ),
                    ),
                    ("part_count", count()),
                    ("parts", list(reference("StoredPart"))),
                    ("expires_at", time()),
                ],
                &[],
            ),
        ),
        (
            "StoredPart",
            object(
                "A part that is there.",
                vec![("part_number", count()), ("etag", text()), ("size_bytes", count())],
                &[],
            ),
        ),
        (
            "SignParts",
            object(
                "Which parts.",
                vec![(
                    "part_numbers",
                    json!({"type": "array", "minItems": 1, "maxItems": MAX_SIGNED_PARTS,
                        "items": count_of(&(1..=MAX_PARTS))}),
                )],
                &[],
            ),
        ),
        (
            "SignedParts",
            object("Where they go.", vec![("parts", list(reference("PartTarget")))], &[]),
        ),
        (
            "PartTarget",
            object(
                "The request that sends a part.",
                vec![
                    ("part_number", count()),
                    ("size_bytes", count()),
                    ("url", json!({"type": "string", "format": "uri"})),
                    ("headers", said(map(), "The request must carry exactly these.")),
                    ("expires_at", time()),
                ],
                &[],
            ),
        ),
        (
            "CompleteParts",
            object(
                "The parts, if the client wants them compared with what is there.",
                vec![("parts", nullable(list(named_part("part_number", "etag"))))],
                &["parts"],
            ),
        ),
    ]
}

fn schemas_of_uppy() -> Vec<(&'static str, Value)> {
    vec![
        (
            "UppyFile",
            object(
                "A file, and in `metadata` what to make of it.",
                vec![
                    ("filename", nullable(text())),
                    ("type", nullable(text())),
                    (
                        "metadata",
                        said(
                            json!({"type": "object", "required": ["size_bytes"]}),
                            "Fields of a create request; what is not text may come as JSON text.",
                        ),
                    ),
                ],
                &["type"],
            ),
        ),
        (
            "UppyForm",
            object(
                "A form that a browser may send.",
                vec![
                    ("method", json!({"const": "POST"})),
                    ("url", json!({"type": "string", "format": "uri"})),
                    ("fields", map()),
                    ("expires", count()),
                    ("job_id", id("job")),
                ],
                &[],
            ),
        ),
        (
            "UppyUpload",
            object(
                "An upload under way.",
                vec![
                    ("key", text()),
                    ("uploadId", text()),
                    ("bucket", text()),
                    ("job_id", id("job")),
                ],
                &[],
            ),
        ),
        (
            "UppyPart",
            object(
                "A part that is there.",
                vec![("PartNumber", count()), ("ETag", text()), ("Size", count())],
                &[],
            ),
        ),
        (
            "UppyParts",
            object(
                "All parts.",
                vec![("parts", list(named_part("PartNumber", "ETag")))],
                &[],
            ),
        ),
        (
            "UppyUrl",
            object(
                "Where a part goes.",
                vec![
                    ("url", json!({"type": "string", "format": "uri"})),
                    ("expires", json!({"type": "number", "minimum": 0})),
                ],
                &[],
            ),
        ),
        (
            "UppyUrls",
            object("Where parts go.", vec![("presignedUrls", map())], &[]),
        ),
        (
            "UppyCompleted",
            object(
                "What came of it.",
                vec![
                    ("location", json!({"type": "string", "format": "uri-reference"})),
                    ("key", text()),
                    ("bucket", text()),
                    ("job_id", id("job")),
                ],
                &[],
            ),
        ),
    ]
}
