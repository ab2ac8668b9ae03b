//! The routes that Uppy asks, as it asks them.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use e2e::account::sha256;
use e2e::browser::Browser;
use e2e::{Account, Answer, Clip, Harness, JOB_LIMIT, Studio};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const BOUNDARY: &str = "----reelayboundary";

async fn clip(studio: &Studio) -> Result<Vec<u8>> {
    let clip = Clip {
        seconds: 1,
        size: (160, 90),
        ..Clip::default()
    };
    Ok(std::fs::read(studio.clip("source.mp4", &clip).await?)?)
}

/// A form as a browser sends it: the fields, then the file.
async fn post_form(account: &Account<'_>, form: &Answer, change: impl Fn(&mut Value), file: &[u8]) -> Result<Answer> {
    let mut fields = form.value("/fields")?;
    change(&mut fields);
    let mut head = String::new();
    for (name, value) in fields.as_object().context("no fields")? {
        let value = value.as_str().context("a field that is no text")?;
        write!(
            head,
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        )?;
    }
    write!(
        head,
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )?;
    let body = [head.as_bytes(), file, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
    let request = account.harness.request(Method::POST, &form.text("/url")?);
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    account
        .harness
        .send_any(request.header(CONTENT_TYPE, content_type).body(body))
        .await
}

#[tokio::test]
async fn u01_a_form_takes_one_file_of_one_length_and_type() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let source = clip(&studio).await?;
    let query = format!(
        "/s3/params?filename=f%C3%BC.mp4&type=video%2Fmp4&metadata%5Bsize_bytes%5D={}&metadata%5Bpriority%5D=high\
         &metadata%5Bname%5D=f&metadata%5Bthumbnails%5D=%7B%22count%22%3A0%7D",
        source.len()
    );
    let form = account.get(&query, 200).await?;
    assert_eq!(form.text("/method")?, "POST");
    let id = form.text("/job_id")?;
    let job = account.get(&format!("/jobs/{id}"), 200).await?;
    assert_eq!(job.text("/filename")?, "fü.mp4");
    assert_eq!(job.text("/priority")?, "high");

    // U02: nothing else is accepted.
    let longer = [source.as_slice(), b"x"].concat();
    for (what, answer) in [
        ("longer", post_form(&account, &form, |_| {}, &longer).await?),
        ("shorter", post_form(&account, &form, |_| {}, &source[1..]).await?),
        (
            "another key",
            post_form(&account, &form, |fields| fields["key"] = json!("sources/x"), &source).await?,
        ),
        (
            "another type",
            post_form(
                &account,
                &form,
                |fields| fields["Content-Type"] = json!("text/html"),
                &source,
            )
            .await?,
        ),
        (
            "another signature",
            post_form(
                &account,
                &form,
                |fields| fields["x-amz-signature"] = json!("0".repeat(64)),
                &source,
            )
            .await?,
        ),
    ] {
        assert!(matches!(answer.status.as_u16(), 400 | 403), "{what}: {}", answer.status);
    }
    let prefix = format!("sources/{}/{id}/", account.id);
    assert_eq!(harness.objects("SOURCE_BUCKET", &prefix).await?, []);

    let answer = post_form(&account, &form, |_| {}, &source).await?;
    assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(account.ended(&id, JOB_LIMIT).await?.status, "COMPLETED");
    let object = &harness.objects("SOURCE_BUCKET", &prefix).await?[0];
    assert_eq!(
        sha256(&harness.object("SOURCE_BUCKET", &object.key).await?),
        sha256(&source)
    );
    Ok(())
}

#[tokio::test]
async fn a_file_without_its_length_is_refused_with_a_hint() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let answer = account.get("/s3/params?filename=a.mp4&type=video%2Fmp4", 422).await?;
    assert_eq!(answer.pointers()?, ["/metadata/size_bytes"]);
    let body = json!({"filename": "a.mp4", "type": "video/mp4", "metadata": {"name": "a.mp4"}});
    let answer = account.post("/s3/multipart", &body, 422).await?;
    assert_eq!(answer.pointers()?, ["/metadata/size_bytes"]);
    Ok(())
}

