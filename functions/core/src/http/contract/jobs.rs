//! Operations and schemas of `/jobs`: what is made, shown and done.

use serde_json::{Value, json};

use super::{
    create,
    operation::Operation,
    schema::{
        count, flag, id, in_path, in_query, list, nullable, number, object, reference, said, sha256, text, time, words,
    },
};
use crate::{
    domain::{
        failure::{FailureCode, Stage},
        job::{DEFAULT_PAGE_JOBS, MAX_ATTEMPTS, MAX_PAGE_JOBS, Phase, Status},
        magic::Kind,
        spec::{Format, Preset, Priority, Quality},
    },
    http::Code,
};

pub(super) const TAG: &str = "Jobs";
pub(super) const JOB_ID: &str = "job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b";

/// The job in the path.
pub(super) fn job_in_path() -> Value {
    in_path("id", "A job of yours.", id("job"), json!(JOB_ID))
}

/// What makes a creation happen once.
pub(super) fn idempotency_key() -> Value {
    json!({"name": "Idempotency-Key", "in": "header", "required": false,
        "description": "Of your choice, for 24 hours: the same request with the same key creates nothing more.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
        "example": "5f0c2a9e-upload-7"})
}

pub(super) fn operations() -> Vec<Operation> {
    [of_all(), of_one()].concat()
}

fn of_all() -> Vec<Operation> {
    vec![
        Operation::new("upload", "POST", "/jobs", "createJob")
            .says(
                TAG,
                "Ask for a job",
                "The job waits for its source, which goes straight to storage: send it as `upload` says, with exactly \
                 those headers.",
            )
            .aliases(&[("/videos/upload", "uploadVideo"), ("/submit_job", "submitJob")])
            .takes(idempotency_key())
            .body("CreateJob", create::example())
            .answers(201, "The job, and where its source goes.", "CreatedJob", created())
            .headers(&["Location"])
            .names_a_job()
            .problems(&[
                Code::ValidationFailed,
                Code::SourceTooLarge,
                Code::UnsupportedSourceType,
                Code::QuotaBytes,
                Code::QuotaJobs,
                Code::IdempotencyInProgress,
                Code::IdempotencyMismatch,
                // The job of the key was deleted.
                Code::NotFound,
            ]),
        Operation::new("status", "GET", "/jobs", "listJobs")
            .says(TAG, "Your jobs, newest first", "")
            .aliases(&[("/videos", "listVideos"), ("/videos/tasks", "listVideoTasks")])
            .takes(in_query(
                "limit",
                "Most jobs on the page.",
                json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE_JOBS, "default": DEFAULT_PAGE_JOBS}),
                json!(10),
            ))
            .takes(in_query(
                "cursor",
                "`next_cursor` of the page before. Opaque, and yours only.",
                text(),
                json!("AZqlwsPUfo-aCxwtPk9aawAAAZqlwsPU"),
            ))
            .takes(in_query("status", "Only these.", status(), json!("COMPLETED")))
            .takes(in_query(
                "kind",
                "Only these.",
                words(Kind::ALL, Kind::as_str),
                json!("video"),
            ))
            .takes(in_query(
                "priority",
                "Only these.",
                words(Priority::ALL, Priority::as_str),
                json!("high"),
            ))
            .takes(in_query(
                "created_after",
                "Later than this.",
                time(),
                json!("2026-03-01T00:00:00Z"),
            ))
            .takes(in_query(
                "created_before",
                "Earlier than this.",
                time(),
                json!("2026-03-02T00:00:00Z"),
            ))
            .tagged()
            .answers(
                200,
                "A page.",
                "JobList",
                json!({"jobs": [queued()], "next_cursor": null}),
            )
            .problems(&[Code::ValidationFailed, Code::InvalidCursor]),
    ]
}

