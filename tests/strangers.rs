//! Who is not signed in, whose job it is not, and requests that are none.

use anyhow::{Context, Result};
use e2e::{Account, Answer, Clip, Harness, Studio};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};

/// Every route that reads a part of a job.
const PARTS: [&str; 7] = [
    "",
    "/progress",
    "/metadata",
    "/outputs",
    "/thumbnail",
    "/download",
    "/source",
];

/// An answer without what differs from request to request.
fn shape(answer: &Answer, code: &str) -> Result<Value> {
    let mut body = answer.problem(code)?;
    body["request_id"] = json!("");
    Ok(body)
}

#[tokio::test]
async fn i8_nothing_crosses_accounts() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let (owner, stranger) = (harness.account().await?, harness.account().await?);
    let source = studio
        .clip(
            "source.mp4",
            &Clip {
                seconds: 1,
                size: (320, 180),
                ..Clip::default()
            },
        )
        .await?;
    let job = owner.complete(&source, json!({})).await?;
    let nobodys = "job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b";

    for part in PARTS {
        let own = harness.request(Method::GET, &harness.url(&format!("/jobs/{}{part}", job.id))?);
        let own = harness.send_any(own.bearer_auth(&owner.token)).await?;
        assert!(
            own.status.is_success() || own.status.is_redirection(),
            "{}: {}",
            own.asked,
            own.status
        );

        let foreign = stranger.get(&format!("/jobs/{}{part}", job.id), 404).await?;
        let unknown = stranger.get(&format!("/jobs/{nobodys}{part}"), 404).await?;
        let malformed = stranger.get(&format!("/jobs/..%2F{}{part}", job.id), 404).await?;
        let expected = shape(&unknown, "not_found")?;
        assert_eq!(
            shape(&foreign, "not_found")?,
            expected,
            "a stranger can tell that the job exists"
        );
        assert_eq!(shape(&malformed, "not_found")?, expected);
        for secret in [&owner.id, &owner.email, &job.id] {
            assert!(
                !String::from_utf8_lossy(&foreign.body).contains(secret.as_str()),
                "{part} names {secret}"
            );
        }
    }
    assert_eq!(stranger.get("/jobs", 200).await?.value("/jobs")?, json!([]));
    assert_eq!(owner.get("/jobs", 200).await?.value("/jobs/0/id")?, job.id);
    // A cursor is a place in the owner's list and means nothing in another.
    owner
        .create(&json!({"filename": "second.mp4", "size_bytes": 1}))
        .await?;
    let cursor = owner.get("/jobs?limit=1", 200).await?.text("/next_cursor")?;
    let rest = owner.get(&format!("/jobs?limit=1&cursor={cursor}"), 200).await?;
    assert_eq!(rest.value("/jobs/0/id")?, job.id);
    stranger
        .get(&format!("/jobs?limit=1&cursor={cursor}"), 400)
        .await?
        .problem("invalid_cursor")?;
    Ok(())
}

#[tokio::test]
async fn without_a_token_there_is_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    let mut routes: Vec<_> = PARTS
        .iter()
        .map(|part| (Method::GET, format!("/jobs/{id}{part}")))
        .collect();
    routes.extend([
        (Method::GET, "/jobs".to_owned()),
        (Method::POST, "/jobs".to_owned()),
        (Method::GET, "/auth/me".to_owned()),
        (Method::POST, "/auth/logout".to_owned()),
        (Method::POST, "/auth/change-password".to_owned()),
        (Method::DELETE, "/auth/me".to_owned()),
    ]);
    let (head, _) = account.token.rsplit_once('.').context("no JWT")?;
    let forged = format!("Bearer {head}.{}", "A".repeat(43));
    let garbage = [
        "Bearer",
        "Bearer garbage",
        "Bearer a.b.c",
        "Basic YTpi",
        &account.token,
        &forged,
    ];
    for (method, path) in routes {
        let request = || Ok::<_, anyhow::Error>(harness.request(method.clone(), &harness.url(&path)?));
        let answer = harness.send(request()?.json(&json!({})), 401).await?;
        answer.problem("unauthenticated")?;
        assert_eq!(answer.header("www-authenticate")?, "Bearer");
        for token in garbage {
            let answer = harness
                .send(request()?.header(AUTHORIZATION, token).json(&json!({})), 401)
                .await?;
            answer.problem("unauthenticated")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_login_ends_with_its_logout_and_no_other() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let second = Account {
        harness: &harness,
        token: harness.login(&account.email).await?,
        ..clone_of(&account)
    };
    assert_eq!(second.get("/auth/me", 200).await?.text("/account/id")?, account.id);
    second.post("/auth/logout", &json!({}), 204).await?;
    second.get("/auth/me", 401).await?.problem("unauthenticated")?;
    second.get("/jobs", 401).await?.problem("unauthenticated")?;
    account.get("/auth/me", 200).await?;

    let login = |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        Ok::<_, anyhow::Error>(harness.request(Method::POST, &harness.url("/auth/login")?).json(&body))
    };
    let wrong = harness
        .send(login(&account.email, "wrong horse battery staple")?, 401)
        .await?;
    let unknown = harness
        .send(login("nobody@example.org", e2e::harness::PASSWORD)?, 401)
        .await?;
    assert_eq!(
        shape(&wrong, "invalid_credentials")?,
        shape(&unknown, "invalid_credentials")?
    );
    let again = json!({"email": account.email.to_uppercase(), "password": e2e::harness::PASSWORD});
    let again = harness
        .request(Method::POST, &harness.url("/auth/register")?)
        .json(&again);
    harness.send(again, 409).await?.problem("email_taken")?;
    Ok(())
}

