//! Who did what: entries of what happens, for operators, whole and in order, with nothing in them that is secret.

use anyhow::{Context, Result};
use e2e::harness::PASSWORD;
use e2e::{Account, Harness};
use reelay_core::adapters::accounts::AccountsTable;
use reelay_core::adapters::audit::AuditLog;
use reelay_core::domain::audit::{Action, Entry, Outcome};
use reelay_core::domain::id::AccountId;
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use serde_json::{Value, json};

async fn operator(harness: &Harness) -> Result<Account<'_>> {
    let account = harness.account().await?;
    harness.make_operator(&account.id).await?;
    Ok(account)
}

async fn login(harness: &Harness, email: &str, password: &str, agent: &str, expected: u16) -> Result<()> {
    let request = harness
        .request(Method::POST, &harness.url("/auth/login")?)
        .header("user-agent", agent)
        .json(&json!({"email": email, "password": password}));
    harness.send(request, expected).await?;
    Ok(())
}

/// All entries of a list, over as many pages as it takes.
async fn list(operator: &Account<'_>, query: &str) -> Result<Vec<Value>> {
    let (mut entries, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let more = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let answer = operator.get(&format!("/analytics/audit?{query}{more}"), 200).await?;
        let page = answer.value("/entries")?;
        entries.extend(page.as_array().context("no list")?.iter().cloned());
        match answer.value("/next_cursor")? {
            Value::String(next) => cursor = Some(next),
            _ => return Ok(entries),
        }
    }
}

