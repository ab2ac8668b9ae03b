//! Each function's binary under AWS' own runtime emulator, with the events that `sam local invoke` takes.

use anyhow::{Context, Result};
use e2e::behind::{given_back, plan_message};
use e2e::{Clip, Harness, Studio, events};
use serde_json::{Value, json};

/// The answer of an HTTP function: status, and the body as JSON.
fn http(answer: &Value) -> Result<(u64, Value)> {
    let status = answer["statusCode"]
        .as_u64()
        .with_context(|| format!("{answer} is no HTTP answer"))?;
    let body = answer["body"].as_str().unwrap_or_default();
    Ok((
        status,
        if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(body)?
        },
    ))
}

fn header<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    answer["headers"][name]
        .as_str()
        .or_else(|| answer["multiValueHeaders"][name][0].as_str())
}

#[tokio::test]
async fn auth_by_http() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let event = events::read("auth-http")?;
    let answer = harness.run_under_rie("auth", &event).await?;
    let (status, body) = http(&answer)?;
    assert_eq!(
        (status, &body["code"]),
        (401, &json!("invalid_credentials")),
        "nobody has this account"
    );
    assert_eq!(
        header(&answer, "content-type"),
        Some("application/problem+json; charset=utf-8")
    );
    assert_eq!(body["request_id"], event["requestContext"]["requestId"]);

    let credentials = json!({"email": account.email, "password": e2e::harness::PASSWORD}).to_string();
    let event = events::with(event, &[("/body", json!(credentials))])?;
    let (status, body) = http(&harness.run_under_rie("auth", &event).await?)?;
    assert_eq!((status, &body["account"]["id"]), (200, &json!(account.id)));
    Ok(())
}

#[tokio::test]
async fn upload_by_http() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let event = events::read("upload-http")?;
    let (status, body) = http(&harness.run_under_rie("upload", &event).await?)?;
    assert_eq!(
        (status, &body["code"]),
        (401, &json!("unauthenticated")),
        "the event's token is nobody's"
    );

    let event = events::with(
        event,
        &[("/headers/authorization", json!(format!("Bearer {}", account.token)))],
    )?;
    let (status, body) = http(&harness.run_under_rie("upload", &event).await?)?;
    assert_eq!((status, &body["status"]), (201, &json!("PENDING")));
    assert_eq!(body["upload"]["headers"]["content-length"], "1048576");
    assert_eq!(
        account.job(body["id"].as_str().context("no id")?).await?.status,
        "PENDING"
    );
    Ok(())
}

#[tokio::test]
async fn status_by_http() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let id = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    let event = events::read("status-http")?;
    let (status, body) = http(&harness.run_under_rie("status", &event).await?)?;
    assert_eq!((status, &body["code"]), (401, &json!("unauthenticated")));

    let token = [("/headers/authorization", json!(format!("Bearer {}", account.token)))];
    let signed_in = events::with(event, &token)?;
    let (status, body) = http(&harness.run_under_rie("status", &signed_in).await?)?;
    assert_eq!(
        (status, &body["code"]),
        (404, &json!("not_found")),
        "the event's job is nobody's"
    );
    let path = json!(format!("/api/v1/jobs/{id}"));
    let own = events::with(
        signed_in,
        &[("/rawPath", path.clone()), ("/requestContext/http/path", path)],
    )?;
    let (status, body) = http(&harness.run_under_rie("status", &own).await?)?;
    assert_eq!((status, &body["id"]), (200, &json!(id)));
    Ok(())
}

#[tokio::test]
async fn intake_by_s3() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    harness
        .run_under_rie("intake", &events::read("intake-s3")?)
        .await
        .context("an upload of nobody")?;

    // An upload that it has seen before, by way of the bucket.
    let created = account.create(&json!({"filename": "a.mp4", "size_bytes": 4})).await?;
    let version = account.upload(&created.upload, b"text".to_vec()).await?;
    let job = account.ended(&created.id, e2e::JOB_LIMIT).await?;
    assert_eq!(job.error_code(), Some("unsupported_format"));
    // Told, so that nothing of the job changes any more.
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    let before = harness.items(&created.id).await?;
    let key = format!("sources/{}/{}/source", account.id, created.id);
    let event = events::upload_finished(harness.name("SOURCE_BUCKET")?, &key, &version, 4)?;
    harness.run_under_rie("intake", &event).await?;
    assert_eq!(account.mails_up_to_now().await?.len(), 1);
    assert_eq!(harness.items(&created.id).await?, before);
    Ok(())
}

#[tokio::test]
async fn process_by_sqs() -> Result<()> {
    let harness = Harness::open().await?;
    for name in ["process-sqs-high", "process-sqs-low"] {
        let event = events::read(name)?;
        let answer = harness.run_under_rie("process", &event).await?;
        assert_eq!(
            given_back(&answer)?,
            Vec::<&str>::new(),
            "{name}: a job that is not there is nothing to do"
        );
    }
    let newer = plan_message("job_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b", 1).replace("\"version\":1", "\"version\":2");
    let answer = harness
        .run_under_rie("process", &events::message("message-1", &newer)?)
        .await?;
    assert_eq!(given_back(&answer)?, ["message-1"]);
    Ok(())
}

#[tokio::test]
async fn notify_by_dynamodb() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let source = studio
        .clip(
            "source.mp4",
            &Clip {
                seconds: 1,
                size: (160, 90),
                ..Clip::default()
            },
        )
        .await?;
    let job = account.complete(&source, json!({})).await?;
    let before = account.mails_up_to_now().await?;
    assert_eq!(before.len(), 1);

    // The change that was told already, once more: of the stream's two images, what matters is put in.
    let mut event = events::read("notify-dynamodb")?;
    event = events::with(event, &[("/Records/0/dynamodb/Keys/job_id/S", json!(job.id))])?;
    for image in ["NewImage", "OldImage"] {
        let at = |field: &str| format!("/Records/0/dynamodb/{image}/{field}/S");
        let (id, owner) = (at("job_id"), at("account_id"));
        event = events::with(event, &[(&id, json!(job.id)), (&owner, json!(account.id))])?;
    }
    let answer = harness.run_under_rie("notify", &event).await?;
    assert_eq!(given_back(&answer)?, Vec::<&str>::new());
    assert_eq!(account.mails_up_to_now().await?.len(), 1, "a change is told once");
    Ok(())
}
