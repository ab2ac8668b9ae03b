//! What holds for every route, from the one table of them.

use anyhow::{Context, Result};
use e2e::routes::{Access, ROUTES, Route, in_the_code};
use e2e::{Account, Answer, Harness};
use reqwest::Method;
use serde_json::{Value, json};

const NOBODYS: &str = "job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b";
const SECURITY: [(&str, &str); 4] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
];

async fn ask(harness: &Harness, route: &Route, job_id: &str, token: Option<&str>) -> Result<Answer> {
    let method: Method = route.method.parse()?;
    let mut request = harness.request(method, &harness.url(&route.path_for(job_id))?);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = route.body() {
        request = request.json(&body);
    }
    harness.send_any(request).await
}

/// A problem without what differs from request to request.
fn shape(answer: &Answer, code: &str) -> Result<Value> {
    let mut body = answer.problem(code)?;
    body["request_id"] = json!("");
    Ok(body)
}

#[test]
fn a13_the_table_has_every_route_of_every_router() -> Result<()> {
    let table = ROUTES
        .iter()
        .map(|route| format!("{} {} {}", route.function, route.method, route.path))
        .collect();
    let code = in_the_code()?;
    assert!(code.len() >= 17, "{code:?}");
    assert_eq!(code, table, "tests/harness/routes.rs has to name each route");
    Ok(())
}

#[tokio::test]
async fn a13_a_job_is_there_for_its_owner_and_for_nobody_else() -> Result<()> {
    let harness = Harness::open().await?;
    let (owner, stranger) = (harness.account().await?, harness.account().await?);
    let id = owner.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    let before = harness.items(&id).await?;
    let of_jobs: Vec<_> = ROUTES.iter().filter(|route| route.is_of_a_job()).collect();
    assert!(of_jobs.len() >= 10);
    for route in &of_jobs {
        let foreign = ask(&harness, route, &id, Some(&stranger.token)).await?.expect(404)?;
        let unknown = ask(&harness, route, NOBODYS, Some(&stranger.token))
            .await?
            .expect(404)?;
        assert_eq!(
            shape(&foreign, "not_found")?,
            shape(&unknown, "not_found")?,
            "{route:?}"
        );
        for secret in [&owner.id, &owner.email, &id] {
            assert!(
                !String::from_utf8_lossy(&foreign.body).contains(secret.as_str()),
                "{route:?}"
            );
        }
    }
    assert_eq!(harness.items(&id).await?, before, "a stranger has changed something");
    // The same requests mean something when the owner makes them, so the 404s are the stranger's.
    for route in &of_jobs {
        // One of its own, since some of them delete it.
        let id = owner.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
        let own = ask(&harness, route, &id, Some(&owner.token)).await?;
        assert_ne!(own.status, 404, "{route:?}: {}", String::from_utf8_lossy(&own.body));
    }
    Ok(())
}

#[tokio::test]
async fn a13_without_a_token_only_signing_in_is_possible() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    for route in ROUTES {
        let (none, forged) = (
            ask(&harness, route, &id, None).await?,
            ask(&harness, route, &id, Some("a.b.c")).await?,
        );
        for answer in [none, forged] {
            if route.access == Access::Anyone {
                // The document names the code too, among all others.
                let code = answer.value("/code").ok();
                assert_ne!(code, Some(json!("unauthenticated")), "{route:?}");
            } else {
                answer.expect(401)?.problem("unauthenticated")?;
            }
        }
        if route.access == Access::Operator {
            ask(&harness, route, &id, Some(&account.token))
                .await?
                .expect(403)?
                .problem("forbidden")?;
        }
    }
    Ok(())
}

