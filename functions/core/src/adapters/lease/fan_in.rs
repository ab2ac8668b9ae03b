//! The end of an encode task: the task is done and the job has one fewer left, in one transaction. So the count is of
//! tasks and not of messages, and exactly one worker brings it to zero.

use crate::{
    adapters::{
        AwsError,
        dynamo::{flag, n, s, value},
        jobs::JobsTable,
    },
    domain::{
        task::{ChunkResult, TaskState},
        time::UtcTime,
    },
};

use super::{Fenced, JOB_RUNS, Lease, transact, update_item};

impl Lease {
    /// Ends an encode task. `reported` is the number of its frames that the job's count already has.
    ///
    /// Refused, too, while the job has no count of its tasks yet: a planner that was interrupted has stored tasks, and a
    /// message about one was sent again before the next planner came to [`open_fan_in`](Self::open_fan_in).
    pub async fn finish_chunk(
        &self,
        jobs: &JobsTable,
        result: &ChunkResult,
        reported: u64,
        makes_playable: bool,
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let took_ms = result.cost.seconds * 1_000.0;
        let task = self
            .task_update(
                jobs,
                "SET #state = :done, done_by = :worker, #result = :result, took_ms = :took, frames_done = :frames, \
                 updated_at = :now REMOVE #owner",
                now,
            )
            .expression_attribute_names("#result", "result")
            .expression_attribute_values(":done", s(TaskState::Done.as_str()))
            .expression_attribute_values(":result", value(result)?)
            .expression_attribute_values(":took", n(took_ms.round()))
            .expression_attribute_values(":frames", n(result.frames));
        let playable = if makes_playable { ", playable = :true" } else { "" };
        let mut job = self
            .job_update(
                jobs,
                &format!(
                    "SET tasks_remaining = tasks_remaining - :one, updated_at = :now{playable} ADD frames_done :more"
                ),
                now,
            )
            .condition_expression(format!("{JOB_RUNS} AND tasks_remaining >= :one"))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":more", n(result.frames.saturating_sub(reported)));
        if makes_playable {
            job = job.expression_attribute_values(":true", flag(true));
        }
        match transact(jobs, vec![update_item(task)?, update_item(job)?]).await? {
            Fenced::Held => Ok(Fenced::Held),
            Fenced::Lost => self.was_done_by_us(jobs).await,
        }
    }

    /// Whether a refusal is the echo of our own write, whose answer was lost.
    async fn was_done_by_us(&self, jobs: &JobsTable) -> Result<Fenced, AwsError> {
        let item = jobs.item(&self.job_id, &self.task.item(self.generation)).await?;
        let done_by = item.as_ref().and_then(|item| item.get("done_by")?.as_s().ok());
        Ok(if done_by.map(String::as_str) == Some(self.worker.as_str()) {
            Fenced::Held
        } else {
            Fenced::Lost
        })
    }
}