fn of_one() -> Vec<Operation> {
    let about_a_job = |method, path, name| Operation::new("status", method, path, name).takes(job_in_path());
    let act_on_a_job = |path, name| Operation::new("upload", "POST", path, name).takes(job_in_path());
    vec![
        about_a_job("GET", "/jobs/{id}", "getJob")
            .says(TAG, "A job", "With `metrics`, what it really used, once COMPLETED.")
            .aliases(&[
                ("/videos/tasks/{id}", "getVideoTask"),
                ("/videos/{id}/status", "getVideoStatus"),
                ("/job/{id}/status", "getJobStatus"),
            ])
            .tagged()
            .answers(200, "The job.", "Job", completed()),
        Operation::new("upload", "DELETE", "/jobs/{id}", "deleteJob")
            .says(
                TAG,
                "Remove a job with all that it consists of",
                "It is gone at once for everybody who asks; its objects follow.",
            )
            .aliases(&[("/videos/{id}", "deleteVideo")])
            .takes(job_in_path()),
        about_a_job("GET", "/jobs/{id}/progress", "getJobProgress")
            .says(
                TAG,
                "How far a job is",
                "Ask every second or two; it is not told more often.",
            )
            .aliases(&[("/videos/tasks/{id}/progress", "getVideoTaskProgress")])
            .tagged()
            .answers(200, "The progress.", "Progress", progress()),
        about_a_job("GET", "/jobs/{id}/metadata", "getJobMetadata")
            .says(TAG, "What the source is", "Known once it was probed.")
            .aliases(&[("/videos/{id}/metadata", "getVideoMetadata")])
            .answers(200, "Facts of the source.", "Metadata", metadata())
            .problems(&[Code::NotReady]),
        act_on_a_job("/jobs/{id}/cancel", "cancelJob")
            .says(
                TAG,
                "Stop a job",
                "Nothing of it appears after this answer. Cancelling what is cancelled is fine.",
            )
            .answers(200, "The job, now CANCELLED.", "Job", cancelled())
            .problems(&[Code::NotCancellable]),
        act_on_a_job("/jobs/{id}/retry", "retryJob")
            .says(
                TAG,
                "Run a job again",
                "For what failed or was cancelled, from the source that was accepted. Finished chunks are kept.",
            )
            .answers(202, "The job, QUEUED as its next generation.", "Job", queued())
            .problems(&[Code::NotRetryable]),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let mut created = job_fields();
    created.push((
        "upload",
        said(
            json!({"oneOf": [{"$ref": "#/components/schemas/UploadTarget"},
                {"$ref": "#/components/schemas/PartsTarget"}, {"type": "null"}]}),
            "Null in the repeated answer of a job that waits for nothing more.",
        ),
    ));
    let mut shown = job_fields();
    shown.push((
        "upload",
        said(
            json!({"oneOf": [{"$ref": "#/components/schemas/PendingPut"},
                {"$ref": "#/components/schemas/PendingParts"}]}),
            "How the source is to come; while PENDING.",
        ),
    ));
    vec![
        ("Job", object("A job.", shown, &["upload"])),
        ("PartsTarget", parts_target()),
        (
            "PendingPut",
            object(
                "One PUT.",
                vec![("method", json!({"const": "PUT"})), ("expires_at", time())],
                &[],
            ),
        ),
        ("PendingParts", object("In parts.", pending_parts(), &[])),
        (
            "CreatedJob",
            object("A new job, and where its source goes.", created, &[]),
        ),
        ("UploadTarget", upload_target()),
        (
            "JobList",
            object(
                "A page of jobs.",
                vec![
                    ("jobs", list(reference("Job"))),
                    ("next_cursor", said(nullable(text()), "Null on the last page.")),
                ],
                &[],
            ),
        ),
        ("Progress", progress_schema()),
        (
            "Metadata",
            object(
                "The source's facts.",
                vec![("id", id("job")), ("source", reference("SourceInfo"))],
                &[],
            ),
        ),
        ("SourceInfo", source_info()),
        ("Spec", spec()),
        ("Failure", failure()),
        ("Metrics", metrics()),
    ]
}

fn status() -> Value {
    words(Status::ALL, Status::as_str)
}

fn phase() -> Value {
    said(
        nullable(words(Phase::ALL, Phase::as_str)),
        "What the workers do; only while IN_PROGRESS.",
    )
}

fn percent() -> Value {
    said(
        json!({"type": "number", "minimum": 0, "maximum": 100}),
        "100 only when COMPLETED.",
    )
}

fn job_fields() -> Vec<(&'static str, Value)> {
    let when = |what: &str| said(nullable(time()), what);
    vec![
        ("id", id("job")),
        ("status", status()),
        ("phase", phase()),
        ("progress_percent", percent()),
        (
            "tasks_total",
            said(
                count(),
                "Encode tasks, once it was planned; 0 for a source that needs none.",
            ),
        ),
        ("tasks_done", count()),
        (
            "playable",
            said(flag(), "Whether its HLS playlists can be played; they may still grow."),
        ),
        ("priority", words(Priority::ALL, Priority::as_str)),
        (
            "kind",
            said(
                nullable(words(Kind::ALL, Kind::as_str)),
                "By content, once the upload was checked.",
            ),
        ),
        ("filename", text()),
        ("title", nullable(text())),
        ("description", nullable(text())),
        ("metadata", nullable(json!({"type": "object"}))),
        ("size_bytes", count()),
        ("content_type", text()),
        (
            "duration_seconds",
            said(nullable(number()), "As declared, then as probed."),
        ),
        ("spec", reference("Spec")),
        ("estimated_processing_seconds", count()),
        (
            "generation",
            said(json!({"type": "integer", "minimum": 1}), "One more for each retry."),
        ),
        (
            "attempts",
            said(
                count(),
                format!("The most that any task needed; {MAX_ATTEMPTS} at most."),
            ),
        ),
        ("created_at", time()),
        ("queued_at", when("When the upload was accepted.")),
        ("started_at", when("When a worker first had it.")),
        ("completed_at", when("When it ended, however it did.")),
        ("updated_at", time()),
        ("error", said(nullable(reference("Failure")), "Why it FAILED.")),
        (
            "metrics",
            said(
                nullable(reference("Metrics")),
                "What it used; of one COMPLETED job alone.",
            ),
        ),
    ]
}

fn spec() -> Value {
    let output = object(
        "One rendition.",
        vec![
            ("format", words(Format::ALL, Format::as_str)),
            ("quality", nullable(words(Quality::ALL, Quality::as_str))),
        ],
        &[],
    );
    let compression = object(
        "What was set.",
        vec![
            ("crf", count()),
            ("preset", words(Preset::ALL, Preset::as_str)),
            ("max_bitrate_bps", count()),
            ("audio_bitrate_bps", count()),
        ],
        &["crf", "preset", "max_bitrate_bps", "audio_bitrate_bps"],
    );
    object(
        "What is made.",
        vec![
            ("outputs", list(output)),
            ("thumbnails", object("Stills.", vec![("count", count())], &[])),
            ("compression", compression),
        ],
        &[],
    )
}

fn failure() -> Value {
    object(
        "Why a job failed.",
        vec![
            ("code", words(FailureCode::ALL, FailureCode::as_str)),
            ("message", text()),
            ("stage", words(Stage::ALL, Stage::as_str)),
            ("attempt", said(count(), "From 1; 0 when the work never began.")),
            ("retryable", said(flag(), "Whether the same source may succeed later.")),
            ("hint", said(text(), "What to do about it.")),
        ],
        &[],
    )
}

fn metrics() -> Value {
    object(
        "What a job really used.",
        vec![
            (
                "processing_seconds",
                said(number(), "From the first claim to the end, on the clock."),
            ),
            ("tasks", count()),
            ("task_seconds", number()),
            ("cpu_seconds", number()),
            ("peak_cpu_percent", said(number(), "100 is one core.")),
            ("peak_memory_mb", number()),
            ("source_bytes", count()),
            ("read_bytes", count()),
            ("output_bytes", count()),
            (
                "billed_gb_seconds",
                said(number(), "What Lambda bills for the finished tasks."),
            ),
            (
                "speed_ratio",
                said(number(), "Media seconds for each processing second."),
            ),
        ],
        &[],
    )
}

fn upload_target() -> Value {
    object(
        "The request that sends the source. Whoever has the URL can send it.",
        vec![
            ("method", json!({"const": "PUT"})),
            ("url", json!({"type": "string", "format": "uri"})),
            (
                "headers",
                said(
                    json!({"type": "object", "additionalProperties": {"type": "string"}}),
                    "The request must carry exactly these: they are part of the signature.",
                ),
            ),
            ("expires_at", said(time(), "By then the transfer must have begun.")),
        ],
        &[],
    )
}

fn pending_parts() -> Vec<(&'static str, Value)> {
    vec![
        ("method", json!({"const": "MULTIPART"})),
        ("upload_id", text()),
        ("part_size_bytes", said(count(), "Of every part but the last.")),
        ("part_count", count()),
        ("expires_at", time()),
    ]
}

fn parts_target() -> Value {
    let mut fields = pending_parts();
    fields.push((
        "parts",
        said(
            list(reference("PartTarget")),
            "The first ones; the rest is signed on demand.",
        ),
    ));
    object("Where the parts of a source go.", fields, &[])
}

fn progress_schema() -> Value {
    object(
        "How far a job is.",
        vec![
            ("id", id("job")),
            ("status", status()),
            ("phase", phase()),
            ("progress_percent", percent()),
            ("tasks_total", count()),
            ("tasks_done", count()),
            ("fps", said(nullable(number()), "Frames encoded a second.")),
            ("frames_done", count()),
            ("frames_total", said(count(), "0 before the probe.")),
            ("eta_seconds", said(nullable(number()), "Until all frames are encoded.")),
            ("updated_at", time()),
        ],
        &[],
    )
}

fn source_info() -> Value {
    let video = object(
        "The picture track that is used.",
        vec![
            ("codec", text()),
            ("width_px", said(count(), "As shown: square pixels, turned.")),
            ("height_px", count()),
            (
                "frame_rate",
                said(
                    json!({"type": "string", "pattern": "^[0-9]+/[0-9]+$"}),
                    "The exact rate of the outputs.",
                ),
            ),
            ("pixel_format", nullable(text())),
            ("rotation_degrees", json!({"enum": [0, 90, 180, 270]})),
        ],
        &[],
    );
    let mut audio = object(
        "The sound track that is used.",
        vec![("codec", text()), ("channels", count()), ("sample_rate_hz", count())],
        &[],
    );
    audio["type"] = json!(["object", "null"]);
    object(
        "Facts of a source.",
        vec![
            ("container", text()),
            ("duration_seconds", number()),
            ("bitrate_bps", nullable(count())),
            ("size_bytes", count()),
            ("video", video),
            ("audio", audio),
        ],
        &[],
    )
}

/// What a job's SHA-256 looks like in examples.
pub(super) const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) fn digest() -> Value {
    sha256()
}

