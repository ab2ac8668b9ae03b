//! What is wrong with a job's tasks, and what makes it right: one look, no clock, nothing written.
//!
//! Messages bring their tasks back by themselves: a queue delivers what a killed worker had, and gives back what failed
//! in passing. So each rule here waits longer than that takes, and a repair in vain costs one message that finds nothing
//! to do. The one message that stays away for long is that of a worker which died between receiving and hiding it: it is
//! invisible for the queue's own time, so its task waits in front of an empty queue.

use std::time::Duration;

use reelay_core::domain::{
    id::JobId,
    job::{Job, MAX_ATTEMPTS},
    task::{TaskId, TaskItem, TaskState},
    time::UtcTime,
};

/// How long a task waits for a worker before its message is taken for lost, while messages wait in its queue.
pub(crate) const RESEND_AFTER: Duration = Duration::from_mins(15);
/// The same while none does: then it had one that a worker took with it when it died, before it could claim the task.
pub(crate) const RESEND_WHEN_IDLE_AFTER: Duration = Duration::from_mins(1);
/// The longest wait between two messages about the same task. It grows with the time that the task has been waiting, so
/// that a long queue is not made much longer by this.
const RESEND_AT_MOST_AFTER: Duration = Duration::from_hours(1);
/// How long after the end of a lease the task is reopened. The message is delivered again 5 s after it, and that is the
/// better way: it leaves one message and not two.
const REOPEN_AFTER: Duration = Duration::from_secs(30);
/// A straggler takes more than this many times the median of its siblings, in tenths.
const STRAGGLER_TENTHS: i64 = 25;
/// What a second start costs; an attempt that is younger is left alone.
const STRAGGLER_LEAST: Duration = Duration::from_secs(30);
/// Chunks that must be done before their pace is known.
const PACE_LEAST: usize = 3;
/// Reads of several items are not one moment: only what has stood for so long is taken for a contradiction.
const SETTLED_AFTER: Duration = Duration::from_mins(1);
/// How often a job that waits for its upload is looked at.
const PENDING_EVERY_MINUTES: i64 = 5;

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    /// The message is lost: send it again, unless that was done since this time, in milliseconds since 1970.
    Resend { task: TaskId, before_ms: i64 },
    /// The worker is gone: let another one try.
    Reopen(TaskId),
    /// The worker of this attempt is much slower than the others: let another one try.
    Revoke { task: TaskId, attempt: u32 },
    /// All chunks are done and nobody said so to the assemble task.
    Unblock,
    /// It was tried as often as it may be: the job fails.
    GiveUp(TaskId),
    /// More chunks are left by the job's count than by their own. That cannot be, so it is told and not repaired.
    Miscounted,
}

/// What to do about a job that is queued or in progress, from its running generation's tasks and from whether messages
/// wait in its queue.
pub(crate) fn decide(job: &Job, tasks: &[TaskItem], queue_is_idle: bool, now: UtcTime) -> Vec<Repair> {
    let pace = Pace::of(tasks);
    let mut repairs = Vec::new();
    for (task, item) in tasks.iter().filter_map(|item| item.id().zip(Some(item))) {
        match look(job, task, item, queue_is_idle, pace.as_ref(), now) {
            // Nothing else matters to a job that ends.
            Some(Repair::GiveUp(task)) => return vec![Repair::GiveUp(task)],
            Some(repair) => repairs.push(repair),
            None => {}
        }
    }
    if is_miscounted(job, tasks, now) {
        repairs.push(Repair::Miscounted);
    }
    repairs
}

