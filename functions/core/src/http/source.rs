//! Where a request comes from, as API Gateway saw it. What the client says of itself, `X-Forwarded-For` above all, decides
//! nothing.

use std::net::IpAddr;

use axum::extract::Request;
use lambda_http::{RequestExt as _, request::RequestContext};

use crate::domain::audit::plain;

/// A request's origin.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its IP address.
    pub address: String,
    /// What the client calls itself, made harmless.
    pub user_agent: String,
    /// The request's id.
    pub request_id: String,
}

impl Source {
    /// Reads API Gateway's context of a request.
    pub(super) fn of(request: &Request) -> Self {
        match request.request_context_ref() {
            Some(RequestContext::ApiGatewayV2(context)) => Self {
                address: context.http.source_ip.clone().unwrap_or_default(),
                user_agent: plain(context.http.user_agent.as_deref().unwrap_or_default()),
                request_id: context.request_id.clone().unwrap_or_default(),
            },
            _ => Self::default(),
        }
    }

    /// Whom this counts as: an IPv4 address, or the network that an IPv6 address is in, since whoever has one of those
    /// has all of them. Without an address, all are one.
    #[must_use]
    pub fn subject(&self) -> String {
        let Ok(address) = self.address.parse::<IpAddr>() else {
            return "unknown".to_owned();
        };
        match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let subject = |address: &str| {
            let source = Source {
                address: address.into(),
                ..Source::default()
            };
            source.subject()
        };
        assert_eq!(subject("203.0.113.7"), "203.0.113.7");
        assert_eq!(subject("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(subject("2001:db8:1:2:3:4:5:6"), subject("2001:db8:1:2::1"));
        assert_ne!(subject("2001:db8:1:2::1"), subject("2001:db8:1:3::1"));
        assert_eq!(subject(""), "unknown");
        assert_eq!(subject("203.0.113.7, 1.1.1.1"), "unknown");
    }
}
