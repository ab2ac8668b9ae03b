//! Rate limits at the edge. [`router::serve`](super::router::serve) gives each request a [`Meter`]; whoever finds out who
//! is calling charges it: the router itself for those who are about to sign in, [`Caller`](super::Caller) for all others.
//! So no route that knows its caller can be forgotten. When the count cannot be written, the request is refused.
//!
//! The answer says where the caller stands, in the fields of draft-ietf-httpapi-ratelimit-headers.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

use super::{ApiError, Code};
use crate::{
    adapters::{accounts::AccountsTable, windows},
    config::Env,
    domain::{
        limits::{Class, Quota, Standing},
        time::UtcTime,
    },
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How many requests of each class a caller may make.
#[derive(Debug)]
pub struct Limits {
    table: AccountsTable,
    window_seconds: u32,
    sign_in: u32,
    create: u32,
    write: u32,
    read: u32,
}

impl Limits {
    /// Reads the limits from the environment.
    pub fn from_env(env: &mut Env, table: AccountsTable) -> Option<Self> {
        let window_seconds = env.required("RATE_WINDOW_SECONDS");
        let (sign_in, create) = (env.required("SIGN_IN_LIMIT"), env.required("CREATE_LIMIT"));
        let (write, read) = (env.required("WRITE_LIMIT"), env.required("READ_LIMIT"));
        Some(Self {
            table,
            window_seconds: window_seconds?,
            sign_in: sign_in?,
            create: create?,
            write: write?,
            read: read?,
        })
    }

    fn quota(&self, class: Class) -> Quota {
        let limit = match class {
            Class::SignIn => self.sign_in,
            Class::Create => self.create,
            Class::Write => self.write,
            Class::Read => self.read,
        };
        Quota {
            limit,
            window_seconds: self.window_seconds,
        }
    }
}

/// What a request is counted with.
#[derive(Debug, Clone)]
pub struct Meter {
    limits: Arc<Limits>,
    /// What the request counts as.
    pub class: Class,
    standing: Arc<Mutex<Option<Standing>>>,
}

impl Meter {
    pub(super) fn new(limits: Arc<Limits>, class: Class) -> Self {
        Self {
            limits,
            class,
            standing: Arc::default(),
        }
    }

    /// Counts the request for this subject, or refuses it.
    pub(super) async fn charge(&self, subject: &str) -> Result<(), ApiError> {
        let quota = self.limits.quota(self.class);
        let standing = windows::take(&self.limits.table, self.class, subject, quota, UtcTime::now()).await?;
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
        if standing.admitted {
            return Ok(());
        }
        let (class, limit, seconds) = (self.class.as_str(), quota.limit, quota.window_seconds);
        Err(ApiError::new(Code::RateLimited)
            .detail(format!("at most {limit} requests of the class {class} in {seconds} s"))
            .retry_after(standing.resets_in_seconds))
    }

    /// Tells the client where it stands, once that is known.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let Some(standing) = *self.standing.lock().unwrap_or_else(PoisonError::into_inner) else {
            return;
        };
        let Standing { class, quota, .. } = standing;
        let (class, left, resets) = (class.as_str(), standing.remaining, standing.resets_in_seconds);
        for (name, text) in [
            (RATE_LIMIT, format!("\"{class}\";r={left};t={resets}")),
            (
                RATE_LIMIT_POLICY,
                format!("\"{class}\";q={};w={}", quota.limit, quota.window_seconds),
            ),
        ] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Counts a request for whoever turned out to make it.
pub(super) async fn charge(parts: &Parts, subject: &str) -> Result<(), ApiError> {
    if let Some(meter) = parts.extensions.get::<Meter>() {
        return meter.charge(subject).await;
    }
    tracing::error!(code = "no_meter", "a request came around the router");
    Err(ApiError::new(Code::InternalError))
}