fn look(
    job: &Job,
    task: TaskId,
    item: &TaskItem,
    queue_is_idle: bool,
    pace: Option<&Pace>,
    now: UtcTime,
) -> Option<Repair> {
    let is_last = item.attempts >= MAX_ATTEMPTS;
    match item.state {
        TaskState::Ready if is_last => Some(Repair::GiveUp(task)),
        TaskState::Ready => {
            let least = if queue_is_idle {
                RESEND_WHEN_IDLE_AFTER
            } else {
                RESEND_AFTER
            };
            is_message_due(item, least, now).then(|| Repair::Resend {
                task,
                before_ms: now.epoch_ms() - ms(least),
            })
        }
        TaskState::Running if now.epoch_ms() - item.lease_expires_ms > ms(REOPEN_AFTER) => Some(if is_last {
            Repair::GiveUp(task)
        } else {
            Repair::Reopen(task)
        }),
        TaskState::Running => {
            let slow = matches!(task, TaskId::Encode(_)) && pace.is_some_and(|pace| pace.is_lost_by(item, now));
            slow.then_some(Repair::Revoke {
                task,
                attempt: item.attempts,
            })
        }
        TaskState::Blocked => {
            let free = task == TaskId::Assemble && job.tasks_total > 0 && job.tasks_remaining == 0;
            free.then_some(Repair::Unblock)
        }
        TaskState::Done | TaskState::Failed => None,
    }
}

fn is_message_due(item: &TaskItem, least: Duration, now: UtcTime) -> bool {
    let ready_ms = item.updated_at.epoch_ms();
    let waited_ms = item.sent_ms - ready_ms;
    let wait_ms = waited_ms.clamp(ms(least), ms(RESEND_AT_MOST_AFTER));
    // A task that was given back has its old message, and waits from then on.
    now.epoch_ms() - item.sent_ms.max(ready_ms) > wait_ms
}

fn is_miscounted(job: &Job, tasks: &[TaskItem], now: UtcTime) -> bool {
    let chunks = || tasks.iter().filter(|item| matches!(item.id(), Some(TaskId::Encode(_))));
    let settled = |item: &TaskItem| now.epoch_ms() - item.updated_at.epoch_ms() > ms(SETTLED_AFTER);
    job.tasks_remaining > 0
        && chunks().next().is_some()
        && chunks().all(|item| item.state == TaskState::Done && settled(item))
}

/// What the finished chunks of a job took.
struct Pace {
    median_ms: i64,
    median_frames: u64,
}

impl Pace {
    /// The pace of a generation, once half of its chunks are done, and some.
    fn of(tasks: &[TaskItem]) -> Option<Self> {
        let chunks = tasks.iter().filter(|item| matches!(item.id(), Some(TaskId::Encode(_))));
        let (done, others): (Vec<_>, Vec<_>) = chunks.partition(|item| item.state == TaskState::Done);
        // Of a chunk that is not done, all but itself are siblings.
        let siblings = (done.len() + others.len()).saturating_sub(1);
        if done.len() < PACE_LEAST || done.len() * 2 < siblings {
            return None;
        }
        Some(Self {
            median_ms: median(done.iter().map(|item| item.took_ms).collect())?,
            median_frames: median(done.iter().map(|item| item.frames_done).collect())?,
        })
    }

    /// Whether a running chunk is so far behind that starting it anew is the faster way. Only a first attempt: a second
    /// one that is slow too tells that the chunk is.
    fn is_lost_by(&self, item: &TaskItem, now: UtcTime) -> bool {
        let limit_ms = (self.median_ms * STRAGGLER_TENTHS / 10).max(ms(STRAGGLER_LEAST));
        item.attempts == 1 && now.epoch_ms() - item.started_ms > limit_ms && item.frames_done * 2 < self.median_frames
    }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Whether it is this job's minute. A job that waits for its upload is asked for in S3 once in five minutes; which ones
/// those are, its id says, so that nothing has to be stored and every run asks for a fifth.
pub(crate) fn is_turn(job_id: &JobId, now: UtcTime) -> bool {
    let sum: i64 = job_id.as_str().bytes().map(i64::from).sum();
    let minute = now.epoch_seconds() / 60;
    sum % PENDING_EVERY_MINUTES == minute % PENDING_EVERY_MINUTES
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
