//! The accounts table, as every HTTP function reads it. Writing accounts is the `auth` function's.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, KeysAndAttributes},
};

use super::{
    AwsError, call_error,
    dynamo::{self, Item, s},
};
use crate::domain::{
    account::{Account, Session},
    id::{AccountId, SessionId},
};

/// Sort key of an account's own item.
pub const PROFILE: &str = "profile";
/// Partition key of the marks that deleted accounts leave, for the removal of their jobs.
pub const DELETIONS: &str = "deletions";

/// Partition key of everything that belongs to an account.
#[must_use]
pub fn account_pk(account: &AccountId) -> String {
    format!("account#{account}")
}

/// Sort key of a session.
#[must_use]
pub fn session_sk(session: &SessionId) -> String {
    format!("session#{session}")
}

/// The accounts table.
#[derive(Debug, Clone)]
pub struct AccountsTable {
    client: Client,
    name: String,
}

impl AccountsTable {
    /// The table of this name.
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self {
            client: Client::new(config),
            name,
        }
    }

    /// The client, for writes of the function that owns the table.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads an account, consistently.
    pub async fn account(&self, account: &AccountId) -> Result<Option<Account>, AwsError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.name)
            .key("pk", s(account_pk(account)))
            .key("sk", s(PROFILE))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| call_error("GetItem", &error))?;
        output.item.map(dynamo::from_item).transpose()
    }

    /// Reads an account and one of its sessions in one consistent call. What is missing is `None`.
    pub async fn account_and_session(
        &self,
        account: &AccountId,
        session: &SessionId,
    ) -> Result<(Option<Account>, Option<Session>), AwsError> {
        let pk = account_pk(account);
        let session_sk = session_sk(session);
        let keys = KeysAndAttributes::builder()
            .keys(key(&pk, PROFILE))
            .keys(key(&pk, &session_sk))
            .consistent_read(true)
            .build()
            .map_err(|error| AwsError::Item(error.into()))?;
        let output = self
            .client
            .batch_get_item()
            .request_items(&self.name, keys)
            .send()
            .await
            .map_err(|error| call_error("BatchGetItem", &error))?;
        if output.unprocessed_keys.is_some_and(|left| !left.is_empty()) {
            return Err(AwsError::Call {
                operation: "BatchGetItem",
                aws_code: "UnprocessedKeys".into(),
                retryable: true,
            });
        }
        let mut found = (None, None);
        for item in output
            .responses
            .into_iter()
            .flat_map(|mut tables| tables.remove(&self.name).unwrap_or_default())
        {
            if item
                .get("sk")
                .and_then(|sk| sk.as_s().ok())
                .is_some_and(|sk| sk == PROFILE)
            {
                found.0 = Some(dynamo::from_item(item)?);
            } else {
                found.1 = Some(dynamo::from_item(item)?);
            }
        }
        Ok(found)
    }
}

fn key(pk: &str, sk: &str) -> Item {
    [("pk", pk), ("sk", sk)]
        .map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())))
        .into()
}
