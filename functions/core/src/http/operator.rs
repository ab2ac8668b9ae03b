//! Routes for operators.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
};

use super::{ApiError, Authenticator, Caller, Code};
use crate::domain::account::Role;

/// A signed-in operator. As a handler's argument it refuses everybody else, whoever they are first and what they may do
/// second. The role is the account's own at this moment, not one that a token once said.
#[derive(Debug, Clone)]
pub struct Operator(pub Caller);

impl<S> FromRequestParts<S> for Operator
where
    Arc<Authenticator>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        match caller.account.role {
            Role::Operator => Ok(Self(caller)),
            Role::User => Err(ApiError::new(Code::Forbidden)),
        }
    }
}
