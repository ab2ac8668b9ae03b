//! Sessions: how they are refreshed, what ends them, and what is stored of them.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::harness::PASSWORD;
use e2e::{Account, Harness, SHORT_LIMIT, eventually};
use futures_util::future::join_all;
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use reqwest::header::USER_AGENT;
use serde_json::{Value, json};

use super::{Tokens, refresh, send, works};

/// The stored sessions of an account, by their ids.
async fn stored(account: &Account<'_>) -> Result<BTreeMap<String, Value>> {
    let items = account.harness.accounts_table().await?.into_iter();
    let own = items.filter(|item| item["account_id"] == account.id.as_str() && item["session_id"].is_string());
    own.map(|item| Ok((item["session_id"].as_str().context("no id")?.to_owned(), item)))
        .collect()
}

/// The id of a refresh token's session.
fn session_of(token: &str) -> Result<&str> {
    token.split('.').nth(1).context("no session in the token")
}

/// Makes a session's last rotation older, as if time had passed.
async fn let_grace_pass(account: &Account<'_>, session: &str) -> Result<()> {
    let key = |value: String| AttributeValue::S(value);
    let long_ago = "2020-01-01T00:00:00.000Z".to_owned();
    account
        .harness
        .dynamodb
        .update_item()
        .table_name(account.harness.name("ACCOUNTS_TABLE")?)
        .key("pk", key(format!("account#{}", account.id)))
        .key("sk", key(format!("session#{session}")))
        .update_expression("SET refresh.#l.rotated_at = :t")
        .condition_expression("attribute_exists(refresh.#l.rotated_at)")
        .expression_attribute_names("#l", "last")
        .expression_attribute_values(":t", key(long_ago))
        .send()
        .await?;
    Ok(())
}

#[tokio::test]
async fn a06_a_logout_ends_its_own_session_at_once_and_no_other() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let (first, second) = (Tokens::new(&account).await?, Tokens::new(&account).await?);
    works(&harness, &first.access, 200).await?;
    send(&harness, &first.access, Method::POST, "/auth/logout", &json!({}), 204).await?;
    works(&harness, &first.access, 401).await?;
    refresh(&harness, &first.refresh, 401).await?;
    works(&harness, &second.access, 200).await?;
    refresh(&harness, &second.refresh, 200).await?;
    // Kept for the time to live to take away, which leaves what is older than five years.
    let ended = &stored(&account).await?[session_of(&first.refresh)?];
    assert_eq!(ended["ended"], true);
    assert!(
        ended["expires_at"].as_i64().is_some_and(|at| at > 1_700_000_000),
        "{ended}"
    );
    Ok(())
}

#[tokio::test]
async fn a07_a_password_change_ends_every_token_from_before_also_of_the_same_second() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let mut before = vec![Tokens::new(&account).await?, Tokens::new(&account).await?];
    let new = "another horse battery staple";
    let change = |password: &str| json!({"current_password": password, "new_password": new});
    let wrong = send(
        &harness,
        &before[0].access,
        Method::POST,
        "/auth/change-password",
        &change("wrong horse battery"),
        401,
    )
    .await?;
    wrong.problem("invalid_credentials")?;
    works(&harness, &before[0].access, 200).await?;

    // Tokens of the very moment: what is issued while the change runs is old or new, and never both.
    before.push(Tokens::new(&account).await?);
    let body = change(PASSWORD);
    let answer = send(
        &harness,
        &before[2].access,
        Method::POST,
        "/auth/change-password",
        &body,
        200,
    )
    .await?;
    let after = Tokens::of(&answer)?;
    let issued_at = |token: &str| -> Result<i64> {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).context("no claims")?)?;
        let claims: Value = serde_json::from_slice(&claims)?;
        claims["iat"].as_i64().context("no iat")
    };
    assert!(issued_at(&after.access)? - issued_at(&before[2].access)? <= 5);
    for old in &before {
        works(&harness, &old.access, 401).await?;
        refresh(&harness, &old.refresh, 401).await?;
    }
    works(&harness, &account.token, 401).await?;
    works(&harness, &after.access, 200).await?;
    works(
        &harness,
        &Tokens::of(&refresh(&harness, &after.refresh, 200).await?)?.access,
        200,
    )
    .await?;
    harness.sign_in(&account.email, PASSWORD, 401).await?;
    harness.sign_in(&account.email, new, 200).await?;
    Ok(())
}

