//! Logs: one JSON object a line on standard output, where Lambda takes them from.

use tracing_subscriber::EnvFilter;

/// Starts logging at the level of `RUST_LOG`, `info` when that is absent.
///
/// Never logged: bodies, tokens, addresses, signed URLs. Of what a failed child process wrote, a short tail without
/// control characters is.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .try_init();
}
