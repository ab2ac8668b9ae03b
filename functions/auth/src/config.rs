//! What the function is given.

use std::{sync::Arc, time::Duration};

use reelay_core::{
    adapters::{
        SdkConfig,
        throttle::{FreeFailures, LoginThrottle},
    },
    config::Env,
    http::Edge,
};

use crate::{
    password::{HashError, Hasher},
    routes::AppState,
};

/// Read once, at start.
pub(crate) struct Config {
    pub(crate) edge: Edge,
    free_failures: FreeFailures,
    access_seconds: u64,
    session_seconds: u64,
    memory_kib: u32,
    passes: u32,
}

impl Config {
    pub(crate) fn from_env(env: &mut Env, sdk: &SdkConfig) -> Option<Self> {
        let edge = Edge::from_env(env, sdk);
        let of_address = env.required("ADDRESS_FREE_FAILURES");
        let of_source = env.required("SOURCE_FREE_FAILURES");
        let access_seconds = env.required("ACCESS_TOKEN_SECONDS");
        let session_seconds = env.required("REFRESH_TOKEN_SECONDS");
        let memory_kib = env.required("HASH_MEMORY_KIB");
        let passes = env.required("HASH_PASSES");
        Some(Self {
            edge: edge?,
            free_failures: FreeFailures {
                of_address: of_address?,
                of_source: of_source?,
            },
            access_seconds: access_seconds?,
            session_seconds: session_seconds?,
            memory_kib: memory_kib?,
            passes: passes?,
        })
    }

    /// What the routes need.
    pub(crate) fn state(&self) -> Result<AppState, HashError> {
        Ok(AppState {
            authenticator: Arc::clone(&self.edge.authenticator),
            accounts: self.edge.accounts.clone(),
            throttle: LoginThrottle::new(self.edge.accounts.clone(), self.free_failures),
            hasher: Hasher::new(self.memory_kib, self.passes)?,
            access_lifetime: Duration::from_secs(self.access_seconds),
            session_lifetime: Duration::from_secs(self.session_seconds),
        })
    }
}
