//! Accounts: who gets in, with what, and what ends it.

mod passwords;
mod profiles;
mod rotation;
mod sessions;
mod tokens;

use anyhow::Result;
use e2e::{Account, Answer, Harness};
use reqwest::Method;
use serde_json::{Value, json};

/// An address that nobody has.
fn address() -> String {
    format!("e2e-{}@example.org", uuid::Uuid::new_v4().simple())
}

/// Registers an address with a password.
async fn register(harness: &Harness, email: &str, password: &str, expected: u16) -> Result<Answer> {
    let body = json!({"email": email, "password": password});
    harness.post("/auth/register", &body, expected).await
}

/// Sends a request with a token.
async fn send(
    harness: &Harness,
    token: &str,
    method: Method,
    path: &str,
    body: &Value,
    expected: u16,
) -> Result<Answer> {
    let request = harness.request(method, &harness.url(path)?).bearer_auth(token);
    harness.send(request.json(body), expected).await
}

/// Looks whether a token works, at two functions.
async fn works(harness: &Harness, token: &str, expected: u16) -> Result<()> {
    for path in ["/auth/me", "/jobs"] {
        let request = harness.request(Method::GET, &harness.url(path)?).bearer_auth(token);
        let answer = harness.send(request, expected).await?;
        if expected == 401 {
            answer.problem("unauthenticated")?;
        }
    }
    Ok(())
}

/// The tokens of a session.
#[derive(Clone, Debug)]
struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    fn of(answer: &Answer) -> Result<Self> {
        Ok(Self {
            access: answer.text("/access_token")?,
            refresh: answer.text("/refresh_token")?,
        })
    }

    /// One more session of an account.
    async fn new(account: &Account<'_>) -> Result<Self> {
        let harness = account.harness;
        Self::of(&harness.sign_in(&account.email, e2e::harness::PASSWORD, 200).await?)
    }
}

async fn refresh(harness: &Harness, token: &str, expected: u16) -> Result<Answer> {
    let answer = harness
        .post("/auth/refresh", &json!({"refresh_token": token}), expected)
        .await?;
    if expected == 401 {
        answer.problem("invalid_refresh_token")?;
    }
    Ok(answer)
}
