//! The end of a plan task whose source is cut into chunks: the plan, one item a task, and the job's counts. Each step
//! may be repeated by another attempt without harm, and a task's message goes out only when all items are there.

use crate::{
    adapters::{
        AwsError,
        dynamo::{self, Write, flag, n, s, undisturbed, value},
        jobs::{JOB, JobsTable, new_task, plan_item},
    },
    domain::{
        job::{Phase, Status},
        plan::Plan,
        task::{ChunkResult, TaskCost, TaskId, TaskState},
        time::UtcTime,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Fenced, Lease};

/// Items that are written at the same time.
const PARALLEL: usize = 16;

impl Lease {
    /// Stores the plan, or finds the one that an earlier attempt of this generation stored: that one counts.
    pub async fn store_plan(&self, jobs: &JobsTable, plan: Plan) -> Result<Plan, AwsError> {
        let mut item = dynamo::to_item(&plan)?;
        item.insert("job_id".into(), s(self.job_id.as_str()));
        item.insert("item".into(), s(plan_item(self.generation)));
        match jobs.put_new(item).await? {
            None => Ok(plan),
            Some(old) => dynamo::from_item(old),
        }
    }

    /// Stores the tasks of a plan. Chunks that an earlier generation finished are kept: their tasks are done already.
    pub async fn store_tasks(
        &self,
        jobs: &JobsTable,
        plan: &Plan,
        kept: &[ChunkResult],
        now: UtcTime,
    ) -> Result<(), AwsError> {
        stream::iter(plan.tasks())
            .map(async |task| {
                let result = match task {
                    TaskId::Encode(chunk) => kept.iter().find(|result| result.chunk == chunk),
                    TaskId::Plan | TaskId::Assemble => None,
                };
                let state = match (task, result) {
                    (TaskId::Assemble, _) => TaskState::Blocked,
                    (_, Some(_)) => TaskState::Done,
                    (_, None) => TaskState::Ready,
                };
                let mut item = new_task(&self.job_id, self.generation, task, state, now);
                if let Some(result) = result {
                    item.insert("result".into(), value(result)?);
                    item.insert("frames_done".into(), n(result.frames));
                }
                jobs.put_new(item).await.map(|_| ())
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// Gives the job its counts, once: tasks may count down as soon as they are there.
    pub async fn open_fan_in(
        &self,
        jobs: &JobsTable,
        plan: &Plan,
        kept: &[ChunkResult],
        now: UtcTime,
    ) -> Result<Fenced, AwsError> {
        let kept_tasks = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        let starts = kept.iter().any(|result| result.chunk == 0);
        let kept_frames: u64 = kept.iter().map(|result| result.frames).sum();
        let update = jobs
            .client()
            .update_item()
            .table_name(jobs.name())
            .key("job_id", s(self.job_id.as_str()))
            .key("item", s(JOB))
            .update_expression(
                "SET tasks_total = :total, tasks_remaining = :remaining, frames_total = :frames, \
                 frames_done = :kept, playable = :playable, phase = :phase, updated_at = :now",
            )
            .condition_expression("#status = :running AND generation = :generation AND tasks_total = :zero")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":running", s(Status::InProgress.as_str()))
            .expression_attribute_values(":generation", n(self.generation))
            .expression_attribute_values(":zero", n(0))
            .expression_attribute_values(":total", n(plan.chunks))
            .expression_attribute_values(":remaining", n(plan.chunks.saturating_sub(kept_tasks)))
            .expression_attribute_values(":frames", n(plan.timeline.frames))
            .expression_attribute_values(":kept", n(kept_frames))
            .expression_attribute_values(":playable", flag(plan.hls.is_some() && starts))
            .expression_attribute_values(":phase", s(Phase::Encoding.as_str()))
            .expression_attribute_values(":now", s(now.to_string()));
        match undisturbed("UpdateItem", || update.clone().send()).await? {
            Write::Done(_) => Ok(Fenced::Held),
            // An earlier attempt did it, or the job is over.
            Write::Refused(_) => self.check(jobs).await,
        }
    }

    /// Ends the plan task.
    pub async fn finish_plan(&self, jobs: &JobsTable, cost: &TaskCost, now: UtcTime) -> Result<Fenced, AwsError> {
        let update = self
            .task_update(
                jobs,
                "SET #state = :done, cost = :cost, updated_at = :now REMOVE #owner",
                now,
            )
            .expression_attribute_values(":cost", value(cost)?)
            .expression_attribute_values(":done", s(TaskState::Done.as_str()));
        self.send(jobs, update).await
    }
}
