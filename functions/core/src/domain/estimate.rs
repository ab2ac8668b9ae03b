//! How long a job will take, as said before it runs.

/// Processing seconds for one second of video, until measured speeds are known: 30 s a minute.
const SECONDS_PER_SECOND: f64 = 0.5;
/// The bit rate that a source of unknown duration is taken to have.
const ASSUMED_BITRATE_BPS: f64 = 5_000_000.0;

/// Estimates a job's processing time, in whole seconds and at least one.
#[must_use]
pub fn processing_seconds(duration_seconds: Option<f64>, size_bytes: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let assumed = size_bytes as f64 * 8.0 / ASSUMED_BITRATE_BPS;
    let seconds = duration_seconds.unwrap_or(assumed) * SECONDS_PER_SECOND;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and small"
    )]
    let whole = seconds.ceil().max(1.0) as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_video_is_thirty_seconds() {
        assert_eq!(processing_seconds(Some(60.0), 1), 30);
        assert_eq!(processing_seconds(Some(0.04), 1), 1);
        assert_eq!(processing_seconds(None, 37_500_000), 30);
    }
}
