//! The API is what its own document says: for every operation, for every error, for a client generated from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::contract::{Document, Operation, methods_of};
use e2e::{Account, Answer, Clip, Harness, Studio, node};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contract");
/// A clip that is enough for every output.
const CLIP: Clip<'_> = Clip {
    seconds: 1,
    size: (320, 180),
    rate: 25,
    sound: true,
    encoding: e2e::studio::MP4,
};
/// How soon a request that is none is refused.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// Bodies above this length never reach a function on AWS: 6 MB is the most that Lambda takes. Here the emulator hands
/// them over, which takes it a while.
const LARGEST_EVENT_BYTES: usize = 6 << 20;
const LARGE_REFUSAL_LIMIT: Duration = Duration::from_secs(10);

/// Jobs in each state that some operation needs.
struct Jobs {
    completed: String,
    failed: String,
    pending: String,
}

async fn jobs(account: &Account<'_>) -> Result<Jobs> {
    let studio = Studio::open(account.harness)?;
    let source = studio.clip("source.mp4", &CLIP).await?;
    let outputs = json!({"outputs": [{"format": "mp4"}, {"format": "hls"}], "thumbnails": {"count": 1},
        "title": "Contract", "metadata": {"": {"deep": [1e300, null]}}});
    let completed = account.complete(&source, outputs).await?;
    // It begins like an MP4, and so is accepted; there is nothing behind it.
    let cut_off = tokio::fs::read(&source).await?[..2_000].to_vec();
    let failed = account.submit(cut_off, json!({})).await?;
    let failed = account.finish(failed).await?;
    anyhow::ensure!(failed.status == "FAILED", "{failed:?}");
    let pending = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?;
    Ok(Jobs {
        completed: completed.id,
        failed: failed.id,
        pending: pending.id,
    })
}

/// A job whose source is sent in one part, which is there.
struct InParts {
    id: String,
    upload_id: String,
    key: String,
    etag: String,
}

async fn in_parts(account: &Account<'_>) -> Result<InParts> {
    let harness = account.harness;
    let body = json!({"filename": "a.mp4", "size_bytes": 6, "upload": "multipart"});
    let created = account.post("/jobs", &body, 201).await?;
    let part = harness
        .request(Method::PUT, &created.text("/upload/parts/0/url")?)
        .body(b"parted".to_vec());
    let sent = harness.send(part, 200).await?;
    let id = created.text("/id")?;
    Ok(InParts {
        upload_id: created.text("/upload/upload_id")?,
        key: format!("sources/{}/{id}/source", account.id),
        etag: sent.header("etag")?.to_owned(),
        id,
    })
}

/// Asks for an operation with its own example.
async fn ask(account: &Account<'_>, operation: &Operation<'_>, base: &str, jobs: &Jobs, slash: &str) -> Result<Answer> {
    let harness = account.harness;
    let mut etag = String::new();
    let job = match operation.path {
        "/jobs/{id}/cancel" => &jobs.pending,
        "/jobs/{id}/retry" => &jobs.failed,
        _ => &jobs.completed,
    };
    let mut filled = operation.path_for(job);
    let is_about_parts = filled.contains("/upload") || filled.contains("{upload_id}");
    if is_about_parts && !filled.ends_with("/videos/upload") {
        let parts = in_parts(account).await?;
        filled = operation
            .path_for(&parts.id)
            .replace("{upload_id}", &parts.upload_id)
            .replace("{part_number}", "1");
        if operation.path.contains("{upload_id}") {
            let numbers = if filled.ends_with("/batch") {
                "&partNumbers=1"
            } else {
                ""
            };
            filled = format!("{filled}?key={}{numbers}", parts.key);
        }
        etag = parts.etag;
    } else if operation.method == "DELETE" && operation.path.ends_with("/{id}") {
        let doomed = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?;
        filled = operation.path_for(&doomed.id);
    } else if filled == "/s3/params" {
        filled = format!("{filled}?filename=a.mp4&type=video/mp4&metadata%5Bsize_bytes%5D=6");
    }
    let (filled, query) = filled
        .split_once('?')
        .map_or((filled.as_str(), None), |(path, query)| (path, Some(query)));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{base}{filled}{slash}{query}");
    let mut request = harness.request(operation.method.parse()?, &harness.url_at_root(&path)?);
    if operation.needs_token() {
        let ends_sessions = ["/auth/logout", "/auth/change-password"].contains(&operation.path)
            || (operation.method, operation.path) == ("DELETE", "/auth/me");
        let token = if ends_sessions {
            harness.account().await?.token
        } else if operation.path.starts_with("/analytics") {
            let operator = harness.account().await?;
            harness.make_operator(&operator.id).await?;
            operator.token
        } else {
            account.token.clone()
        };
        request = request.bearer_auth(token);
    }
    if let Some(mut body) = operation.example() {
        match operation.path {
            "/auth/register" => body["email"] = json!(format!("e2e-{}@example.org", uuid::Uuid::new_v4().simple())),
            "/auth/login" => body = json!({"email": account.email, "password": e2e::harness::PASSWORD}),
            "/auth/refresh" => {
                let credentials = json!({"email": account.email, "password": e2e::harness::PASSWORD});
                let login = harness
                    .request(Method::POST, &harness.url("/auth/login")?)
                    .json(&credentials);
                body = json!({"refresh_token": harness.send(login, 200).await?.text("/refresh_token")?});
            }
            "/auth/change-password" => body["current_password"] = json!(e2e::harness::PASSWORD),
            "/auth/me" => body["password"] = json!(e2e::harness::PASSWORD),
            "/jobs/{id}/upload/parts" => body = json!({"part_numbers": [1]}),
            "/jobs/{id}/upload/complete" => body["parts"][0]["etag"] = json!(etag),
            "/s3/multipart/{upload_id}/complete" => body["parts"][0]["ETag"] = json!(etag),
            _ => {}
        }
        request = request.json(&body);
    }
    harness.send_any(request).await
}

