//! The create request, and the checks that turn it into a [`NewJob`].

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    json::{self, Object},
    spec::{
        AUDIO_BITRATE_BPS, CRF, Compression, DURATION_SECONDS, Format, MAX_THUMBNAILS, OutputSpec, Preset, Priority,
        Quality, Spec, ThumbnailSpec, VIDEO_BITRATE_BPS,
    },
    upload::{MAX_PART_BYTES, Parts, UploadMethod},
};

/// Longest accepted file name, in characters. Names are echoed and never used as a path or a key.
pub const MAX_FILENAME_CHARS: usize = 255;
/// Longest accepted title, in characters.
pub const MAX_TITLE_CHARS: usize = 200;
/// Longest accepted description, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 2_000;
/// Largest accepted `metadata`, in bytes of its JSON text.
pub const MAX_METADATA_BYTES: usize = 1_024;
/// Most renditions of one job.
pub const MAX_OUTPUTS: usize = 12;
/// Thumbnails of a job that does not say how many.
pub const DEFAULT_THUMBNAILS: u32 = 3;
/// The content type of a source whose type was not declared.
pub const UNDECLARED_CONTENT_TYPE: &str = "application/octet-stream";

/// The body of a create request. Only its shape is checked here; [`CreateJob::validate`] checks the values.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CreateJob {
    filename: Option<String>,
    /// Short form of `filename`.
    source_file: Option<String>,
    #[serde(default, deserialize_with = "json::whole")]
    size_bytes: Option<u64>,
    content_type: Option<String>,
    priority: Option<String>,
    title: Option<String>,
    description: Option<String>,
    metadata: Option<Map<String, Value>>,
    duration_seconds: Option<f64>,
    outputs: Option<Vec<Object<OutputRequest>>>,
    /// Short form of one output.
    target_format: Option<String>,
    thumbnails: Option<Object<ThumbnailRequest>>,
    compression: Option<Object<CompressionRequest>>,
    upload: Option<String>,
    #[serde(default, deserialize_with = "json::whole")]
    part_size_bytes: Option<u64>,
    sha256: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct OutputRequest {
    format: String,
    quality: Option<String>,
    qualities: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct ThumbnailRequest {
    #[serde(default, deserialize_with = "json::whole")]
    count: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
struct CompressionRequest {
    #[serde(default, deserialize_with = "json::whole")]
    crf: Option<u32>,
    preset: Option<String>,
    #[serde(default, deserialize_with = "json::whole")]
    max_bitrate_bps: Option<u64>,
    #[serde(default, deserialize_with = "json::whole")]
    audio_bitrate_bps: Option<u64>,
}

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// The source's name at the user's side; echoed only.
    pub filename: String,
    /// Exact length of the source.
    pub size_bytes: u64,
    /// The type that the upload must declare.
    pub content_type: String,
    /// Which queue.
    pub priority: Priority,
    /// Echoed.
    pub title: Option<String>,
    /// Echoed.
    pub description: Option<String>,
    /// Echoed.
    pub metadata: Option<Map<String, Value>>,
    /// What the caller believes.
    pub duration_seconds: Option<f64>,
    /// What to make.
    pub spec: Spec,
    /// How the caller wants to send it.
    pub upload: Option<UploadMethod>,
    /// Length of its parts, if it is sent in parts.
    pub part_size_bytes: Option<u64>,
    /// What its SHA-256 must be, in hex.
    pub sha256: Option<String>,
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// The stable code, where a client would decide by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

impl FieldError {
    /// An error at a pointer.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
            code: None,
        }
    }

    /// The same error with a code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}

/// Why a create request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Values out of range; every one of them.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldError>),
    /// The source is longer than the stack accepts.
    #[error("the source may have at most {limit_bytes} bytes")]
    SourceTooLarge {
        /// The stack's limit.
        limit_bytes: u64,
    },
    /// The declared type is nothing that can be processed.
    #[error("sources of this content type are not supported")]
    UnsupportedSourceType,
}

impl SpecError {
    /// The stable code of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validation_failed",
            Self::SourceTooLarge { .. } => "source_too_large",
            Self::UnsupportedSourceType => "unsupported_source_type",
        }
    }
}

