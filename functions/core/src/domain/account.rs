//! Accounts: who may sign in, and what may be stored about them.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::{
    create::FieldError,
    id::{AccountId, SessionId},
    time::UtcTime,
    words::words,
};

/// Shortest password, in characters (NIST SP 800-63B, OWASP ASVS 5.0 6.2.1).
pub const MIN_PASSWORD_CHARS: usize = 8;
/// Longest password, in characters: bounds the work of hashing.
pub const MAX_PASSWORD_CHARS: usize = 256;
/// Longest address (RFC 5321 section 4.5.3.1.3, less the angle brackets).
pub const MAX_EMAIL_BYTES: usize = 254;

words! {
    /// What an account may do.
    Role {
        /// Its own jobs.
        User = "user",
        /// Also the service's figures.
        Operator = "operator",
    }
}

/// An account as it is stored, without its password hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub account_id: AccountId,
    /// The normalised address; unique.
    pub email: String,
    /// What it may do.
    pub role: Role,
    /// Raised by whatever ends all sessions at once; tokens carry the value that they were issued under.
    pub generation: u32,
    /// When it registered.
    pub created_at: UtcTime,
}

/// One login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// Whose.
    pub account_id: AccountId,
    /// The account's generation at login.
    pub generation: u32,
    /// When it began.
    pub created_at: UtcTime,
    /// When it ends, in seconds since 1970, as the table's time to live wants it. Readers check it themselves.
    pub expires_at: i64,
}

impl Session {
    /// Whether the session still holds at `now` for an account at `generation`.
    #[must_use]
    pub fn is_valid(&self, generation: u32, now: UtcTime) -> bool {
        self.generation == generation && now.epoch_seconds() < self.expires_at
    }
}

/// Normalises an address: trimmed, NFKC, lower case.
///
/// Only the shape is checked; whether mail arrives, only mail can tell.
#[must_use]
pub fn normalise_email(text: &str) -> Option<String> {
    let email: String = text.trim().nfkc().flat_map(char::to_lowercase).collect();
    let (local, domain) = email.rsplit_once('@')?;
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\\\"@".contains(c);
    let valid = email.len() <= MAX_EMAIL_BYTES
        && (1..=64).contains(&local.len())
        && local.chars().all(plain)
        && !domain.is_empty()
        && domain
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-'));
    valid.then_some(email)
}

/// Checks a registration; returns the normalised address.
pub fn validate_registration(email: &str, password: &str) -> Result<String, Vec<FieldError>> {
    let mut errors = Vec::new();
    let normalised = normalise_email(email);
    if normalised.is_none() {
        errors.push(FieldError::new("/email", "must be an e-mail address"));
    }
    if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&password.chars().count()) {
        let message = format!("must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters");
        errors.push(FieldError::new("/password", message));
    }
    match normalised {
        Some(email) if errors.is_empty() => Ok(email),
        _ => Err(errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_the_same_become_the_same() {
        assert_eq!(
            normalise_email("  Ada@Example.ORG ").as_deref(),
            Some("ada@example.org")
        );
        assert_eq!(
            normalise_email("ＡＤＡ@example.org").as_deref(),
            Some("ada@example.org")
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c.d",
            "a@b@c",
            "a@b..c",
            "a\r\nBcc: x@y.z",
            "<a@b.c>",
            "a@b.c\0",
        ] {
            assert_eq!(normalise_email(bad), None, "{bad:?}");
        }
        assert_eq!(normalise_email(&format!("{}@example.org", "a".repeat(65))), None);
    }

    #[test]
    fn passwords_count_characters_and_have_no_composition_rules() {
        assert!(validate_registration("a@b.c", "ääääääää").is_ok());
        assert!(validate_registration("a@b.c", "       x").is_ok());
        let errors = validate_registration("nobody", "short").unwrap_err();
        assert_eq!(
            errors.iter().map(|error| error.pointer.as_str()).collect::<Vec<_>>(),
            ["/email", "/password"]
        );
    }

    #[test]
    fn a_session_ends_with_time_and_with_the_accounts_generation() {
        let now = UtcTime::from_epoch_ms(1_000_000);
        let session = Session {
            session_id: SessionId::generate(),
            account_id: AccountId::generate(),
            generation: 1,
            created_at: now,
            expires_at: 1_001,
        };
        assert!(session.is_valid(1, now));
        assert!(!session.is_valid(2, now));
        assert!(!session.is_valid(1, UtcTime::from_epoch_ms(1_001_000)));
    }
}