/// A job in its first state, as all the examples are made from it.
fn pending() -> Value {
    json!({"id": JOB_ID, "status": "PENDING", "phase": null, "progress_percent": 0.0, "tasks_total": 0,
        "tasks_done": 0, "playable": false, "priority": "high", "kind": null, "filename": "holiday.mp4",
        "title": "Holiday", "description": null, "metadata": {"album": 7}, "size_bytes": 73_400_320,
        "content_type": "application/octet-stream", "duration_seconds": 61.5,
        "spec": {"outputs": [{"format": "mp4", "quality": "480p"}, {"format": "mp4", "quality": "720p"},
                {"format": "hls", "quality": null}],
            "thumbnails": {"count": 3},
            "compression": {"crf": 23, "preset": "medium", "max_bitrate_bps": 4_000_000}},
        "estimated_processing_seconds": 31, "generation": 1, "attempts": 0,
        "created_at": "2026-03-01T09:30:00.000Z", "queued_at": null, "started_at": null, "completed_at": null,
        "updated_at": "2026-03-01T09:30:00.000Z", "error": null, "metrics": null})
}

fn with(mut job: Value, changes: Value) -> Value {
    if let (Value::Object(job), Value::Object(changes)) = (&mut job, changes) {
        job.extend(changes);
    }
    job
}

