//! The demo as a client of the API: what any program would send.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Seek;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::source::Source;
use crate::environment::Environment;
use crate::terminal::printable;
use crate::tools::hex;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Between two bytes of a transfer.
const STALL_LIMIT: Duration = Duration::from_mins(1);

/// A refusal of the API, as RFC 9457 has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) code: String,
    title: String,
    detail: String,
    errors: Vec<FieldProblem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldProblem {
    pointer: String,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.detail.is_empty() {
            &self.title
        } else {
            &self.detail
        };
        write!(formatter, "{}", printable(what))?;
        if !self.code.is_empty() {
            write!(formatter, " ({})", printable(&self.code))?;
        }
        for error in &self.errors {
            write!(
                formatter,
                "; {} {}",
                printable(&error.pointer),
                printable(&error.message)
            )?;
        }
        Ok(())
    }
}

/// A job as far as the demo looks at it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) duration_seconds: Option<f64>,
    pub(super) error: Option<JobError>,
    pub(super) metrics: Option<Metrics>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobError {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metrics {
    pub(super) processing_seconds: Option<f64>,
    pub(super) tasks: Option<u32>,
    pub(super) speed_ratio: Option<f64>,
    pub(super) peak_cpu_percent: Option<f64>,
    pub(super) peak_memory_mb: Option<f64>,
}

/// The tokens of a session. Processing may take longer than an access token lives.
#[derive(Deserialize)]
struct Login {
    access_token: String,
    refresh_token: String,
    expires_in_seconds: u64,
    #[serde(skip, default = "Instant::now")]
    received: Instant,
}

impl Login {
    /// Whether the access token has lived for most of its time.
    fn is_old(&self) -> bool {
        self.received.elapsed() > Duration::from_secs(self.expires_in_seconds) * 3 / 4
    }
}

/// Where and how to upload.
#[derive(Debug, Deserialize)]
pub(super) struct Upload {
    url: String,
    method: String,
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct CreatedJob {
    #[serde(flatten)]
    job: Job,
    upload: Upload,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub(super) status: String,
    pub(super) phase: Option<String>,
    #[serde(rename = "progress_percent")]
    pub(super) percent: Option<f64>,
    pub(super) fps: Option<f64>,
    pub(super) frames_done: Option<u64>,
    pub(super) frames_total: Option<u64>,
    pub(super) eta_seconds: Option<f64>,
    pub(super) updated_at: Option<String>,
}

impl Progress {
    /// Whether nothing more will come.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "COMPLETED" | "FAILED" | "CANCELLED" | "EXPIRED")
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Output {
    pub(super) id: String,
    pub(super) format: String,
    #[serde(default)]
    pub(super) quality: Option<String>,
    pub(super) width_px: Option<u32>,
    pub(super) height_px: Option<u32>,
    pub(super) duration_seconds: Option<f64>,
    pub(super) size_bytes: u64,
    pub(super) sha256: Option<String>,
    url: String,
}

impl Output {
    /// The file's name here. The parts come over the network: a name that leaves the folder is none.
    pub(super) fn file_name(&self) -> Result<String> {
        let extension = if self.format == "jpeg" { "jpg" } else { &self.format };
        if !is_file_name(&self.id) || !is_file_name(extension) {
            bail!("the output {:?} cannot be a file name", self.id);
        }
        Ok(format!("{}.{extension}", self.id))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Mail {
    #[serde(rename = "Subject")]
    pub(super) subject: String,
    #[serde(rename = "BodyText")]
    pub(super) text: String,
    #[serde(rename = "To", default)]
    to: Vec<String>,
}

/// A client of one stack.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    mail_url: String,
    login: Option<Login>,
}

impl Client {
    pub(super) fn new(environment: &Environment) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(ANSWER_LIMIT)
            .read_timeout(STALL_LIMIT)
            .build()?;
        let (base, mail_url) = (
            environment.get("API_URL")?.to_owned(),
            environment.get("MAIL_URL")?.to_owned(),
        );
        Ok(Self {
            http,
            base,
            mail_url,
            login: None,
        })
    }

    /// Makes an account that nobody else knows, and signs it in. Returns its address.
    pub(super) async fn sign_up(&mut self) -> Result<String> {
        let (name, password) = (random_hex(6)?, random_hex(16)?);
        let email = format!("demo-{name}@example.com");
        let credentials = json!({ "email": email, "password": password });
        self.call::<Value>(self.request(Method::POST, "/auth/register").json(&credentials))
            .await?;
        let login = self
            .call(self.request(Method::POST, "/auth/login").json(&credentials))
            .await?;
        self.login = Some(login);
        Ok(email)
    }

    /// Gets new tokens in time.
    async fn stay_signed_in(&mut self) -> Result<()> {
        if let Some(login) = self.login.as_ref().filter(|login| login.is_old()) {
            let body = json!({ "refresh_token": login.refresh_token });
            let login = self
                .call(self.request(Method::POST, "/auth/refresh").json(&body))
                .await?;
            self.login = Some(login);
        }
        Ok(())
    }

    /// Asks for a job with the default outputs.
    pub(super) async fn create_job(&mut self, source: &Source) -> Result<(Job, Upload)> {
        let mut body = json!({ "filename": source.name, "size_bytes": source.size_bytes, "priority": "high" });
        if let Some(content_type) = source.content_type() {
            body["content_type"] = content_type.into();
        }
        self.stay_signed_in().await?;
        let created: CreatedJob = self.call(self.request(Method::POST, "/jobs").json(&body)).await?;
        Ok((created.job, created.upload))
    }

    /// Sends the source, telling now and then how many bytes have gone out.
    pub(super) async fn upload(&self, upload: &Upload, source: &Source, tell: impl Fn(u64)) -> Result<()> {
        let file = tokio::fs::File::open(&source.path)
            .await
            .context("cannot read the file any more")?;
        // A duplicate of a file shares its position, so it tells how far the transfer has read.
        let mut position = file.try_clone().await?.into_std().await;
        let method = Method::from_bytes(upload.method.as_bytes()).context("the upload's method")?;
        let mut request = self.http.request(method, &upload.url).body(file);
        for (name, value) in &upload.headers {
            request = request.header(name, value);
        }
        let sending = request.send();
        tokio::pin!(sending);
        let answer = loop {
            tokio::select! {
                answer = &mut sending => break answer.map_err(unsigned).context("the upload failed")?,
                () = tokio::time::sleep(Duration::from_millis(100)) => tell(position.stream_position()?),
            }
        };
        let status = answer.status();
        if !status.is_success() {
            let text = answer.text().await.unwrap_or_default();
            bail!("the upload was refused ({status}): {}", printable(&text));
        }
        tell(source.size_bytes);
        Ok(())
    }

    pub(super) async fn job(&mut self, id: &str) -> Result<Job> {
        self.stay_signed_in().await?;
        self.call(self.request(Method::GET, &format!("/jobs/{id}"))).await
    }

    pub(super) async fn progress(&mut self, id: &str) -> Result<Progress> {
        self.stay_signed_in().await?;
        self.call(self.request(Method::GET, &format!("/jobs/{id}/progress")))
            .await
    }

    pub(super) async fn outputs(&mut self, id: &str) -> Result<Vec<Output>> {
        #[derive(Deserialize)]
        struct Outputs {
            outputs: Vec<Output>,
        }
        self.stay_signed_in().await?;
        Ok(self
            .call::<Outputs>(self.request(Method::GET, &format!("/jobs/{id}/outputs")))
            .await?
            .outputs)
    }

    /// Downloads an output and checks what arrived.
    pub(super) async fn download(&self, output: &Output, to: &Path) -> Result<()> {
        use sha2::{Digest, Sha256};
        let mut answer = self
            .http
            .get(&output.url)
            .send()
            .await?
            .error_for_status()
            .map_err(reqwest::Error::without_url)?;
        let mut file = tokio::fs::File::create(to)
            .await
            .with_context(|| format!("cannot write {}", to.display()))?;
        let (mut digest, mut size_bytes) = (Sha256::new(), 0_u64);
        while let Some(piece) = answer.chunk().await.map_err(unsigned).context("the download failed")? {
            digest.update(&piece);
            size_bytes += piece.len() as u64;
            file.write_all(&piece)
                .await
                .with_context(|| format!("cannot write {}", to.display()))?;
        }
        file.flush().await?;
        if size_bytes != output.size_bytes {
            bail!(
                "output {} has {size_bytes} bytes instead of {}",
                output.id,
                output.size_bytes
            );
        }
        if output
            .sha256
            .as_ref()
            .is_some_and(|wanted| *wanted != hex(&digest.finalize()))
        {
            bail!("output {} does not have its SHA-256", output.id);
        }
        Ok(())
    }

    /// The mails that an address has got.
    pub(super) async fn mails(&self, address: &str) -> Result<Vec<Mail>> {
        #[derive(Deserialize)]
        struct Mails {
            messages: BTreeMap<String, Vec<Mail>>,
        }
        let mails: Mails = self
            .http
            .get(&self.mail_url)
            .timeout(ANSWER_LIMIT)
            .send()
            .await?
            .json()
            .await?;
        Ok(mails
            .messages
            .into_values()
            .flatten()
            .filter(|mail| mail.to.iter().any(|to| to == address))
            .collect())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .timeout(ANSWER_LIMIT);
        match &self.login {
            Some(login) => request.bearer_auth(&login.access_token),
            None => request,
        }
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let answer = request.send().await.context("the API does not answer")?;
        let path = answer.url().path().to_owned();
        if answer.status().is_success() {
            return answer
                .json()
                .await
                .with_context(|| format!("{path} answered something else than expected"));
        }
        Err(refusal(answer, &path).await)
    }
}

/// A signed URL is a secret for as long as it works, so an error must not show it.
fn unsigned(error: reqwest::Error) -> reqwest::Error {
    error.without_url()
}

async fn refusal(answer: Response, path: &str) -> anyhow::Error {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    match serde_json::from_str::<Problem>(&text) {
        Ok(problem) if !problem.code.is_empty() || !problem.title.is_empty() => anyhow!("refused, {status}: {problem}"),
        _ => anyhow!("{path} answered {status}: {}", printable(&text)),
    }
}

/// Whether a word from the network can be a file's name and no more.
pub(super) fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Unguessable hexadecimal digits.
fn random_hex(bytes: usize) -> Result<String> {
    use std::io::Read;
    let mut random = vec![0; bytes];
    std::fs::File::open("/dev/urandom")?
        .read_exact(&mut random)
        .context("no random bytes")?;
    Ok(hex(&random))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(id: &str, format: &str) -> Output {
        let fields = json!({ "id": id, "format": format, "size_bytes": 1, "url": "http://127.0.0.1/" });
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn an_output_stays_in_its_folder() {
        assert_eq!(output("mp4-720p", "mp4").file_name().unwrap(), "mp4-720p.mp4");
        assert_eq!(output("thumbnail-1", "jpeg").file_name().unwrap(), "thumbnail-1.jpg");
        for id in ["../up", "/etc/x", "", ".hidden", "a/b", "a\0b"] {
            assert!(output(id, "mp4").file_name().is_err(), "{id:?}");
        }
        assert!(output("a", "/../x").file_name().is_err());
    }

    #[test]
    fn a_problem_reads_as_one_line() {
        let problem: Problem = serde_json::from_value(json!({
            "title": "Unprocessable", "code": "validation_failed", "detail": "The request is not valid",
            "errors": [{ "pointer": "/size_bytes", "message": "is too large" }],
        }))
        .unwrap();
        assert_eq!(
            problem.to_string(),
            "The request is not valid (validation_failed); /size_bytes is too large"
        );
    }

    #[test]
    fn random_digits_differ() {
        assert_eq!(random_hex(6).unwrap().len(), 12);
        assert_ne!(random_hex(6).unwrap(), random_hex(6).unwrap());
    }
}
