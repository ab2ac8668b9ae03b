//! The one library of Reelay's functions.
//!
//! [`domain`] decides and knows nothing of the outside; it is always compiled. Everything else is a feature, so that a
//! function links only what it needs:
//!
//! ```text
//! domain  <-  adapters (dynamodb, s3, sqs, ses, secrets)  <-  http, batch  <-  functions
//! ```
//!
//! An adapter's public methods speak in domain types and say which condition makes each write safe; SDK types never
//! cross them. They are concrete types: the tests run them against a real endpoint, so a trait in front would have one
//! implementation and say nothing more.

pub mod domain;

#[cfg(feature = "aws")]
pub mod adapters;
#[cfg(feature = "batch")]
pub mod batch;
#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "runtime")]
pub mod telemetry;
