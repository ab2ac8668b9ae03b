//! Uploads in parts: signed in batches, listed, completed, aborted; resumed by who has nothing but the job's id.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::account::sha256;
use e2e::worker::Mark;
use e2e::{Account, Answer, Clip, Harness, JOB_LIMIT, Studio};
use reqwest::Method;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// A small video with a box behind it that players skip, so that it has this length.
async fn padded(studio: &Studio, size_bytes: usize) -> Result<Vec<u8>> {
    let clip = Clip {
        seconds: 1,
        size: (160, 90),
        ..Clip::default()
    };
    let mut bytes = std::fs::read(studio.clip("source.mp4", &clip).await?)?;
    let free = u32::try_from(size_bytes.checked_sub(bytes.len()).context("the clip is larger")?)?;
    bytes.extend(free.to_be_bytes());
    bytes.extend(b"free");
    bytes.resize(size_bytes, 0x5a);
    Ok(bytes)
}

/// A job whose source is sent in parts of 5 MiB.
async fn begin(account: &Account<'_>, size_bytes: usize, with: Value) -> Result<Answer> {
    let mut body = json!({
        "filename": "clip.mp4", "content_type": "video/mp4", "size_bytes": size_bytes,
        "upload": "multipart", "part_size_bytes": 5 * MIB, "thumbnails": {"count": 0},
    });
    if let (Value::Object(fields), Value::Object(more)) = (&mut body, with) {
        fields.extend(more);
    }
    account.post("/jobs", &body, 201).await
}

fn range(number: usize, all: &[u8]) -> &[u8] {
    &all[(number - 1) * 5 * MIB..all.len().min(number * 5 * MIB)]
}

/// Sends a part to the URL that was signed for it; returns its tag.
async fn send(account: &Account<'_>, url: &str, bytes: &[u8]) -> Result<String> {
    let request = account.harness.request(Method::PUT, url).body(bytes.to_vec());
    Ok(account.harness.send(request, 200).await?.header("etag")?.to_owned())
}

/// Signs and sends parts; returns what completes them.
async fn send_parts(account: &Account<'_>, id: &str, numbers: &[usize], all: &[u8]) -> Result<Vec<Value>> {
    let path = format!("/jobs/{id}/upload/parts");
    let signed = account.post(&path, &json!({"part_numbers": numbers}), 200).await?;
    let mut sent = Vec::new();
    for (index, number) in numbers.iter().enumerate() {
        let bytes = range(*number, all);
        assert_eq!(signed.value(&format!("/parts/{index}/part_number"))?, json!(number));
        assert_eq!(signed.value(&format!("/parts/{index}/size_bytes"))?, json!(bytes.len()));
        let etag = send(account, &signed.text(&format!("/parts/{index}/url"))?, bytes).await?;
        sent.push(json!({"part_number": number, "etag": etag}));
    }
    Ok(sent)
}

async fn complete(account: &Account<'_>, id: &str, body: &Value, expected: u16) -> Result<Answer> {
    account
        .post(&format!("/jobs/{id}/upload/complete"), body, expected)
        .await
}

