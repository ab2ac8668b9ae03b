//! Lambda batches: one record at a time, a panic costs only its own record, and a failure is always reported.
//!
//! An empty answer means "all done" to Lambda and deletes every message, so no path here makes one by accident.

use std::panic::AssertUnwindSafe;

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use futures_util::FutureExt as _;

/// A record that must be delivered again.
#[derive(Debug)]
pub struct Redeliver;

/// Runs `handle` over every message of a batch and reports those that must be delivered again.
///
/// # Errors
/// When a message has no id, since a report cannot name it: the whole batch is delivered again.
pub async fn each_message<F>(event: SqsEvent, handle: F) -> Result<SqsBatchResponse, lambda_runtime::Error>
where
    F: AsyncFn(SqsMessage) -> Result<(), Redeliver>,
{
    let mut response = SqsBatchResponse::default();
    for message in event.records {
        let id = message
            .message_id
            .clone()
            .filter(|id| !id.is_empty())
            .ok_or("a message has no id")?;
        let result = AssertUnwindSafe(handle(message)).catch_unwind().await;
        if !matches!(result, Ok(Ok(()))) {
            if result.is_err() {
                tracing::error!(message_id = %id, "a message's handler panicked");
            }
            response.add_failure(id);
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ids: &[&str]) -> SqsEvent {
        let message = |id: &&str| {
            let mut message = SqsMessage::default();
            message.message_id = Some((*id).to_owned());
            message
        };
        let mut event = SqsEvent::default();
        event.records = ids.iter().map(message).collect();
        event
    }

    #[tokio::test]
    async fn only_failed_and_panicked_messages_come_back() {
        let response = each_message(
            batch(&["good", "bad", "panics", "fine"]),
            async |message: SqsMessage| match message.message_id.as_deref() {
                Some("bad") => Err(Redeliver),
                Some("panics") => panic!("on purpose"),
                _ => Ok(()),
            },
        )
        .await
        .unwrap();
        let failed: Vec<_> = response
            .batch_item_failures
            .iter()
            .map(|failure| failure.item_identifier.as_str())
            .collect();
        assert_eq!(failed, ["bad", "panics"]);
    }

    #[tokio::test]
    async fn a_message_without_an_id_fails_the_batch() {
        assert!(each_message(batch(&[""]), async |_| Ok(())).await.is_err());
    }
}