fn clone_of<'h>(account: &Account<'h>) -> Account<'h> {
    Account {
        harness: account.harness,
        id: account.id.clone(),
        email: account.email.clone(),
        token: account.token.clone(),
    }
}

#[tokio::test]
async fn requests_that_are_none_get_a_problem_document() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let send = async |method: Method, path: &str, expected: u16| {
        let request = harness
            .request(method, &harness.url_at_root(path)?)
            .bearer_auth(&account.token);
        harness.send(request, expected).await
    };
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/jobs",
        "/api/v1/jobs/x/nothing",
        "/api/v1/auth/x",
    ] {
        send(Method::GET, path, 404).await?.problem("not_found")?;
    }
    send(Method::PUT, "/api/v1/jobs", 405)
        .await?
        .problem("method_not_allowed")?;
    send(Method::GET, "/api/v1/auth/login", 405)
        .await?
        .problem("method_not_allowed")?;

    for path in ["/jobs", "/auth/login", "/auth/register"] {
        let post = |content_type: &str, body: &str| {
            let request = harness
                .request(Method::POST, &harness.url(path)?)
                .bearer_auth(&account.token);
            Ok::<_, anyhow::Error>(request.header(CONTENT_TYPE, content_type).body(body.to_owned()))
        };
        harness
            .send(post("text/plain", "{}")?, 415)
            .await?
            .problem("unsupported_media_type")?;
        for broken in ["{", "", "[]", "{\"email\":\"a@b.c\",\"filename\":\"a\"", "\u{0}"] {
            let answer = harness.send_any(post("application/json", broken)?).await?;
            assert_eq!(
                answer.status,
                400,
                "{path} {broken:?}: {}",
                String::from_utf8_lossy(&answer.body)
            );
            answer.problem("invalid_request")?;
        }
        let huge = format!("{{\"filename\":\"{}\"}}", "a".repeat(70_000));
        harness
            .send(post("application/json", &huge)?, 413)
            .await?
            .problem("body_too_large")?;
    }
    let typed = account
        .post("/jobs", &json!({"filename": "a", "size_bytes": "many"}), 400)
        .await?;
    typed.problem("invalid_request")?;
    assert_eq!(typed.pointers()?, ["/size_bytes"]);
    Ok(())
}

#[tokio::test]
async fn both_bases_and_a_trailing_slash_are_the_same() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    let expected: Value = account.get(&format!("/jobs/{id}"), 200).await?.json()?;
    for base in ["/api/v1", "/api"] {
        for slash in ["", "/"] {
            let get = async |path: String| {
                let request = harness.request(Method::GET, &harness.url_at_root(&path)?);
                harness.send(request.bearer_auth(&account.token), 200).await
            };
            assert_eq!(
                get(format!("{base}/jobs/{id}{slash}")).await?.json::<Value>()?,
                expected
            );
            assert_eq!(
                get(format!("{base}/jobs{slash}")).await?.value("/jobs")?,
                json!([expected])
            );
            assert_eq!(
                get(format!("{base}/auth/me{slash}")).await?.text("/account/email")?,
                account.email
            );
        }
    }
    // Creating works everywhere too; its answer says where the job is.
    for path in ["/api/v1/jobs", "/api/v1/jobs/", "/api/jobs", "/api/jobs/"] {
        let body = json!({"source_file": "a.mp4", "size_bytes": 1, "target_format": "mp4"});
        let request = harness
            .request(Method::POST, &harness.url_at_root(path)?)
            .bearer_auth(&account.token);
        let created = harness.send(request.json(&body), 201).await?;
        assert_eq!(
            created.header("location")?,
            format!("/api/v1/jobs/{}", created.text("/id")?)
        );
    }
    let jobs = account.get("/jobs", 200).await?.value("/jobs")?;
    assert_eq!(jobs.as_array().map(Vec::len), Some(5));
    Ok(())
}