#[tokio::test]
async fn a18_every_operation_answers_as_documented() -> Result<()> {
    let harness = Harness::open().await?;
    let document = Document::fetch(&harness).await?;
    let account = harness.account().await?;
    let jobs = jobs(&account).await?;
    let mut asked = 0;
    for operation in document.operations() {
        let answer = ask(&account, &operation, "/api/v1", &jobs, "").await?;
        operation.check(&answer)?;
        let good = operation.good_status()?;
        assert_eq!(
            answer.status.as_u16(),
            good,
            "{operation:?}: {:?}",
            String::from_utf8_lossy(&answer.body)
        );
        if operation.needs_token() {
            let request = harness.request(operation.method.parse()?, &harness.url(&operation.path_for("x"))?);
            let refused = harness.send(request, 401).await?;
            operation.check(&refused)?;
        }
        if operation.path.contains("{id}") {
            let mut request = harness.request(operation.method.parse()?, &harness.url(&operation.path_for("x"))?);
            if let Some(body) = operation.example() {
                request = request.json(&body);
            }
            operation.check(&harness.send(request.bearer_auth(&account.token), 404).await?)?;
        }
        asked += 1;
    }
    assert!(asked >= 24, "{asked} operations");
    // What a failed job shows is documented too.
    let shown = document.operations().find(|operation| operation.path == "/jobs/{id}");
    let failed = account.get(&format!("/jobs/{}", jobs.failed), 200).await?;
    shown.context("no /jobs/{id}")?.check(&failed)
}

/// Each alternative path, under both bases, with and without a slash, is answered like the path that it stands for.
#[tokio::test]
async fn alternative_paths_are_the_same() -> Result<()> {
    let harness = Harness::open().await?;
    let document = Document::fetch(&harness).await?;
    let account = harness.account().await?;
    let jobs = jobs(&account).await?;
    let mut asked = 0;
    for alias in document.operations() {
        let Some(path) = alias.alias_of() else { continue };
        let own = document
            .operations()
            .find(|operation| operation.path == path && operation.method == alias.method)
            .context("it stands for nothing")?;
        for base in ["/api/v1", "/api"] {
            for slash in ["", "/"] {
                let answer = ask(&account, &alias, base, &jobs, slash).await?;
                assert_eq!(
                    answer.status.as_u16(),
                    own.good_status()?,
                    "{base}{}{slash}",
                    alias.path
                );
                own.check(&answer)?;
                match answer.status.as_u16() {
                    200 => {
                        let same = ask(&account, &own, "/api/v1", &jobs, "").await?;
                        assert_eq!(answer.json::<Value>()?, same.json::<Value>()?, "{base}{}", alias.path);
                    }
                    302 => {
                        let file = harness.request(Method::GET, answer.header("location")?);
                        assert!(harness.send(file, 200).await?.body.len() > 100, "{base}{}", alias.path);
                    }
                    201 => {
                        let id = answer.text("/id")?;
                        assert_eq!(answer.header("location")?, format!("/api/v1/jobs/{id}"));
                        account.post(&format!("/jobs/{id}/cancel"), &json!({}), 200).await?;
                    }
                    // Deleted.
                    204 => {}
                    other => panic!("{other} for {alias:?}"),
                }
                asked += 1;
            }
        }
    }
    assert!(asked >= 4 * 11, "{asked} requests");

    // With the names that such clients use.
    let body = json!({"source_file": "holiday.mov", "size_bytes": 7, "target_format": "webm", "priority": "high"});
    let created = account.post("/submit_job", &body, 201).await?;
    assert_eq!(created.text("/filename")?, "holiday.mov");
    assert_eq!(created.text("/priority")?, "high");
    assert_eq!(
        created.value("/spec/outputs")?,
        json!([{"format": "webm", "quality": null}])
    );
    let done = account.get(&format!("/job/{}/status", jobs.completed), 200).await?;
    assert_eq!(done.text("/status")?, "COMPLETED");
    for figure in ["peak_cpu_percent", "peak_memory_mb", "processing_seconds"] {
        let value = done.value(&format!("/metrics/{figure}"))?;
        assert!(value.as_f64().is_some_and(|value| value > 0.0), "{figure}: {value}");
    }
    Ok(())
}

