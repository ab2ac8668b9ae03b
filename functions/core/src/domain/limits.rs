//! How much one caller may do: rate windows, and the waits that failed logins lead to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{time::UtcTime, words::words};

words! {
    /// What a request counts as.
    Class {
        /// Register, login, refresh: counted by source address, since nobody is signed in yet.
        SignIn = "sign-in",
        /// Making a job.
        Create = "create",
        /// Any other change.
        Write = "write",
        /// Reading.
        Read = "read",
    }
}

/// Paths below the base, without a trailing slash, that nobody has to be signed in for.
const SIGN_IN: [&str; 3] = ["/auth/login", "/auth/refresh", "/auth/register"];
/// Paths below the base whose POST makes a job.
const CREATE: [&str; 4] = ["/jobs", "/s3/multipart", "/submit_job", "/videos/upload"];
/// The one whose GET does: that is how upload widgets ask for a form.
const CREATE_BY_GET: &str = "/s3/params";

impl Class {
    /// The class of a route, by its method and its path as the router has it.
    #[must_use]
    pub fn of(method: &str, route: &str) -> Self {
        match method {
            "GET" if route == CREATE_BY_GET => Self::Create,
            "GET" | "HEAD" => Self::Read,
            "POST" if SIGN_IN.contains(&route) => Self::SignIn,
            "POST" if CREATE.contains(&route) => Self::Create,
            _ => Self::Write,
        }
    }
}

/// So many requests in each window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests.
    pub limit: u32,
    /// Length of a window.
    pub window_seconds: u32,
}

impl Quota {
    /// The window that a moment falls into: its begin, in seconds since 1970, and the seconds until its end, at least
    /// one. Windows begin at multiples of their length, so that they need no stored begin.
    #[must_use]
    pub fn window(self, now: UtcTime) -> (i64, u32) {
        let length = i64::from(self.window_seconds.max(1));
        let passed = now.epoch_seconds().rem_euclid(length);
        let left = u32::try_from(length - passed).unwrap_or(1);
        (now.epoch_seconds() - passed, left)
    }
}

/// Where a caller stands in a window after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What the request counted as.
    pub class: Class,
    /// What holds for that.
    pub quota: Quota,
    /// Whether the request was within it.
    pub admitted: bool,
    /// Requests that are left.
    pub remaining: u32,
    /// Until there are `limit` again.
    pub resets_in_seconds: u32,
}

/// The longest wait after a failed login: never a lock-out.
pub const LONGEST_WAIT: Duration = Duration::from_mins(15);
/// After so long without a failure, earlier ones are forgotten.
pub const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// The wait after the `failures`-th failure when `free` of them cost none: one second, and twice as long each time.
#[must_use]
pub fn wait_after(failures: u32, free: u32) -> Duration {
    let Some(beyond) = failures.checked_sub(free) else {
        return Duration::ZERO;
    };
    let seconds = 1_u64.checked_shl(beyond).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST_WAIT)
}

/// What an account may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountQuota {
    /// Jobs that are not over.
    pub jobs_in_flight: u32,
    /// Bytes of sources and outputs; 0 is no limit.
    pub stored_bytes: u64,
}

/// Which of them a job would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exceeded {
    /// Too many jobs are not over.
    Jobs {
        /// The most there may be.
        limit: u32,
    },
    /// Its source does not fit.
    Bytes {
        /// The most there may be.
        limit: u64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routes_have_the_class_that_their_cost_asks_for() {
        for (method, route, class) in [
            ("GET", "/jobs", Class::Read),
            ("HEAD", "/jobs/{id}", Class::Read),
            ("POST", "/jobs", Class::Create),
            ("GET", "/s3/params", Class::Create),
            ("POST", "/s3/multipart", Class::Create),
            ("POST", "/s3/multipart/{upload_id}/complete", Class::Write),
            ("POST", "/videos/upload", Class::Create),
            ("POST", "/jobs/{id}/retry", Class::Write),
            ("DELETE", "/jobs/{id}", Class::Write),
            ("POST", "/auth/login", Class::SignIn),
            ("POST", "/auth/logout", Class::Write),
            ("GET", "/auth/me", Class::Read),
        ] {
            assert_eq!(Class::of(method, route), class, "{method} {route}");
        }
    }

    #[test]
    fn waits_grow_from_a_second_and_end_at_the_longest() {
        let seconds = |failures| wait_after(failures, 5).as_secs();
        assert_eq!([0, 4, 5, 6, 7, 8].map(seconds), [0, 0, 1, 2, 4, 8]);
        assert_eq!(seconds(100), LONGEST_WAIT.as_secs());
        assert_eq!(wait_after(u32::MAX, 0), LONGEST_WAIT);
    }

    proptest! {
        #[test]
        fn windows_tile_time(ms in 0_i64..4_000_000_000_000, window_seconds in 1_u32..100_000) {
            let quota = Quota { limit: 1, window_seconds };
            let now = UtcTime::from_epoch_ms(ms);
            let (start, left) = quota.window(now);
            prop_assert!(start <= now.epoch_seconds());
            prop_assert_eq!(start + i64::from(window_seconds), now.epoch_seconds() + i64::from(left));
            prop_assert!((1..=window_seconds).contains(&left));
            prop_assert_eq!(start % i64::from(window_seconds), 0);
        }
    }
}
