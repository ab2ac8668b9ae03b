//! Identifiers: a prefix that names the kind, then a UUID version 7, so that they sort by creation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is no identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind} id")]
pub struct InvalidId {
    /// The kind that was expected.
    pub kind: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes a new identifier from the current time and random bits.
            #[must_use]
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "{}"), Uuid::now_v7().simple()))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid = text.strip_prefix($prefix).is_some_and(|rest| {
                    rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                });
                if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId { kind: $kind }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// One requested processing of one source.
    JobId, "job_", "job"
);
id!(
    /// One account.
    AccountId, "acct_", "account"
);
id!(
    /// One login of an account.
    SessionId, "sess_", "session"
);
id!(
    /// One worker invocation, as the holder of a lease.
    WorkerId, "wrk_", "worker"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_reads_back_and_sorts_by_creation() {
        let first = JobId::generate();
        let second = JobId::generate();
        assert_eq!(first.as_str().parse::<JobId>(), Ok(first.clone()));
        assert!(first < second);
    }

    #[test]
    fn foreign_prefixes_lengths_and_alphabets_are_refused() {
        let good = JobId::generate().to_string();
        for bad in [
            "",
            "job_",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}0"),
            &good.to_uppercase(),
            &good.replace("job_", "acct_"),
            "job_../../../../etc/passwd0000000000",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
