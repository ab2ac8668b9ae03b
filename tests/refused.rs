//! What is refused before a byte is processed: by the API at creation, by S3 at upload.

use anyhow::Result;
use e2e::{Account, Harness};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_source_above_the_limit_or_of_another_type_gets_no_upload_target() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let limit: u64 = harness.function_environment("UPLOAD_FUNCTION").await?["MAX_SOURCE_BYTES"].parse()?;
    let largest = json!({"filename": "a.mp4", "size_bytes": limit});
    let created = account.post("/jobs", &largest, 201).await?;
    assert_eq!(created.text("/upload/method")?, "MULTIPART");
    let too_large = json!({"filename": "a.mp4", "size_bytes": limit + 1});
    account
        .post("/jobs", &too_large, 422)
        .await?
        .problem("source_too_large")?;
    for content_type in ["image/png", "application/pdf", "text/html"] {
        let wrong = json!({"filename": "a.mp4", "size_bytes": 10, "content_type": content_type});
        account
            .post("/jobs", &wrong, 422)
            .await?
            .problem("unsupported_source_type")?;
    }
    let jobs = account.get("/jobs", 200).await?.value("/jobs")?;
    assert_eq!(jobs.as_array().map(Vec::len), Some(1), "only the accepted one is there");
    assert_eq!(jobs[0]["id"], created.value("/id")?);
    Ok(())
}

#[tokio::test]
async fn every_bad_field_is_named() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let body = json!({
        "filename": "", "size_bytes": 1, "priority": "urgent", "thumbnails": {"count": 1_000},
        "outputs": [{"format": "avi"}, {"format": "mp4", "quality": "5p"}], "compression": {"crf": 99},
    });
    let answer = account.post("/jobs", &body, 422).await?;
    answer.problem("validation_failed")?;
    let pointers = answer.pointers()?;
    for pointer in [
        "/filename",
        "/priority",
        "/thumbnails/count",
        "/outputs/0/format",
        "/outputs/1/quality",
        "/compression/crf",
    ] {
        assert!(
            pointers.iter().any(|known| known == pointer),
            "{pointer} is missing in {pointers:?}"
        );
    }
    Ok(())
}

/// Nothing arrived and nothing happened.
async fn still_pending(account: &Account<'_>, id: &str) -> Result<()> {
    assert_eq!(account.job(id).await?.status, "PENDING");
    let stored = account
        .harness
        .objects("SOURCE_BUCKET", &format!("sources/{}/{id}/", account.id))
        .await?;
    assert_eq!(stored, []);
    Ok(())
}

#[tokio::test]
async fn an_upload_must_be_what_was_declared() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let created = account
        .create(&json!({"filename": "a.mp4", "size_bytes": 10, "content_type": "video/mp4"}))
        .await?;
    let upload = &created.upload;
    assert_eq!(upload.headers["content-type"], "video/mp4");
    assert_eq!(upload.headers["content-length"], "10");

    let length = account.put(upload, vec![0; 11]).await?;
    assert_eq!(length.status, 403, "another length");
    let shorter = account.put(upload, vec![0; 9]).await?;
    assert_eq!(shorter.status, 403, "another length");

    let typed = harness
        .request(Method::PUT, &upload.url)
        .header("content-type", "video/webm")
        .body(vec![0; 10]);
    harness.send(typed, 403).await?;
    let untyped = harness.request(Method::PUT, &upload.url).body(vec![0; 10]);
    harness.send(untyped, 403).await?;

    let elsewhere = upload.url.replacen("/source?", "/other?", 1);
    assert_ne!(elsewhere, upload.url);
    let typed = harness
        .request(Method::PUT, &elsewhere)
        .header("content-type", "video/mp4")
        .body(vec![0; 10]);
    harness.send(typed, 403).await?;
    // The URL is for one upload: not for reading, and not for taking away.
    for method in [Method::GET, Method::DELETE] {
        harness.send(harness.request(method, &upload.url), 403).await?;
    }
    still_pending(&account, &created.id).await
}
