//! What people download: under a name that does no harm, of the right type, by a link that is good for nothing else.

use anyhow::{Context, Result};
use e2e::{Account, Answer, Clip, Harness, Studio};
use percent_encoding::percent_decode_str;
use reqwest::{Method, Url};
use serde_json::json;

/// Follows a redirect as a browser does: without the token.
async fn fetch(account: &Account<'_>, path: &str) -> Result<(Url, Answer)> {
    let harness = account.harness;
    let request = harness
        .request(Method::GET, &harness.url(path)?)
        .bearer_auth(&account.token);
    let link = Url::parse(harness.send(request, 302).await?.header("location")?)?;
    let file = harness.send(harness.request(Method::GET, link.as_str()), 200).await?;
    Ok((link, file))
}

/// How it is shown, and the exact name by RFC 8187.
fn disposition(answer: &Answer) -> Result<(String, String)> {
    let header = answer.header("content-disposition")?;
    let (kind, names) = header.split_once("; filename=\"").context("no plain name")?;
    let (plain, exact) = names.split_once("\"; filename*=UTF-8''").context("no exact name")?;
    assert!(
        plain.chars().all(|c| c.is_ascii_alphanumeric() || "._- ".contains(c)),
        "{header}"
    );
    assert!(exact.chars().all(|c| c.is_ascii_alphanumeric() || c == '%'), "{header}");
    Ok((kind.to_owned(), percent_decode_str(exact).decode_utf8()?.into_owned()))
}

#[tokio::test]
async fn u10_any_name_comes_back_as_a_harmless_one() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 1,
        size: (320, 180),
        ..Clip::default()
    };
    let source = studio.clip("source.mp4", &clip).await?;
    let long = "ä".repeat(150);
    let kept = "ä".repeat(98);
    for (name, stem) in [
        ("Ferien am Meer 🌊.mp4", "Ferien am Meer 🌊"),
        (
            "../../\"a\"; filename=evil.exe;\u{202e}4pm.mp4",
            "_..__a_; filename=evil.exe;4pm",
        ),
        (&format!("{long}.mp4"), &kept),
    ] {
        let job = account
            .complete(&source, json!({"filename": name, "thumbnails": {"count": 1}}))
            .await?;
        assert_eq!(job.filename, name, "it is echoed as it came");
        let id = &job.id;
        for (path, kind, content_type, ending) in [
            ("download", "attachment", "video/mp4", ".mp4"),
            ("source", "attachment", "application/octet-stream", ".mp4"),
            ("thumbnail", "inline", "image/jpeg", "-thumbnail-01.jpg"),
        ] {
            let (link, file) = fetch(&account, &format!("/jobs/{id}/{path}")).await?;
            assert_eq!(file.header("content-type")?, content_type, "{path}");
            assert!(file.body.len() > 100);
            let (shown, given) = disposition(&file)?;
            assert_eq!(shown, kind, "{path}");
            let expected = match (path, stem.len()) {
                // Only as much of the stem is left as the ending leaves room for.
                ("thumbnail", 100..) => given.clone(),
                _ => format!("{stem}{ending}"),
            };
            assert_eq!(given, expected, "{path}");
            assert_eq!(given.rsplit('.').next(), ending.rsplit('.').next(), "{given}");
            assert!(given.len() <= 200, "{given}");
            assert!(
                link.path().is_ascii() && !link.path().contains('%'),
                "the key holds the name: {}",
                link.path()
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn u13_a_link_opens_one_object_for_reading() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let account = harness.account().await?;
    let clip = Clip {
        seconds: 1,
        size: (320, 180),
        ..Clip::default()
    };
    let job = account
        .complete(&studio.clip("source.mp4", &clip).await?, json!({}))
        .await?;
    let (link, _) = fetch(&account, &format!("/jobs/{}/download", job.id)).await?;
    let lifetime = link
        .query_pairs()
        .find(|(name, _)| name == "X-Amz-Expires")
        .context("no lifetime")?;
    let window = &harness.function_environment("STATUS_FUNCTION").await?["DOWNLOAD_URL_SECONDS"];
    assert_eq!(lifetime.1, *window);

    for method in [Method::PUT, Method::DELETE, Method::POST] {
        harness.send(harness.request(method, link.as_str()), 403).await?;
    }
    let (thumbnail, _) = fetch(&account, &format!("/jobs/{}/thumbnail", job.id)).await?;
    let mut elsewhere = link.clone();
    elsewhere.set_path(thumbnail.path());
    harness
        .send(harness.request(Method::GET, elsewhere.as_str()), 403)
        .await?;
    for (parameter, other) in [
        ("X-Amz-Expires", "604800"),
        ("response-content-disposition", "inline"),
        ("response-content-type", "text/html"),
    ] {
        let mut changed = link.clone();
        let pairs: Vec<_> = link.query_pairs().into_owned().collect();
        assert!(pairs.iter().any(|(name, _)| name == parameter), "{parameter}");
        changed
            .query_pairs_mut()
            .clear()
            .extend_pairs(pairs.iter().map(|(name, value)| {
                let value = if name == parameter { other } else { value };
                (name.as_str(), value)
            }));
        harness
            .send(harness.request(Method::GET, changed.as_str()), 403)
            .await?;
    }
    Ok(())
}