#[tokio::test]
async fn a_source_in_parts_is_processed_also_by_who_lost_everything_but_the_id() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let source = padded(&studio, 12 * MIB).await?;
    let created = begin(&account, source.len(), json!({"sha256": sha256(&source)})).await?;
    let id = created.text("/id")?;
    assert_eq!(created.text("/upload/method")?, "MULTIPART");
    assert_eq!(created.value("/upload/part_count")?, json!(3));
    assert_eq!(created.value("/upload/parts")?.as_array().map(Vec::len), Some(3));
    send(&account, &created.text("/upload/parts/1/url")?, range(2, &source)).await?;

    // The page was closed. What is needed to go on is on the job.
    let job = account.get(&format!("/jobs/{id}"), 200).await?;
    assert_eq!(job.value("/upload/part_size_bytes")?, json!(5 * MIB));
    assert!(
        job.value("/upload")?.get("parts").is_none(),
        "URLs are signed on demand"
    );
    let listed = account.get(&format!("/jobs/{id}/upload/parts"), 200).await?;
    assert_eq!(listed.value("/upload_id")?, created.value("/upload/upload_id")?);
    assert_eq!(listed.value("/parts/0/part_number")?, json!(2));
    assert_eq!(listed.value("/parts")?.as_array().map(Vec::len), Some(1));

    // U12: nothing is completed before all is there.
    let early = complete(&account, &id, &json!({}), 409).await?;
    early.problem("upload_incomplete")?;
    send_parts(&account, &id, &[1, 3], &source).await?;
    complete(&account, &id, &json!({}), 200).await?;
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!(job.status, "COMPLETED", "{:?}", job.error);

    // Twice is fine, also when the job is over; and there is one object, of the right bytes.
    complete(&account, &id, &json!({}), 200).await?;
    let objects = harness
        .objects("SOURCE_BUCKET", &format!("sources/{}/{id}/", account.id))
        .await?;
    assert_eq!(objects.len(), 1);
    assert!(harness.object("SOURCE_BUCKET", &objects[0].key).await? == source);
    account
        .get(&format!("/jobs/{id}/upload/parts"), 409)
        .await?
        .problem("upload_over")?;
    Ok(())
}

#[tokio::test]
async fn u05_what_is_no_part_of_the_upload_is_refused() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let source = padded(&studio, 6 * MIB).await?;
    let created = begin(&account, source.len(), json!({})).await?;
    let id = created.text("/id")?;
    let path = format!("/jobs/{id}/upload/parts");
    let many: Vec<u32> = vec![1; 101];
    for bad in [json!([0]), json!([3]), json!([10_001]), json!([]), json!(many)] {
        let answer = account.post(&path, &json!({ "part_numbers": bad }), 422).await?;
        answer.problem("validation_failed")?;
    }
    // Neither more nor fewer bytes than the part has.
    for wrong in [&source[..5 * MIB - 1], &source[..=5 * MIB]] {
        let url = created.text("/upload/parts/0/url")?;
        let answer = harness
            .send_any(harness.request(Method::PUT, &url).body(wrong.to_vec()))
            .await?;
        assert_eq!(answer.status, 403, "{} bytes", wrong.len());
    }
    let sent = send_parts(&account, &id, &[1, 2], &source).await?;
    let (first, second) = (&sent[0], &sent[1]);
    let other = json!({"part_number": 2, "etag": "\"0123456789abcdef0123456789abcdef\""});
    for (bad, pointer) in [
        (json!([second, first]), "/parts/0/part_number"),
        (json!([first, first]), "/parts/1/part_number"),
        (json!([first, other]), "/parts/1/etag"),
    ] {
        let answer = complete(&account, &id, &json!({ "parts": bad }), 422).await?;
        answer.problem("parts_mismatch")?;
        assert_eq!(answer.pointers()?[0], pointer);
    }
    assert_eq!(account.job(&id).await?.status, "PENDING");

    // Two at once, then once more: one object, one event, one run.
    let body = json!({ "parts": sent });
    let (one, two) = tokio::join!(complete(&account, &id, &body, 200), complete(&account, &id, &body, 200));
    ensure!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(account.ended(&id, JOB_LIMIT).await?.status, "COMPLETED");
    complete(&account, &id, &body, 200).await?;
    account
        .delete(&format!("/jobs/{id}/upload"), 409)
        .await?
        .problem("upload_over")?;
    Ok(())
}

