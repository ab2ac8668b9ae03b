//! Access tokens that are none of ours, or no longer.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{Answer, Harness};
use hmac::{Hmac, KeyInit, Mac};
use reelay_core::adapters::secrets::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

use super::works;

/// A key that is not the stack's.
const ATTACKER: &str = "a key of somebody else, long enough for HS256";

/// Makes tokens as the stack does, and as it does not.
pub(super) struct Forge {
    key: String,
    head: Value,
    claims: Value,
}

impl Forge {
    /// With the stack's own key, for the session of a token of its own.
    pub(super) async fn open(harness: &Harness, token: &str) -> Result<Self> {
        let environment = harness.function_environment("AUTH_FUNCTION").await?;
        let secret = Secret::new(&harness.sdk, environment["SIGNING_KEY_SECRET"].clone());
        let key = secret.versions().await?.current.expose().to_owned();
        let part = |n: usize| -> Result<Value> {
            let text = token.split('.').nth(n).context("no JWT")?;
            Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text)?)?)
        };
        Ok(Self {
            key,
            head: part(0)?,
            claims: part(1)?,
        })
    }

    /// The same with another key; its name is made as the stack makes it.
    pub(super) fn with_key(mut self, key: &str) -> Self {
        use sha2::Digest as _;
        let digest = Sha256::new().chain_update("reelay key id").chain_update(key).finalize();
        self.head["kid"] = json!(hex::encode(&digest[..8]));
        key.clone_into(&mut self.key);
        self
    }

    pub(super) fn token(&self) -> Result<String> {
        self.signed(&self.head.to_string(), &self.claims.to_string())
    }

    fn with_head(&self, changes: &Value) -> Result<String> {
        self.signed(&merged(&self.head, changes), &self.claims.to_string())
    }

    fn with_claims(&self, changes: &Value) -> Result<String> {
        self.signed(&self.head.to_string(), &merged(&self.claims, changes))
    }

    fn signed(&self, head: &str, claims: &str) -> Result<String> {
        hmac_of::<Hmac<Sha256>>(&self.key, &unsigned(head, claims))
    }
}

/// A text and its signature.
fn hmac_of<M: Mac + KeyInit>(key: &str, text: &str) -> Result<String> {
    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes())?;
    mac.update(text.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Ok(format!("{text}.{signature}"))
}

fn unsigned(head: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims))
}

/// An object with other members; `null` takes one away.
fn merged(object: &Value, changes: &Value) -> String {
    let mut object = object.as_object().cloned().unwrap_or_default();
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    Value::Object(object).to_string()
}

/// An answer without what differs from request to request.
fn shape(answer: &Answer) -> Result<Value> {
    let mut body = answer.problem("unauthenticated")?;
    assert_eq!(answer.header("www-authenticate")?, "Bearer");
    body["request_id"] = json!("");
    Ok(body)
}

/// Tokens that the right key signed over another header.
fn with_other_heads(forge: &Forge) -> Result<Vec<String>> {
    let elsewhere = "https://attacker.example/keys";
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(ATTACKER), "alg": "HS256"});
    let changes = [
        json!({"alg": "none"}),
        json!({"alg": "RS256"}),
        json!({"alg": null}),
        json!({"kid": "../../../../dev/null"}),
        json!({"kid": "x' UNION SELECT 'attacker' -- "}),
        json!({"kid": null}),
        json!({"kid": 1}),
        json!({"jku": elsewhere}),
        json!({"x5u": elsewhere}),
        json!({"jwk": jwk}),
        json!({"crit": ["exp"]}),
        json!({"typ": "JWT"}),
        // What a refresh token would be, were it a JWT.
        json!({"typ": "rt+jwt"}),
        json!({"typ": null}),
    ];
    let mut tokens: Vec<_> = changes
        .iter()
        .map(|change| forge.with_head(change))
        .collect::<Result<_>>()?;
    let twice = forge.head.to_string().replacen('{', r#"{"alg":"none","#, 1);
    tokens.push(forge.signed(&twice, &forge.claims.to_string())?);
    Ok(tokens)
}

