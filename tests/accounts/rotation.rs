//! The signing key is replaced under a running stack.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{Harness, SHORT_LIMIT, eventually};
use reqwest::Method;
use serde_json::Value;

use super::tokens::Forge;
use super::{Tokens, refresh, works};

/// Stores a new key, as the README says.
async fn rotate(harness: &Harness, secrets: &aws_sdk_secretsmanager::Client, key: &str) -> Result<()> {
    let environment = harness.function_environment("AUTH_FUNCTION").await?;
    let request = secrets.put_secret_value().secret_id(&environment["SIGNING_KEY_SECRET"]);
    request.secret_string(key).send().await?;
    Ok(())
}

/// Waits until each function has met the key: it looks for one that it does not know, every ten seconds at most.
async fn met(harness: &Harness, token: &str, expected: u16) -> Result<()> {
    for path in ["/auth/me", "/jobs"] {
        eventually("the new key", SHORT_LIMIT, async || {
            let request = harness.request(Method::GET, &harness.url(path)?).bearer_auth(token);
            let answer = harness.send_any(request).await?;
            Ok((answer.status == expected).then_some(()))
        })
        .await?;
    }
    Ok(())
}

fn kid(token: &str) -> Result<Value> {
    let head = URL_SAFE_NO_PAD.decode(token.split('.').next().context("no JWT")?)?;
    Ok(serde_json::from_slice::<Value>(&head)?["kid"].clone())
}

#[tokio::test]
async fn a12_after_a_rotation_old_tokens_hold_and_after_the_next_they_do_not() -> Result<()> {
    // Two rotations end every token of a stack.
    let harness = Harness::open_apart("local-e2e-rotation").await?;
    let secrets = aws_sdk_secretsmanager::Client::new(&harness.sdk);
    let account = harness.account().await?;
    let first = Tokens::new(&account).await?;
    let forge = async |key: &str| Ok::<_, anyhow::Error>(Forge::open(&harness, &first.access).await?.with_key(key));
    let keys = ["b", "c"].map(|letter| letter.repeat(64));
    works(&harness, &first.access, 200).await?;

    rotate(&harness, &secrets, &keys[0]).await?;
    works(&harness, &first.access, 200).await?;
    let by_second_key = forge(&keys[0]).await?.token()?;
    met(&harness, &by_second_key, 200).await?;
    // Signed by the new key from now on, beside those of the old one, and nothing was restarted.
    let second = Tokens::of(&refresh(&harness, &first.refresh, 200).await?)?;
    assert_eq!(kid(&second.access)?, kid(&by_second_key)?);
    assert_ne!(kid(&second.access)?, kid(&first.access)?);
    works(&harness, &first.access, 200).await?;
    works(&harness, &second.access, 200).await?;

    rotate(&harness, &secrets, &keys[1]).await?;
    met(&harness, &forge(&keys[1]).await?.token()?, 200).await?;
    works(&harness, &first.access, 401).await?;
    works(&harness, &second.access, 200).await?;
    // Sessions do not depend on the key: whoever is signed in stays it.
    let third = Tokens::of(&refresh(&harness, &second.refresh, 200).await?)?;
    works(&harness, &third.access, 200).await?;
    Ok(())
}
