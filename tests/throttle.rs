//! Failed logins: who has to wait, how long, and who never has to. By way of the table, with a clock of the test's own,
//! and from end to end on the stack with low limits.

use anyhow::{Context, Result, ensure};
use e2e::{Harness, events};
use futures_util::future::join_all;
use reelay_core::adapters::accounts::AccountsTable;
use reelay_core::adapters::throttle::{Attempt, FreeFailures, LoginThrottle, Turn};
use reelay_core::domain::time::UtcTime;
use serde_json::{Value, json};

fn throttle(harness: &Harness, of_address: u32, of_source: u32) -> Result<LoginThrottle> {
    let table = AccountsTable::new(&harness.sdk, harness.name("ACCOUNTS_TABLE")?.to_owned());
    Ok(LoginThrottle::new(table, FreeFailures { of_address, of_source }))
}

fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

fn attempt(turn: Turn) -> Result<Attempt> {
    match turn {
        Turn::Now(attempt) => Ok(attempt),
        Turn::After(seconds) => anyhow::bail!("not before {seconds} s"),
    }
}

fn wait(turn: &Turn) -> Option<u32> {
    match turn {
        Turn::Now(_) => None,
        Turn::After(seconds) => Some(*seconds),
    }
}

async fn fail(throttle: &LoginThrottle, address: &str, source: &str, now: UtcTime) -> Result<()> {
    let attempt = attempt(throttle.begin(address, source, now).await?)?;
    Ok(throttle.failed(&attempt, now).await?)
}

/// Long after today, so that nothing is deleted for its age.
fn at(seconds: i64) -> UtcTime {
    UtcTime::from_epoch_ms(4_000_000_000_000 + seconds * 1_000)
}

#[tokio::test]
async fn a11_waits_double_and_a_success_ends_them() -> Result<()> {
    let harness = Harness::open().await?;
    let throttle = throttle(&harness, 3, 1_000)?;
    let (address, source) = (unique("ada@example.org"), unique("source"));
    let mut now = 0;
    for expected in [0, 0, 1, 2, 4, 8, 16] {
        // That it is looked at shows that the wait before it was no longer.
        fail(&throttle, &address, &source, at(now)).await?;
        if expected > 0 {
            let turn = throttle.begin(&address, &source, at(now)).await?;
            assert_eq!(wait(&turn), Some(expected), "at {now}");
        }
        now += i64::from(expected);
    }
    // The password is right: nothing is left of it.
    let good = attempt(throttle.begin(&address, &source, at(now)).await?)?;
    throttle.succeeded(&good).await?;
    for _ in 0..3 {
        fail(&throttle, &address, &source, at(now)).await?;
    }
    assert_eq!(wait(&throttle.begin(&address, &source, at(now)).await?), Some(1));
    Ok(())
}

#[tokio::test]
async fn a11_of_many_guesses_at_once_only_the_free_ones_are_looked_at() -> Result<()> {
    let harness = Harness::open().await?;
    let throttle = throttle(&harness, 5, 1_000)?;
    let (address, source) = (unique("ada@example.org"), unique("source"));
    let turns = join_all((0..100).map(|_| throttle.begin(&address, &source, at(0)))).await;
    let mut looked_at = 0;
    for turn in turns {
        looked_at += u32::from(wait(&turn?).is_none());
    }
    assert_eq!(looked_at, 5);
    Ok(())
}

#[tokio::test]
async fn a11_guesses_from_everywhere_do_not_keep_the_owner_out() -> Result<()> {
    let harness = Harness::open().await?;
    let throttle = throttle(&harness, 2, 1_000)?;
    let address = unique("ada@example.org");
    for number in 0..30 {
        fail(&throttle, &address, &unique(&format!("bot-{number}")), at(0)).await?;
    }
    // A source that has not failed is looked at; one that has waits at once, and long.
    let bot = unique("bot");
    fail(&throttle, &address, &bot, at(0)).await?;
    let turn = throttle.begin(&address, &bot, at(0)).await?;
    assert!(wait(&turn).is_some_and(|seconds| seconds > 60), "{turn:?}");
    let owner = attempt(throttle.begin(&address, &unique("home"), at(0)).await?)?;
    throttle.succeeded(&owner).await?;
    Ok(())
}