/// Tokens that the right key signed over other claims.
fn with_other_claims(forge: &Forge, now: i64) -> Result<Vec<String>> {
    let changes = [
        json!({"aud": "elsewhere"}),
        json!({"aud": null}),
        json!({"iss": "elsewhere"}),
        json!({"iss": null}),
        json!({"exp": null}),
        json!({"exp": "tomorrow"}),
        // The clocks may differ by LEEWAY_SECONDS, 5. The library's own 60 would let the first in.
        json!({"exp": now - 7}),
        json!({"exp": now - 61}),
        json!({"nbf": now + 600}),
        json!({"iat": now + 600}),
        json!({"generation": 0}),
        json!({"generation": 2}),
        json!({"generation": null}),
        json!({"sub": "acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b"}),
        json!({"sub": "account#x"}),
        json!({"sub": null}),
        json!({"sid": format!("sess_{}", "0".repeat(32))}),
        json!({"sid": null}),
        json!({"more": "x".repeat(10_000)}),
    ];
    let mut tokens: Vec<_> = changes
        .iter()
        .map(|change| forge.with_claims(change))
        .collect::<Result<_>>()?;
    let claims = forge.claims.to_string();
    let twice = claims.replacen('{', r#"{"sub":"acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b","#, 1);
    for claims in [&twice, "[]", "null", "{}", ""] {
        tokens.push(forge.signed(&forge.head.to_string(), claims)?);
    }
    Ok(tokens)
}

/// Tokens that another key signed, or none.
fn with_other_signatures(forge: &Forge) -> Result<Vec<String>> {
    let claims = forge.claims.to_string();
    let under = |changes: &Value| unsigned(&merged(&forge.head, changes), &claims);
    let mut tokens = Vec::new();
    for alg in ["none", "None", "NONE", "HS256"] {
        tokens.push(format!("{}.", under(&json!({"alg": alg}))));
    }
    let kid = forge.head["kid"].as_str().context("no kid")?;
    for key in [ATTACKER, kid, ""] {
        for changes in [
            json!({}),
            json!({"jku": "https://attacker.example/keys"}),
            json!({"kid": "attacker"}),
        ] {
            tokens.push(hmac_of::<Hmac<Sha256>>(key, &under(&changes))?);
        }
    }
    tokens.push(hmac_of::<Hmac<Sha384>>(&forge.key, &under(&json!({"alg": "HS384"})))?);
    tokens.push(hmac_of::<Hmac<Sha512>>(&forge.key, &under(&json!({"alg": "HS512"})))?);
    Ok(tokens)
}

/// A good token with something done to its text.
fn with_other_texts(good: &str, claims: &Value, now: i64) -> Result<Vec<String>> {
    let (head, rest) = good.split_once('.').context("no JWT")?;
    let (body, signature) = rest.split_once('.').context("no JWT")?;
    let longer = URL_SAFE_NO_PAD.encode(merged(claims, &json!({"exp": now + 999})));
    Ok(vec![
        format!("{head}.{longer}.{signature}"),
        format!("{head}.{body}"),
        format!("{good}AA"),
        format!("{good}="),
        format!("{good}.{signature}"),
        format!("{good}."),
        format!(".{good}"),
        "...".to_owned(),
    ])
}

#[tokio::test]
async fn a05_no_token_but_our_own_is_believed() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let good = &account.token;
    let forge = Forge::open(&harness, good).await?;
    let now = forge.claims["iat"].as_i64().context("no iat")?;
    // What the others differ from: tokens that were made here as the stack makes them hold.
    works(&harness, &forge.token()?, 200).await?;
    works(&harness, &forge.with_claims(&json!({"exp": now + 600}))?, 200).await?;

    let corpus = [
        with_other_heads(&forge)?,
        with_other_claims(&forge, now)?,
        with_other_signatures(&forge)?,
        with_other_texts(good, &forge.claims, now)?,
    ];
    let mut shapes = Vec::new();
    for token in corpus.concat() {
        for path in ["/auth/me", "/jobs"] {
            let request = harness.request(Method::GET, &harness.url(path)?).bearer_auth(&token);
            let answer = harness.send(request, 401).await;
            shapes.push(shape(&answer.with_context(|| read(&token))?)?);
        }
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    works(&harness, good, 200).await?;
    Ok(())
}

/// A token for people.
fn read(token: &str) -> String {
    let part = |text: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    let parts = token
        .split('.')
        .map(|text| part(text).unwrap_or_else(|| text.to_owned()));
    parts.collect::<Vec<_>>().join(" . ")
}
