//! Login throttling at the edge.

use super::{ApiError, Code};
use crate::{
    adapters::throttle::{Attempt, LoginThrottle, Turn},
    domain::time::UtcTime,
};

/// Asks for a login's turn; see [`LoginThrottle`] for the rule.
pub async fn begin(throttle: &LoginThrottle, address: &str, source: &str, now: UtcTime) -> Result<Attempt, ApiError> {
    match throttle.begin(address, source, now).await? {
        Turn::Now(attempt) => Ok(attempt),
        Turn::After(seconds) => Err(ApiError::new(Code::LoginThrottled)
            .detail(format!("the next login from here may be made in {seconds} s"))
            .retry_after(seconds)),
    }
}
