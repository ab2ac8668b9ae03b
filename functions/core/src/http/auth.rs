//! Who is calling: access tokens, made by `auth` and checked by every function.
//!
//! A token is a JWT signed with HMAC-SHA-256 by the stack's own secret. A valid signature is not enough: every request
//! also reads the session and the account, so that what ended is refused at once and not when the token expires.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header::AUTHORIZATION, request::Parts},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ApiError, Code, limits};
use crate::{
    adapters::{
        accounts::AccountsTable,
        secrets::{Secret, SecretText},
    },
    domain::{
        account::{Account, Session},
        id::{AccountId, SessionId},
        time::UtcTime,
    },
};

const ISSUER: &str = "reelay";
const AUDIENCE: &str = "reelay-api";
/// What tells an access token from any other JWT (RFC 8725 section 3.11).
const TOKEN_TYPE: &str = "at+jwt";
/// How far clocks may differ, in seconds. The library's own default is 60.
const LEEWAY_SECONDS: u64 = 5;
/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 2_048;

/// What an access token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: AccountId,
    sid: SessionId,
    /// The account's generation at login.
    generation: u32,
    iat: i64,
    exp: i64,
}

/// Makes and checks access tokens.
#[derive(Debug)]
pub struct Authenticator {
    secret: Secret,
    accounts: AccountsTable,
}

impl Authenticator {
    /// Checks against this table, with the key in this secret.
    #[must_use]
    pub fn new(config: &SdkConfig, secret_id: String, accounts: AccountsTable) -> Self {
        Self {
            secret: Secret::new(config, secret_id),
            accounts,
        }
    }

    /// Makes the access token of a session.
    pub async fn issue(&self, session: &Session, now: UtcTime, lifetime: Duration) -> Result<String, ApiError> {
        let key = self.secret.get().await?;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: session.account_id.clone(),
            sid: session.session_id.clone(),
            generation: session.generation,
            iat: now.epoch_seconds(),
            exp: now.plus(lifetime).epoch_seconds(),
        };
        sign(&claims, &key)
    }

    /// Checks a token and what it stands for.
    async fn check(&self, token: &str, now: UtcTime) -> Result<Caller, ApiError> {
        let key = self.secret.get().await?;
        let claims = verify(token, &key).ok_or_else(unauthenticated)?;
        let (account, session) = self.accounts.account_and_session(&claims.sub, &claims.sid).await?;
        match (account, session) {
            (Some(account), Some(session))
                if claims.generation == account.generation && session.is_valid(account.generation, now) =>
            {
                Ok(Caller { account, session })
            }
            _ => Err(unauthenticated()),
        }
    }
}

fn unauthenticated() -> ApiError {
    ApiError::new(Code::Unauthenticated)
}

/// The name of a key: tells two live keys apart without telling anything about them.
fn key_id(key: &SecretText) -> String {
    let digest = Sha256::new()
        .chain_update(b"reelay key id")
        .chain_update(key.expose())
        .finalize();
    hex::encode(&digest[..8])
}

fn sign(claims: &Claims, key: &SecretText) -> Result<String, ApiError> {
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(TOKEN_TYPE.to_owned());
    header.kid = Some(key_id(key));
    let key = EncodingKey::from_secret(key.expose().as_bytes());
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| ApiError::new(Code::InternalError))
}

fn verify(token: &str, key: &SecretText) -> Option<Claims> {
    if token.len() > MAX_TOKEN_BYTES || key.expose().is_empty() {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header.typ.as_deref() != Some(TOKEN_TYPE) || header.kid.as_deref() != Some(key_id(key).as_str()) {
        return None;
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let key = DecodingKey::from_secret(key.expose().as_bytes());
    jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .ok()
        .map(|data| data.claims)
}

/// The signed-in account. As a handler's argument it refuses everybody else, and those who have asked too often.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub account: Account,
    /// By which login.
    pub session: Session,
}

impl<S> FromRequestParts<S> for Caller
where
    Arc<Authenticator>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let header = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(unauthenticated()),
        };
        let caller = Arc::<Authenticator>::from_ref(state)
            .check(token, UtcTime::now())
            .await?;
        limits::charge(parts, caller.account.account_id.as_str()).await?;
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SecretText {
        SecretText::for_test(text)
    }

    fn claims() -> Claims {
        let now = UtcTime::now().epoch_seconds();
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: AccountId::generate(),
            sid: SessionId::generate(),
            generation: 1,
            iat: now,
            exp: now + 60,
        }
    }

    #[test]
    fn our_own_tokens_hold() {
        let token = sign(&claims(), &key("secret")).unwrap();
        assert!(verify(&token, &key("secret")).is_some());
    }

    #[test]
    fn tokens_of_others_do_not() {
        let good = sign(&claims(), &key("secret")).unwrap();
        let mut expired = claims();
        expired.exp -= 60 + i64::try_from(LEEWAY_SECONDS).unwrap() + 1;
        let mut foreign = claims();
        foreign.aud = "elsewhere".into();
        let mut issuer = claims();
        issuer.iss = "elsewhere".into();
        let other_type = {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some(key_id(&key("secret")));
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap()
        };
        let (head, rest) = good.split_once('.').unwrap();
        // {"alg":"none","typ":"at+jwt"}
        let unsigned = format!(
            "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{}.",
            rest.split_once('.').unwrap().0
        );
        for (bad, why) in [
            (sign(&claims(), &key("other")).unwrap(), "another key"),
            (sign(&expired, &key("secret")).unwrap(), "expired"),
            (sign(&foreign, &key("secret")).unwrap(), "another audience"),
            (sign(&issuer, &key("secret")).unwrap(), "another issuer"),
            (other_type, "another type"),
            (unsigned, "no signature"),
            (format!("{good}x"), "a changed signature"),
            (format!("{good}.x"), "a fourth part"),
            (format!("{head}.{}", &rest[1..]), "changed claims"),
            ("x".repeat(10_000), "too long"),
            (String::new(), "empty"),
        ] {
            assert!(verify(&bad, &key("secret")).is_none(), "{why}");
        }
        assert!(
            verify(&sign(&claims(), &key("")).unwrap(), &key("")).is_none(),
            "an empty key"
        );
    }
}
