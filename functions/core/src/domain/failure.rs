//! Why a job failed: a closed set of codes that clients, operators and retries decide by.

use serde::{Deserialize, Serialize};

use super::words::words;

words! {
    /// Where in the work a failure happened.
    Stage {
        /// Checks of the finished upload.
        Intake = "intake",
        /// Reading the source to scratch space.
        Fetch = "fetch",
        /// Looking at the source.
        Probe = "probe",
        /// Encoding renditions and thumbnails.
        Encode = "encode",
        /// Checking what was encoded.
        Verify = "verify",
        /// Storing and publishing outputs.
        Publish = "publish",
    }
}

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident => $text:literal, $retryable:literal, $hint:literal;)*) => {
        /// The stable code of a job's failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FailureCode {
            $($(#[$doc])* $name,)*
        }

        impl FailureCode {
            /// Every code, for tables and tests.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as clients see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same source may succeed when it is tried again.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// What the owner of the job can do about it.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

failure_codes! {
    /// The uploaded object has no bytes.
    EmptySource => "empty_source", false, "Upload a file that is not empty.";
    /// The uploaded object is not as long as was declared, or longer than the limit.
    SizeMismatch => "size_mismatch", false, "Declare the file's exact size when creating the job.";
    /// The uploaded object has another SHA-256 than was declared.
    ChecksumMismatch => "checksum_mismatch", false, "Declare the file's own SHA-256, and upload it again.";
    /// The content is of another kind than the declared content type.
    TypeMismatch => "type_mismatch", false, "Declare the file's real content type, or none.";
    /// The content is nothing that can be processed.
    UnsupportedFormat => "unsupported_format", false, "Upload a video in one of the supported containers.";
    /// The container or its streams cannot be read.
    SourceCorrupt => "source_corrupt", false, "Check that the file plays to its end, then upload it again.";
    /// The source plays longer than the limit.
    LimitDuration => "limit_duration", false, "Split the source into shorter files.";
    /// The picture is larger than the limit.
    LimitPixels => "limit_pixels", false, "Scale the source down before uploading it.";
    /// The source has more streams than the limit.
    LimitStreams => "limit_streams", false, "Remove tracks that are not needed.";
    /// The work took longer than one invocation may.
    LimitTime => "limit_time", false, "Ask for fewer or smaller outputs, or split the source.";
    /// The work needed more memory than the limit.
    LimitMemory => "limit_memory", false, "Ask for fewer or smaller outputs.";
    /// An output grew over the limit.
    LimitOutputSize => "limit_output_size", false, "Ask for a lower quality or bit rate.";
    /// The worker's scratch space is too small for source and outputs.
    NoSpace => "no_space", false, "Split the source, or have the operator raise the scratch size.";
    /// An output did not pass its check.
    OutputInvalid => "output_invalid", false, "Report this job: what was made did not pass its own check.";
    /// Every attempt met a passing fault.
    AttemptsExhausted => "attempts_exhausted", true, "Retry the job later.";
    /// A fault of the service.
    InternalError => "internal_error", true, "Retry the job later; report it if it fails again.";
}

/// A job's failure as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// One sentence for a person; never holds paths, addresses or tool output.
    pub message: String,
    /// Where it happened.
    pub stage: Stage,
    /// The attempt that failed, from 1; 0 when the work never began.
    pub attempt: u32,
    /// Whether trying the same source again may help.
    pub retryable: bool,
    /// What the owner of the job can do about it.
    pub hint: String,
}

impl Failure {
    /// A failure with the code's own retry rule and hint.
    #[must_use]
    pub fn new(code: FailureCode, stage: Stage, attempt: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            stage,
            attempt,
            retryable: code.is_retryable(),
            hint: code.hint().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_same_in_json_and_in_text() {
        for code in FailureCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(code.hint().ends_with('.'));
        }
    }
}
