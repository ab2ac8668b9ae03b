//! Deleted accounts: their jobs are deleted like any others, and the mark that the account left goes last.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use reelay_core::{
    adapters::{
        AwsError,
        accounts::DELETIONS,
        call_error, deletion,
        dynamo::{self, Write, s, undisturbed},
        usage::{USAGE, usage_pk},
    },
    domain::{id::AccountId, time::UtcTime},
};
use serde::Deserialize;

use crate::handler::Sweep;

/// How long after an account's end its jobs are looked for. A request that was let in before it may still create one.
const LAST_REQUEST: Duration = Duration::from_mins(10);

/// What a deleted account leaves behind.
#[derive(Debug, Deserialize)]
struct Mark {
    account_id: AccountId,
    deleted_at: UtcTime,
}

impl Sweep {
    /// Deletes the jobs of deleted accounts, as far as the time goes. Returns how many accounts are done with.
    pub(crate) async fn remove_accounts(&self, until: Instant) -> Result<u32, AwsError> {
        let page = self
            .accounts
            .client()
            .query()
            .table_name(self.accounts.name())
            .key_condition_expression("pk = :deletions")
            .expression_attribute_values(":deletions", s(DELETIONS))
            .send()
            .await
            .map_err(|error| call_error("Query", &error))?;
        let mut done = 0;
        for item in page.items.unwrap_or_default() {
            let mark: Mark = dynamo::from_item(item)?;
            let all_marked = deletion::mark_all(&self.jobs, &mark.account_id, until).await?;
            if all_marked && UtcTime::now() >= mark.deleted_at.plus(LAST_REQUEST) {
                self.forget(&mark.account_id).await?;
                done += 1;
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(done)
    }

    /// Removes what is left of an account: what its jobs added up to, and then the mark.
    async fn forget(&self, account: &AccountId) -> Result<(), AwsError> {
        let usage = self.accounts.client().delete_item().table_name(self.accounts.name());
        let mark = usage.clone();
        let usage = usage.key("pk", s(usage_pk(account))).key("sk", s(USAGE));
        let mark = mark.key("pk", s(DELETIONS)).key("sk", s(account.as_str()));
        for delete in [usage, mark] {
            gone(delete.condition_expression("attribute_exists(pk)")).await?;
        }
        tracing::info!(account_id = %account, "a deleted account was removed");
        Ok(())
    }
}

/// What is not there any more is gone, too.
async fn gone(delete: DeleteItemFluentBuilder) -> Result<(), AwsError> {
    match undisturbed("DeleteItem", || delete.clone().send()).await? {
        Write::Done(_) | Write::Refused(_) => Ok(()),
    }
}
