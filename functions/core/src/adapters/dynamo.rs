//! What every table has in common: attribute values, conditions, and reading a refused write back.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError, transact_write_items::TransactWriteItemsError,
        update_item::UpdateItemError,
    },
    types::{AttributeValue, TransactWriteItem},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{AwsError, call_error};

/// An item as the SDK carries it.
pub type Item = HashMap<String, AttributeValue>;

/// A text attribute.
pub fn s(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number attribute.
pub fn n<T: Display + Copy>(value: T) -> AttributeValue {
    AttributeValue::N(format!("{value}"))
}

/// A truth attribute.
#[must_use]
pub fn flag(value: bool) -> AttributeValue {
    AttributeValue::Bool(value)
}

/// Any serialisable value as an attribute.
pub fn value<T: Serialize>(value: &T) -> Result<AttributeValue, AwsError> {
    serde_dynamo::to_attribute_value(value).map_err(|error| AwsError::Item(error.into()))
}

/// A struct as an item.
pub fn to_item<T: Serialize>(value: &T) -> Result<Item, AwsError> {
    serde_dynamo::to_item(value).map_err(|error| AwsError::Item(error.into()))
}

/// An item as a struct.
pub fn from_item<T: DeserializeOwned>(item: Item) -> Result<T, AwsError> {
    serde_dynamo::from_item(item).map_err(|error| AwsError::Item(error.into()))
}

/// What a transaction says of an item whose condition did not hold.
const REFUSED: &str = "ConditionalCheckFailed";

/// The outcome of a conditional write.
#[derive(Debug)]
pub enum Write<T> {
    /// It took place.
    Done(T),
    /// The condition did not hold. Carries the item as it stood: a lost answer looks like this too, so the caller
    /// reads whether the item is already what it wanted.
    Refused(Option<Item>),
}

/// An error of a conditional write.
pub trait ConditionalError {
    /// The item that made the condition fail, if that is what happened. The write must have asked for it.
    fn refused(&mut self) -> Option<Option<Item>>;
}

impl ConditionalError for UpdateItemError {
    fn refused(&mut self) -> Option<Option<Item>> {
        match self {
            Self::ConditionalCheckFailedException(failed) => Some(failed.item.take()),
            _ => None,
        }
    }
}

impl ConditionalError for PutItemError {
    fn refused(&mut self) -> Option<Option<Item>> {
        match self {
            Self::ConditionalCheckFailedException(failed) => Some(failed.item.take()),
            _ => None,
        }
    }
}

impl ConditionalError for DeleteItemError {
    fn refused(&mut self) -> Option<Option<Item>> {
        match self {
            Self::ConditionalCheckFailedException(failed) => Some(failed.item.take()),
            _ => None,
        }
    }
}

impl ConditionalError for TransactWriteItemsError {
    fn refused(&mut self) -> Option<Option<Item>> {
        let Self::TransactionCanceledException(cancelled) = self else {
            return None;
        };
        let reasons = cancelled.cancellation_reasons.as_mut()?;
        let failed = reasons
            .iter_mut()
            .find(|reason| reason.code.as_deref() == Some(REFUSED))?;
        Some(failed.item.take())
    }
}

/// Separates a refused condition from a failed call.
pub fn outcome<T, E, R>(operation: &'static str, result: Result<T, SdkError<E, R>>) -> Result<Write<T>, AwsError>
where
    E: ConditionalError + aws_smithy_types::error::metadata::ProvideErrorMetadata,
{
    match result {
        Ok(output) => Ok(Write::Done(output)),
        Err(SdkError::ServiceError(service)) => {
            let mut error = service.into_err();
            match error.refused() {
                Some(item) => Ok(Write::Refused(item)),
                None => Err(call_error(operation, &error)),
            }
        }
        Err(error) => Err(call_error(operation, &error)),
    }
}

/// What DynamoDB says when a transaction on the same item is under way. The workers of a job that many of them encode
/// have one every moment, so this is no fault, and no wish of its owner may lose against it.
const CONFLICTS: [&str; 2] = ["TransactionConflictException", "TransactionCanceledException"];
/// Tries of a write that meets such transactions, the first one included. With the waits: 1.6 s at most.
const TRIES: u32 = 7;
/// The longest wait after the first conflict; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// Whether a write met other transactions at each of its tries.
#[must_use]
pub fn is_conflict(error: &AwsError) -> bool {
    matches!(error, AwsError::Call { aws_code, .. } if CONFLICTS.contains(&aws_code.as_str()))
}

/// Sends a conditional write until no other transaction is in its way.
pub async fn undisturbed<T, E, R, F>(operation: &'static str, mut send: impl FnMut() -> F) -> Result<Write<T>, AwsError>
where
    E: ConditionalError + aws_smithy_types::error::metadata::ProvideErrorMetadata,
    F: Future<Output = Result<T, SdkError<E, R>>>,
{
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match outcome(operation, send().await) {
            Err(error) if is_conflict(&error) => {
                tokio::time::sleep(spread(wait)).await;
                wait *= 2;
            }
            result => return result,
        }
    }
    outcome(operation, send().await)
}

/// What refused a transaction.
#[derive(Debug)]
pub struct Refusal {
    /// Which of its items: the first whose condition did not hold.
    pub index: usize,
    /// The stored item, when the condition asked for it.
    pub old: Option<Item>,
}

/// Sends a transaction until no other one is in its way, and tells which of its conditions did not hold. The client of
/// the SDK repeats it with the same token, so that an answer that was lost does not look like a refusal.
pub async fn transact(client: &Client, items: Vec<TransactWriteItem>) -> Result<Option<Refusal>, AwsError> {
    let transaction = client.transact_write_items().set_transact_items(Some(items));
    let index = &AtomicUsize::new(0);
    let write = undisturbed("TransactWriteItems", || {
        let sending = transaction.clone().send();
        async move {
            let result = sending.await;
            if let Some(first) = result.as_ref().err().and_then(first_refused) {
                index.store(first, Ordering::Relaxed);
            }
            result
        }
    });
    Ok(match write.await? {
        Write::Done(_) => None,
        Write::Refused(old) => Some(Refusal {
            index: index.load(Ordering::Relaxed),
            old,
        }),
    })
}

fn first_refused<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<usize> {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error.as_service_error()? else {
        return None;
    };
    let mut reasons = cancelled.cancellation_reasons().iter();
    reasons.position(|reason| reason.code.as_deref() == Some(REFUSED))
}

/// Half to all of a wait, by chance, so that those who met do not meet again.
fn spread(wait: Duration) -> Duration {
    let chance = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    wait / 2 + wait / 2 * chance / 255
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{
        error::ErrorMetadata,
        operation::update_item::UpdateItemError,
        types::error::{ConditionalCheckFailedException, TransactionConflictException},
    };

    use super::*;

    fn conflict() -> UpdateItemError {
        let code = ErrorMetadata::builder().code(CONFLICTS[0]).build();
        UpdateItemError::TransactionConflictException(TransactionConflictException::builder().meta(code).build())
    }

    /// What comes of a write when the service answers like this, one try after the other; `None` is success. Also tells
    /// how many answers were left over.
    async fn answered(answers: Vec<Option<UpdateItemError>>) -> (Result<Write<()>, AwsError>, usize) {
        let mut answers = answers.into_iter();
        let result = undisturbed("UpdateItem", || {
            let error = answers.next().unwrap();
            async {
                match error {
                    None => Ok(()),
                    Some(error) => Err(SdkError::service_error(error, ())),
                }
            }
        })
        .await;
        (result, answers.len())
    }

    #[tokio::test]
    async fn a_write_in_the_way_of_transactions_is_repeated() {
        let (result, left) = answered(vec![Some(conflict()), Some(conflict()), None, None]).await;
        assert!(matches!(result, Ok(Write::Done(()))) && left == 1, "{result:?}");
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer() {
        let refused = ConditionalCheckFailedException::builder().build();
        let refused = UpdateItemError::ConditionalCheckFailedException(refused);
        let (result, left) = answered(vec![Some(refused), None]).await;
        assert!(matches!(result, Ok(Write::Refused(None))) && left == 1, "{result:?}");
    }

    #[tokio::test]
    async fn transactions_without_end_are_a_passing_fault() {
        let (result, left) = answered((0..=TRIES).map(|_| Some(conflict())).collect()).await;
        assert!(result.is_err_and(|error| error.is_retryable()) && left == 1);
    }
}
