//! The HTTP edge: everything that knows status codes, headers and bearer tokens.
//!
//! Handlers return [`ApiError`] with `?`; [`router::serve`] renders it as the outermost step, once.

pub mod auth;
pub mod body;
pub mod contract;
pub mod error;
pub mod query;
pub mod router;
pub mod routes;
pub mod view;

pub use auth::{Authenticator, Caller};
pub use body::JsonBody;
pub use error::{ApiError, Code};
pub use query::QueryOf;
