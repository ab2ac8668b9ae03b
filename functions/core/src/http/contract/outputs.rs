//! Operations and schemas of what a job made, and of what it was made of.

use serde_json::{Value, json};

use super::{
    jobs::{DIGEST, JOB_ID, digest, job_in_path},
    operation::Operation,
    schema::{count, in_path, in_query, list, nullable, number, object, reference, said, text, words},
};
use crate::{
    domain::{
        hls,
        job::OutputType,
        spec::{Format, MAX_THUMBNAILS, Quality},
    },
    http::Code,
};

const TAG: &str = "Outputs";

pub(super) fn operations() -> Vec<Operation> {
    let of_a_job = |path, name| {
        Operation::new("status", "GET", path, name)
            .takes(job_in_path())
            .problems(&[Code::NotReady])
    };
    vec![
        of_a_job("/jobs/{id}/outputs", "listOutputs")
            .says(
                TAG,
                "What a job made",
                "Once COMPLETED. Each `url` works for DownloadUrlSeconds, without a token; that of HLS is a path of this \
                 API.",
            )
            .answers(200, "The outputs.", "OutputList", json!({"outputs": [output()]})),
        of_a_job("/jobs/{id}/thumbnail", "getThumbnail")
            .says(TAG, "A still", "")
            .aliases(&[("/videos/tasks/{id}/thumbnail", "getVideoTaskThumbnail")])
            .takes(in_query(
                "index",
                "Which one, in the order of time.",
                json!({"type": "integer", "minimum": 0, "maximum": MAX_THUMBNAILS - 1, "default": 0}),
                json!(0),
            ))
            .redirects("To a JPEG; without the API's token."),
        of_a_job("/jobs/{id}/download", "downloadJob")
            .says(
                TAG,
                "A rendition as a file",
                "Named after the source. The largest of those that fit; a file before a playlist.",
            )
            .aliases(&[("/videos/{id}/download", "downloadVideo")])
            .takes(in_query(
                "format",
                "The container.",
                words(Format::ALL, Format::as_str),
                json!("mp4"),
            ))
            .takes(in_query(
                "quality",
                "The quality that was asked for.",
                words(Quality::ALL, Quality::as_str),
                json!("720p"),
            ))
            .redirects("To the file, without the API's token; or to the playlist of an HLS rendition, with it."),
        of_a_job("/jobs/{id}/hls/{file}", "getPlaylist")
            .says(
                TAG,
                "An HLS playlist",
                "`index.m3u8` names the others. Segments are signed URLs, which must come without a token. From \
                 `playable` on; the playlists of a running job grow.",
            )
            .takes(in_path(
                "file",
                "The playlist's name.",
                json!({"type": "string", "pattern": "^[a-z0-9-]{1,59}\\.m3u8$"}),
                json!(hls::INDEX_FILE),
            ))
            .answers_with(
                200,
                "The playlist; packed with gzip for who accepts it.",
                hls::CONTENT_TYPE,
                text(),
                json!("#EXTM3U\n#EXT-X-VERSION:7\n"),
            ),
        of_a_job("/jobs/{id}/source", "getSource")
            .says(TAG, "The source, as it was checked", "As an attachment under its own name.")
            .redirects("To the file, without the API's token."),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "OutputList",
            object("What a job made.", vec![("outputs", list(reference("Output")))], &[]),
        ),
        (
            "Output",
            object(
                "A published object.",
                vec![
                    ("id", text()),
                    ("type", words(OutputType::ALL, OutputType::as_str)),
                    ("format", said(text(), "`mp4`, `webm`, `hls`, `jpeg` or `json`.")),
                    ("quality", said(nullable(text()), "As it was asked for.")),
                    ("width_px", count()),
                    ("height_px", count()),
                    ("duration_seconds", nullable(number())),
                    ("frames", said(nullable(count()), "As counted in the finished file.")),
                    ("bitrate_bps", nullable(count())),
                    ("size_bytes", count()),
                    ("sha256", digest()),
                    ("content_type", text()),
                    (
                        "url",
                        said(json!({"type": "string", "format": "uri-reference"}), "Where it is."),
                    ),
                    ("proof", said(nullable(reference("Proof")), "Of renditions.")),
                ],
                &[],
            ),
        ),
        (
            "Proof",
            object(
                "What was planned of a rendition, and what was counted in it.",
                vec![
                    ("expected_frames", count()),
                    ("counted_frames", count()),
                    ("largest_gap_ms", said(number(), "The longest step between two frames.")),
                    (
                        "audio_drift_ms",
                        said(
                            json!({"type": ["number", "null"]}),
                            "How much longer the sound is than planned.",
                        ),
                    ),
                    ("objects", count()),
                    ("object_bytes", count()),
                ],
                &[],
            ),
        ),
    ]
}

fn output() -> Value {
    json!({"id": "mp4-720p", "type": "rendition", "format": "mp4", "quality": "720p", "width_px": 1_280,
        "height_px": 720, "duration_seconds": 61.52, "frames": 1_538, "bitrate_bps": 2_900_000,
        "size_bytes": 22_300_000, "sha256": DIGEST, "content_type": "video/mp4",
        "url": format!("https://s3.example.com/outputs/{JOB_ID}/mp4-720p.mp4?X-Amz-Signature=..."),
        "proof": {"expected_frames": 1_538, "counted_frames": 1_538, "largest_gap_ms": 40.0, "audio_drift_ms": 11.3,
            "objects": 1, "object_bytes": 22_300_000}})
}
