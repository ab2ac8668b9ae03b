//! Writes of the accounts table.

use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use reelay_core::{
    adapters::{
        AwsError,
        accounts::{AccountsTable, PROFILE, account_pk, session_sk},
        call_error,
        dynamo::{self, Item, Write, outcome, s},
    },
    domain::{
        account::{Account, Session},
        id::AccountId,
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
    let result = table
        .client()
        .transact_write_items()
        .transact_items(new_item(table, pointer)?)
        .transact_items(new_item(table, profile)?)
        .send()
        .await;
    Ok(match outcome("TransactWriteItems", result)? {
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

/// Finds an account by its normalised address.
pub(crate) async fn by_email(table: &AccountsTable, email: &str) -> Result<Option<Credentials>, AwsError> {
    let Some(pointer) = get(table, email_pk(email), EMAIL).await? else {
        return Ok(None);
    };
    let id = pointer
        .get("account_id")
        .and_then(|id| id.as_s().ok())
        .and_then(|id| id.parse::<AccountId>().ok());
    let Some(id) = id else { return Ok(None) };
    let Some(item) = get(table, account_pk(&id), PROFILE).await? else {
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

/// Stores a new session.
pub(crate) async fn begin_session(table: &AccountsTable, session: &Session) -> Result<(), AwsError> {
    let mut item = dynamo::to_item(session)?;
    item.insert("pk".into(), s(account_pk(&session.account_id)));
    item.insert("sk".into(), s(session_sk(&session.session_id)));
    let result = table
        .client()
        .put_item()
        .table_name(table.name())
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(pk)")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await;
    // The id is random: an item that has it is this very write, whose answer was lost.
    outcome("PutItem", result).map(|_| ())
}

/// Ends a session: its tokens are refused from the next request on.
pub(crate) async fn end_session(table: &AccountsTable, session: &Session) -> Result<(), AwsError> {
    let result = table
        .client()
        .update_item()
        .table_name(table.name())
        .key("pk", s(account_pk(&session.account_id)))
        .key("sk", s(session_sk(&session.session_id)))
        .update_expression("SET expires_at = :zero")
        .condition_expression("attribute_exists(pk)")
        .expression_attribute_values(":zero", dynamo::n(0))
        .send()
        .await;
    // A session that is gone has ended too.
    outcome("UpdateItem", result).map(|_| ())
}
