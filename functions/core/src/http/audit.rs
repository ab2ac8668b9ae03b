//! Audit entries of what a request did: one line in a handler.
//!
//! An entry is written after the deed and before its answer. What happens when that fails is decided by what the deed is:
//!
//! - **Accounts** ([`Trail::account`]): the request fails with 503. A login whose entry is lost hands out no token, and
//!   whoever guesses passwords cannot do it unseen by overloading the table.
//! - **Jobs** ([`Trail::job`]): the deed stands and says so itself, in the jobs table. The request succeeds, and the
//!   entry goes to the log as an error with the code `audit_lost`, whole, so that it can be put back.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{ApiError, Caller, Code, source::Source};
use crate::{
    adapters::audit::AuditLog,
    domain::{
        audit::{Action, Entry, Outcome},
        id::{AccountId, JobId},
        time::UtcTime,
    },
};

/// What a handler leaves entries with.
#[derive(Debug, Clone)]
pub struct Trail {
    log: Arc<AuditLog>,
    /// Where the request comes from.
    pub source: Source,
}

impl Trail {
    pub(super) fn new(log: Arc<AuditLog>, source: Source) -> Self {
        Self { log, source }
    }

    /// Notes what was done to an account, or tried. `account` is none for an address that has none.
    pub async fn account(&self, action: Action, account: Option<&AccountId>, outcome: Outcome) -> Result<(), ApiError> {
        let entry = self.entry(action, account, None, outcome);
        Ok(self.log.record(&entry).await?)
    }

    /// Notes what its owner did to a job.
    pub async fn job(&self, action: Action, caller: &Caller, job: &JobId) {
        let account = Some(&caller.account.account_id);
        let entry = self.entry(action, account, Some(job.to_string()), Outcome::Ok);
        if let Err(error) = self.log.record(&entry).await {
            tracing::error!(
                code = "audit_lost",
                %error,
                action = entry.action.as_str(),
                outcome = entry.outcome.as_str(),
                account_id = %caller.account.account_id,
                job_id = %job,
                at = %entry.at,
                source_address = entry.source_address,
                user_agent = entry.user_agent,
                request_id = entry.request_id,
                "an audit entry could not be stored"
            );
        }
    }

    fn entry(&self, action: Action, account: Option<&AccountId>, resource: Option<String>, outcome: Outcome) -> Entry {
        Entry {
            at: UtcTime::now(),
            action,
            outcome,
            account_id: account.cloned(),
            resource,
            source_address: self.source.address.clone(),
            user_agent: self.source.user_agent.clone(),
            request_id: self.source.request_id.clone(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Trail {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(code = "no_trail", "a request came around the router");
            ApiError::new(Code::InternalError)
        })
    }
}
