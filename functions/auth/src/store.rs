//! Writes of the accounts table.

use aws_sdk_dynamodb::types::{Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};
use reelay_core::{
    adapters::{
        AwsError,
        accounts::{AccountsTable, DELETIONS, PROFILE, account_pk, session_sk},
        call_error,
        dynamo::{self, Item, Write, flag, n, outcome, s, undisturbed},
    },
    domain::{
        account::{Account, Session},
        id::AccountId,
        time::UtcTime,
    },
};

/// Sort key of the item that makes an address unique.
const EMAIL: &str = "email";

fn email_pk(email: &str) -> String {
    format!("email#{email}")
}

/// An account with its password hash, for login only.
pub(crate) struct Credentials {
    pub(crate) account: Account,
    pub(crate) password_hash: String,
}

/// Stores a new account. Returns `false` when its address is taken: pointer and profile are one transaction, so of two
/// at once one wins.
pub(crate) async fn create(table: &AccountsTable, account: &Account, password_hash: &str) -> Result<bool, AwsError> {
    let mut profile = dynamo::to_item(account)?;
    profile.insert("pk".into(), s(account_pk(&account.account_id)));
    profile.insert("sk".into(), s(PROFILE));
    profile.insert("password_hash".into(), s(password_hash));
    let pointer = Item::from([
        ("pk".into(), s(email_pk(&account.email))),
        ("sk".into(), s(EMAIL)),
        ("account_id".into(), s(account.account_id.as_str())),
    ]);
    let (pointer, profile) = (new_item(table, pointer)?, new_item(table, profile)?);
    // Two at once with one address are in each other's way, and one of them must learn that it is taken.
    let write = undisturbed("TransactWriteItems", || {
        table
            .client()
            .transact_write_items()
            .transact_items(pointer.clone())
            .transact_items(profile.clone())
            .send()
    });
    Ok(match write.await? {
        Write::Done(_) => true,
        // The id is random: a pointer to it is this very write, whose answer was lost.
        Write::Refused(old) => old.is_some_and(|old| old.get("account_id") == Some(&s(account.account_id.as_str()))),
    })
}

fn new_item(table: &AccountsTable, item: Item) -> Result<TransactWriteItem, AwsError> {
    let put = Put::builder()
        .table_name(table.name())
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(pk)")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(|error| AwsError::Item(error.into()))?;
    Ok(TransactWriteItem::builder().put(put).build())
}

/// Finds an account by its normalised address. Reads as often for an address without an account as for one that has one,
/// so that the time tells nobody.
pub(crate) async fn by_email(table: &AccountsTable, email: &str) -> Result<Option<Credentials>, AwsError> {
    let id = get(table, email_pk(email), EMAIL)
        .await?
        .and_then(|pointer| pointer.get("account_id").and_then(|id| id.as_s().ok()?.parse().ok()));
    by_id(table, &id.unwrap_or_else(AccountId::generate)).await
}

/// An account with its password hash.
pub(crate) async fn by_id(table: &AccountsTable, account: &AccountId) -> Result<Option<Credentials>, AwsError> {
    let Some(item) = get(table, account_pk(account), PROFILE).await? else {
        return Ok(None);
    };
    let hash = item
        .get("password_hash")
        .and_then(|hash| hash.as_s().ok())
        .cloned()
        .unwrap_or_default();
    Ok(Some(Credentials {
        account: dynamo::from_item(item)?,
        password_hash: hash,
    }))
}

async fn get(table: &AccountsTable, pk: String, sk: &str) -> Result<Option<Item>, AwsError> {
    let output = table
        .client()
        .get_item()
        .table_name(table.name())
        .key("pk", s(pk))
        .key("sk", s(sk))
        .consistent_read(true)
        .send()
        .await
        .map_err(|error| call_error("GetItem", &error))?;
    Ok(output.item)
}

/// Replaces the hash of a password by a stronger one of the same. Of two at once one does; a password that was changed
/// meanwhile stays.
pub(crate) async fn rehash(table: &AccountsTable, old: &Credentials, new_hash: &str) -> Result<(), AwsError> {
    let write = undisturbed("UpdateItem", || {
        table
            .client()
            .update_item()
            .table_name(table.name())
            .key("pk", s(account_pk(&old.account.account_id)))
            .key("sk", s(PROFILE))
            .update_expression("SET password_hash = :new")
            .condition_expression("password_hash = :old")
            .expression_attribute_values(":new", s(new_hash))
            .expression_attribute_values(":old", s(&old.password_hash))
            .send()
    })
    .await;
    write.map(|_| ())
}

/// Stores a new session.
pub(crate) async fn begin_session(table: &AccountsTable, session: &Session) -> Result<(), AwsError> {
    let result = table
        .client()
        .put_item()
        .table_name(table.name())
        .set_item(Some(session_item(session)?))
        .condition_expression("attribute_not_exists(pk)")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    // The id is random: an item that has it is this very write, whose answer was lost.
    outcome("PutItem", result).map(|_| ())
}

fn session_item(session: &Session) -> Result<Item, AwsError> {
    let mut item = dynamo::to_item(session)?;
    item.insert("pk".into(), s(account_pk(&session.account_id)));
    item.insert("sk".into(), s(session_sk(&session.session_id)));
    Ok(item)
}