#[tokio::test]
async fn a07_of_two_password_changes_at_once_one_holds_and_the_other_is_told() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let passwords: Vec<_> = (0..8).map(|n| format!("another horse battery {n}")).collect();
    let url = harness.url("/auth/change-password")?;
    let changes = passwords.iter().map(|new| {
        let body = json!({"current_password": PASSWORD, "new_password": new});
        let request = harness.request(Method::POST, &url).bearer_auth(&account.token);
        harness.send_any(request.json(&body))
    });
    let mut winners = Vec::new();
    for (password, answer) in passwords.iter().zip(join_all(changes).await) {
        let answer = answer?;
        if answer.status == 200 {
            winners.push((password, Tokens::of(&answer)?));
        } else {
            // Its session ended before, meanwhile, or with the very write that it lost to.
            assert_eq!(answer.status, 401, "{}", String::from_utf8_lossy(&answer.body));
        }
    }
    let [(password, tokens)] = &winners[..] else {
        anyhow::bail!("{} changes held", winners.len());
    };
    works(&harness, &tokens.access, 200).await?;
    harness.sign_in(&account.email, password, 200).await?;
    assert_eq!(
        harness.profile(&account.id).await?.context("no profile")?["generation"],
        2
    );
    Ok(())
}

#[tokio::test]
async fn a08_a_used_refresh_token_gives_its_client_the_same_successor_and_later_ends_the_session() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let first = Tokens::new(&account).await?;
    let other = Tokens::new(&account).await?;
    let session = session_of(&first.refresh)?;
    let second = Tokens::of(&refresh(&harness, &first.refresh, 200).await?)?;
    assert_ne!(second.refresh, first.refresh);
    works(&harness, &second.access, 200).await?;
    // A lost answer: the same client asks again.
    let again = Tokens::of(&refresh(&harness, &first.refresh, 200).await?)?;
    assert_eq!(again.refresh, second.refresh);
    works(&harness, &again.access, 200).await?;
    // It leads on, and the one before the last is used up for good.
    let third = Tokens::of(&refresh(&harness, &second.refresh, 200).await?)?;
    assert_eq!(session_of(&third.refresh)?, session);
    let_grace_pass(&account, session).await?;
    refresh(&harness, &second.refresh, 401).await?;
    // The thief, or the victim, has a newer one. Neither goes on.
    refresh(&harness, &third.refresh, 401).await?;
    works(&harness, &third.access, 401).await?;
    works(&harness, &other.access, 200).await?;

    let lines = eventually("the security event", SHORT_LIMIT, async || {
        let lines = harness.logged("AUTH_FUNCTION", session).await?;
        Ok(Some(lines).filter(|lines| lines.iter().any(|line| line.contains("refresh_token_reused"))))
    })
    .await?;
    for token in [&first, &second, &third] {
        let secret = token.refresh.rsplit('.').next().context("no secret")?;
        assert!(
            !lines
                .iter()
                .any(|line| line.contains(secret) || line.contains(&token.access))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a08_another_client_with_a_used_refresh_token_ends_the_session() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let first = Tokens::new(&account).await?;
    let second = Tokens::of(&refresh(&harness, &first.refresh, 200).await?)?;
    let body = json!({"refresh_token": first.refresh});
    let request = harness
        .request(Method::POST, &harness.url("/auth/refresh")?)
        .header(USER_AGENT, "another program");
    let answer = harness.send(request.json(&body), 401).await?;
    answer.problem("invalid_refresh_token")?;
    works(&harness, &second.access, 401).await?;
    refresh(&harness, &second.refresh, 401).await?;
    Ok(())
}

#[tokio::test]
async fn a08_what_is_no_refresh_token_is_refused_and_ends_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let tokens = Tokens::new(&account).await?;
    let foreign = Tokens::new(&harness.account().await?).await?;
    let parts: Vec<_> = tokens.refresh.split('.').collect();
    let foreign_parts: Vec<_> = foreign.refresh.split('.').collect();
    for bad in [
        "",
        "x",
        "a.b.c",
        &tokens.access,
        &tokens.refresh[..tokens.refresh.len() - 1],
        &format!("{}A", tokens.refresh),
        // A session of somebody else.
        &format!("{}.{}.{}", foreign_parts[0], parts[1], parts[2]),
        &format!("{}.sess_{}.{}", parts[0], "0".repeat(32), parts[2]),
    ] {
        refresh(&harness, bad, 401).await?;
    }
    let missing = harness.post("/auth/refresh", &json!({}), 400).await?;
    missing.problem("invalid_request")?;
    // A refresh token is no access token.
    works(&harness, &tokens.refresh, 401).await?;
    works(&harness, &tokens.access, 200).await?;
    refresh(&harness, &tokens.refresh, 200).await?;
    Ok(())
}

