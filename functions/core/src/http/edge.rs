//! What all functions behind the API have in common: who is calling, how often they may, and what is noted of it.

use std::sync::Arc;

use aws_config::SdkConfig;

use super::{Authenticator, limits::Limits};
use crate::{
    adapters::{accounts::AccountsTable, audit::AuditLog},
    config::Env,
};

/// Made once, at start.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The accounts table.
    pub accounts: AccountsTable,
    /// Checks tokens.
    pub authenticator: Arc<Authenticator>,
    /// Counts requests.
    pub limits: Arc<Limits>,
    /// Keeps audit entries.
    pub audit: Arc<AuditLog>,
}

impl Edge {
    /// Reads what all these functions are given.
    pub fn from_env(env: &mut Env, sdk: &SdkConfig) -> Option<Self> {
        let table = env.required("ACCOUNTS_TABLE");
        let secret = env.required("SIGNING_KEY_SECRET");
        let retention_days = env.required("AUDIT_RETENTION_DAYS");
        // An absent table has been noted; the others are read all the same, so that all mistakes are told at once.
        let accounts = AccountsTable::new(sdk, table.clone().unwrap_or_default());
        let limits = Limits::from_env(env, accounts.clone());
        table.as_ref()?;
        Some(Self {
            authenticator: Arc::new(Authenticator::new(sdk, secret?, accounts.clone())),
            limits: Arc::new(limits?),
            audit: Arc::new(AuditLog::new(accounts.clone(), retention_days?)),
            accounts,
        })
    }
}
