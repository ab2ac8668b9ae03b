//! The mail about a job's end, and SES.

use std::fmt::Write as _;

use aws_config::SdkConfig;
use aws_sdk_ses::{
    Client,
    error::ProvideErrorMetadata as _,
    types::{Body, Content, Destination, Message},
};
use html_escape::encode_text;
use reelay_core::domain::{
    failure::Failure,
    job::{Job, Output, OutputType, Status},
    spec::Format,
};

/// Longest name in a subject, in characters.
const MAX_SUBJECT_NAME: usize = 120;

/// SES did not take a mail.
#[derive(Debug, thiserror::Error)]
#[error("the mail service answered {aws_code}")]
pub(crate) struct MailError {
    aws_code: String,
}

impl MailError {
    /// The stable code of this error.
    pub(crate) fn code(&self) -> &'static str {
        if self.is_retryable() {
            "mail_unavailable"
        } else {
            "mail_refused"
        }
    }

    /// Whether the same mail may be taken later.
    pub(crate) fn is_retryable(&self) -> bool {
        !matches!(
            self.aws_code.as_str(),
            "MessageRejected"
                | "MailFromDomainNotVerified"
                | "MailFromDomainNotVerifiedException"
                | "InvalidParameterValue"
                | "ConfigurationSetDoesNotExist"
        )
    }
}

/// Sends mail.
#[derive(Debug)]
pub(crate) struct Mailer {
    client: Client,
    sender: String,
}

/// A mail, in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    subject: String,
    text: String,
    html: String,
}

impl Mailer {
    pub(crate) fn new(config: &SdkConfig, sender: String) -> Self {
        Self {
            client: Client::new(config),
            sender,
        }
    }

    /// Sends a mail. One that SES took may still be lost on its way.
    pub(crate) async fn send(&self, to: &str, mail: &Mail) -> Result<(), MailError> {
        let refused = |aws_code: &str| MailError {
            aws_code: aws_code.to_owned(),
        };
        let content = |text: &str| {
            Content::builder()
                .charset("UTF-8")
                .data(text)
                .build()
                .map_err(|_| refused("InvalidParameterValue"))
        };
        let body = Body::builder()
            .text(content(&mail.text)?)
            .html(content(&mail.html)?)
            .build();
        let message = Message::builder().subject(content(&mail.subject)?).body(body).build();
        self.client
            .send_email()
            .source(&self.sender)
            .destination(Destination::builder().to_addresses(to).build())
            .message(message)
            .send()
            .await
            .map_err(|error| refused(error.code().unwrap_or("NoAnswer")))?;
        Ok(())
    }
}

impl Mail {
    /// The mail about how a job ended.
    pub(crate) fn about(job: &Job, outputs: &[Output]) -> Self {
        let name: String = job
            .display_name()
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_SUBJECT_NAME)
            .collect();
        let mut mail = match (&job.status, &job.error) {
            (Status::Failed, Some(failure)) => Self::failed(&name, failure),
            _ => Self::completed(&name, outputs),
        };
        let _ = write!(mail.text, "\nJob: {}\n", job.job_id);
        let _ = write!(mail.html, "<p style=\"color:#666\">Job: {}</p>", job.job_id);
        mail
    }

    fn completed(name: &str, outputs: &[Output]) -> Self {
        let mut text = format!("\"{name}\" is ready.\n\n");
        let mut rows = String::new();
        for output in outputs
            .iter()
            .filter(|output| output.output_type == OutputType::Rendition)
            // The list of the ladder's rungs is none itself.
            .filter(|output| output.format != Format::Hls.as_str() || output.quality.is_some())
        {
            let picture = format!("{}x{}", output.width_px, output.height_px);
            let length = duration(output.duration_seconds.unwrap_or(0.0));
            let size = megabytes(output.proof.map_or(output.size_bytes, |proof| proof.object_bytes));
            let _ = writeln!(text, "- {}: {picture}, {length}, {size}", output.id);
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{picture}</td><td>{length}</td><td>{size}</td></tr>",
                output.id
            );
        }
        let thumbnails = outputs
            .iter()
            .filter(|output| output.output_type == OutputType::Thumbnail)
            .count();
        let _ = writeln!(text, "- {thumbnails} thumbnails");
        Self {
            subject: format!("Your video is ready: {name}"),
            text,
            html: format!(
                "<h1>{} is ready</h1><table cellpadding=\"6\">{rows}</table><p>{thumbnails} thumbnails</p>",
                encode_text(name)
            ),
        }
    }

    fn failed(name: &str, failure: &Failure) -> Self {
        let Failure { message, hint, .. } = failure;
        let code = failure.code.as_str();
        Self {
            subject: format!("Your video could not be processed: {name}"),
            text: format!("\"{name}\" could not be processed: {message}.\n\n{hint}\n\nCode: {code}\n"),
            html: format!(
                "<h1>{} could not be processed</h1><p>{}.</p><p>{}</p><p>Code: <code>{code}</code></p>",
                encode_text(name),
                encode_text(message),
                encode_text(hint)
            ),
        }
    }
}

fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hours at most")]
    let whole = seconds.round().max(0.0) as u64;
    format!("{}:{:02} min", whole / 60, whole % 60)
}

fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let megabytes = bytes as f64 / 1_000_000.0;
    format!("{megabytes:.1} MB")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reelay_core::domain::{
        create::CreateJob,
        failure::{FailureCode, Stage},
        id::{AccountId, JobId},
        time::UtcTime,
    };
    use serde_json::{Value, json};

    use super::*;

    fn job(filename: &str) -> Job {
        let body = serde_json::json!({"filename": filename, "size_bytes": 1});
        let new = serde_json::from_value::<CreateJob>(body).unwrap().validate(10).unwrap();
        let now = UtcTime::from_epoch_ms(0);
        Job::pending(JobId::generate(), AccountId::generate(), new, now, Duration::ZERO)
    }

    #[test]
    fn names_cannot_change_the_mail() {
        let mut job = job("<img src=x onerror=alert(1)>.mp4");
        job.status = Status::Completed;
        job.title = Some("a\r\nBcc: victim@example.org".into());
        let mail = Mail::about(&job, &[]);
        assert!(!mail.subject.contains(['\r', '\n']));
        job.title = None;
        let mail = Mail::about(&job, &[]);
        assert!(!mail.html.contains("<img") && mail.html.contains("&lt;img"));
        assert!(mail.text.contains("<img"), "plain text stays as it is");
    }

    #[test]
    fn a_ladder_is_told_of_by_its_rungs() {
        let output = |id: &str, quality: Option<&str>, proof: Option<Value>| -> Output {
            let item = json!({"id": id, "type": "rendition", "format": "hls", "quality": quality, "width_px": 640,
                "height_px": 360, "duration_seconds": 61.0, "size_bytes": 300, "sha256": "", "content_type": "",
                "key": "", "proof": proof});
            serde_json::from_value(item).unwrap()
        };
        let proof = json!({"expected_frames": 1, "counted_frames": 1, "largest_gap_ms": 40.0, "audio_drift_ms": null,
            "objects": 5, "object_bytes": 7_000_000});
        let mut job = job("a.mp4");
        job.status = Status::Completed;
        let outputs = [output("hls", None, None), output("hls-360p", Some("360p"), Some(proof))];
        let text = Mail::about(&job, &outputs).text;
        assert!(text.contains("- hls-360p: 640x360, 1:01 min, 7.0 MB\n"), "{text}");
        assert!(!text.contains("- hls:"), "{text}");
    }

    #[test]
    fn a_failure_says_what_and_what_to_do() {
        let mut job = job("a.mp4");
        job.status = Status::Failed;
        job.error = Some(Failure::new(
            FailureCode::SourceCorrupt,
            Stage::Probe,
            1,
            "the source cannot be read",
        ));
        let mail = Mail::about(&job, &[]);
        assert!(mail.subject.contains("could not be processed") && mail.text.contains("source_corrupt"));
        assert!(mail.text.contains(FailureCode::SourceCorrupt.hint()));
    }
}
