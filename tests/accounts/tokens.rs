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
        self.key = key.to_owned();
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
        let text = unsigned(head, claims);
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_bytes())?;
        mac.update(text.as_bytes());
        Ok(format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        ))
    }
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

#[tokio::test]
async fn a05_no_token_but_our_own_is_believed() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let forge = Forge::open(&harness, &account.token).await?;
    let now = forge.claims["iat"].as_i64().context("no iat")?;
    let good = &account.token;
    let (head, rest) = good.split_once('.').context("no JWT")?;
    let (body, signature) = rest.split_once('.').context("no JWT")?;
    // What the corpus differs from: the same token made here holds.
    works(&harness, &forge.token()?, 200).await?;
    works(&harness, &forge.with_claims(&json!({"exp": now + 600}))?, 200).await?;

    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("attacker"), "alg": "HS256"});
    let own_key = |changes: &Value| -> Result<String> {
        let text = unsigned(&merged(&forge.head, changes), &forge.claims.to_string());
        let mut mac = Hmac::<Sha256>::new_from_slice(b"attacker")?;
        mac.update(text.as_bytes());
        Ok(format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        ))
    };
    let claims = forge.claims.to_string();
    let twice = claims.replacen('{', r#"{"sub":"acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b","#, 1);
    let head_twice = forge.head.to_string().replacen('{', r#"{"alg":"none","#, 1);
    let text = unsigned(&merged(&forge.head, &json!({"alg": "HS384"})), &claims);
    let mut mac = Hmac::<Sha384>::new_from_slice(forge.key.as_bytes())?;
    mac.update(text.as_bytes());
    let hs384 = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    let text = unsigned(&merged(&forge.head, &json!({"alg": "HS512"})), &claims);
    let mut mac = Hmac::<Sha512>::new_from_slice(forge.key.as_bytes())?;
    mac.update(text.as_bytes());
    let hs512 = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));

    let corpus: Vec<(&str, String)> = vec![
        (
            "alg none",
            format!("{}.", unsigned(&merged(&forge.head, &json!({"alg": "none"})), &claims)),
        ),
        (
            "alg None",
            format!("{}.", unsigned(&merged(&forge.head, &json!({"alg": "None"})), &claims)),
        ),
        ("no signature", format!("{head}.{body}.")),
        ("none with a signature", forge.with_head(&json!({"alg": "none"}))?),
        ("HS384", hs384),
        ("HS512", hs512),
        ("RS256 by HMAC", forge.with_head(&json!({"alg": "RS256"}))?),
        ("another key", own_key(&json!({}))?),
        ("the key's name as the key", {
            let kid = forge.head["kid"].as_str().unwrap_or_default().to_owned();
            Forge {
                key: kid,
                head: forge.head.clone(),
                claims: forge.claims.clone(),
            }
            .token()?
        }),
        (
            "an empty key",
            Forge {
                key: String::new(),
                head: forge.head.clone(),
                claims: forge.claims.clone(),
            }
            .token()?,
        ),
        (
            "a path as kid",
            forge.with_head(&json!({"kid": "../../../../dev/null"}))?,
        ),
        (
            "SQL as kid",
            forge.with_head(&json!({"kid": "x' UNION SELECT 'attacker' -- "}))?,
        ),
        ("no kid", forge.with_head(&json!({"kid": null}))?),
        ("a number as kid", forge.with_head(&json!({"kid": 1}))?),
        (
            "jku, own key",
            own_key(&json!({"jku": "https://attacker.example/keys"}))?,
        ),
        (
            "jku, right key",
            forge.with_head(&json!({"jku": "https://attacker.example/keys"}))?,
        ),
        ("jwk", own_key(&json!({"jwk": jwk}))?),
        ("x5u", own_key(&json!({"x5u": "https://attacker.example/cert"}))?),
        ("crit", forge.with_head(&json!({"crit": ["exp"]}))?),
        ("another type", forge.with_head(&json!({"typ": "JWT"}))?),
        ("a refresh token's type", forge.with_head(&json!({"typ": "rt+jwt"}))?),
        ("no type", forge.with_head(&json!({"typ": null}))?),
        ("another audience", forge.with_claims(&json!({"aud": "elsewhere"}))?),
        ("no audience", forge.with_claims(&json!({"aud": null}))?),
        ("another issuer", forge.with_claims(&json!({"iss": "elsewhere"}))?),
        ("no issuer", forge.with_claims(&json!({"iss": null}))?),
        ("no end", forge.with_claims(&json!({"exp": null}))?),
        ("an end in words", forge.with_claims(&json!({"exp": "tomorrow"}))?),
        // The clocks may differ by LEEWAY_SECONDS, 5. The library's own 60 would let this in.
        ("ended 7 s ago", forge.with_claims(&json!({"exp": now - 7}))?),
        ("ended 61 s ago", forge.with_claims(&json!({"exp": now - 61}))?),
        ("not yet", forge.with_claims(&json!({"nbf": now + 600}))?),
        ("issued in the future", forge.with_claims(&json!({"iat": now + 600}))?),
        ("another generation", forge.with_claims(&json!({"generation": 2}))?),
        ("no generation", forge.with_claims(&json!({"generation": null}))?),
        (
            "nobody",
            forge.with_claims(&json!({"sub": "acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b"}))?,
        ),
        ("a key as the account", forge.with_claims(&json!({"sub": "account#x"}))?),
        ("no session", forge.with_claims(&json!({"sid": null}))?),
        (
            "an unknown session",
            forge.with_claims(&json!({"sid": format!("sess_{}", "0".repeat(32))}))?,
        ),
        (
            "10 kB of claims",
            forge.with_claims(&json!({"more": "x".repeat(10_000)}))?,
        ),
        ("a claim twice", forge.signed(&forge.head.to_string(), &twice)?),
        ("alg twice", forge.signed(&head_twice, &claims)?),
        ("claims of another kind", forge.signed(&forge.head.to_string(), "[]")?),
        ("trailing bytes", format!("{good}AA")),
        ("a fourth part", format!("{good}.{signature}")),
        ("three dots", "...".to_owned()),
        ("padding", format!("{good}=")),
        (
            "changed claims",
            format!(
                "{head}.{}.{signature}",
                URL_SAFE_NO_PAD.encode(merged(&forge.claims, &json!({"exp": now + 999})))
            ),
        ),
    ];
    let mut shapes = Vec::new();
    for (what, token) in corpus {
        for path in ["/auth/me", "/jobs"] {
            let request = harness.request(Method::GET, &harness.url(path)?).bearer_auth(&token);
            let answer = harness.send(request, 401).await.context(what)?;
            shapes.push(shape(&answer).context(what)?);
        }
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    works(&harness, good, 200).await?;
    Ok(())
}
