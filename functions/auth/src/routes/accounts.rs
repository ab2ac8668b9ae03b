//! Routes about an account: register, look at it, change its password, delete it.

use axum::{Json, extract::State, http::StatusCode};
use reelay_core::{
    domain::{
        account::{Account, Role, normalise_email},
        audit::{Action, Outcome},
        create::FieldError,
        id::AccountId,
        time::UtcTime,
    },
    http::{ApiError, Caller, Code, JsonBody, Trail, throttle},
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
    trail: Trail,
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
    trail
        .account(Action::Register, Some(&account.account_id), Outcome::Ok)
        .await?;
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
    trail: Trail,
    JsonBody(body): JsonBody<PasswordChange>,
) -> Result<Json<LoginBody>, ApiError> {
    let mut account = caller.account;
    password::check("/new_password", &body.new_password, &account.email)
        .map_err(|weak| ApiError::fields(vec![weak]))?;
    let old_hash = confirm(&state, &trail, Action::ChangePassword, &account, &body.current_password).await?;
    let new_hash = state.hasher.hash(&body.new_password).map_err(hashing_failed)?;
    account.generation += 1;
    let login = Login::of(&state, account)?;
    if !store::change_password(&state.accounts, &login.session, &old_hash, &new_hash).await? {
        // Another change, or the account's end, came first: it ended the caller's session too.
        return Err(ApiError::new(Code::Unauthenticated));
    }
    tracing::info!(account_id = %login.account.account_id, "the password was changed");
    let account = Some(&login.account.account_id);
    trail.account(Action::ChangePassword, account, Outcome::Ok).await?;
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
    trail: Trail,
    JsonBody(body): JsonBody<Deletion>,
) -> Result<StatusCode, ApiError> {
    let account = &caller.account;
    let hash = confirm(&state, &trail, Action::DeleteAccount, account, &body.password).await?;
    if !store::delete(&state.accounts, account, &hash, UtcTime::now()).await? {
        return Err(ApiError::new(Code::Unauthenticated));
    }
    tracing::info!(account_id = %account.account_id, "the account was deleted");
    trail
        .account(Action::DeleteAccount, Some(&account.account_id), Outcome::Ok)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the caller prove once more who it is; returns the stored hash, which the write that follows is bound to. Guesses
/// count like those of a login.
async fn confirm(
    state: &AppState,
    trail: &Trail,
    action: Action,
    account: &Account,
    password: &str,
) -> Result<String, ApiError> {
    let attempt = throttle::begin(&state.throttle, &account.email, &trail.source.subject(), UtcTime::now()).await?;
    let stored = store::by_id(&state.accounts, &account.account_id).await?;
    let hash = stored
        .map(|credentials| credentials.password_hash)
        .ok_or(ApiError::new(Code::Unauthenticated))?;
    match state.hasher.verify(password, Some(&hash)).map_err(hashing_failed)? {
        Verdict::Wrong => {
            state.throttle.failed(&attempt, UtcTime::now()).await?;
            trail
                .account(action, Some(&account.account_id), Outcome::Failed)
                .await?;
            Err(ApiError::new(Code::InvalidCredentials))
        }
        Verdict::Right | Verdict::Outdated => {
            state.throttle.succeeded(&attempt).await?;
            Ok(hash)
        }
    }
}