#[tokio::test]
async fn parts_go_the_way_that_uppy_knows() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let mut source = clip(&studio).await?;
    let free = u32::try_from(6 * MIB - source.len())?;
    source.extend(free.to_be_bytes());
    source.extend(b"free");
    source.resize(6 * MIB, 1);
    let body = json!({"filename": "a.mp4", "type": "video/mp4",
        "metadata": {"name": "a.mp4", "size_bytes": source.len(), "thumbnails": {"count": 0}}});
    let created = account.post("/s3/multipart", &body, 200).await?;
    let (id, key) = (created.text("/job_id")?, created.text("/key")?);
    assert_eq!(created.text("/bucket")?, harness.name("SOURCE_BUCKET")?);
    let path = format!("/s3/multipart/{}", created.text("/uploadId")?);

    let batch = account
        .get(&format!("{path}/batch?key={key}&partNumbers=1,2"), 200)
        .await?;
    let second = account.get(&format!("{path}/2?key={key}"), 200).await?;
    assert!(second.value("/expires")?.as_f64() > Some(0.0));
    for (url, bytes) in [
        (batch.text("/presignedUrls/1")?, &source[..5 * MIB]),
        (second.text("/url")?, &source[5 * MIB..]),
    ] {
        let request = harness.request(Method::PUT, &url).body(bytes.to_vec());
        harness.send(request, 200).await?;
    }
    let listed = account.get(&format!("{path}?key={key}"), 200).await?;
    assert_eq!(listed.value("/1/Size")?, json!(MIB));
    let parts: Vec<Value> = listed.json()?;
    let complete = format!("{path}/complete?key={key}");
    let answer = account.post(&complete, &json!({ "parts": parts }), 200).await?;
    assert_eq!(answer.text("/key")?, key);
    assert_eq!(answer.text("/location")?, format!("/api/v1/jobs/{id}"));
    assert_eq!(account.ended(&id, JOB_LIMIT).await?.status, "COMPLETED");

    let created = account.post("/s3/multipart", &body, 200).await?;
    let path = format!(
        "/s3/multipart/{}?key={}",
        created.text("/uploadId")?,
        created.text("/key")?
    );
    let request = harness.request(Method::DELETE, &harness.url(&path)?);
    let answer = harness.send(request.bearer_auth(&account.token), 200).await?;
    assert_eq!(answer.value("")?, json!({}));
    assert_eq!(account.job(&created.text("/job_id")?).await?.status, "CANCELLED");
    Ok(())
}

/// The job of a key that Uppy was given, once it is over, and whether its source is this one.
async fn ended(account: &Account<'_>, told: &Value, source: &[u8]) -> Result<()> {
    let key = told["uploaded"][0]["key"]
        .as_str()
        .with_context(|| format!("no key: {told}"))?;
    let id = key.split('/').nth(2).context("no id in the key")?;
    assert!(
        account.harness.object("SOURCE_BUCKET", key).await? == source,
        "other bytes"
    );
    let job = account.ended(id, JOB_LIMIT).await?;
    assert_eq!(job.status, "COMPLETED", "{:?}", job.error);
    let shown = account.get(&format!("/jobs/{id}"), 200).await?;
    assert_eq!(shown.text("/priority")?, "high");
    Ok(())
}

/// How often a part was sent, in parts that S3 took.
fn parts_sent(told: &Value) -> usize {
    let answers = told["answers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_part = |answer: &&Value| answer["method"] == "PUT" && answer["status"] == 200;
    answers.iter().filter(is_part).count()
}

#[tokio::test]
async fn browser_uppy_uploads_through_a_lost_network_and_a_closed_page() -> Result<()> {
    let harness = Harness::open().await?;
    let (account, studio) = (harness.account().await?, Studio::open(&harness)?);
    let small = clip(&studio).await?;
    let mut large = small.clone();
    let size_bytes = 60_000_000;
    let free = u32::try_from(size_bytes - large.len())?;
    large.extend(free.to_be_bytes());
    large.extend(b"free");
    large.extend((large.len()..size_bytes).map(|index| u8::try_from(index % 251).unwrap_or_default()));
    let folder = tempfile::tempdir()?;
    let (small_path, large_path) = (folder.path().join("small.mp4"), folder.path().join("large.mp4"));
    std::fs::write(&small_path, &small)?;
    std::fs::write(&large_path, &large)?;

    let told = Browser::open(&harness)
        .await?
        .upload(json!({
            "api_url": harness.name("API_URL")?,
            "token": account.token,
            "small": small_path,
            "large": large_path,
            "meta": {"priority": "high", "thumbnails": "{\"count\": 0}"},
        }))
        .await?;
    ended(&account, &told["small"], &small).await?;
    ended(&account, &told["cut"], &large).await?;
    ended(&account, &told["reload"], &large).await?;
    // Twelve parts of 5 MiB at most: nothing that was there is sent again.
    let parts = size_bytes.div_ceil(5 * MIB);
    assert_eq!(parts_sent(&told["small"]), 0, "by a form");
    assert!(parts_sent(&told["cut"]) >= parts, "{}", told["cut"]);
    let again = parts_sent(&told["reload"]).saturating_sub(parts);
    assert!(again <= 2, "{again} parts were sent again: {}", told["reload"]);
    let asked = told["reload"]["answers"].to_string();
    assert!(asked.contains("/s3/multipart/"), "{asked}");
    for journey in ["small", "cut", "reload"] {
        assert_eq!(told[journey]["failed"], json!([]), "{journey}");
    }
    Ok(())
}
