//! The HTTP edge: everything that knows status codes, headers and bearer tokens.
//!
//! Handlers return [`ApiError`] with `?`; [`router::serve`] renders it as the outermost step, once.

pub mod audit;
pub mod auth;
pub mod body;
pub mod contract;
pub mod edge;
pub mod error;
pub mod etag;
pub mod limits;
pub mod operator;
pub mod query;
pub mod router;
pub mod routes;
pub mod source;
pub mod throttle;
pub mod view;

pub use audit::Trail;
pub use auth::{Authenticator, Caller};
pub use body::{JsonBody, JsonText};
pub use edge::Edge;
pub use error::{ApiError, Code};
pub use operator::Operator;
pub use query::QueryOf;
pub use source::Source;
