//! The body that makes a job.

use serde_json::{Value, json};

use super::schema::{count_of, line_of, list, nullable, object, said, text_of, words};
use crate::domain::{
    create::{
        DEFAULT_THUMBNAILS, MAX_DESCRIPTION_CHARS, MAX_FILENAME_CHARS, MAX_METADATA_BYTES, MAX_OUTPUTS,
        MAX_TITLE_CHARS, UNDECLARED_CONTENT_TYPE,
    },
    spec::{
        AUDIO_BITRATE_BPS, CRF, DURATION_SECONDS, Format, MAX_THUMBNAILS, Preset, Priority, Quality, VIDEO_BITRATE_BPS,
    },
    upload::{MAX_PART_BYTES, MAX_PARTS, MIN_PART_BYTES, UploadMethod},
};

/// The most that the template's `MaxSourceBytes` may be set to. A stack may accept less.
pub(super) const LARGEST_SOURCE_BYTES: u64 = 5 << 30;

/// Optional fields, which may also be null, and the required ones.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("CreateJob", create_job()),
        ("OutputRequest", output_request()),
        (
            "CompressionRequest",
            object(
                "Encoder settings. What is absent follows the picture's size.",
                vec![
                    (
                        "crf",
                        said(nullable(count_of(&CRF)), "On x264's scale, 1 is best. VP9 gets 8 more."),
                    ),
                    (
                        "preset",
                        said(nullable(words(Preset::ALL, Preset::as_str)), "As in x264."),
                    ),
                    (
                        "max_bitrate_bps",
                        said(nullable(count_of(&VIDEO_BITRATE_BPS)), "Of the picture."),
                    ),
                    (
                        "audio_bitrate_bps",
                        said(nullable(count_of(&AUDIO_BITRATE_BPS)), "Aimed at, with variable rate."),
                    ),
                ],
                &["crf", "preset", "max_bitrate_bps", "audio_bitrate_bps"],
            ),
        ),
        (
            "ThumbnailRequest",
            object(
                "Stills.",
                vec![(
                    "count",
                    said(
                        nullable(count_of(&(0..=MAX_THUMBNAILS))),
                        format!("Evenly spread over the duration; {DEFAULT_THUMBNAILS} when absent."),
                    ),
                )],
                &["count"],
            ),
        ),
    ]
}

fn create_job() -> Value {
    let name = || nullable(line_of(1..=MAX_FILENAME_CHARS));
    let fields = vec![
        ("filename", said(name(), "Shown again; never used as a path or a key.")),
        ("source_file", said(name(), "Short form of `filename`.")),
        (
            "size_bytes",
            said(
                count_of(&(1..=LARGEST_SOURCE_BYTES)),
                "The source's exact length; at most the stack's MaxSourceBytes.",
            ),
        ),
        ("content_type", content_type()),
        (
            "priority",
            said(
                nullable(words(Priority::ALL, Priority::as_str)),
                "Which of two queues; `low` when absent.",
            ),
        ),
        (
            "title",
            said(nullable(line_of(0..=MAX_TITLE_CHARS)), "Shown again, and in the mail."),
        ),
        (
            "description",
            said(nullable(text_of(0..=MAX_DESCRIPTION_CHARS)), "Shown again."),
        ),
        (
            "metadata",
            said(
                nullable(json!({"type": "object"})),
                format!("Shown again. At most {MAX_METADATA_BYTES} bytes as JSON."),
            ),
        ),
        (
            "duration_seconds",
            said(
                nullable(
                    json!({"type": "number", "minimum": DURATION_SECONDS.start(), "maximum": DURATION_SECONDS.end()}),
                ),
                "For the estimate only.",
            ),
        ),
        (
            "outputs",
            said(
                nullable(json!({"type": "array", "minItems": 1, "maxItems": MAX_OUTPUTS,
                    "items": {"$ref": "#/components/schemas/OutputRequest"}})),
                format!("One MP4 when absent. At most {MAX_OUTPUTS} different renditions in all."),
            ),
        ),
        (
            "target_format",
            said(
                nullable(words(Format::ALL, Format::as_str)),
                "Short form of one output.",
            ),
        ),
        (
            "upload",
            said(
                nullable(words(UploadMethod::ALL, UploadMethod::as_str)),
                "How the source is sent; by its size when absent.",
            ),
        ),
        (
            "part_size_bytes",
            said(
                nullable(count_of(&(MIN_PART_BYTES..=MAX_PART_BYTES))),
                format!("Of each part but the last; at most {MAX_PARTS} parts."),
            ),
        ),
        (
            "sha256",
            said(
                nullable(json!({"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"})),
                "What the source's SHA-256 must be.",
            ),
        ),
        ("thumbnails", nullable(super::schema::reference("ThumbnailRequest"))),
        ("compression", nullable(super::schema::reference("CompressionRequest"))),
    ];
    let optional: Vec<_> = fields
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != "size_bytes")
        .collect();
    let mut schema = object(
        "What to make, of which source. Fields that nobody knows are ignored.",
        fields.clone(),
        &optional,
    );
    let named = |field: &str| json!({"required": [field], "properties": {field: {"type": "string"}}});
    schema["anyOf"] = json!([named("filename"), named("source_file")]);
    schema
}

fn content_type() -> Value {
    said(
        json!({"type": ["string", "null"], "maxLength": 127,
            "pattern": format!("^(video/[A-Za-z0-9!#$&^_.+-]+|{UNDECLARED_CONTENT_TYPE})$")}),
        format!("`video/...`, or `{UNDECLARED_CONTENT_TYPE}` as when absent. The upload must declare it."),
    )
}

fn output_request() -> Value {
    let quality = || words(Quality::ALL, Quality::as_str);
    object(
        "A rendition, or one for each of several qualities.",
        vec![
            ("format", words(Format::ALL, Format::as_str)),
            (
                "quality",
                said(
                    nullable(quality()),
                    "The short side of the picture; never above the source. The source's own size, at most 1080p, \
                     when absent.",
                ),
            ),
            ("qualities", said(nullable(list(quality())), "Several at once.")),
        ],
        &["quality", "qualities"],
    )
}

/// The README's own example.
pub(super) fn example() -> Value {
    json!({"filename": "holiday.mp4", "size_bytes": 73_400_320, "title": "Holiday", "priority": "high",
        "metadata": {"album": 7}, "duration_seconds": 61.5,
        "outputs": [{"format": "mp4", "qualities": ["480p", "720p"]}, {"format": "hls"}],
        "thumbnails": {"count": 3}, "compression": {"crf": 23, "preset": "medium", "max_bitrate_bps": 4_000_000}})
}