fn check_headers(answer: &Answer) -> Result<()> {
    for (name, value) in SECURITY {
        assert_eq!(answer.header(name)?, value, "{}", answer.asked);
    }
    // What has a tag may be kept by its owner's client, and is asked for again each time.
    let kept = answer.headers.contains_key("etag");
    let cache = if kept { "private, no-cache" } else { "no-store" };
    assert_eq!(answer.header("cache-control")?, cache, "{}", answer.asked);
    if !answer.body.is_empty() {
        let media_type = answer.header("content-type")?;
        let expected = [
            "application/json; charset=utf-8",
            "application/problem+json; charset=utf-8",
        ];
        assert!(expected.contains(&media_type), "{}: {media_type}", answer.asked);
    }
    assert!(!answer.header("x-request-id")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a19_every_answer_has_the_security_headers() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    // What is the same for everybody may be kept, and the page has a style: tests/contract.rs looks at those.
    let others = ["/auth/logout", "/openapi.json", "/docs"];
    for route in ROUTES.iter().filter(|route| !others.contains(&route.path)) {
        for token in [None, Some(account.token.as_str())] {
            check_headers(&ask(&harness, route, &id, token).await?)?;
        }
    }
    for path in ["/nothing", "/api", "/api/v1/jobs/x/y/z"] {
        let request = harness.request(Method::GET, &harness.url_at_root(path)?);
        check_headers(&harness.send(request, 404).await?)?;
    }
    let wrong = harness.request(Method::PUT, &harness.url("/jobs")?);
    check_headers(&harness.send(wrong, 405).await?)?;
    check_headers(&account.post("/auth/logout", &json!({}), 204).await?)?;
    Ok(())
}

#[tokio::test]
async fn a19_answers_tell_where_the_caller_stands() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let environment = harness.function_environment("STATUS_FUNCTION").await?;
    let (limit, window) = (&environment["READ_LIMIT"], &environment["RATE_WINDOW_SECONDS"]);
    let answer = account.get("/jobs", 200).await?;
    assert_eq!(
        answer.header("ratelimit-policy")?,
        format!("\"read\";q={limit};w={window}")
    );
    let standing = answer.header("ratelimit")?;
    let (left, resets) = standing
        .strip_prefix("\"read\";r=")
        .and_then(|rest| rest.split_once(";t="))
        .with_context(|| standing.to_owned())?;
    assert!(left.parse::<u64>()? < limit.parse()?, "{standing}");
    assert!((1..=window.parse()?).contains(&resets.parse::<u64>()?), "{standing}");
    let created = account
        .post("/jobs", &json!({"filename": "a", "size_bytes": 1}), 201)
        .await?;
    assert!(created.header("ratelimit")?.starts_with("\"create\";"));
    Ok(())
}

#[tokio::test]
async fn a19_only_listed_origins_may_read_answers_and_nobody_may_trace() -> Result<()> {
    let harness = Harness::open().await?;
    let origin = "http://localhost:3000";
    let preflight = harness
        .request(Method::OPTIONS, &harness.url("/jobs")?)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization");
    let answer = harness.send_any(preflight).await?;
    assert!(answer.status.is_success(), "{}", answer.status);
    assert_eq!(answer.header("access-control-allow-origin")?, origin);
    let foreign = harness
        .request(Method::OPTIONS, &harness.url("/jobs")?)
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    let answer = harness.send_any(foreign).await?;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));

    for (function, path) in [("status", "/jobs"), ("upload", "/jobs"), ("auth", "/auth/login")] {
        let event = e2e::events::request(function, "TRACE", path, Some("secret-token"), None)?;
        let answer = harness.run_under_rie(function, &event).await?;
        assert_eq!(answer["statusCode"], 405, "{answer}");
        assert!(!answer.to_string().contains("secret-token"), "{answer}");
    }
    Ok(())
}

/// Asks for a list and checks that each of these cursors is refused.
async fn refuses(account: &Account<'_>, path: &str, cursors: &[String]) -> Result<()> {
    for cursor in cursors {
        account
            .get(&format!("{path}&cursor={cursor}"), 400)
            .await?
            .problem("invalid_cursor")?;
    }
    Ok(())
}

#[tokio::test]
async fn a21_a_cursor_is_whole_and_its_owners_or_refused() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, other) = (harness.account().await?, harness.account().await?);
    for who in [&account, &other] {
        for _ in 0..2 {
            who.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?;
        }
    }
    let cursor = account.get("/jobs?limit=1", 200).await?.text("/next_cursor")?;
    let mut altered = Vec::new();
    for at in [0, 10, 40, cursor.len() / 2, cursor.len() - 2] {
        let mut text = cursor.clone().into_bytes();
        text[at] = if text[at] == b'Q' { b'R' } else { b'Q' };
        altered.push(String::from_utf8(text)?);
    }
    altered.extend([
        cursor[..cursor.len() - 4].to_owned(),
        format!("{cursor}AAAA"),
        "x".into(),
    ]);
    refuses(&account, "/jobs?limit=1", &altered).await?;
    let foreign = other.get("/jobs?limit=1", 200).await?.text("/next_cursor")?;
    refuses(&account, "/jobs?limit=1", &[foreign]).await?;
    account.get(&format!("/jobs?limit=1&cursor={cursor}"), 200).await?;
    Ok(())
}
