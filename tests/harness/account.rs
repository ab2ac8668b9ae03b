//! A person at the API.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::harness::{Answer, Harness, Mail};
use crate::{JOB_LIMIT, SHORT_LIMIT, eventually};

/// Jobs of all tests that may be encoded at once. More would only be slower, on a small machine by a lot.
static ENCODERS: Semaphore = Semaphore::const_new(3);

/// Somebody who is signed in.
#[derive(Debug)]
pub struct Account<'h> {
    /// The stack.
    pub harness: &'h Harness,
    /// The account's id.
    pub id: String,
    /// Its address.
    pub email: String,
    /// The bearer token.
    pub token: String,
}

/// A new job, and where its source goes.
#[derive(Clone, Debug, Deserialize)]
pub struct Created {
    /// The job's id.
    pub id: String,
    /// The upload target.
    pub upload: Upload,
}

/// An upload target.
#[derive(Clone, Debug, Deserialize)]
pub struct Upload {
    /// Always PUT.
    pub method: String,
    /// The signed URL.
    pub url: String,
    /// What the request must carry.
    pub headers: BTreeMap<String, String>,
    /// Until when.
    pub expires_at: String,
}

/// A job, as far as the journeys look at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Its state.
    pub status: String,
    /// How much is done.
    pub progress_percent: f64,
    /// Whether it can be played.
    pub playable: bool,
    /// The name as given.
    pub filename: String,
    /// As measured, else as declared.
    pub duration_seconds: Option<f64>,
    /// How often its task was claimed.
    pub attempts: u32,
    /// When it was asked for.
    pub created_at: String,
    /// When its upload was accepted.
    pub queued_at: Option<String>,
    /// When work began.
    pub started_at: Option<String>,
    /// When it ended.
    pub completed_at: Option<String>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// What it used.
    pub metrics: Option<Metrics>,
}

/// Why a job failed.
#[derive(Clone, Debug, Deserialize)]
pub struct JobError {
    /// The stable code.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// Where.
    pub stage: String,
    /// In which attempt.
    pub attempt: u32,
    /// Whether the same source may succeed.
    pub retryable: bool,
    /// What to do.
    pub hint: String,
}

/// What a job used.
#[derive(Clone, Debug, Deserialize)]
pub struct Metrics {
    /// From claim to end.
    pub processing_seconds: f64,
    /// Of the child processes.
    pub cpu_seconds: f64,
    /// 100 is one core.
    pub peak_cpu_percent: f64,
    /// Of one child process.
    pub peak_memory_mb: f64,
    /// Bytes read.
    pub source_bytes: u64,
    /// Bytes published.
    pub output_bytes: u64,
    /// What Lambda bills.
    pub billed_gb_seconds: f64,
    /// Media seconds a second.
    pub speed_ratio: f64,
}

/// One look at a job's progress.
#[derive(Clone, Debug, Deserialize)]
pub struct Progress {
    /// Its state.
    pub status: String,
    /// What the worker does.
    pub phase: Option<String>,
    /// How much is done.
    pub progress_percent: f64,
    /// Frames so far.
    pub frames_done: u64,
    /// Frames in all.
    pub frames_total: u64,
}

/// A published output.
#[derive(Clone, Debug, Deserialize)]
pub struct Output {
    /// Its id.
    pub id: String,
    /// `rendition` or `thumbnail`.
    #[serde(rename = "type")]
    pub output_type: String,
    /// Its container.
    pub format: String,
    /// Its rung.
    pub quality: Option<String>,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// How long it plays.
    pub duration_seconds: Option<f64>,
    /// Frames.
    pub frames: Option<u64>,
    /// Bit rate.
    pub bitrate_bps: Option<u64>,
    /// Length.
    pub size_bytes: u64,
    /// Digest, in hex.
    pub sha256: String,
    /// Media type.
    pub content_type: String,
    /// A signed URL.
    pub url: String,
}

/// A job that is on its way, and its place among those that may be encoded.
#[derive(Debug)]
pub struct Run {
    /// The job's id.
    pub id: String,
    /// Where its source went.
    pub upload: Upload,
    _place: SemaphorePermit<'static>,
}

impl Job {
    /// Whether nothing more will come.
    pub fn is_terminal(&self) -> bool {
        is_terminal(&self.status)
    }

    /// The code that it failed with.
    pub fn error_code(&self) -> Option<&str> {
        self.error.as_ref().map(|error| error.code.as_str())
    }
}

fn is_terminal(status: &str) -> bool {
    matches!(status, "COMPLETED" | "FAILED" | "CANCELLED" | "EXPIRED")
}

