//! A create request that is sent again, at once or later, creates nothing more.

use anyhow::Result;
use e2e::{Account, Answer, Harness};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

async fn create(account: &Account<'_>, key: &str, body: &Value) -> Result<Answer> {
    let request = account.harness.request(Method::POST, &account.harness.url("/jobs")?);
    let request = request.bearer_auth(&account.token).header("idempotency-key", key);
    account.harness.send_any(request.json(body)).await
}

async fn jobs(account: &Account<'_>) -> Result<usize> {
    let list = account.get("/jobs?limit=100", 200).await?.value("/jobs")?;
    Ok(list.as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn the_same_request_finds_its_job_and_another_one_is_refused() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, other) = (harness.account().await?, harness.account().await?);
    let body = json!({"filename": "a.mp4", "size_bytes": 5, "content_type": "video/mp4"});
    let first = create(&account, "one", &body).await?;
    assert_eq!(first.status, 201);
    assert!(first.headers.get("idempotency-replayed").is_none());
    let id = first.text("/id")?;

    let again = create(&account, "one", &body).await?;
    assert_eq!((again.status.as_u16(), again.text("/id")?), (201, id.clone()));
    assert_eq!(again.header("idempotency-replayed")?, "true");
    assert_eq!(again.header("location")?, first.header("location")?);
    assert_eq!(jobs(&account).await?, 1);
    // Its URL was signed anew, and is good.
    let upload = serde_json::from_value(again.value("/upload")?)?;
    assert_eq!(account.put(&upload, b"bytes".to_vec()).await?.status, 200);

    let mismatch = create(&account, "one", &json!({"filename": "b.mp4", "size_bytes": 5})).await?;
    assert_eq!(mismatch.status, 422);
    mismatch.problem("idempotency_mismatch")?;
    // A key is its account's, and one of several.
    assert_ne!(create(&other, "one", &body).await?.text("/id")?, id);
    assert_ne!(create(&account, "two", &body).await?.text("/id")?, id);
    assert_eq!(jobs(&account).await?, 2);
    let long = create(&account, &"k".repeat(256), &body).await?;
    assert_eq!(long.status, 422);
    // What was refused is not remembered.
    let bad = create(&account, "three", &json!({"filename": "a.mp4"})).await?;
    assert_eq!(bad.status, 422);
    assert_eq!(create(&account, "three", &body).await?.status, 201);
    Ok(())
}

#[tokio::test]
async fn of_twenty_at_once_one_creates() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    for (key, upload) in [("put", "put"), ("multipart", "multipart")] {
        let body = json!({"filename": "a.mp4", "size_bytes": 5, "upload": upload});
        let answers = join_all((0..20).map(|_| create(&account, key, &body))).await;
        let mut ids = Vec::new();
        for answer in answers {
            let answer = answer?;
            // Those that met in the same moment may be told to ask again.
            match answer.status.as_u16() {
                201 => ids.push(answer.text("/id")?),
                _ => {
                    answer.problem("idempotency_in_progress")?;
                }
            }
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "{key}: {ids:?}");
        let prefix = format!("sources/{}/", account.id);
        let open = usize::from(upload != "put");
        assert_eq!(
            harness.open_uploads(&prefix).await?,
            open,
            "those that came later ended theirs"
        );
    }
    assert_eq!(jobs(&account).await?, 2);
    Ok(())
}

#[tokio::test]
async fn q20_a_key_that_ran_out_is_forgotten_before_it_is_deleted() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let body = json!({"filename": "a.mp4", "size_bytes": 5});
    let key = uuid::Uuid::new_v4().to_string();
    let id = create(&account, &key, &body).await?.text("/id")?;
    let mut record = harness.request_record(&id).await?;
    let expires = record["expires_at"].as_i64().unwrap_or_default();
    record["expires_at"] = json!(expires - 24 * 3_600 - 1);
    harness.store_item(&record).await?;
    let next = create(&account, &key, &json!({"filename": "b.mp4", "size_bytes": 5})).await?;
    assert_eq!(next.status, 201);
    assert_ne!(next.text("/id")?, id);
    Ok(())
}