impl CreateJob {
    /// Checks every value and fills in what was not said.
    pub fn validate(self, max_source_bytes: u64) -> Result<NewJob, SpecError> {
        let mut errors = Errors::default();
        // What is not used is still checked: a request has one meaning or none.
        let (pointer, filename, ignored_name) = match (self.filename, self.source_file) {
            (None, Some(name)) => ("/source_file", Some(name), None),
            (name, short) => ("/filename", name, short),
        };
        let filename = errors.required(pointer, filename);
        errors.text(pointer, Some(&filename), 1, MAX_FILENAME_CHARS);
        errors.text("/source_file", ignored_name.as_ref(), 1, MAX_FILENAME_CHARS);
        errors.text("/title", self.title.as_ref(), 0, MAX_TITLE_CHARS);
        if self
            .description
            .as_ref()
            .is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS)
        {
            errors.push(
                "/description",
                format!("must have at most {MAX_DESCRIPTION_CHARS} characters"),
            );
        }
        let size_bytes = errors.required("/size_bytes", self.size_bytes);
        if self.size_bytes == Some(0) {
            errors.push("/size_bytes", "must be at least 1: the source is empty");
        }
        let metadata_bytes = self
            .metadata
            .as_ref()
            .map_or(0, |map| Value::Object(map.clone()).to_string().len());
        if metadata_bytes > MAX_METADATA_BYTES {
            errors.push(
                "/metadata",
                format!("must have at most {MAX_METADATA_BYTES} bytes as JSON"),
            );
        }
        errors.range("/duration_seconds", self.duration_seconds, &DURATION_SECONDS);
        let priority = errors.word(
            "/priority",
            self.priority.as_deref(),
            Priority::parse,
            Priority::expected,
        );
        let outputs = errors.outputs(self.outputs, self.target_format.as_deref());
        let thumbnails = errors.thumbnails(self.thumbnails.map(|Object(request)| request).as_ref());
        let compression = errors.compression(self.compression.map(|Object(request)| request).as_ref());
        let content_type = self.content_type.map(|text| text.trim().to_ascii_lowercase());
        if content_type.as_deref().is_some_and(|text| !is_media_type(text)) {
            errors.push("/content_type", "must be a media type such as video/mp4");
        }

        let upload = errors.upload(self.upload.as_deref(), size_bytes, self.part_size_bytes);
        let sha256 = self.sha256.map(|text| text.to_ascii_lowercase());
        if sha256.as_deref().is_some_and(|text| !is_sha256(text)) {
            errors.push("/sha256", "must be a SHA-256 in hex: 64 digits");
        }

        if !errors.0.is_empty() {
            return Err(SpecError::Invalid(errors.0));
        }
        if size_bytes > max_source_bytes {
            return Err(SpecError::SourceTooLarge {
                limit_bytes: max_source_bytes,
            });
        }
        let content_type = content_type.unwrap_or_else(|| UNDECLARED_CONTENT_TYPE.to_owned());
        if !content_type.starts_with("video/") && content_type != UNDECLARED_CONTENT_TYPE {
            return Err(SpecError::UnsupportedSourceType);
        }
        Ok(NewJob {
            filename,
            size_bytes,
            content_type,
            priority: priority.unwrap_or(Priority::Low),
            title: self.title,
            description: self.description,
            metadata: self.metadata,
            duration_seconds: self.duration_seconds,
            spec: Spec {
                outputs,
                thumbnails,
                compression,
            },
            upload,
            part_size_bytes: self.part_size_bytes,
            sha256,
        })
    }
}

/// 32 bytes in hex, in lower case.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A media type without parameters: two tokens of RFC 9110.
fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    text.len() <= 127
        && text
            .split_once('/')
            .is_some_and(|(main, sub)| token(main) && token(sub))
}

