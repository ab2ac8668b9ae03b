//! What can be wrong with a track file.

use std::io;

use super::FourCc;

/// Why a track file could not be read, or a movie not be described.
#[derive(Debug, thiserror::Error)]
pub enum Mp4Error {
    /// Reading or writing the bytes failed.
    #[error("reading or writing an MP4 file failed")]
    Io(#[from] io::Error),
    /// A box is cut off, or contradicts itself or its surroundings.
    #[error("the MP4 box {0} is malformed")]
    Malformed(FourCc),
    /// A box that is needed is not there.
    #[error("the MP4 box {0} is missing")]
    Missing(FourCc),
    /// More of something than any track of ours has.
    #[error("the MP4 file has too many or too large {0}")]
    Limit(&'static str),
    /// Valid MP4, but of a shape that is never written here.
    #[error("the MP4 file has {0}, which is not supported")]
    Unsupported(&'static str),
    /// A sample format that no output uses.
    #[error("the MP4 track's sample format {0} is not supported")]
    Codec(FourCc),
}

impl Mp4Error {
    /// The stable code, for logs and task results.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "mp4_io",
            Self::Malformed(_) => "mp4_malformed",
            Self::Missing(_) => "mp4_missing",
            Self::Limit(_) => "mp4_limit",
            Self::Unsupported(_) => "mp4_unsupported",
            Self::Codec(_) => "mp4_codec",
        }
    }

    /// Whether the same call may succeed when it is tried again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}