impl Account<'_> {
    /// Asks for a path below the base.
    pub async fn get(&self, path: &str, expected: u16) -> Result<Answer> {
        let request = self.harness.request(Method::GET, &self.harness.url(path)?);
        self.harness.send(request.bearer_auth(&self.token), expected).await
    }

    /// Sends JSON to a path below the base.
    pub async fn post(&self, path: &str, body: &Value, expected: u16) -> Result<Answer> {
        let request = self.harness.request(Method::POST, &self.harness.url(path)?);
        self.harness
            .send(request.bearer_auth(&self.token).json(body), expected)
            .await
    }

    /// Deletes what is at a path below the base.
    pub async fn delete(&self, path: &str, expected: u16) -> Result<Answer> {
        let request = self.harness.request(Method::DELETE, &self.harness.url(path)?);
        self.harness.send(request.bearer_auth(&self.token), expected).await
    }

    /// Creates a job.
    pub async fn create(&self, body: &Value) -> Result<Created> {
        self.post("/jobs", body, 201).await?.json()
    }

    /// Sends bytes to an upload target, whatever comes of it.
    pub async fn put(&self, upload: &Upload, bytes: Vec<u8>) -> Result<Answer> {
        ensure!(upload.method == "PUT", "an upload by {}", upload.method);
        let mut request = self.harness.request(Method::PUT, &upload.url).body(bytes);
        for (name, value) in upload.headers.iter().filter(|(name, _)| *name != "content-length") {
            request = request.header(name, value);
        }
        self.harness.send_any(request).await
    }

    /// Sends a job's source; returns the version that it was stored as.
    pub async fn upload(&self, upload: &Upload, bytes: Vec<u8>) -> Result<String> {
        let answer = self.put(upload, bytes).await?;
        ensure!(
            answer.status == 200,
            "the upload: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(answer.header("x-amz-version-id")?.to_owned())
    }

    /// Creates a job for these bytes and sends them, with more fields of the request in `with`.
    pub async fn submit(&self, bytes: Vec<u8>, with: Value) -> Result<Run> {
        let place = ENCODERS.acquire().await?;
        let mut body = json!({"filename": "clip.mp4", "content_type": "video/mp4", "size_bytes": bytes.len()});
        if let (Value::Object(fields), Value::Object(more)) = (&mut body, with) {
            fields.extend(more);
        }
        let created = self.create(&body).await?;
        self.upload(&created.upload, bytes).await?;
        Ok(Run {
            id: created.id,
            upload: created.upload,
            _place: place,
        })
    }

    /// As [`submit`](Self::submit), from a file.
    pub async fn submit_file(&self, path: &Path, with: Value) -> Result<Run> {
        let bytes = tokio::fs::read(path)
            .await
            .with_context(|| path.display().to_string())?;
        self.submit(bytes, with).await
    }

    /// Waits for a job's terminal state.
    pub async fn finish(&self, run: Run) -> Result<Job> {
        self.finish_within(run, JOB_LIMIT).await
    }

    /// As [`finish`](Self::finish), within a limit of its own.
    pub async fn finish_within(&self, run: Run, limit: Duration) -> Result<Job> {
        self.ended(&run.id, limit).await
    }

    /// Waits for a job's terminal state.
    pub async fn ended(&self, id: &str, limit: Duration) -> Result<Job> {
        eventually(&format!("the end of {id}"), limit, async || {
            Ok(Some(self.job(id).await?).filter(Job::is_terminal))
        })
        .await
    }

    /// Waits for a job's terminal state; returns every look at its progress on the way.
    pub async fn follow(&self, run: &Run) -> Result<Vec<Progress>> {
        let mut seen = Vec::new();
        eventually(&format!("the end of {}", run.id), JOB_LIMIT, async || {
            let progress = self.progress(&run.id).await?;
            let ended = is_terminal(&progress.status);
            seen.push(progress);
            Ok(ended.then_some(()))
        })
        .await?;
        Ok(seen)
    }

    /// Submits a file that must be completed.
    pub async fn complete(&self, path: &Path, with: Value) -> Result<Job> {
        let run = self.submit_file(path, with).await?;
        let job = self.finish(run).await?;
        ensure!(
            job.status == "COMPLETED",
            "{} is {}: {:?}",
            job.id,
            job.status,
            job.error
        );
        Ok(job)
    }

    /// A job.
    pub async fn job(&self, id: &str) -> Result<Job> {
        self.get(&format!("/jobs/{id}"), 200).await?.json()
    }

    /// A job's progress.
    pub async fn progress(&self, id: &str) -> Result<Progress> {
        self.get(&format!("/jobs/{id}/progress"), 200).await?.json()
    }

    /// A completed job's outputs.
    pub async fn outputs(&self, id: &str) -> Result<Vec<Output>> {
        let outputs = self.get(&format!("/jobs/{id}/outputs"), 200).await?.value("/outputs")?;
        Ok(serde_json::from_value(outputs)?)
    }

    /// Downloads an output and checks its length and digest.
    pub async fn download(&self, output: &Output) -> Result<Vec<u8>> {
        let answer = self
            .harness
            .send(self.harness.request(Method::GET, &output.url), 200)
            .await?;
        let id = &output.id;
        ensure!(
            answer.header("content-type")? == output.content_type,
            "{id}: {:?}",
            answer.headers
        );
        ensure!(
            answer.body.len() as u64 == output.size_bytes,
            "{id}: {} bytes",
            answer.body.len()
        );
        ensure!(sha256(&answer.body) == output.sha256, "{id}: another digest");
        Ok(answer.body)
    }

    /// Waits for the first mail to this account, then until every change up to now was told; returns all mails.
    ///
    /// Changes are told in their order. So a job that fails now, of somebody else, marks the place: when its mail is
    /// there, whatever came before it has led to its mails already.
    pub async fn mails_up_to_now(&self) -> Result<Vec<Mail>> {
        let own = || async { self.harness.mails(&self.email).await };
        eventually("a mail", SHORT_LIMIT, async || {
            Ok(Some(own().await?).filter(|mails| !mails.is_empty()))
        })
        .await?;
        let marker = self.harness.account().await?;
        let created = marker.create(&json!({"filename": "marker", "size_bytes": 6})).await?;
        marker.upload(&created.upload, b"marker".to_vec()).await?;
        eventually("the marker's mail", SHORT_LIMIT, async || {
            Ok(Some(self.harness.mails(&marker.email).await?).filter(|mails| !mails.is_empty()))
        })
        .await?;
        own().await
    }
}

/// A SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let digits = |text: String, byte: &u8| format!("{text}{byte:02x}");
    Sha256::digest(bytes).iter().fold(String::new(), digits)
}
