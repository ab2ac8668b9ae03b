//! Refresh tokens: opaque to clients, kept as digests only.
//!
//! A token names its session and carries 256 bits that nobody can guess. The successor of a token is made from it and from
//! the signing key: so the same token leads to the same successor again, while nothing that could be used is stored.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reelay_core::{
    domain::id::{AccountId, SessionId},
    http::Source,
};
use sha2::{Digest as _, Sha256};

/// Sets this use of the signing key apart from signing.
const PURPOSE: &[u8] = b"reelay refresh token successor";
const SECRET_BYTES: usize = 32;

/// The machine has no random bits, or a key cannot be used.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a refresh token cannot be made")]
pub(crate) struct TokenError;

/// Text that is no refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a refresh token")]
pub(crate) struct NoToken;

/// A refresh token. It has no debug form, so that it is in no log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    pub(crate) account: AccountId,
    pub(crate) session: SessionId,
    secret: [u8; SECRET_BYTES],
}

impl RefreshToken {
    /// The first token of a session.
    pub(crate) fn generate(account: AccountId, session: SessionId) -> Result<Self, TokenError> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|_| TokenError)?;
        Ok(Self {
            account,
            session,
            secret,
        })
    }

    /// The token after this one. Whoever has this one but not the key cannot tell it.
    pub(crate) fn successor(&self, key: &[u8]) -> Result<Self, TokenError> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| TokenError)?;
        for part in [PURPOSE, self.session.as_str().as_bytes(), self.secret.as_slice()] {
            mac.update(part);
            mac.update(&[0]);
        }
        Ok(Self {
            secret: mac.finalize().into_bytes().into(),
            ..self.clone()
        })
    }

    /// What is stored of it. The secret is random, so a plain digest cannot be searched for.
    pub(crate) fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.secret))
    }

    /// As the client gets it.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}.{}.{}",
            self.account,
            self.session,
            URL_SAFE_NO_PAD.encode(self.secret)
        )
    }
}

impl FromStr for RefreshToken {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut parts = text.split('.');
        let (Some(account), Some(session), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoToken);
        };
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| NoToken)?;
        Ok(Self {
            account: account.parse().map_err(|_| NoToken)?,
            session: session.parse().map_err(|_| NoToken)?,
            secret: secret.try_into().map_err(|_| NoToken)?,
        })
    }
}

/// A digest by which the programs that use a session are told apart: address and name, as API Gateway saw them. Across
/// sessions it says nothing.
pub(crate) fn client_hash(source: &Source, session: &SessionId) -> String {
    let mut digest = Sha256::new();
    for part in [session.as_str(), &source.address, &source.user_agent] {
        digest.update(part);
        digest.update([0]);
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_program_or_session_is_another_client() {
        let session = SessionId::generate();
        let of = |address: &str, user_agent: &str, session: &SessionId| {
            let source = Source {
                address: address.into(),
                user_agent: user_agent.into(),
                request_id: "one".into(),
            };
            client_hash(&source, session)
        };
        let hash = |address: &str, user_agent: &str| of(address, user_agent, &session);
        assert_eq!(hash("192.0.2.1", "curl"), hash("192.0.2.1", "curl"));
        assert_ne!(hash("192.0.2.1", "curl"), hash("192.0.2.2", "curl"));
        assert_ne!(hash("192.0.2.1", "curl"), hash("192.0.2.1", "wget"));
        assert_ne!(hash("192.0.2.1", "curl"), hash("192.0.2.1c", "url"));
        assert_ne!(
            hash("192.0.2.1", "curl"),
            of("192.0.2.1", "curl", &SessionId::generate())
        );
    }

    fn token() -> RefreshToken {
        RefreshToken::generate(AccountId::generate(), SessionId::generate()).unwrap()
    }

    #[test]
    fn a_token_reads_back_and_its_hash_does_not_show_it() {
        let token = token();
        let text = token.text();
        assert!(text.parse::<RefreshToken>() == Ok(token.clone()));
        let secret = text.rsplit('.').next().unwrap();
        assert_eq!(secret.len(), 43, "256 bits");
        assert!(!token.hash().contains(secret) && !token.hash().contains(&hex::encode(token.secret)));
        for bad in [
            "",
            "..",
            secret,
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}A"),
            &format!("{text}.x"),
            &text.replace("sess_", "acct_"),
        ] {
            assert!(bad.parse::<RefreshToken>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_has_one_successor_and_another_with_every_other_key_session_or_token() {
        let first = token();
        let next = |token: &RefreshToken, key: &[u8]| token.successor(key).unwrap().text();
        assert_eq!(next(&first, b"key"), next(&first, b"key"));
        let elsewhere = RefreshToken {
            session: SessionId::generate(),
            ..first.clone()
        };
        let second = first.successor(b"key").unwrap();
        let all = [
            first.text(),
            second.text(),
            next(&first, b"other"),
            next(&second, b"key"),
            next(&elsewhere, b"key"),
            next(&token(), b"key"),
        ];
        let secrets: std::collections::HashSet<_> = all.iter().filter_map(|text| text.rsplit('.').next()).collect();
        assert_eq!(secrets.len(), all.len());
    }
}