#[tokio::test]
async fn every_code_leads_to_what_to_do() -> Result<()> {
    let harness = Harness::open().await?;
    let document = Document::fetch(&harness).await?;
    for base in ["/api/v1", "/api"] {
        let page = harness.request(Method::GET, &harness.url_at_root(&format!("{base}/docs"))?);
        let page = harness.send(page, 200).await?;
        assert_eq!(page.header("content-type")?, "text/html; charset=utf-8");
        let policy = page.header("content-security-policy")?;
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        let text = String::from_utf8(page.body)?;
        for code in document.codes()? {
            assert!(text.contains(&format!("<section id=\"{code}\">")), "{code}");
        }
    }
    let url = harness.url("/jobs/x")?;
    let problem = harness.send(harness.request(Method::GET, &url), 401).await?;
    let kind = problem.problem("unauthenticated")?["type"].as_str().map(str::to_owned);
    let page = reqwest::Url::parse(&harness.url_at_root(&kind.context("no type")?)?)?;
    assert_eq!(page.fragment(), Some("unauthenticated"));
    harness.send(harness.request(Method::GET, page.as_str()), 200).await?;
    Ok(())
}

/// Whether a path is one of those that a template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (wanted, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let mut parts = wanted.iter().zip(&given);
    wanted.len() == given.len() && parts.all(|(wanted, given)| wanted == given || wanted.starts_with('{'))
}

#[tokio::test]
async fn a_wrong_method_hears_which_are_right() -> Result<()> {
    let harness = Harness::open().await?;
    let document = Document::fetch(&harness).await?;
    let mut refused = 0;
    for operation in document.operations() {
        let methods = methods_of(&document, operation.path);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            // Another path may stand for this one too.
            let mut others = document.operations().filter(|other| other.method == method);
            if methods.contains(method) || others.any(|other| fits(other.path, operation.path)) {
                continue;
            }
            let path = operation.path_for("job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b");
            let answer = harness.request(method.parse()?, &harness.url(&path)?);
            let answer = harness.send(answer, 405).await?;
            answer.problem("method_not_allowed")?;
            let mut allowed: Vec<_> = answer.header("allow")?.split(", ").collect();
            allowed.retain(|method| *method != "HEAD");
            assert_eq!(allowed, methods.iter().collect::<Vec<_>>(), "{method} {path}");
            refused += 1;
        }
    }
    assert!(refused > 80, "{refused}");
    Ok(())
}

