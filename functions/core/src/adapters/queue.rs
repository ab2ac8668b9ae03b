//! The two task queues.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::{Client, types::QueueAttributeName};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{AwsError, call_error};
use crate::domain::{id::AccountId, message::Task, spec::Priority};

/// Messages that are sent at the same time.
const PARALLEL: usize = 16;

/// The high and the low queue.
#[derive(Debug, Clone)]
pub struct TaskQueues {
    client: Client,
    high_url: String,
    low_url: String,
}

impl TaskQueues {
    /// The queues at these URLs.
    #[must_use]
    pub fn new(config: &SdkConfig, high_url: String, low_url: String) -> Self {
        Self {
            client: Client::new(config),
            high_url,
            low_url,
        }
    }

    /// Which of the two an ARN names, as a delivered message tells it.
    #[must_use]
    pub fn priority_of(&self, arn: &str) -> Option<Priority> {
        let name = arn.rsplit(':').next()?;
        Priority::ALL
            .iter()
            .copied()
            .find(|priority| self.url(*priority).rsplit('/').next() == Some(name))
    }

    fn url(&self, priority: Priority) -> &str {
        match priority {
            Priority::High => &self.high_url,
            Priority::Low => &self.low_url,
        }
    }

    /// Sends a task. May send it twice when an answer is lost: whoever receives it must be ready for that.
    ///
    /// The account is the message group, so that fair queues keep one account's jobs from starving the others'.
    pub async fn send(&self, priority: Priority, account: &AccountId, task: &Task) -> Result<(), AwsError> {
        let body = task.to_body().map_err(|error| AwsError::Item(error.into()))?;
        self.client
            .send_message()
            .queue_url(self.url(priority))
            .message_body(body)
            .message_group_id(account.as_str())
            .send()
            .await
            .map_err(|error| call_error("SendMessage", &error))?;
        Ok(())
    }

    /// Sends many tasks of one account. All are sent, or it is an error; some may then be sent, too.
    ///
    /// One request each: a batch can fail in parts, and the largest plan's requests cost less than a hundredth of a cent.
    pub async fn send_all(&self, priority: Priority, account: &AccountId, tasks: &[Task]) -> Result<(), AwsError> {
        stream::iter(tasks)
            .map(|task| self.send(priority, account, task))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// Whether no message of the queue waits to be received. SQS counts approximately, so this is a hint and no proof.
    pub async fn is_idle(&self, priority: Priority) -> Result<bool, AwsError> {
        let waiting = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let output = self
            .client
            .get_queue_attributes()
            .queue_url(self.url(priority))
            .set_attribute_names(Some(waiting.to_vec()))
            .send()
            .await
            .map_err(|error| call_error("GetQueueAttributes", &error))?;
        let counts = output.attributes.unwrap_or_default();
        Ok(waiting
            .iter()
            .all(|name| counts.get(name).is_some_and(|count| count == "0")))
    }

    /// Sets when a received message becomes visible again.
    pub async fn set_visibility(
        &self,
        priority: Priority,
        receipt_handle: &str,
        after: Duration,
    ) -> Result<(), AwsError> {
        self.client
            .change_message_visibility()
            .queue_url(self.url(priority))
            .receipt_handle(receipt_handle)
            .visibility_timeout(i32::try_from(after.as_secs()).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(|error| call_error("ChangeMessageVisibility", &error))?;
        Ok(())
    }
}