#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn push(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(pointer, message));
    }

    fn required<T: Default>(&mut self, pointer: &str, value: Option<T>) -> T {
        if value.is_none() {
            self.push(pointer, "is required");
        }
        value.unwrap_or_default()
    }

    fn text(&mut self, pointer: &str, text: Option<&String>, min: usize, max: usize) {
        let Some(text) = text else { return };
        if self.0.iter().any(|error| error.pointer == pointer) {
            return;
        }
        if !(min..=max).contains(&text.chars().count()) {
            self.push(pointer, format!("must have {min} to {max} characters"));
        } else if text.chars().any(char::is_control) {
            self.push(pointer, "must not contain control characters");
        }
    }

    fn word<T>(
        &mut self,
        pointer: &str,
        text: Option<&str>,
        parse: fn(&str) -> Option<T>,
        expected: fn() -> String,
    ) -> Option<T> {
        let parsed = parse(text?);
        if parsed.is_none() {
            self.push(pointer, expected());
        }
        parsed
    }

    fn upload(&mut self, method: Option<&str>, size_bytes: u64, part_size_bytes: Option<u64>) -> Option<UploadMethod> {
        let method = self.word("/upload", method, UploadMethod::parse, UploadMethod::expected);
        if method == Some(UploadMethod::Put) && size_bytes > MAX_PART_BYTES {
            self.push("/upload", format!("must be multipart above {MAX_PART_BYTES} bytes"));
        }
        if let Some(bytes) = part_size_bytes
            && let Err(message) = Parts::with(size_bytes, bytes)
        {
            self.push("/part_size_bytes", message);
        }
        method
    }

    fn range<T: PartialOrd + std::fmt::Display>(&mut self, pointer: &str, value: Option<T>, range: &RangeInclusive<T>) {
        if value.is_some_and(|value| !range.contains(&value)) {
            self.push(pointer, format!("must be {} to {}", range.start(), range.end()));
        }
    }

    fn outputs(&mut self, outputs: Option<Vec<Object<OutputRequest>>>, target_format: Option<&str>) -> Vec<OutputSpec> {
        let mut specs: Vec<OutputSpec> = Vec::new();
        let mut add = |spec| {
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        };
        let short = self.word("/target_format", target_format, Format::parse, Format::expected);
        match (outputs, short) {
            (Some(outputs), _) => {
                if outputs.len() > MAX_OUTPUTS {
                    self.push("/outputs", format!("must have at most {MAX_OUTPUTS} entries"));
                    return specs;
                }
                for (index, Object(output)) in outputs.into_iter().enumerate() {
                    let pointer = format!("/outputs/{index}");
                    let format = self.word(
                        &format!("{pointer}/format"),
                        Some(&output.format),
                        Format::parse,
                        Format::expected,
                    );
                    let single = output.quality.map(|quality| (format!("{pointer}/quality"), quality));
                    let several = output.qualities.unwrap_or_default().into_iter().enumerate();
                    let named: Vec<_> = several
                        .map(|(n, quality)| (format!("{pointer}/qualities/{n}"), quality))
                        .chain(single)
                        .collect();
                    if let (true, Some(format)) = (named.is_empty(), format) {
                        add(OutputSpec { format, quality: None });
                    }
                    for (pointer, quality) in named {
                        let quality = self.word(&pointer, Some(&quality), Quality::parse, Quality::expected);
                        if let (Some(format), Some(_)) = (format, quality) {
                            add(OutputSpec { format, quality });
                        }
                    }
                }
            }
            (None, Some(format)) => add(OutputSpec { format, quality: None }),
            (None, None) => add(OutputSpec {
                format: Format::Mp4,
                quality: None,
            }),
        }
        if specs.len() > MAX_OUTPUTS {
            self.push("/outputs", format!("must ask for at most {MAX_OUTPUTS} renditions"));
        } else if specs.is_empty() && self.0.is_empty() {
            self.push("/outputs", "must ask for at least one rendition");
        }
        specs
    }

    fn thumbnails(&mut self, request: Option<&ThumbnailRequest>) -> ThumbnailSpec {
        let count = request.and_then(|request| request.count);
        self.range("/thumbnails/count", count, &(0..=MAX_THUMBNAILS));
        ThumbnailSpec {
            count: count.unwrap_or(DEFAULT_THUMBNAILS),
        }
    }

    fn compression(&mut self, request: Option<&CompressionRequest>) -> Compression {
        let Some(request) = request else {
            return Compression::default();
        };
        self.range("/compression/crf", request.crf, &CRF);
        self.range(
            "/compression/max_bitrate_bps",
            request.max_bitrate_bps,
            &VIDEO_BITRATE_BPS,
        );
        self.range(
            "/compression/audio_bitrate_bps",
            request.audio_bitrate_bps,
            &AUDIO_BITRATE_BPS,
        );
        Compression {
            crf: request.crf,
            preset: self.word(
                "/compression/preset",
                request.preset.as_deref(),
                Preset::parse,
                Preset::expected,
            ),
            max_bitrate_bps: request.max_bitrate_bps,
            audio_bitrate_bps: request.audio_bitrate_bps,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMIT: u64 = 5 << 30;

    fn validate(body: Value) -> Result<NewJob, SpecError> {
        serde_json::from_value::<CreateJob>(body).unwrap().validate(LIMIT)
    }

    fn pointers(body: Value) -> Vec<String> {
        match validate(body) {
            Err(SpecError::Invalid(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bare_request_gets_the_defaults() {
        let job = validate(json!({"filename": "a.mp4", "size_bytes": 10})).unwrap();
        assert_eq!(
            job.spec.outputs,
            [OutputSpec {
                format: Format::Mp4,
                quality: None
            }]
        );
        assert_eq!(job.spec.thumbnails.count, 3);
        assert_eq!(job.priority, Priority::Low);
        assert_eq!(job.content_type, UNDECLARED_CONTENT_TYPE);
    }

    #[test]
    fn short_forms_are_one_output_and_the_filename() {
        let job = validate(json!({"source_file": "a.mov", "target_format": "mp4", "size_bytes": 1})).unwrap();
        assert_eq!((job.filename.as_str(), job.spec.outputs.len()), ("a.mov", 1));
    }

    #[test]
    fn qualities_expand_and_repetitions_fold() {
        let job = validate(json!({"filename": "a", "size_bytes": 1, "outputs": [
            {"format": "mp4", "qualities": ["480p", "720p"]}, {"format": "mp4", "quality": "720p"}]}))
        .unwrap();
        let ids: Vec<_> = job.spec.outputs.iter().map(|output| output.id()).collect();
        assert_eq!(ids, ["mp4-480p", "mp4-720p"]);
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(pointers(json!({})), ["/filename", "/size_bytes"]);
        assert_eq!(
            pointers(
                json!({"filename": "a\r\nb", "size_bytes": 0, "priority": "urgent", "content_type": "video",
                "duration_seconds": -1, "outputs": [{"format": "exe"}, {"format": "mp4", "quality": "9p"}],
                "thumbnails": {"count": 10_000},
                "compression": {"crf": 99, "preset": "x;rm", "max_bitrate_bps": 1, "audio_bitrate_bps": 1}})
            ),
            [
                "/filename",
                "/size_bytes",
                "/duration_seconds",
                "/priority",
                "/outputs/0/format",
                "/outputs/1/quality",
                "/thumbnails/count",
                "/compression/crf",
                "/compression/max_bitrate_bps",
                "/compression/audio_bitrate_bps",
                "/compression/preset",
                "/content_type"
            ]
        );
        assert_eq!(
            pointers(json!({"filename": "a", "size_bytes": 1, "outputs": []})),
            ["/outputs"]
        );
        let many = vec![json!({"format": "mp4"}); MAX_OUTPUTS + 1];
        assert_eq!(
            pointers(json!({"filename": "a", "size_bytes": 1, "outputs": many})),
            ["/outputs"]
        );
        // The short forms too, when the long ones are there.
        assert_eq!(
            pointers(
                json!({"filename": "a", "source_file": "", "size_bytes": 1, "target_format": "exe",
                "outputs": [{"format": "mp4"}]})
            ),
            ["/source_file", "/target_format"]
        );
        assert_eq!(
            pointers(json!({"filename": "a", "size_bytes": 1, "metadata": {"k": "v".repeat(1_100)}})),
            ["/metadata"]
        );
    }

    #[test]
    fn size_and_type_are_refused_with_their_own_codes() {
        let code = |body| validate(body).unwrap_err().code();
        assert_eq!(
            code(json!({"filename": "a", "size_bytes": LIMIT + 1})),
            "source_too_large"
        );
        assert_eq!(
            code(json!({"filename": "a", "size_bytes": 1, "content_type": "application/x-sh"})),
            "unsupported_source_type"
        );
        assert!(validate(json!({"filename": "a", "size_bytes": LIMIT, "content_type": "Video/MP4"})).is_ok());
    }
}