/// What it is, its bytes, how it may be refused, and where the refusal points.
type NoRequest = (&'static str, Vec<u8>, &'static [u16], Option<&'static str>);

#[tokio::test]
async fn a20_what_is_no_request_is_refused_at_once() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let deep = format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let names: BTreeMap<String, u8> = (0..1_000_000).map(|n| (format!("n{n}"), 1)).collect();
    let many = serde_json::to_vec(&names)?;
    let bodies: [NoRequest; 9] = [
        ("11 MB", vec![b'a'; 11 << 20], &[413], None),
        ("a million names", many, &[413], None),
        ("10,000 levels", deep.into_bytes(), &[400, 413], None),
        ("500 levels", "[".repeat(500).into_bytes(), &[400], None),
        (
            "no UTF-8",
            b"{\"filename\":\"\xff\"}".to_vec(),
            // The emulator replaces such bytes; API Gateway hands them over.
            &[400, 422],
            None,
        ),
        (
            "half a pair",
            br#"{"filename":"\ud800"}"#.to_vec(),
            &[400],
            Some("/filename"),
        ),
        ("cut off", br#"{"filename":"a","size_by"#.to_vec(), &[400], None),
        (
            "a word",
            br#"{"filename":"a","size_bytes":1,"thumbnails":{"count":"x"}}"#.to_vec(),
            &[400],
            Some("/thumbnails/count"),
        ),
        (
            "a list",
            br#"{"filename":"a","size_bytes":1,"outputs":[{"format":"mp4"},{"format":1}]}"#.to_vec(),
            &[400],
            Some("/outputs/1/format"),
        ),
    ];
    for (what, body, statuses, pointer) in bodies {
        let request = harness
            .request(Method::POST, &harness.url("/jobs")?)
            .bearer_auth(&account.token);
        let limit = if body.len() > LARGEST_EVENT_BYTES {
            LARGE_REFUSAL_LIMIT
        } else {
            REFUSAL_LIMIT
        };
        let began = Instant::now();
        let answer = harness
            .send_any(request.header(CONTENT_TYPE, "application/json").body(body))
            .await?;
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            statuses.contains(&answer.status.as_u16()),
            "{what}: {} {text}",
            answer.status
        );
        assert!(took < limit, "{what}: {took:?}");
        if let Some(pointer) = pointer {
            assert_eq!(answer.pointers()?, [pointer], "{what}");
        }
    }
    for (query, pointer) in [
        ("limit=x", "/limit"),
        ("limit=1&limit=2", "/limit"),
        ("limit=0", "/limit"),
    ] {
        let url = harness.url(&format!("/jobs?{query}"))?;
        let answer = harness
            .send_any(harness.request(Method::GET, &url).bearer_auth(&account.token))
            .await?;
        assert!(
            [400, 422].contains(&answer.status.as_u16()),
            "{query}: {}",
            answer.status
        );
        assert_eq!(answer.pointers()?, [pointer], "{query}");
    }
    // A path that is no text; the emulator makes some of it.
    let url = harness.url("/jobs/%ff/progress")?;
    let answer = harness
        .send_any(harness.request(Method::GET, &url).bearer_auth(&account.token))
        .await?;
    let code = if answer.status == 404 {
        "not_found"
    } else {
        "invalid_request"
    };
    answer.problem(code)?;
    Ok(())
}

#[tokio::test]
async fn a_generated_client_works() -> Result<()> {
    let harness = Harness::open().await?;
    let document = Document::fetch(&harness).await?;
    let studio = Studio::open(&harness)?;
    let source = studio.clip("source.mp4", &CLIP).await?;
    let tools = node::install(Path::new(SCRIPTS), &harness.target().join("tools/contract-client")).await?;
    // The compiler looks for packages beside the source.
    let scratch = tempfile::tempdir_in(&tools)?;
    let place = scratch.path();
    for file in ["journey.ts", "tsconfig.json", "package.json"] {
        tokio::fs::copy(Path::new(SCRIPTS).join(file), place.join(file)).await?;
    }
    tokio::fs::write(place.join("openapi.json"), document.0.to_string()).await?;
    let run = async |program: &str, arguments: &[&str]| {
        let mut command = node::command("node");
        command.arg(program).args(arguments).current_dir(place);
        node::run(command, program, &[]).await
    };
    let bin = |name: &str| tools.join("node_modules").join(name).to_string_lossy().into_owned();
    run(
        &bin("openapi-typescript/bin/cli.js"),
        &["openapi.json", "--output", "api.d.ts"],
    )
    .await?;
    run(&bin("typescript/bin/tsc"), &["--project", "."]).await?;

    let email = format!("e2e-{}@example.org", uuid::Uuid::new_v4().simple());
    let output = run(
        "journey.js",
        &[harness.name("API_URL")?, &email, &source.to_string_lossy()],
    )
    .await?;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    assert!(
        told["cpu_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0),
        "{told}"
    );
    let expected = json!({"account": email, "status": "COMPLETED", "error": null, "cpu_seconds": told["cpu_seconds"],
        "outputs": [["mp4-360p", 25], ["proof", null], ["thumbnail-01", null], ["thumbnail-02", null], ["thumbnail-03", null]],
        "listed": [true], "pointers": ["/thumbnails/count"], "retry": "not_retryable"});
    assert_eq!(told, expected);
    Ok(())
}
