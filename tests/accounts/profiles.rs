//! What an account is: one for an address, a user unless an operator says otherwise, and gone when it is deleted.

use anyhow::{Context, Result};
use aws_sdk_dynamodb::types::AttributeValue;
use e2e::Harness;
use e2e::harness::PASSWORD;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Tokens, address, refresh, register, send, works};

#[tokio::test]
async fn of_fifty_registrations_of_one_address_one_succeeds() -> Result<()> {
    let harness = Harness::open().await?;
    let email = address();
    let spellings = [email.clone(), email.to_uppercase(), format!(" {email} ")];
    let requests = (0..50).map(|n| {
        let body = json!({"email": spellings[n % 3], "password": format!("{PASSWORD} {n}")});
        let url = harness.url("/auth/register");
        let harness = &harness;
        async move { harness.send_any(harness.request(Method::POST, &url?).json(&body)).await }
    });
    let (mut made, mut taken) = (Vec::new(), 0);
    for (n, answer) in join_all(requests).await.into_iter().enumerate() {
        let answer = answer?;
        if answer.status == 201 {
            made.push((n, answer.text("/account/id")?));
        } else {
            assert_eq!(answer.status, 409, "{}", String::from_utf8_lossy(&answer.body));
            answer.problem("email_taken")?;
            taken += 1;
        }
    }
    assert_eq!((made.len(), taken), (1, 49));
    let (n, id) = &made[0];
    let login = harness.sign_in(&email, &format!("{PASSWORD} {n}"), 200).await?;
    assert_eq!(login.text("/account/id")?, *id);
    let owners: Vec<_> = harness
        .accounts_table()
        .await?
        .into_iter()
        .filter(|item| item["email"] == email.as_str() || item["pk"] == format!("email#{email}"))
        .collect();
    assert_eq!(owners.len(), 2, "a profile and the pointer to it: {owners:?}");
    Ok(())
}

/// An item without what differs from one to the next.
fn plain(mut item: Value, own: &[&str]) -> Value {
    for name in own {
        item[name] = Value::Null;
    }
    item
}