#[tokio::test]
async fn a09_fifty_parallel_refreshes_with_one_token_have_one_successor() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let first = Tokens::new(&account).await?;
    let sessions = stored(&account).await?.len();
    let answers = join_all((0..50).map(|_| refresh(&harness, &first.refresh, 200))).await;
    let mut successors = HashSet::new();
    let mut access = Vec::new();
    for answer in answers {
        let tokens = Tokens::of(&answer?)?;
        successors.insert(tokens.refresh);
        access.push(tokens.access);
    }
    assert_eq!(successors.len(), 1);
    works(&harness, &access[0], 200).await?;
    works(&harness, &access[49], 200).await?;
    let successor = successors.into_iter().next().context("no successor")?;
    assert_eq!(session_of(&successor)?, session_of(&first.refresh)?);
    refresh(&harness, &successor, 200).await?;
    assert_eq!(stored(&account).await?.len(), sessions, "no second family");
    Ok(())
}

#[tokio::test]
async fn a10_the_table_and_the_log_hold_nothing_that_could_be_used() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let first = Tokens::new(&account).await?;
    let second = Tokens::of(&refresh(&harness, &first.refresh, 200).await?)?;
    let new = "a password of nobody else 7261";
    let body = json!({"current_password": PASSWORD, "new_password": new});
    let third = send(
        &harness,
        &second.access,
        Method::POST,
        "/auth/change-password",
        &body,
        200,
    )
    .await?;
    let third = Tokens::of(&third)?;
    let dump = Value::from(harness.accounts_table().await?).to_string();
    assert!(dump.contains(&account.id), "the dump has the account");
    let logs = harness.logged("AUTH_FUNCTION", "").await?.join("\n");
    assert!(logs.contains(&account.id), "the log tells of the change");
    let mut secrets = vec![new.to_owned(), account.token.clone()];
    for tokens in [&first, &second, &third] {
        let secret = tokens.refresh.rsplit('.').next().context("no secret")?;
        secrets.extend([
            secret.to_owned(),
            hex::encode(URL_SAFE_NO_PAD.decode(secret)?),
            tokens.access.clone(),
        ]);
        let signature = tokens.access.rsplit('.').next().context("no signature")?;
        secrets.push(signature.to_owned());
    }
    for secret in &secrets {
        assert!(!dump.contains(secret), "the table holds a secret");
        assert!(!logs.contains(secret), "the log holds a secret");
    }
    assert!(!logs.contains(&account.email), "the log holds an address");
    Ok(())
}

#[tokio::test]
async fn a_session_has_one_end_however_often_it_is_refreshed() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let login = harness.sign_in(&account.email, PASSWORD, 200).await?;
    let tokens = Tokens::of(&login)?;
    assert_eq!(login.value("/token_type")?, "Bearer");
    assert_eq!(login.value("/expires_in_seconds")?, 900);
    let left = login
        .value("/refresh_expires_in_seconds")?
        .as_u64()
        .context("no number")?;
    assert!((2_591_990..=2_592_000).contains(&left), "{left}");
    let session = session_of(&tokens.refresh)?;
    let end = stored(&account).await?[session]["expires_at"].clone();
    refresh(&harness, &tokens.refresh, 200).await?;
    assert_eq!(stored(&account).await?[session]["expires_at"], end);

    // Half a minute before its end, no new token outlives it.
    let almost = UtcTime::now().epoch_seconds() + 30;
    let set_end = |at: i64| {
        harness
            .dynamodb
            .update_item()
            .table_name(harness.name("ACCOUNTS_TABLE").unwrap_or_default())
            .key("pk", AttributeValue::S(format!("account#{}", account.id)))
            .key("sk", AttributeValue::S(format!("session#{session}")))
            .update_expression("SET expires_at = :at")
            .expression_attribute_values(":at", AttributeValue::N(at.to_string()))
            .send()
    };
    set_end(almost).await?;
    let last = refresh(&harness, &tokens.refresh, 200).await?;
    assert!(
        last.value("/expires_in_seconds")?
            .as_u64()
            .is_some_and(|left| left <= 30)
    );
    set_end(almost - 31).await?;
    refresh(&harness, &last.text("/refresh_token")?, 401).await?;
    works(&harness, &last.text("/access_token")?, 401).await?;
    Ok(())
}
