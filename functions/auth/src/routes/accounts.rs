//! Routes about an account: register, look at it, change its password, delete it.

use axum::{Json, extract::State, http::StatusCode};
use reelay_core::{
    domain::{
        account::{Account, Role, normalise_email},
        create::FieldError,
        id::AccountId,
        time::UtcTime,
    },
    http::{ApiError, Caller, Code, JsonBody},
};
use serde::{Deserialize, Serialize};

use super::{
    AccountView, AppState, hashing_failed,
    sessions::{Login, LoginBody},
};
use crate::{
    password::{self, Verdict},
    store,
};

#[derive(Serialize)]
pub(super) struct AccountBody {
    account: AccountView,
}

impl From<Account> for AccountBody {
    fn from(account: Account) -> Self {
        Self {
            account: account.into(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Registration {
    email: String,
    password: String,
}

pub(super) async fn register(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<Registration>,
) -> Result<(StatusCode, Json<AccountBody>), ApiError> {
    let email = normalise_email(&body.email);
    let no_email = FieldError::new("/email", "must be an e-mail address");
    let weak = password::check("/password", &body.password, email.as_deref().unwrap_or_default()).err();
    let email = match (email, weak) {
        (Some(email), None) => email,
        (Some(_), Some(weak)) => return Err(ApiError::fields(vec![weak])),
        (None, weak) => return Err(ApiError::fields([no_email].into_iter().chain(weak).collect())),
    };
    let hash = state.hasher.hash(&body.password).map_err(hashing_failed)?;
    // Nothing of it comes from the caller but the address.
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
    Ok((StatusCode::CREATED, Json(account.into())))
}

pub(super) async fn me(caller: Caller) -> Json<AccountBody> {
    Json(caller.account.into())
}

#[derive(Deserialize)]
pub(super) struct PasswordChange {
    current_password: String,
    new_password: String,
}

/// Changes the password. Every token from before is refused from then on, the caller's own too: the answer is a new login.
pub(super) async fn change_password(
    State(state): State<AppState>,
    caller: Caller,
    JsonBody(body): JsonBody<PasswordChange>,
) -> Result<Json<LoginBody>, ApiError> {
    let mut account = caller.account;
    password::check("/new_password", &body.new_password, &account.email)
        .map_err(|weak| ApiError::fields(vec![weak]))?;
    let old_hash = confirm(&state, &account, &body.current_password).await?;
    let new_hash = state.hasher.hash(&body.new_password).map_err(hashing_failed)?;
    account.generation += 1;
    let login = Login::of(&state, account)?;
    if !store::change_password(&state.accounts, &login.session, &old_hash, &new_hash).await? {
        // Another change, or the account's end, came first: it ended the caller's session too.
        return Err(ApiError::new(Code::Unauthenticated));
    }
    tracing::info!(account_id = %login.account.account_id, "the password was changed");
    login.answer(&state).await.map(Json)
}

#[derive(Deserialize)]
pub(super) struct Deletion {
    password: String,
}

/// Deletes the account: nobody is signed in to it from then on, and its address is free.
pub(super) async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    JsonBody(body): JsonBody<Deletion>,
) -> Result<StatusCode, ApiError> {
    let hash = confirm(&state, &caller.account, &body.password).await?;
    if !store::delete(&state.accounts, &caller.account, &hash, UtcTime::now()).await? {
        return Err(ApiError::new(Code::Unauthenticated));
    }
    tracing::info!(account_id = %caller.account.account_id, "the account was deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Has the caller prove once more who it is; returns the stored hash, which the write that follows is bound to.
async fn confirm(state: &AppState, account: &Account, password: &str) -> Result<String, ApiError> {
    let stored = store::by_id(&state.accounts, &account.account_id).await?;
    let hash = stored
        .map(|credentials| credentials.password_hash)
        .ok_or(ApiError::new(Code::Unauthenticated))?;
    match state.hasher.verify(password, Some(&hash)).map_err(hashing_failed)? {
        Verdict::Wrong => Err(ApiError::new(Code::InvalidCredentials)),
        Verdict::Right | Verdict::Outdated => Ok(hash),
    }
}
