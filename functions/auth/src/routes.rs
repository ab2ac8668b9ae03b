//! The account routes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, State},
    http::StatusCode,
};
use reelay_core::{
    adapters::accounts::AccountsTable,
    domain::{
        account::{Account, Role, Session, normalise_email, validate_registration},
        id::{AccountId, SessionId},
        time::UtcTime,
    },
    http::{
        ApiError, Authenticator, Caller, Code, JsonBody,
        routes::{Routes, get, post},
    },
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
    token_lifetime: Duration,
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.authenticator)
    }
}

pub(crate) fn routes(authenticator: Authenticator, accounts: AccountsTable, token_lifetime: Duration) -> Router {
    table().with_state(AppState {
        authenticator: Arc::new(authenticator),
        accounts,
        token_lifetime,
    })
}

fn table() -> Routes<AppState> {
    Routes::new()
        .route("/auth/register", post(register))
        .route("/auth/login", post(login))
        .route("/auth/logout", post(logout))
        .route("/auth/me", get(me))
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
    Ok((
        StatusCode::CREATED,
        Json(AccountBody {
            account: account.into(),
        }),
    ))
}

async fn login(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<Credentials>,
) -> Result<Json<LoginBody>, ApiError> {
    let found = match normalise_email(&body.email) {
        Some(email) => store::by_email(&state.accounts, &email).await?,
        None => None,
    };
    let stored = found.as_ref().map(|credentials| credentials.password_hash.as_str());
    let matches = password::verify(&body.password, stored).map_err(hashing_failed)?;
    let account = match found {
        Some(credentials) if matches => credentials.account,
        _ => return Err(ApiError::new(Code::InvalidCredentials)),
    };

    let now = UtcTime::now();
    let session = Session {
        session_id: SessionId::generate(),
        account_id: account.account_id.clone(),
        generation: account.generation,
        created_at: now,
        expires_at: now.plus(state.token_lifetime).epoch_seconds(),
    };
    store::begin_session(&state.accounts, &session).await?;
    Ok(Json(LoginBody {
        access_token: state.authenticator.issue(&session, now, state.token_lifetime).await?,
        token_type: "Bearer",
        expires_in_seconds: state.token_lifetime.as_secs(),
        account: account.into(),
    }))
}

async fn logout(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, ApiError> {
    store::end_session(&state.accounts, &caller.session).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn me(caller: Caller) -> Json<AccountBody> {
    Json(AccountBody {
        account: caller.account.into(),
    })
}

#[cfg(test)]
mod tests {
    use reelay_core::http::contract::routes_of;

    use super::*;

    #[test]
    fn the_routes_are_those_of_the_contract() {
        assert_eq!(
            table().list().collect::<std::collections::BTreeSet<_>>(),
            routes_of("auth")
        );
    }
}