fn created() -> Value {
    let upload = json!({"method": "PUT", "url": "https://s3.example.com/sources/source?X-Amz-Signature=...",
        "headers": {"content-length": "73400320", "content-type": "application/octet-stream"},
        "expires_at": "2026-03-01T09:45:00.000Z"});
    with(pending(), json!({"upload": upload}))
}

pub(super) fn queued() -> Value {
    with(
        pending(),
        json!({"status": "QUEUED", "kind": "video", "queued_at": "2026-03-01T09:31:00.000Z",
            "updated_at": "2026-03-01T09:31:00.000Z"}),
    )
}

fn cancelled() -> Value {
    with(
        queued(),
        json!({"status": "CANCELLED", "completed_at": "2026-03-01T09:31:05.000Z",
            "updated_at": "2026-03-01T09:31:05.000Z"}),
    )
}

fn completed() -> Value {
    let metrics = json!({"processing_seconds": 24.1, "tasks": 5, "task_seconds": 61.0, "cpu_seconds": 103.2,
        "peak_cpu_percent": 198.0, "peak_memory_mb": 512.5, "source_bytes": 73_400_320, "read_bytes": 80_000_000,
        "output_bytes": 61_000_000, "billed_gb_seconds": 181.0, "speed_ratio": 2.5});
    with(
        queued(),
        json!({"status": "COMPLETED", "progress_percent": 100.0, "tasks_total": 3, "tasks_done": 3,
            "playable": true, "attempts": 1, "started_at": "2026-03-01T09:31:01.000Z",
            "completed_at": "2026-03-01T09:31:25.100Z", "updated_at": "2026-03-01T09:31:25.100Z",
            "metrics": metrics}),
    )
}

fn progress() -> Value {
    json!({"id": JOB_ID, "status": "IN_PROGRESS", "phase": "encoding", "progress_percent": 71.2, "tasks_total": 3,
        "tasks_done": 1, "fps": 61.5, "frames_done": 1_095, "frames_total": 1_538, "eta_seconds": 7.2,
        "updated_at": "2026-03-01T09:31:18.500Z"})
}

fn metadata() -> Value {
    json!({"id": JOB_ID, "source": {"container": "mov,mp4,m4a,3gp,3g2,mj2", "duration_seconds": 61.5,
        "bitrate_bps": 9_548_000, "size_bytes": 73_400_320,
        "video": {"codec": "h264", "width_px": 1_920, "height_px": 1_080, "frame_rate": "25/1",
            "pixel_format": "yuv420p", "rotation_degrees": 0},
        "audio": {"codec": "aac", "channels": 2, "sample_rate_hz": 48_000}}})
}
