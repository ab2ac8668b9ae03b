//! Which program is calling, as far as that can be known.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use lambda_http::{RequestExt as _, request::RequestContext};
use reelay_core::domain::id::SessionId;
use sha2::{Digest as _, Sha256};

/// Address and program, as API Gateway saw them; what the caller writes into `X-Forwarded-For` is not looked at.
pub(crate) struct Client {
    source_ip: String,
    user_agent: String,
}

impl Client {
    /// A digest to compare clients by within a session. Across sessions it says nothing.
    pub(crate) fn hash(&self, session: &SessionId) -> String {
        let digest = Sha256::new()
            .chain_update(session.as_str())
            .chain_update([0])
            .chain_update(&self.source_ip)
            .chain_update([0])
            .chain_update(&self.user_agent)
            .finalize();
        hex::encode(digest)
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let http = match parts.request_context_ref() {
            Some(RequestContext::ApiGatewayV2(context)) => Some(&context.http),
            _ => None,
        };
        let text = |value: Option<&Option<String>>| value.cloned().flatten().unwrap_or_default();
        Ok(Self {
            source_ip: text(http.map(|http| &http.source_ip)),
            user_agent: text(http.map(|http| &http.user_agent)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_program_or_session_is_another_client() {
        let client = |source_ip: &str, user_agent: &str| Client {
            source_ip: source_ip.into(),
            user_agent: user_agent.into(),
        };
        let session = SessionId::generate();
        let hash = |source_ip: &str, user_agent: &str| client(source_ip, user_agent).hash(&session);
        assert_eq!(hash("192.0.2.1", "curl"), hash("192.0.2.1", "curl"));
        assert_ne!(hash("192.0.2.1", "curl"), hash("192.0.2.2", "curl"));
        assert_ne!(hash("192.0.2.1", "curl"), hash("192.0.2.1", "wget"));
        assert_ne!(hash("192.0.2.1", "curl"), hash("192.0.2.1c", "url"));
        assert_ne!(
            hash("192.0.2.1", "curl"),
            client("192.0.2.1", "curl").hash(&SessionId::generate())
        );
    }
}
