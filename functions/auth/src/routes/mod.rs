//! The account routes.

mod accounts;
mod sessions;

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::FromRef};
use reelay_core::{
    adapters::{accounts::AccountsTable, throttle::LoginThrottle},
    domain::{
        account::{Account, Role},
        id::AccountId,
        time::UtcTime,
    },
    http::{
        ApiError, Authenticator, Code,
        routes::{Routes, get, post},
    },
};
use serde::Serialize;

use crate::{
    password::{HashError, Hasher},
    refresh::TokenError,
};

/// What the routes need.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) accounts: AccountsTable,
    pub(crate) throttle: LoginThrottle,
    pub(crate) hasher: Hasher,
    pub(crate) access_lifetime: Duration,
    /// From login to the end of a session, however often it is refreshed.
    pub(crate) session_lifetime: Duration,
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Self::clone(&state.authenticator)
    }
}

pub(crate) fn routes(state: AppState) -> Router {
    table().with_state(state)
}

fn table() -> Routes<AppState> {
    Routes::new()
        .route("/auth/register", post(accounts::register))
        .route("/auth/login", post(sessions::login))
        .route("/auth/refresh", post(sessions::refresh))
        .route("/auth/logout", post(sessions::logout))
        .route("/auth/change-password", post(accounts::change_password))
        .route("/auth/me", get(accounts::me).delete(accounts::delete))
}

/// An account as its owner sees it.
#[derive(Serialize)]
struct AccountView {
    id: AccountId,
    email: String,
    role: Role,
    created_at: UtcTime,
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

fn no_token(error: TokenError) -> ApiError {
    tracing::error!(%error, "a refresh token could not be made");
    ApiError::new(Code::InternalError)
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