/// Stores what a session may be refreshed with from now on, if that was `used` until now.
pub(crate) async fn rotate(table: &AccountsTable, session: &Session, used: &str) -> Result<Write<()>, AwsError> {
    let refresh = dynamo::value(&session.refresh)?;
    let write = undisturbed("UpdateItem", || {
        table
            .client()
            .update_item()
            .table_name(table.name())
            .key("pk", s(account_pk(&session.account_id)))
            .key("sk", s(session_sk(&session.session_id)))
            .update_expression("SET refresh = :next")
            .condition_expression("refresh.token_hash = :used AND ended = :no")
            .expression_attribute_values(":next", refresh.clone())
            .expression_attribute_values(":used", s(used))
            .expression_attribute_values(":no", flag(false))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
    })
    .await?;
    Ok(match write {
        Write::Done(_) => Write::Done(()),
        Write::Refused(old) => Write::Refused(old),
    })
}

/// Ends a session: its tokens are refused from the next request on.
pub(crate) async fn end_session(table: &AccountsTable, session: &Session, now: UtcTime) -> Result<(), AwsError> {
    let write = undisturbed("UpdateItem", || {
        table
            .client()
            .update_item()
            .table_name(table.name())
            .key("pk", s(account_pk(&session.account_id)))
            .key("sk", s(session_sk(&session.session_id)))
            // The time to live takes it away from now on. What ended more than five years ago it would leave.
            .update_expression("SET ended = :yes, expires_at = :now")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":yes", flag(true))
            .expression_attribute_values(":now", n(now.epoch_seconds()))
            .send()
    })
    .await;
    // A session that is gone has ended too.
    write.map(|_| ())
}

/// Stores a new password and the session that goes on with it, and ends all others: the account's generation becomes the
/// new session's. Returns `false` when password or generation are others than the caller knew.
pub(crate) async fn change_password(
    table: &AccountsTable,
    session: &Session,
    old_hash: &str,
    new_hash: &str,
) -> Result<bool, AwsError> {
    let profile = Update::builder()
        .table_name(table.name())
        .key("pk", s(account_pk(&session.account_id)))
        .key("sk", s(PROFILE))
        .update_expression("SET password_hash = :new, generation = :next")
        .condition_expression("password_hash = :old AND generation = :before")
        .expression_attribute_values(":new", s(new_hash))
        .expression_attribute_values(":next", n(session.generation))
        .expression_attribute_values(":old", s(old_hash))
        .expression_attribute_values(":before", n(session.generation.saturating_sub(1)))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(|error| AwsError::Item(error.into()))?;
    let session = new_item(table, session_item(session)?)?;
    let profile = TransactWriteItem::builder().update(profile).build();
    let write = undisturbed("TransactWriteItems", || {
        table
            .client()
            .transact_write_items()
            .transact_items(profile.clone())
            .transact_items(session.clone())
            .send()
    });
    Ok(match write.await? {
        Write::Done(_) => true,
        // The hash has a salt of its own: when it is there, this very write put it there, and its answer was lost.
        Write::Refused(old) => old.is_some_and(|old| old.get("password_hash") == Some(&s(new_hash))),
    })
}

/// Removes an account and frees its address, and leaves a mark for the removal of its jobs. Sessions stay until their
/// time to live: without an account none of them holds. Returns `false` when password or generation are others than the
/// caller knew.
pub(crate) async fn delete(
    table: &AccountsTable,
    account: &Account,
    hash: &str,
    now: UtcTime,
) -> Result<bool, AwsError> {
    let id = account.account_id.as_str();
    let profile = Delete::builder()
        .table_name(table.name())
        .key("pk", s(account_pk(&account.account_id)))
        .key("sk", s(PROFILE))
        .condition_expression("password_hash = :hash AND generation = :generation")
        .expression_attribute_values(":hash", s(hash))
        .expression_attribute_values(":generation", n(account.generation))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(|error| AwsError::Item(error.into()))?;
    let pointer = Delete::builder()
        .table_name(table.name())
        .key("pk", s(email_pk(&account.email)))
        .key("sk", s(EMAIL))
        .condition_expression("attribute_not_exists(pk) OR account_id = :id")
        .expression_attribute_values(":id", s(id))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(|error| AwsError::Item(error.into()))?;
    let mark = new_item(
        table,
        Item::from([
            ("pk".into(), s(DELETIONS)),
            ("sk".into(), s(id)),
            ("account_id".into(), s(id)),
            ("deleted_at".into(), s(now)),
        ]),
    )?;
    let (profile, pointer) = (
        TransactWriteItem::builder().delete(profile).build(),
        TransactWriteItem::builder().delete(pointer).build(),
    );
    let write = undisturbed("TransactWriteItems", || {
        table
            .client()
            .transact_write_items()
            .transact_items(profile.clone())
            .transact_items(pointer.clone())
            .transact_items(mark.clone())
            .send()
    });
    Ok(match write.await? {
        Write::Done(_) => true,
        // No profile is what was wanted: the answer of this write was lost, or somebody else's came first.
        Write::Refused(old) => old.is_none(),
    })
}
