//! Rate limits: exact, per caller, by who they are and not by what they say; and bodies that are no use to anybody.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::{Answer, Harness};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::adapters::accounts::AccountsTable;
use reelay_core::adapters::windows;
use reelay_core::domain::limits::{Class, Quota};
use reelay_core::domain::time::UtcTime;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::json;

/// Requests that the emulator works on at the same time.
const AT_ONCE: usize = 40;

#[tokio::test]
async fn a15_of_two_hundred_writes_at_once_exactly_the_limit_counts() -> Result<()> {
    let harness = Harness::open().await?;
    let table = AccountsTable::new(&harness.sdk, harness.name("ACCOUNTS_TABLE")?.to_owned());
    let quota = Quota {
        limit: 100,
        window_seconds: 60,
    };
    let (subject, other) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    let now = UtcTime::from_epoch_ms(4_000_000_020_000);
    let takes = join_all((0..200).map(|_| windows::take(&table, Class::Read, &subject, quota, now))).await;
    let standings = takes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut left: Vec<_> = standings
        .iter()
        .filter(|standing| standing.admitted)
        .map(|standing| standing.remaining)
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        (0..100).collect::<Vec<_>>(),
        "each of the hundred has a place of its own"
    );
    assert!(standings.iter().all(|standing| standing.resets_in_seconds == 60));

    // Another class, another caller and the next window are not touched by it.
    let next = now.plus(Duration::from_mins(1));
    for (class, who, when) in [
        (Class::Write, &subject, now),
        (Class::Read, &other, now),
        (Class::Read, &subject, next),
    ] {
        let standing = windows::take(&table, class, who, quota, when).await?;
        assert_eq!((standing.admitted, standing.remaining), (true, 99));
    }
    Ok(())
}

/// The window of the stack with low limits, in seconds.
async fn window(harness: &Harness) -> Result<i64> {
    Ok(harness.function_environment("UPLOAD_FUNCTION").await?["RATE_WINDOW_SECONDS"].parse()?)
}

/// Waits for the begin of a window; returns when it ends.
async fn next_window(seconds: i64) -> i64 {
    let start = UtcTime::now().epoch_seconds().div_euclid(seconds) + 1;
    let wait_ms = start * seconds * 1_000 - UtcTime::now().epoch_ms();
    tokio::time::sleep(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0) + 100)).await;
    (start + 1) * seconds
}

#[tokio::test]
async fn a15_of_two_hundred_requests_exactly_the_limit_passes_and_the_next_window_is_new() -> Result<()> {
    let harness = Harness::open_strict().await?;
    let seconds = window(&harness).await?;
    for _ in 0..4 {
        let account = harness.account().await?;
        let url = harness.url("/jobs/job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b/cancel")?;
        let post = || {
            harness.send_any(
                harness
                    .request(Method::POST, &url)
                    .bearer_auth(&account.token)
                    .json(&json!({})),
            )
        };
        let end = next_window(seconds).await;
        let answers: Vec<Answer> = stream::iter(0..200)
            .map(|_| post())
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        if UtcTime::now().epoch_seconds() >= end {
            // The machine is too slow for all of them in one window: that is no answer.
            continue;
        }
        let (passed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status != 429);
        assert_eq!((passed.len(), refused.len()), (100, 100));
        for answer in passed {
            answer.problem("not_found")?;
        }
        for answer in refused {
            answer.problem("rate_limited")?;
            let retry_after: i64 = answer.header("retry-after")?.parse()?;
            assert!((1..=seconds).contains(&retry_after), "{retry_after}");
            assert_eq!(
                answer.header("ratelimit-policy")?,
                format!("\"write\";q=100;w={seconds}")
            );
            assert_eq!(answer.header("ratelimit")?, format!("\"write\";r=0;t={retry_after}"));
        }
        // Reading is another class, and somebody else another caller.
        account.get("/jobs", 200).await?;
        next_window(seconds).await;
        assert_eq!(post().await?.status, 404);
        return Ok(());
    }
    bail!("200 requests did not fit into a window of {seconds} s")
}

#[tokio::test]
async fn a16_a_forged_header_does_not_make_another_caller() -> Result<()> {
    let harness = Harness::open_strict().await?;
    let url = harness.url("/auth/login")?;
    let mut refused = 0;
    // More than a window's limit for this address, whoever else uses it.
    for number in 0..140 {
        let request = harness
            .request(Method::POST, &url)
            .header("x-forwarded-for", format!("198.51.100.{number}"))
            .header("x-real-ip", format!("198.51.100.{number}"))
            .header("forwarded", format!("for=198.51.100.{number}"))
            .json(&json!({"email": 1}));
        let answer = harness.send_any(request).await?;
        if answer.status == 429 {
            answer.problem("rate_limited")?;
            assert!(answer.header("ratelimit-policy")?.starts_with("\"sign-in\";q=60;"));
            refused += 1;
            if refused == 3 {
                return Ok(());
            }
        } else {
            answer.problem("invalid_request")?;
        }
    }
    bail!("140 logins from one address, and {refused} were refused")
}

/// The most memory that any process of this function has had, in KiB.
fn peak_memory_kib(function: &str) -> Result<u64> {
    let mut peak = 0;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let name = format!("AWS_LAMBDA_FUNCTION_NAME={function}\0");
        if !environment.windows(name.len()).any(|part| part == name.as_bytes()) {
            continue;
        }
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        peak = peak.max(kib.unwrap_or(0));
    }
    Ok(peak)
}

#[tokio::test]
async fn a20_bodies_that_are_no_use_are_refused_soon_and_cost_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let deep = "[".repeat(10_000);
    let deep_object = format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let keys: Vec<_> = (0..1_000_000).map(|number| format!("\"{number}\":0")).collect();
    let bodies: [(&str, Vec<u8>, u16); 6] = [
        (
            "11 MB",
            format!("{{\"filename\":\"{}\"}}", "a".repeat(11_000_000)).into_bytes(),
            413,
        ),
        ("deep lists", deep.into_bytes(), 400),
        ("deep objects", deep_object.into_bytes(), 400),
        ("a million keys", format!("{{{}}}", keys.join(",")).into_bytes(), 413),
        ("no UTF-8", b"\xff\xfe{\"filename\":\"\x80\"}".to_vec(), 400),
        ("an overlong form", b"\xc0\xaf".to_vec(), 400),
    ];
    for path in ["/jobs", "/auth/login", "/auth/register"] {
        for (what, body, expected) in &bodies {
            let request = harness
                .request(Method::POST, &harness.url(path)?)
                .bearer_auth(&account.token)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
            let began = Instant::now();
            let answer = harness.send_any(request).await?;
            assert_eq!(answer.status.as_u16(), *expected, "{path} {what}");
            // Most of it is the way there: the emulator hands on a large body as text.
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{path} {what}: {:?}",
                began.elapsed()
            );
        }
        let packed = harness
            .request(Method::POST, &harness.url(path)?)
            .bearer_auth(&account.token)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .body(b"\x1f\x8b\x08\x00".to_vec());
        harness.send(packed, 415).await?.problem("unsupported_media_type")?;
    }
    for function in ["AUTH_FUNCTION", "UPLOAD_FUNCTION"] {
        let peak_mib = peak_memory_kib(harness.name(function)?)? / 1_024;
        assert!(peak_mib > 0, "no process of {function} was found");
        assert!(peak_mib < 256, "{function} had {peak_mib} MiB");
    }
    account.get("/jobs", 200).await.context("it still answers")?;
    Ok(())
}
