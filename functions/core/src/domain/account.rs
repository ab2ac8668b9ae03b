//! Accounts: who may sign in, and what may be stored about them.

use std::time::Duration;

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
/// How long after its use a refresh token gives its client the same successor once more: an answer may have been lost,
/// and two tabs may have asked at once. Afterwards, or from another client, its use is theft (RFC 9700 section 4.14.2).
pub const REFRESH_GRACE: Duration = Duration::from_secs(10);

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

/// One login, and the family of refresh tokens that comes of it.
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
    /// When it ends, in seconds since 1970, as the table's time to live wants it. Readers check it themselves. Refreshing
    /// does not move it.
    pub expires_at: i64,
    /// Whether it was ended before that. Not by `expires_at`, which another function's clock might not have reached.
    #[serde(default)]
    pub ended: bool,
    /// What it may be refreshed with.
    #[serde(default)]
    pub refresh: Refresh,
}

impl Session {
    /// Whether the session still holds at `now` for an account at `generation`.
    #[must_use]
    pub fn is_valid(&self, generation: u32, now: UtcTime) -> bool {
        !self.ended && self.generation == generation && now.epoch_seconds() < self.expires_at
    }
}

/// What is known about a session's refresh tokens: digests, so that whoever reads the table cannot use them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Of the token that may be used.
    pub token_hash: String,
    /// Of the token before it, and of its use.
    pub last: Option<Rotation>,
}

/// The use of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Of the token that was used.
    pub token_hash: String,
    /// A digest of what is known about who used it.
    pub client_hash: String,
    /// When.
    pub rotated_at: UtcTime,
}

/// What a presented refresh token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// The one that may be used.
    Current,
    /// The one before, from the client that used it, a moment later.
    Again,
    /// Anything else. Whoever names a session has had a token of it, so this is one that was used up: two have it.
    Reused,
}

impl Refresh {
    /// What the token with this digest is at `now`, coming from this client.
    #[must_use]
    pub fn judge(&self, token_hash: &str, client_hash: &str, now: UtcTime) -> Presented {
        if self.token_hash == token_hash {
            return Presented::Current;
        }
        match &self.last {
            Some(last)
                if last.token_hash == token_hash
                    && last.client_hash == client_hash
                    && now <= last.rotated_at.plus(REFRESH_GRACE) =>
            {
                Presented::Again
            }
            _ => Presented::Reused,
        }
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

/// Checks the length of a new password; there are no rules about its characters (ASVS 5.0 6.2.5).
pub fn check_password_length(pointer: &str, password: &str) -> Result<(), FieldError> {
    if (MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&password.chars().count()) {
        return Ok(());
    }
    let message = format!("must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters");
    Err(FieldError::new(pointer, message))
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
        let accepts = |password: &str| check_password_length("/password", password).is_ok();
        assert!(accepts("ääääääää") && accepts("       x") && accepts(&"🦀".repeat(256)));
        assert!(!accepts("äääääää") && !accepts(&"x".repeat(257)));
    }

    fn refresh(rotated_at: UtcTime) -> Refresh {
        Refresh {
            token_hash: "second".into(),
            last: Some(Rotation {
                token_hash: "first".into(),
                client_hash: "browser".into(),
                rotated_at,
            }),
        }
    }

    #[test]
    fn a_used_refresh_token_works_again_for_its_client_and_for_a_moment_only() {
        let used = UtcTime::from_epoch_ms(1_000_000);
        let refresh = refresh(used);
        let end = used.plus(REFRESH_GRACE);
        let late = UtcTime::from_epoch_ms(end.epoch_ms() + 1);
        assert_eq!(refresh.judge("second", "anybody", late), Presented::Current);
        assert_eq!(refresh.judge("first", "browser", used), Presented::Again);
        assert_eq!(refresh.judge("first", "browser", end), Presented::Again);
        assert_eq!(refresh.judge("first", "browser", late), Presented::Reused);
        assert_eq!(refresh.judge("first", "another", used), Presented::Reused);
        assert_eq!(refresh.judge("older", "browser", used), Presented::Reused);
        let unused = Refresh { last: None, ..refresh };
        assert_eq!(unused.judge("first", "browser", used), Presented::Reused);
    }

    #[test]
    fn a_session_ends_with_time_by_its_owner_and_with_the_accounts_generation() {
        let now = UtcTime::from_epoch_ms(1_000_000);
        let session = Session {
            session_id: SessionId::generate(),
            account_id: AccountId::generate(),
            generation: 1,
            created_at: now,
            expires_at: 1_001,
            ended: false,
            refresh: refresh(now),
        };
        assert!(session.is_valid(1, now));
        assert!(!session.is_valid(2, now));
        assert!(!session.is_valid(1, UtcTime::from_epoch_ms(1_001_000)));
        let ended = Session { ended: true, ..session };
        assert!(!ended.is_valid(1, now));
    }
}
