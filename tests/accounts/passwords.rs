//! How passwords are kept, which are accepted, and what an attempt tells.

use anyhow::{Context, Result};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use aws_sdk_dynamodb::types::AttributeValue;
use e2e::harness::PASSWORD;
use e2e::{Account, Answer, Harness};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{address, register};

async fn stored_hash(harness: &Harness, id: &str) -> Result<String> {
    let profile = harness.profile(id).await?.context("no profile")?;
    Ok(profile["password_hash"].as_str().context("no hash")?.to_owned())
}

/// Gives an account the hash that an older configuration would have left.
async fn plant_weak_hash(account: &Account<'_>) -> Result<String> {
    let params = Params::new(8_192, 1, 1, None).context("the parameters")?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(PASSWORD.as_bytes())
        .context("hashing")?
        .to_string();
    let harness = account.harness;
    harness
        .dynamodb
        .update_item()
        .table_name(harness.name("ACCOUNTS_TABLE")?)
        .key("pk", AttributeValue::S(format!("account#{}", account.id)))
        .key("sk", AttributeValue::S("profile".into()))
        .update_expression("SET password_hash = :hash")
        .condition_expression("attribute_exists(pk)")
        .expression_attribute_values(":hash", AttributeValue::S(hash.clone()))
        .send()
        .await?;
    Ok(hash)
}

#[tokio::test]
async fn a01_a_password_is_kept_as_argon2id_with_a_salt_of_its_own_and_as_nothing_else() -> Result<()> {
    let harness = Harness::open().await?;
    let (first, second) = (harness.account().await?, harness.account().await?);
    let mut seen = Vec::new();
    for account in [&first, &second] {
        let profile = harness.profile(&account.id).await?.context("no profile")?;
        let fields: Vec<_> = profile.as_object().context("no item")?.keys().cloned().collect();
        assert_eq!(
            fields,
            [
                "account_id",
                "created_at",
                "email",
                "generation",
                "password_hash",
                "pk",
                "role",
                "sk"
            ]
        );
        assert!(!profile.to_string().contains(PASSWORD));
        let hash = profile["password_hash"].as_str().context("no hash")?;
        let parts: Vec<_> = hash.split('$').collect();
        let [_, "argon2id", "v=19", params, salt, digest] = parts[..] else {
            anyhow::bail!("{hash} is no argon2id PHC string");
        };
        let numbers: Vec<u32> = params
            .split(',')
            .zip(["m=", "t=", "p="])
            .filter_map(|(param, name)| param.strip_prefix(name)?.parse().ok())
            .collect();
        assert!(matches!(numbers[..], [m, t, 1] if m >= 19_456 && t >= 2), "{params}");
        assert!(salt.len() >= 22 && digest.len() == 43, "{hash}");
        seen.extend([salt.to_owned(), digest.to_owned()]);
    }
    assert!(
        seen[0] != seen[2] && seen[1] != seen[3],
        "one password, two salts, two digests"
    );
    Ok(())
}

#[tokio::test]
async fn a02_a_hash_with_lower_parameters_is_renewed_at_login_and_once() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let weak = plant_weak_hash(&account).await?;
    harness.sign_in(&account.email, "wrong horse battery", 401).await?;
    assert_eq!(
        stored_hash(&harness, &account.id).await?,
        weak,
        "a wrong password renews nothing"
    );

    let logins = (0..5).map(|_| harness.sign_in(&account.email, PASSWORD, 200));
    for login in join_all(logins).await {
        login?;
    }
    let renewed = stored_hash(&harness, &account.id).await?;
    assert!(renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{renewed}");
    harness.sign_in(&account.email, PASSWORD, 200).await?;
    assert_eq!(stored_hash(&harness, &account.id).await?, renewed);
    // It is no change of the password: who was signed in still is.
    account.get("/auth/me", 200).await?;
    Ok(())
}

#[tokio::test]
async fn a03_passwords_are_taken_as_typed_and_common_ones_not_at_all() -> Result<()> {
    let harness = Harness::open().await?;
    let email = address();
    let refused = async |password: &str| -> Result<Value> {
        let answer = register(&harness, &email, password, 422).await?;
        answer.problem("validation_failed")?;
        assert_eq!(answer.pointers()?, ["/password"], "{password:?}");
        answer.value("/errors/0")
    };
    for wrong_length in ["", "1234567", "äöüäöüä", &"x".repeat(257)] {
        assert!(refused(wrong_length).await?["code"].is_null());
    }
    let own = email.to_uppercase();
    for common in ["12345678", "Password1", "qwertyuiop", "Reelay!2026", &own] {
        assert_eq!(refused(common).await?["code"], "password_too_common", "{common}");
    }

    let prefix = "0123456789abcdef".repeat(5);
    let (first, twin) = (format!("{}1", &prefix[..72]), format!("{}2", &prefix[..72]));
    for (password, other) in [
        (format!("{prefix:.64}"), format!("{prefix:.63}")),
        (format!("{prefix}{prefix} 🦀 {}", "ÿ".repeat(38)), prefix.clone()),
        ("  two spaces first".to_owned(), "two spaces first".to_owned()),
        ("trailing blank ".to_owned(), "trailing blank".to_owned()),
        ("Ünïcödé pässwörd".to_owned(), "Ünïcödé pässwörd".to_lowercase()),
        // The same letters, composed otherwise: they are other bytes.
        (
            "re\u{301}sume\u{301} please".to_owned(),
            "r\u{e9}sum\u{e9} please".to_owned(),
        ),
        (first, twin),
    ] {
        let email = address();
        register(&harness, &email, &password, 201).await?;
        harness.sign_in(&email, &password, 200).await?;
        harness
            .sign_in(&email, &other, 401)
            .await?
            .problem("invalid_credentials")?;
    }

    // The same rules hold for a new password of an old account.
    let account = harness.account().await?;
    for bad in ["1234567", "Password1", &account.email] {
        let body = json!({"current_password": PASSWORD, "new_password": bad});
        let answer = account.post("/auth/change-password", &body, 422).await?;
        assert_eq!(answer.pointers()?, ["/new_password"]);
    }
    harness.sign_in(&account.email, PASSWORD, 200).await?;
    Ok(())
}

/// All of an answer but what differs from request to request: its id, its time, and how many more there may be.
fn all_of(answer: &Answer) -> Result<Value> {
    let mut body = answer.problem("invalid_credentials")?;
    body["request_id"] = Value::Null;
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !name.as_str().contains("request") && !["date", "ratelimit"].contains(&name.as_str()))
        .map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())))
        .collect::<Result<_>>()?;
    headers.sort();
    Ok(json!([answer.status.as_u16(), headers, body]))
}

/// Of the times, the work is compared where nothing disturbs it: in the function's own tests, and by
/// `infra/bench/accounts.py`.
#[tokio::test]
async fn a04_a_failed_login_does_not_tell_whether_there_is_an_account() -> Result<()> {
    let harness = Harness::open().await?;
    let (known, outdated) = (harness.account().await?, harness.account().await?);
    plant_weak_hash(&outdated).await?;
    let emails = [known.email, outdated.email, address(), "no address".to_owned()];
    let mut answers = Vec::new();
    for email in &emails {
        let answer = harness.sign_in(email, "wrong horse battery staple", 401).await?;
        answers.push(all_of(&answer)?);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    Ok(())
}