#[tokio::test]
async fn a11_a_source_that_tries_many_addresses_waits_too_and_an_own_account_is_no_way_around() -> Result<()> {
    let harness = Harness::open().await?;
    let throttle = throttle(&harness, 5, 4)?;
    let (source, own) = (unique("source"), unique("own@example.org"));
    for _ in 0..4 {
        fail(&throttle, &unique("victim@example.org"), &source, at(0)).await?;
    }
    let turn = throttle.begin(&unique("victim@example.org"), &source, at(0)).await?;
    assert_eq!(wait(&turn), Some(1));
    let good = attempt(throttle.begin(&own, &source, at(1)).await?)?;
    throttle.succeeded(&good).await?;
    fail(&throttle, &unique("victim@example.org"), &source, at(1)).await?;
    let turn = throttle.begin(&unique("victim@example.org"), &source, at(1)).await?;
    assert_eq!(wait(&turn), Some(2), "the own login has made it shorter");
    Ok(())
}

#[tokio::test]
async fn q20_failures_are_forgotten_after_an_hour_although_their_items_are_there() -> Result<()> {
    let harness = Harness::open().await?;
    let throttle = throttle(&harness, 2, 1_000)?;
    let (address, source) = (unique("ada@example.org"), unique("source"));
    for second in [0, 0, 1, 3, 7, 15] {
        fail(&throttle, &address, &source, at(second)).await?;
    }
    let turn = throttle.begin(&address, &source, at(16)).await?;
    assert!(wait(&turn).is_some());
    // Free again, and as many times as at first.
    for _ in 0..2 {
        fail(&throttle, &address, &source, at(4_000)).await?;
    }
    assert_eq!(wait(&throttle.begin(&address, &source, at(4_000)).await?), Some(1));
    Ok(())
}

fn login(email: &str, password: &str, address: &str) -> Result<Value> {
    let body = json!({"email": email, "password": password});
    let event = events::request("auth", "POST", "/auth/login", None, Some(&body))?;
    events::from_address(event, address)
}

/// What a client sees of an answer, without what differs from request to request.
fn seen(answer: &Value) -> Result<(Value, Value)> {
    let mut body: Value = serde_json::from_str(answer["body"].as_str().context("no body")?)?;
    body["request_id"] = json!("");
    Ok((answer["statusCode"].clone(), body))
}

#[tokio::test]
async fn a11_twenty_bad_logins_are_slowed_down_and_the_owner_gets_in_from_elsewhere() -> Result<()> {
    let harness = Harness::open_strict().await?;
    let account = harness.account().await?;
    // Addresses of documentation: nobody has them, and API Gateway's context says so, not a header.
    let (here, elsewhere) = ("203.0.113.66", "198.51.100.7");
    let nobody = Harness::new_address();
    let mut tally = Vec::new();
    for number in 0..20 {
        let known = login(&account.email, "wrong horse battery staple", here)?;
        let unknown = login(&nobody, "wrong horse battery staple", here)?;
        let known = harness.run_under_rie("auth", &known).await?;
        let unknown = harness.run_under_rie("auth", &unknown).await?;
        let (status, body) = seen(&known)?;
        if number < 5 {
            assert_eq!(
                (&status, &body["code"]),
                (&json!(401), &json!("invalid_credentials")),
                "{number}"
            );
            assert_eq!(
                seen(&unknown)?,
                (status, body),
                "{number}: an address without an account is told apart"
            );
        } else if status == 429 {
            assert_eq!(body["code"], "login_throttled");
            let retry_after = known["headers"]["retry-after"].as_str().context("no Retry-After")?;
            ensure!(retry_after.parse::<u32>()? >= 1, "{known}");
        } else {
            assert_eq!(status, 401, "{known}");
        }
        tally.push(seen(&known)?.0);
    }
    let throttled = tally.iter().filter(|status| **status == 429).count();
    // The clock goes on, so a few of the later ones had waited long enough.
    assert!((8..=15).contains(&throttled), "{tally:?}");
    // The right password from there has to wait like a wrong one, else it could be told; from elsewhere it has not.
    let right = login(&account.email, e2e::harness::PASSWORD, elsewhere)?;
    assert_eq!(harness.run_under_rie("auth", &right).await?["statusCode"], 200);
    Ok(())
}
