//! What every table has in common: attribute values, conditions, and reading a refused write back.

use std::{collections::HashMap, fmt::Display};

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{put_item::PutItemError, transact_write_items::TransactWriteItemsError, update_item::UpdateItemError},
    types::AttributeValue,
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

impl ConditionalError for TransactWriteItemsError {
    fn refused(&mut self) -> Option<Option<Item>> {
        let Self::TransactionCanceledException(cancelled) = self else {
            return None;
        };
        let reasons = cancelled.cancellation_reasons.as_mut()?;
        let failed = reasons
            .iter_mut()
            .find(|reason| reason.code.as_deref() == Some("ConditionalCheckFailed"))?;
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