#[tokio::test]
async fn a14_fields_that_nobody_asked_for_change_nothing() -> Result<()> {
    let harness = Harness::open().await?;
    let foreign = "acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b";
    let extra = json!({"role": "operator", "account_id": foreign, "id": foreign, "generation": 7, "tenant_id": "t",
        "created_at": "2000-01-01T00:00:00.000Z", "password_hash": "x", "pk": "account#x", "sk": "profile",
        "status": "COMPLETED", "attempts": 99, "job_id": "job_x", "playable": true, "published_attempt": 1,
        "expires_at": 9_999_999_999_u64, "ended": false, "session_id": "sess_x"});
    let with = |body: Value| {
        let mut both = extra.as_object().cloned().unwrap_or_default();
        both.extend(body.as_object().cloned().unwrap_or_default());
        Value::Object(both)
    };
    let plain_account = harness.account().await?;
    let email = address();
    let credentials = with(json!({"email": email, "password": PASSWORD}));
    let answer = harness.post("/auth/register", &credentials, 201).await?;
    let id = answer.text("/account/id")?;
    assert_ne!(id, foreign);
    assert_eq!(answer.text("/account/role")?, "user");
    let own = ["pk", "account_id", "email", "created_at", "password_hash"];
    let stored = harness.profile(&id).await?.context("no profile")?;
    let expected = harness.profile(&plain_account.id).await?.context("no profile")?;
    assert_eq!(plain(stored.clone(), &own), plain(expected, &own));
    assert_ne!(stored["created_at"], extra["created_at"]);

    let login = harness.post("/auth/login", &credentials, 200).await?;
    assert_eq!(login.text("/account/id")?, id);
    let tokens = Tokens::of(&login)?;
    let refreshed = harness
        .post("/auth/refresh", &with(json!({"refresh_token": tokens.refresh})), 200)
        .await?;
    let tokens = Tokens::of(&refreshed)?;
    let change = with(json!({"current_password": PASSWORD, "new_password": format!("{PASSWORD} 2")}));
    let changed = send(
        &harness,
        &tokens.access,
        Method::POST,
        "/auth/change-password",
        &change,
        200,
    )
    .await?;
    let after = harness.profile(&id).await?.context("no profile")?;
    assert_eq!(after["generation"], 2);
    let own = ["password_hash", "generation"];
    assert_eq!(plain(after, &own), plain(stored, &own));

    let job = json!({"filename": "a.mp4", "size_bytes": 1});
    let token = Tokens::of(&changed)?.access;
    let created = send(&harness, &token, Method::POST, "/jobs", &with(job.clone()), 201).await?;
    let job_id = created.text("/id")?;
    let expected = plain_account.create(&job).await?.id;
    let (stored, expected) = (
        harness.item(&job_id, "job").await?,
        harness.item(&expected, "job").await?,
    );
    assert_eq!(stored["account_id"], id.as_str());
    let names = |item: &Value| item.as_object().map(|item| item.keys().cloned().collect::<Vec<_>>());
    assert_eq!(names(&stored), names(&expected));
    // All but ids, what is made of them, and times.
    let own = [
        "account_id",
        "created_at",
        "job_id",
        "source_key",
        "updated_at",
        "upload_expires_at",
    ];
    for name in names(&stored).unwrap_or_default() {
        if !own.contains(&name.as_str()) {
            assert_eq!(stored[&name], expected[&name], "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_operator_is_made_with_rights_of_aws_and_by_no_request() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    // The README's two commands. The first tells the account's id, the second sets its role.
    let table = harness.name("ACCOUNTS_TABLE")?;
    let pointer = harness
        .dynamodb
        .get_item()
        .table_name(table)
        .key("pk", AttributeValue::S(format!("email#{}", account.email)))
        .key("sk", AttributeValue::S("email".into()))
        .send()
        .await?;
    let id = pointer.item.context("no pointer")?["account_id"].clone();
    assert_eq!(id.as_s().ok(), Some(&account.id));
    let set_role = |pk: String| {
        harness
            .dynamodb
            .update_item()
            .table_name(table)
            .key("pk", AttributeValue::S(pk))
            .key("sk", AttributeValue::S("profile".into()))
            .update_expression("SET #r = :r")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#r", "role")
            .expression_attribute_values(":r", AttributeValue::S("operator".into()))
            .send()
    };
    set_role(format!("account#{}", account.id)).await?;
    assert!(set_role("account#nobody".into()).await.is_err(), "it makes no account");
    // At once, and for those who are signed in already.
    assert_eq!(account.get("/auth/me", 200).await?.text("/account/role")?, "operator");
    Ok(())
}

#[tokio::test]
async fn a_deleted_account_is_gone_and_its_address_free() -> Result<()> {
    let harness = Harness::open().await?;
    let account = harness.account().await?;
    let (first, second) = (Tokens::new(&account).await?, Tokens::new(&account).await?);
    let job = account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    let delete = async |token: &str, body: Value, expected: u16| {
        send(&harness, token, Method::DELETE, "/auth/me", &body, expected).await
    };
    delete(&first.access, json!({}), 400)
        .await?
        .problem("invalid_request")?;
    delete(&first.access, json!({"password": "wrong horse battery"}), 401)
        .await?
        .problem("invalid_credentials")?;
    works(&harness, &second.access, 200).await?;
    delete(&first.access, json!({"password": PASSWORD}), 204).await?;

    for token in [&account.token, &first.access, &second.access] {
        works(&harness, token, 401).await?;
        let request = harness.request(Method::GET, &harness.url(&format!("/jobs/{job}"))?);
        harness.send(request.bearer_auth(token), 401).await?;
    }
    refresh(&harness, &second.refresh, 401).await?;
    delete(&second.access, json!({"password": PASSWORD}), 401)
        .await?
        .problem("unauthenticated")?;
    harness
        .sign_in(&account.email, PASSWORD, 401)
        .await?
        .problem("invalid_credentials")?;

    // Nothing personal is left, but a mark for whoever removes its jobs.
    assert_eq!(harness.profile(&account.id).await?, None);
    let items = harness.accounts_table().await?;
    assert!(!items.iter().any(|item| item.to_string().contains(&account.email)));
    let marks: Vec<_> = items.iter().filter(|item| item["sk"] == account.id.as_str()).collect();
    let [mark] = marks[..] else {
        anyhow::bail!("marks: {marks:?}");
    };
    let at = mark["deleted_at"].as_str().context("no time")?;
    let expected = json!({"pk": "deletions", "sk": account.id, "account_id": account.id, "deleted_at": at});
    assert_eq!(*mark, expected);

    // The next owner of the address is somebody else.
    let id = register(&harness, &account.email, "another horse battery", 201)
        .await?
        .text("/account/id")?;
    assert_ne!(id, account.id);
    harness.sign_in(&account.email, PASSWORD, 401).await?;
    let next = harness.sign_in(&account.email, "another horse battery", 200).await?;
    let token = next.text("/access_token")?;
    works(&harness, &token, 200).await?;
    let request = harness.request(Method::GET, &harness.url(&format!("/jobs/{job}"))?);
    harness.send(request.bearer_auth(&token), 404).await?;
    works(&harness, &first.access, 401).await?;
    Ok(())
}
