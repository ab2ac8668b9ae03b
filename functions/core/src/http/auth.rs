//! Who is calling: access tokens, made by `auth` and checked by every function.
//!
//! A token is a JWT signed with HMAC-SHA-256 by the stack's own secret, of which two versions are live: a token names the
//! one that signed it. A valid signature is not enough: every request also reads the session and the account, so that
//! what ended is refused at once and not when the token expires.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header::AUTHORIZATION, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ApiError, Code, limits};
use crate::{
    adapters::{
        AwsError,
        accounts::AccountsTable,
        secrets::{Secret, SecretText, Versions},
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

/// The header of an access token: these three and nothing else. What names a key of the sender's own (`jwk`, `jku`,
/// `x5u`) or asks for something to be understood (`crit`) is not ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    alg: String,
    typ: String,
    kid: String,
}

impl Head {
    /// The header of a token, if it is one of ours by its looks.
    fn of(token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (head, _) = token.split_once('.')?;
        let head: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        (head.alg == "HS256" && head.typ == TOKEN_TYPE).then_some(head)
    }

    /// The key that the token says it was signed with.
    fn key<'k>(&self, keys: &'k Versions) -> Option<&'k SecretText> {
        keys.all().find(|key| key_id(key) == self.kid)
    }
}

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

    /// The live signing keys.
    pub async fn keys(&self) -> Result<Arc<Versions>, AwsError> {
        self.secret.versions().await
    }

    /// The live signing keys, fetched again unless that was done a moment ago.
    pub async fn newest_keys(&self) -> Result<Arc<Versions>, AwsError> {
        self.secret.refetched().await
    }

    /// Makes the access token of a session.
    pub async fn issue(&self, session: &Session, now: UtcTime, lifetime: Duration) -> Result<String, ApiError> {
        let keys = self.keys().await?;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: session.account_id.clone(),
            sid: session.session_id.clone(),
            generation: session.generation,
            iat: now.epoch_seconds(),
            exp: now.plus(lifetime).epoch_seconds(),
        };
        sign(&claims, &keys.current)
    }

    /// Checks a token and what it stands for.
    async fn check(&self, token: &str, now: UtcTime) -> Result<Caller, ApiError> {
        let head = Head::of(token).ok_or_else(unauthenticated)?;
        let mut keys = self.keys().await?;
        if head.key(&keys).is_none() {
            // Signed with a newer key than those known here, or with none of ours.
            keys = self.newest_keys().await?;
        }
        let key = head.key(&keys).ok_or_else(unauthenticated)?;
        let claims = verify(token, key, now).ok_or_else(unauthenticated)?;
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

/// What a token says, if this key signed it and it holds. Its header was looked at before.
fn verify(token: &str, key: &SecretText, now: UtcTime) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let key = DecodingKey::from_secret(key.expose().as_bytes());
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?.claims;
    let latest = now.plus(Duration::from_secs(LEEWAY_SECONDS)).epoch_seconds();
    (claims.iat <= latest).then_some(claims)
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

    fn versions(current: &str, previous: Option<&str>) -> Versions {
        Versions {
            current: key(current),
            previous: previous.map(key),
        }
    }

    /// As `check` does it, without what is behind the token.
    fn holds(token: &str, keys: &Versions) -> bool {
        Head::of(token)
            .and_then(|head| head.key(keys).and_then(|key| verify(token, key, UtcTime::now())))
            .is_some()
    }

    #[test]
    fn tokens_of_both_live_keys_hold() {
        let (old, new) = (key("first secret"), key("second secret"));
        let token = sign(&claims(), &old).unwrap();
        assert!(holds(&token, &versions("first secret", None)));
        assert!(holds(&token, &versions("second secret", Some("first secret"))));
        assert!(!holds(&token, &versions("third secret", Some("second secret"))));
        assert!(!holds(&sign(&claims(), &new).unwrap(), &versions("first secret", None)));
    }

    #[test]
    fn tokens_of_others_do_not() {
        let own = key("secret");
        let good = sign(&claims(), &own).unwrap();
        let leeway = i64::try_from(LEEWAY_SECONDS).unwrap();
        let with = |change: &dyn Fn(&mut Claims)| {
            let mut claims = claims();
            change(&mut claims);
            sign(&claims, &own).unwrap()
        };
        let headed = |change: &dyn Fn(&mut Header)| {
            let mut header = Header::new(Algorithm::HS256);
            header.typ = Some(TOKEN_TYPE.to_owned());
            header.kid = Some(key_id(&own));
            change(&mut header);
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap()
        };
        let (head, rest) = good.split_once('.').unwrap();
        let unsigned = URL_SAFE_NO_PAD.encode(format!(
            r#"{{"alg":"none","typ":"{TOKEN_TYPE}","kid":"{}"}}"#,
            key_id(&own)
        ));
        for (bad, why) in [
            (sign(&claims(), &key("other")).unwrap(), "another key"),
            (with(&|claims| claims.exp -= 60 + leeway + 1), "expired"),
            (with(&|claims| claims.iat += leeway + 2), "of tomorrow"),
            (with(&|claims| claims.aud = "elsewhere".into()), "another audience"),
            (with(&|claims| claims.iss = "elsewhere".into()), "another issuer"),
            (headed(&|header| header.typ = None), "no type"),
            (headed(&|header| header.typ = Some("JWT".into())), "another type"),
            (headed(&|header| header.kid = Some("../../x".into())), "a path as key"),
            (
                headed(&|header| header.jku = Some("https://a.example/keys".into())),
                "a key elsewhere",
            ),
            (headed(&|header| header.alg = Algorithm::HS512), "another algorithm"),
            (
                format!("{unsigned}.{}.", rest.split_once('.').unwrap().0),
                "no signature",
            ),
            (format!("{good}x"), "a changed signature"),
            (format!("{good}.x"), "a fourth part"),
            (format!("{head}.{}", &rest[1..]), "changed claims"),
            ("x".repeat(10_000), "too long"),
            (String::new(), "empty"),
        ] {
            assert!(!holds(&bad, &versions("secret", None)), "{why}");
        }
        assert!(
            holds(&headed(&|_| {}), &versions("secret", None)),
            "the change is what is refused"
        );
    }
}