#[tokio::test]
async fn an_aborted_upload_ends_its_job() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let source = padded(&studio, 6 * MIB).await?;
    for by in ["DELETE", "cancel"] {
        let created = begin(&account, source.len(), json!({})).await?;
        let id = created.text("/id")?;
        let sent = send_parts(&account, &id, &[1, 2], &source).await?;
        if by == "DELETE" {
            account.delete(&format!("/jobs/{id}/upload"), 204).await?;
            account.delete(&format!("/jobs/{id}/upload"), 204).await?;
        } else {
            account.post(&format!("/jobs/{id}/cancel"), &json!({}), 200).await?;
        }
        assert_eq!(account.job(&id).await?.status, "CANCELLED");
        let body = json!({ "parts": sent });
        complete(&account, &id, &body, 409).await?.problem("upload_over")?;
        let more = account
            .post(&format!("/jobs/{id}/upload/parts"), &json!({"part_numbers": [1]}), 409)
            .await?;
        more.problem("upload_over")?;
        assert_eq!(
            harness.open_uploads(&format!("sources/{}/{id}/", account.id)).await?,
            0,
            "{by}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn u06_what_is_never_finished_expires_and_is_dropped() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    // The sweep asks for each such job once in five minutes. Of five that have their turns in different ones, one has
    // it now.
    let turn = |id: &str| id.bytes().map(u32::from).sum::<u32>() % 5;
    let mut jobs = BTreeMap::new();
    while jobs.len() < 5 {
        let created = begin(&account, 6 * MIB, json!({})).await?;
        let id = created.text("/id")?;
        jobs.insert(turn(&id), (id, created.text("/upload/parts/0/url")?));
    }
    let prefix = |id: &str| format!("sources/{}/{id}/", account.id);
    for (id, url) in jobs.values() {
        send(&account, url, &vec![7; 5 * MIB]).await?;
        assert_eq!(harness.open_uploads(&prefix(id)).await?, 1);
        // Begun a long time ago.
        let mut item = harness.item(id, "job").await?;
        for field in ["created_at", "updated_at", "upload_expires_at"] {
            item[field] = json!("2026-01-01T00:00:00.000Z");
        }
        harness.store_item(&item).await?;
        let path = format!("/jobs/{id}/upload/parts");
        let late = account.post(&path, &json!({"part_numbers": [2]}), 409).await?;
        late.problem("upload_over")?;
    }
    harness.sweep().await?;
    let mut expired = 0;
    for (id, _) in jobs.values() {
        if account.job(id).await?.status == "EXPIRED" {
            expired += 1;
            assert_eq!(harness.open_uploads(&prefix(id)).await?, 0);
        }
        complete(&account, id, &json!({}), 409).await?.problem("upload_over")?;
    }
    assert!(expired > 0, "none had its turn");
    Ok(())
}

#[tokio::test]
async fn u07_nobody_touches_the_upload_of_another_account() -> Result<()> {
    let harness = Harness::open().await?;
    let (owner, stranger) = (harness.account().await?, harness.account().await?);
    let created = begin(&owner, 6 * MIB, json!({})).await?;
    let id = created.text("/id")?;
    let parts = format!("/jobs/{id}/upload/parts");
    stranger.get(&parts, 404).await?.problem("not_found")?;
    stranger.post(&parts, &json!({"part_numbers": [1]}), 404).await?;
    complete(&stranger, &id, &json!({}), 404).await?;
    stranger.delete(&format!("/jobs/{id}/upload"), 404).await?;
    let upload_id = created.text("/upload/upload_id")?;
    let key = format!("sources/{}/{id}/source", owner.id);
    let s3 = format!("/s3/multipart/{upload_id}");
    stranger.get(&format!("{s3}?key={key}"), 404).await?;
    stranger.get(&format!("{s3}/1?key={key}"), 404).await?;
    stranger.delete(&format!("{s3}?key={key}"), 404).await?;
    // Nor does an own key with another upload's name, or the other way round.
    let own = begin(&stranger, 6 * MIB, json!({})).await?;
    let own_key = format!("sources/{}/{}/source", stranger.id, own.text("/id")?);
    stranger.get(&format!("{s3}/1?key={own_key}"), 404).await?;
    assert_eq!(owner.job(&id).await?.status, "PENDING");
    Ok(())
}

#[tokio::test]
async fn another_hash_than_declared_is_another_file() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let source = padded(&studio, 6 * MIB).await?;
    let other = sha256(b"another file");
    // In parts: S3 cannot tell, so the worker does.
    let id = begin(&account, source.len(), json!({ "sha256": other }))
        .await?
        .text("/id")?;
    send_parts(&account, &id, &[1, 2], &source).await?;
    complete(&account, &id, &json!({}), 200).await?;
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!(job.error_code(), Some("checksum_mismatch"), "{}", job.status);
    assert!(job.error.is_some_and(|error| !error.retryable && error.attempt == 1));

    // By one PUT: S3 refuses it.
    let body = json!({"filename": "a.mp4", "size_bytes": source.len(), "sha256": other, "thumbnails": {"count": 0}});
    let created = account.create(&body).await?;
    let answer = account.put(&created.upload, source.clone()).await?;
    assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&answer.body));
    let mut lying = created.upload.clone();
    lying.headers.remove("x-amz-checksum-sha256");
    assert_eq!(account.put(&lying, source.clone()).await?.status, 403);

    // And takes the right one, which nobody has to hash again.
    let body = json!({"filename": "a.mp4", "size_bytes": source.len(), "sha256": sha256(&source),
        "thumbnails": {"count": 0}});
    let created = account.create(&body).await?;
    account.upload(&created.upload, source).await?;
    assert_eq!(account.ended(&created.id, JOB_LIMIT).await?.status, "COMPLETED");
    assert_eq!(harness.item(&created.id, "job").await?["sha256_checked"], json!(true));
    Ok(())
}

