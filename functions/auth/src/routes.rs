//! The account routes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, State},
    http::StatusCode,
    routing::{get, post},
};
use reelay_core::{
    adapters::{accounts::AccountsTable, throttle::LoginThrottle},
    domain::{
        account::{Account, Role, Session, normalise_email, validate_registration},
        audit::{Action, Outcome},
        id::{AccountId, SessionId},
        time::UtcTime,
    },
    http::{ApiError, Authenticator, Caller, Code, Edge, JsonBody, Trail, throttle},
};
use serde::{Deserialize, Serialize};

use crate::{
    password::{self, HashError},
    store,
};

#[derive(Clone)]
struct AppState {
    authenticator: Arc<Authenticator>,
    accounts: AccountsTable,
    throttle: LoginThrottle,
    token_lifetime: Duration,
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.authenticator)
    }
}

pub(crate) fn routes(edge: &Edge, throttle: LoginThrottle, token_lifetime: Duration) -> Router {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/login", post(login))
        .route("/auth/logout", post(logout))
        .route("/auth/me", get(me))
        .with_state(AppState {
            authenticator: Arc::clone(&edge.authenticator),
            accounts: edge.accounts.clone(),
            throttle,
            token_lifetime,
        })
}

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

#[derive(Serialize)]
struct AccountView {
    id: AccountId,
    email: String,
    role: Role,
    created_at: UtcTime,
}

#[derive(Serialize)]
struct AccountBody {
    account: AccountView,
}

#[derive(Serialize)]
struct LoginBody {
    access_token: String,
    token_type: &'static str,
    expires_in_seconds: u64,
    account: AccountView,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.account_id,
            email: account.email,
            role: account.role,
            created_at: account.created_at,
        }
    }
}

fn hashing_failed(error: HashError) -> ApiError {
    tracing::error!(%error, code = error.code(), "hashing failed");
    ApiError::new(Code::InternalError)
}

async fn register(
    State(state): State<AppState>,
    trail: Trail,
    JsonBody(body): JsonBody<Credentials>,
) -> Result<(StatusCode, Json<AccountBody>), ApiError> {
    let email = validate_registration(&body.email, &body.password).map_err(ApiError::fields)?;
    let hash = password::hash(&body.password).map_err(hashing_failed)?;
    let account = Account {
        account_id: AccountId::generate(),
        email,
        role: Role::User,
        generation: 1,
        created_at: UtcTime::now(),
    };
    if !store::create(&state.accounts, &account, &hash).await? {
        return Err(ApiError::new(Code::EmailTaken));
    }
    trail
        .account(Action::Register, Some(&account.account_id), Outcome::Ok)
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(AccountBody {
            account: account.into(),
        }),
    ))
}

async fn login(
    State(state): State<AppState>,
    trail: Trail,
    JsonBody(body): JsonBody<Credentials>,
) -> Result<Json<LoginBody>, ApiError> {
    let source = trail.source.subject();
    let attempt = throttle::begin(&state.throttle, &body.email, &source, UtcTime::now()).await?;
    let found = match normalise_email(&body.email) {
        Some(email) => store::by_email(&state.accounts, &email).await?,
        None => None,
    };
    let stored = found.as_ref().map(|credentials| credentials.password_hash.as_str());
    let matches = password::verify(&body.password, stored).map_err(hashing_failed)?;
    let now = UtcTime::now();
    let account = match found {
        Some(credentials) if matches => credentials.account,
        found => {
            state.throttle.failed(&attempt, now).await?;
            let account = found.as_ref().map(|credentials| &credentials.account.account_id);
            trail.account(Action::Login, account, Outcome::Failed).await?;
            return Err(ApiError::new(Code::InvalidCredentials));
        }
    };
    state.throttle.succeeded(&attempt).await?;

    let session = Session {
        session_id: SessionId::generate(),
        account_id: account.account_id.clone(),
        generation: account.generation,
        created_at: now,
        expires_at: now.plus(state.token_lifetime).epoch_seconds(),
    };
    store::begin_session(&state.accounts, &session).await?;
    trail
        .account(Action::Login, Some(&account.account_id), Outcome::Ok)
        .await?;
    Ok(Json(LoginBody {
        access_token: state.authenticator.issue(&session, now, state.token_lifetime).await?,
        token_type: "Bearer",
        expires_in_seconds: state.token_lifetime.as_secs(),
        account: account.into(),
    }))
}

async fn logout(State(state): State<AppState>, caller: Caller, trail: Trail) -> Result<StatusCode, ApiError> {
    store::end_session(&state.accounts, &caller.session).await?;
    trail
        .account(Action::Logout, Some(&caller.account.account_id), Outcome::Ok)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(caller: Caller) -> Json<AccountBody> {
    Json(AccountBody {
        account: caller.account.into(),
    })
}
