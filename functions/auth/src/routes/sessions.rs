//! Routes about a session: begin, refresh, end it.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use reelay_core::{
    adapters::dynamo::{Write, from_item},
    domain::{
        account::{Account, Presented, Refresh, Rotation, Session, normalise_email},
        audit::{Action, Outcome},
        id::SessionId,
        time::UtcTime,
    },
    http::{ApiError, Caller, Code, JsonBody, Trail, throttle},
};
use serde::{Deserialize, Serialize};

use super::{AccountView, AppState, hashing_failed, no_token};
use crate::{
    password::Verdict,
    refresh::{RefreshToken, client_hash},
    store,
};

#[derive(Serialize)]
pub(super) struct LoginBody {
    access_token: String,
    token_type: &'static str,
    expires_in_seconds: u64,
    refresh_token: String,
    refresh_expires_in_seconds: u64,
    account: AccountView,
}

/// A session of an account, and the refresh token that its client is told.
pub(super) struct Login {
    pub(super) account: Account,
    pub(super) session: Session,
    token: RefreshToken,
}

impl Login {
    /// A new session; it holds once it is stored.
    pub(super) fn of(state: &AppState, account: Account) -> Result<Self, ApiError> {
        let now = UtcTime::now();
        let session_id = SessionId::generate();
        let token = RefreshToken::generate(account.account_id.clone(), session_id.clone()).map_err(no_token)?;
        let session = Session {
            session_id,
            account_id: account.account_id.clone(),
            generation: account.generation,
            created_at: now,
            expires_at: now.plus(state.session_lifetime).epoch_seconds(),
            ended: false,
            refresh: Refresh {
                token_hash: token.hash(),
                last: None,
            },
        };
        Ok(Self {
            account,
            session,
            token,
        })
    }

    /// What the client gets: no token lives longer than the session.
    pub(super) async fn answer(self, state: &AppState) -> Result<LoginBody, ApiError> {
        let now = UtcTime::now();
        let end = UtcTime::from_epoch_ms(self.session.expires_at.saturating_mul(1_000));
        let left = Duration::from_secs_f64(end.seconds_since(now));
        let lifetime = state.access_lifetime.min(left);
        Ok(LoginBody {
            access_token: state.authenticator.issue(&self.session, now, lifetime).await?,
            token_type: "Bearer",
            expires_in_seconds: lifetime.as_secs(),
            refresh_token: self.token.text(),
            refresh_expires_in_seconds: left.as_secs(),
            account: self.account.into(),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    email: String,
    password: String,
}

pub(super) async fn login(
    State(state): State<AppState>,
    trail: Trail,
    JsonBody(body): JsonBody<Credentials>,
) -> Result<Json<LoginBody>, ApiError> {
    let attempt = throttle::begin(&state.throttle, &body.email, &trail.source.subject(), UtcTime::now()).await?;
    let found = match normalise_email(&body.email) {
        Some(email) => store::by_email(&state.accounts, &email).await?,
        None => None,
    };
    let stored = found.as_ref().map(|credentials| credentials.password_hash.as_str());
    let verdict = state.hasher.verify(&body.password, stored).map_err(hashing_failed)?;
    let credentials = match found {
        Some(credentials) if verdict != Verdict::Wrong => credentials,
        found => {
            state.throttle.failed(&attempt, UtcTime::now()).await?;
            let account = found.as_ref().map(|credentials| &credentials.account.account_id);
            trail.account(Action::Login, account, Outcome::Failed).await?;
            return Err(ApiError::new(Code::InvalidCredentials));
        }
    };
    state.throttle.succeeded(&attempt).await?;
    if verdict == Verdict::Outdated {
        let hash = state.hasher.hash(&body.password).map_err(hashing_failed)?;
        store::rehash(&state.accounts, &credentials, &hash).await?;
    }
    let login = Login::of(&state, credentials.account)?;
    store::begin_session(&state.accounts, &login.session).await?;
    let account = Some(&login.account.account_id);
    trail.account(Action::Login, account, Outcome::Ok).await?;
    login.answer(&state).await.map(Json)
}

#[derive(Deserialize)]
pub(super) struct RefreshBody {
    refresh_token: String,
}

/// Exchanges a refresh token for its successor and a new access token.
pub(super) async fn refresh(
    State(state): State<AppState>,
    trail: Trail,
    JsonBody(body): JsonBody<RefreshBody>,
) -> Result<Json<LoginBody>, ApiError> {
    let refused = || ApiError::new(Code::InvalidRefreshToken);
    let used: RefreshToken = body.refresh_token.parse().map_err(|_| refused())?;
    let (account, session) = state.accounts.account_and_session(&used.account, &used.session).await?;
    let (Some(account), Some(mut session)) = (account, session) else {
        return Err(refused());
    };
    let client_hash = client_hash(&trail.source, &used.session);
    // At most twice: the session may have changed between the look at it and the write, which tells what is there now.
    for _ in 0..2 {
        let now = UtcTime::now();
        if !session.is_valid(account.generation, now) {
            return Err(refused());
        }
        match session.refresh.judge(&used.hash(), &client_hash, now) {
            Presented::Current => {}
            Presented::Again => {
                let token = successor_again(&state, &used, &session).await?.ok_or_else(refused)?;
                return answer(&state, account, session, token).await;
            }
            Presented::Reused => {
                tracing::warn!(
                    event = "refresh_token_reused",
                    account_id = %session.account_id,
                    session_id = %session.session_id,
                    "a refresh token was used again: its session is ended"
                );
                store::end_session(&state.accounts, &session, now).await?;
                trail
                    .account(Action::RefreshReuse, Some(&session.account_id), Outcome::Failed)
                    .await?;
                return Err(refused());
            }
        }
        let keys = state.authenticator.keys().await?;
        let token = used.successor(keys.current.expose().as_bytes()).map_err(no_token)?;
        session.refresh = Refresh {
            token_hash: token.hash(),
            last: Some(Rotation {
                token_hash: used.hash(),
                client_hash: client_hash.clone(),
                rotated_at: now,
            }),
        };
        match store::rotate(&state.accounts, &session, &used.hash()).await? {
            Write::Done(()) => return answer(&state, account, session, token).await,
            Write::Refused(Some(item)) => session = from_item(item)?,
            Write::Refused(None) => return Err(refused()),
        }
    }
    Err(ApiError::new(Code::ServiceUnavailable))
}

async fn answer(
    state: &AppState,
    account: Account,
    session: Session,
    token: RefreshToken,
) -> Result<Json<LoginBody>, ApiError> {
    let login = Login {
        account,
        session,
        token,
    };
    login.answer(state).await.map(Json)
}

/// The successor that the token got when it was first used: with the key of then, maybe in another process, which may have
/// known a newer one or none so new.
async fn successor_again(
    state: &AppState,
    used: &RefreshToken,
    session: &Session,
) -> Result<Option<RefreshToken>, ApiError> {
    let keys = state.authenticator.newest_keys().await?;
    for key in keys.all() {
        let token = used.successor(key.expose().as_bytes()).map_err(no_token)?;
        if token.hash() == session.refresh.token_hash {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

pub(super) async fn logout(
    State(state): State<AppState>,
    caller: Caller,
    trail: Trail,
) -> Result<StatusCode, ApiError> {
    store::end_session(&state.accounts, &caller.session, UtcTime::now()).await?;
    trail
        .account(Action::Logout, Some(&caller.account.account_id), Outcome::Ok)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