#[tokio::test]
async fn the_size_decides_how_a_source_is_sent_unless_its_creator_does() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let threshold = 100 * MIB;
    for (size_bytes, upload, method) in [
        (threshold, json!(null), "PUT"),
        (threshold + 1, json!(null), "MULTIPART"),
        (threshold + 1, json!("put"), "PUT"),
        (1, json!("multipart"), "MULTIPART"),
    ] {
        let body = json!({"filename": "a.mp4", "size_bytes": size_bytes, "upload": upload});
        let created = account.post("/jobs", &body, 201).await?;
        assert_eq!(created.text("/upload/method")?, method, "{size_bytes} {upload}");
        let job = account.get(&format!("/jobs/{}", created.text("/id")?), 200).await?;
        assert_eq!(job.text("/upload/method")?, method);
        assert_eq!(job.value("/upload/expires_at")?, created.value("/upload/expires_at")?);
    }
    for (field, value) in [
        ("upload", json!("ftp")),
        ("part_size_bytes", json!(1)),
        ("sha256", json!("abc")),
    ] {
        let body = json!({"filename": "a.mp4", "size_bytes": 10, field: value});
        let answer = account.post("/jobs", &body, 422).await?;
        assert_eq!(answer.pointers()?, [format!("/{field}")]);
    }
    Ok(())
}

/// Slow: a gigabyte goes through everybody's hands.
#[tokio::test]
async fn slow_a_gigabyte_goes_through_and_the_worker_does_not_grow_with_it() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let (source, mark) = Mark::put(padded(&studio, 1_000_000_000).await?)?;
    let declared = sha256(&source);
    let body = json!({"filename": "clip.mp4", "size_bytes": source.len(), "sha256": declared});
    let created = account.post("/jobs", &body, 201).await?;
    let id = created.text("/id")?;
    let part_size = usize::try_from(created.value("/upload/part_size_bytes")?.as_u64().context("no size")?)?;
    let numbers: Vec<usize> = (1..=source.len().div_ceil(part_size)).collect();
    assert_eq!(created.value("/upload/part_count")?, json!(numbers.len()));
    for batch in numbers.chunks(100) {
        let path = format!("/jobs/{id}/upload/parts");
        let signed = account.post(&path, &json!({ "part_numbers": batch }), 200).await?;
        for (index, number) in batch.iter().enumerate() {
            let range = (number - 1) * part_size..source.len().min(number * part_size);
            send(&account, &signed.text(&format!("/parts/{index}/url"))?, &source[range]).await?;
        }
    }
    drop(source);
    complete(&account, &id, &json!({}), 200).await?;
    let marks = [mark];
    let tool = harness.tool_reading(&marks, JOB_LIMIT, |_| true).await?;
    let job = account.ended(&id, JOB_LIMIT).await?;
    assert_eq!(job.status, "COMPLETED", "{:?}", job.error);
    let peak_bytes = tool.function_peak_bytes()?;
    println!("the worker had {} MB at most", peak_bytes / 1_000_000);
    // It had the whole source in its hands, for the hash.
    assert!(peak_bytes < 400_000_000, "{peak_bytes} bytes");
    Ok(())
}