#[tokio::test]
async fn an_operator_reads_what_an_account_did_in_its_order() -> Result<()> {
    let harness = Harness::open().await?;
    let operator = operator(&harness).await?;
    let account = harness.account().await?;
    login(&harness, &account.email, "wrong horse battery staple", "guesser/1", 401).await?;
    let agent = format!("agent/2 {}", "x".repeat(500));
    login(&harness, &account.email, PASSWORD, &agent, 200).await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    account.post(&format!("/jobs/{id}/cancel"), &json!({}), 200).await?;
    account.post("/auth/logout", &json!({}), 204).await?;

    let expected = [
        ("logout", "ok", Value::Null),
        ("cancel_job", "ok", json!(id)),
        ("create_job", "ok", json!(id)),
        ("login", "ok", Value::Null),
        ("login", "failed", Value::Null),
        ("login", "ok", Value::Null),
        ("register", "ok", Value::Null),
    ];
    for limit in [1, 3, 200] {
        let entries = list(&operator, &format!("account_id={}&limit={limit}", account.id)).await?;
        let told: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry["action"].as_str(),
                    entry["outcome"].as_str(),
                    entry["resource"].clone(),
                )
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(action, outcome, resource)| (Some(*action), Some(*outcome), resource.clone()))
            .collect();
        assert_eq!(told, expected, "in pages of {limit}");
    }
    let entries = list(&operator, &format!("account_id={}", account.id)).await?;
    assert_eq!(entries[4]["user_agent"], "guesser/1");
    assert_eq!(
        entries[3]["user_agent"].as_str().map(|text| text.chars().count()),
        Some(200)
    );
    for entry in &entries {
        assert_eq!(entry["account_id"], account.id);
        assert_eq!(entry["source_address"], "127.0.0.1");
        assert!(entry["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{entry}");
        let text = entry.to_string();
        for secret in [&account.email, &account.token, PASSWORD, "wrong horse"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // By day, among everybody's, the same ones.
    let from = entries[6]["at"].as_str().context("no time")?;
    let by_day = list(&operator, &format!("from={from}&limit=50")).await?;
    let mine: Vec<_> = by_day
        .iter()
        .filter(|entry| entry["account_id"] == account.id)
        .cloned()
        .collect();
    assert_eq!(mine, entries);
    assert!(
        by_day
            .windows(2)
            .all(|pair| pair[0]["at"].as_str() >= pair[1]["at"].as_str())
    );
    Ok(())
}

#[tokio::test]
async fn a_login_with_an_address_of_nobody_is_noted_without_the_address() -> Result<()> {
    let harness = Harness::open().await?;
    let operator = operator(&harness).await?;
    let (address, agent) = (Harness::new_address(), format!("agent-{}", uuid::Uuid::new_v4()));
    let from = UtcTime::now();
    login(&harness, &address, PASSWORD, &agent, 401).await?;
    let entries = list(&operator, &format!("from={from}")).await?;
    let mine: Vec<_> = entries.iter().filter(|entry| entry["user_agent"] == agent).collect();
    let [entry] = mine[..] else {
        panic!("{mine:?}");
    };
    assert_eq!(
        (&entry["action"], &entry["outcome"]),
        (&json!("login"), &json!("failed"))
    );
    assert_eq!(entry["account_id"], Value::Null);
    assert!(!entry.to_string().contains(&address));
    Ok(())
}

#[tokio::test]
async fn the_audit_is_for_operators_and_its_cursors_for_their_own_list() -> Result<()> {
    let harness = Harness::open().await?;
    let (operator, other) = (operator(&harness).await?, operator(&harness).await?);
    let user = harness.account().await?;
    user.get("/analytics/audit", 403).await?.problem("forbidden")?;
    let anybody = harness.request(Method::GET, &harness.url("/analytics/audit")?);
    harness.send(anybody, 401).await?.problem("unauthenticated")?;

    let path = format!("/analytics/audit?account_id={}&limit=1", user.id);
    let cursor = operator.get(&path, 200).await?.text("/next_cursor")?;
    operator.get(&format!("{path}&cursor={cursor}"), 200).await?;
    let refused = |answer: e2e::Answer| answer.problem("invalid_cursor").map(|_| ());
    refused(other.get(&format!("{path}&cursor={cursor}"), 400).await?)?;
    let elsewhere = format!("/analytics/audit?account_id={}&limit=1", other.id);
    refused(operator.get(&format!("{elsewhere}&cursor={cursor}"), 400).await?)?;
    refused(operator.get(&format!("{path}&cursor={cursor}A"), 400).await?)?;
    for (query, field) in [
        ("account_id=x", "/account_id"),
        ("from=yesterday", "/from"),
        ("to=x", "/to"),
        ("from=2026-11-27T00:00:00Z&to=2026-11-26T00:00:00Z", "/from"),
        ("from=2020-01-01T00:00:00Z", "/from"),
        ("limit=201", "/limit"),
    ] {
        let answer = operator.get(&format!("/analytics/audit?{query}"), 422).await?;
        assert_eq!(answer.pointers()?, [field], "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn entries_of_many_days_are_read_over_pages_and_none_past_its_time() -> Result<()> {
    let harness = Harness::open().await?;
    let operator = operator(&harness).await?;
    let table = AccountsTable::new(&harness.sdk, harness.name("ACCOUNTS_TABLE")?.to_owned());
    let (log, short) = (AuditLog::new(table.clone(), 3_650), AuditLog::new(table, 1));
    let account = AccountId::generate();
    let day_ms = 86_400_000;
    let start = UtcTime::from_epoch_ms(UtcTime::now().epoch_ms() - 100 * day_ms);
    let entry = |days: i64| Entry {
        at: UtcTime::from_epoch_ms(start.epoch_ms() + days * day_ms),
        action: Action::ChangeRole,
        outcome: Outcome::Ok,
        account_id: Some(account.clone()),
        resource: None,
        source_address: "203.0.113.7".into(),
        user_agent: "test".into(),
        request_id: "request".into(),
    };
    // More days apart than a request looks through; two of a moment are two.
    for days in [0, 0, 1, 40, 75] {
        log.record(&entry(days)).await?;
    }
    short.record(&entry(2)).await?;
    let to = UtcTime::from_epoch_ms(start.epoch_ms() + 80 * day_ms);
    let query = format!("from={start}&to={to}&limit=2");
    let entries = list(&operator, &query).await?;
    let mine: Vec<_> = entries
        .iter()
        .filter(|entry| entry["account_id"] == account.as_str())
        .collect();
    let times: Vec<_> = mine.iter().filter_map(|entry| entry["at"].as_str()).collect();
    let expected = [75, 40, 1, 0, 0].map(|days| entry(days).at.to_string());
    assert_eq!(times, expected);
    Ok(())
}
