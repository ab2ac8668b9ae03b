//! What is repaired, and what is left alone.

use std::time::Duration;

use reelay_core::domain::{
    create::CreateJob,
    id::{AccountId, JobId},
    job::Status,
};

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

fn now() -> UtcTime {
    UtcTime::from_epoch_ms(NOW_MS)
}

fn job(total: u32, remaining: u32) -> Job {
    let new = serde_json::from_str::<CreateJob>(r#"{"filename":"a.mp4","size_bytes":10}"#)
        .unwrap()
        .validate(100)
        .unwrap();
    let made = Job::pending(JobId::generate(), AccountId::generate(), new, now(), Duration::ZERO);
    Job {
        status: Status::InProgress,
        tasks_total: total,
        tasks_remaining: remaining,
        ..made
    }
}

/// A task that changed, and whose message was sent, so many milliseconds ago.
fn task(id: TaskId, state: TaskState, age_ms: i64) -> TaskItem {
    TaskItem {
        item: id.item(1),
        state,
        attempts: 0,
        lease_expires_ms: 0,
        started_ms: 0,
        sent_ms: NOW_MS - age_ms,
        took_ms: 0,
        frames_done: 0,
        result: None,
        cost: None,
        updated_at: UtcTime::from_epoch_ms(NOW_MS - age_ms),
    }
}

/// A task that was claimed so long ago, and whose lease has so long to go.
fn running(id: TaskId, attempts: u32, started_ms_ago: i64, lease_left_ms: i64) -> TaskItem {
    TaskItem {
        attempts,
        started_ms: NOW_MS - started_ms_ago,
        lease_expires_ms: NOW_MS + lease_left_ms,
        ..task(id, TaskState::Running, started_ms_ago)
    }
}

fn done(chunk: u32, took_ms: i64) -> TaskItem {
    TaskItem {
        attempts: 1,
        took_ms,
        frames_done: 600,
        ..task(TaskId::Encode(chunk), TaskState::Done, 2 * MINUTE)
    }
}

fn resend(task: TaskId) -> Repair {
    Repair::Resend {
        task,
        before_ms: NOW_MS - 15 * MINUTE,
    }
}

#[test]
fn a_message_is_sent_again_when_its_task_has_waited_a_quarter_of_an_hour() {
    for id in [TaskId::Plan, TaskId::Encode(3), TaskId::Assemble] {
        let fresh = task(id, TaskState::Ready, 15 * MINUTE);
        assert_eq!(decide(&job(0, 0), &[fresh], false, now()), []);
        let stale = task(id, TaskState::Ready, 15 * MINUTE + 1);
        assert_eq!(decide(&job(0, 0), &[stale], false, now()), [resend(id)]);
    }
}

#[test]
fn in_front_of_an_empty_queue_a_message_is_lost_after_a_minute() {
    let id = TaskId::Encode(3);
    let after = |age_ms| decide(&job(4, 4), &[task(id, TaskState::Ready, age_ms)], true, now());
    assert_eq!(after(MINUTE), []);
    let before_ms = NOW_MS - MINUTE;
    assert_eq!(after(MINUTE + 1), [Repair::Resend { task: id, before_ms }]);
    // What is worked on is known by its lease, not by the queue.
    assert_eq!(
        decide(&job(4, 4), &[running(id, 1, 5 * MINUTE, SECOND)], true, now()),
        []
    );
}

#[test]
fn a_long_queue_is_not_filled_with_copies() {
    let waited = |ready_ago: i64, sent_ago: i64| TaskItem {
        updated_at: UtcTime::from_epoch_ms(NOW_MS - ready_ago),
        ..task(TaskId::Plan, TaskState::Ready, sent_ago)
    };
    let is_sent = |item: TaskItem| !decide(&job(0, 0), &[item], false, now()).is_empty();
    // Sent again after half an hour of waiting: the next time after another one.
    assert!(!is_sent(waited(50 * MINUTE, 20 * MINUTE)));
    assert!(is_sent(waited(61 * MINUTE, 31 * MINUTE)));
    // But never later than an hour after the last time.
    assert!(is_sent(waited(48 * 60 * MINUTE, 61 * MINUTE)));
    // Given back a moment ago: its old message comes back.
    assert!(!is_sent(waited(SECOND, 40 * MINUTE)));
}

#[test]
fn a_task_whose_worker_is_gone_is_reopened_and_at_last_given_up() {
    let id = TaskId::Encode(0);
    for attempts in [1, 2] {
        assert_eq!(
            decide(&job(1, 1), &[running(id, attempts, MINUTE, -20 * SECOND)], false, now()),
            []
        );
        assert_eq!(
            decide(&job(1, 1), &[running(id, attempts, MINUTE, -31 * SECOND)], false, now()),
            [Repair::Reopen(id)]
        );
    }
    let last = running(id, MAX_ATTEMPTS, MINUTE, -31 * SECOND);
    let stale = task(TaskId::Encode(1), TaskState::Ready, 20 * MINUTE);
    let repairs = decide(&job(2, 2), &[stale, last], false, now());
    assert_eq!(repairs, [Repair::GiveUp(id)], "nothing else matters then");
    let at_work = running(id, MAX_ATTEMPTS, MINUTE, SECOND);
    assert_eq!(decide(&job(1, 1), &[at_work], false, now()), []);
}

#[test]
fn a_task_that_is_ready_after_its_last_attempt_is_given_up() {
    let used_up = TaskItem {
        attempts: MAX_ATTEMPTS,
        ..task(TaskId::Assemble, TaskState::Ready, 0)
    };
    assert_eq!(
        decide(&job(3, 0), &[used_up], false, now()),
        [Repair::GiveUp(TaskId::Assemble)]
    );
}

#[test]
fn joining_begins_when_no_chunk_is_left_and_only_then() {
    let blocked = [task(TaskId::Assemble, TaskState::Blocked, MINUTE)];
    assert_eq!(decide(&job(3, 0), &blocked, false, now()), [Repair::Unblock]);
    assert_eq!(decide(&job(3, 1), &blocked, false, now()), []);
    assert_eq!(decide(&job(0, 0), &blocked, false, now()), [], "not planned yet");
}

#[test]
fn a_job_that_counts_chunks_which_are_done_is_told_of() {
    let chunks = [done(0, SECOND), done(1, SECOND)];
    assert_eq!(decide(&job(2, 1), &chunks, false, now()), [Repair::Miscounted]);
    assert_eq!(decide(&job(2, 0), &chunks, false, now()), []);
    let fresh = TaskItem {
        updated_at: now(),
        ..done(1, SECOND)
    };
    assert_eq!(
        decide(&job(2, 1), &[done(0, SECOND), fresh], false, now()),
        [],
        "the job was read before"
    );
    assert_eq!(decide(&job(2, 2), &[], false, now()), []);
}

#[test]
fn a_straggler_is_given_to_another_worker_once() {
    let others = |count: u32| (0..count).map(|chunk| done(chunk, 40 * SECOND)).collect::<Vec<_>>();
    let id = TaskId::Encode(9);
    let look = |siblings: Vec<TaskItem>, slow: TaskItem| {
        let tasks: Vec<_> = siblings.into_iter().chain([slow]).collect();
        decide(&job(10, 1), &tasks, false, now())
    };
    let slow = |attempts, ms, frames_done| TaskItem {
        frames_done,
        ..running(id, attempts, ms, 30 * SECOND)
    };
    let revoked = [Repair::Revoke { task: id, attempt: 1 }];
    assert_eq!(look(others(9), slow(1, 101 * SECOND, 299)), revoked);
    assert_eq!(look(others(9), slow(1, 100 * SECOND, 0)), [], "not slow enough");
    assert_eq!(look(others(9), slow(1, 101 * SECOND, 300)), [], "half of it is done");
    assert_eq!(look(others(9), slow(2, 500 * SECOND, 0)), [], "once is enough");
    assert_eq!(look(others(2), slow(1, 101 * SECOND, 0)), [], "two tell nothing");
    let mut half: Vec<_> = others(4);
    half.extend((4..8).map(|chunk| task(TaskId::Encode(chunk), TaskState::Ready, 0)));
    assert_eq!(look(half.clone(), slow(1, 101 * SECOND, 0)), revoked);
    half.push(task(TaskId::Encode(8), TaskState::Ready, 0));
    assert_eq!(look(half, slow(1, 101 * SECOND, 0)), [], "more than half are to come");
    // One that was slow itself does not move the median.
    let mut mixed = others(8);
    mixed.push(done(8, 800 * SECOND));
    assert_eq!(look(mixed, slow(1, 101 * SECOND, 0)), revoked);
    let short: Vec<_> = (0..9).map(|chunk| done(chunk, SECOND)).collect();
    assert_eq!(look(short, slow(1, 29 * SECOND, 0)), [], "a second start takes as long");
}

#[test]
fn only_chunks_are_measured_against_each_other() {
    let mut tasks: Vec<_> = (0..9).map(|chunk| done(chunk, 40 * SECOND)).collect();
    tasks.push(running(TaskId::Assemble, 1, 500 * SECOND, 30 * SECOND));
    tasks.push(running(TaskId::Plan, 1, 500 * SECOND, 30 * SECOND));
    assert_eq!(decide(&job(9, 0), &tasks, false, now()), []);
}

#[test]
fn what_is_in_order_is_left_alone() {
    let tasks = [
        TaskItem {
            attempts: 1,
            ..task(TaskId::Plan, TaskState::Done, 60 * MINUTE)
        },
        done(0, 40 * SECOND),
        running(TaskId::Encode(1), 2, 30 * SECOND, 45 * SECOND),
        task(TaskId::Encode(2), TaskState::Ready, 2 * MINUTE),
        task(TaskId::Assemble, TaskState::Blocked, 60 * MINUTE),
    ];
    assert_eq!(decide(&job(3, 2), &tasks, false, now()), []);
}

#[test]
fn each_job_has_its_turn_once_in_five_minutes_and_each_minute_a_fifth_of_them() {
    let ids: Vec<_> = (0..1_000).map(|_| JobId::generate()).collect();
    let minutes: Vec<_> = (0..5)
        .map(|minute| UtcTime::from_epoch_ms(NOW_MS + minute * MINUTE))
        .collect();
    for id in &ids {
        assert_eq!(minutes.iter().filter(|minute| is_turn(id, **minute)).count(), 1, "{id}");
    }
    for minute in minutes {
        let share = ids.iter().filter(|id| is_turn(id, minute)).count();
        assert!((100..300).contains(&share), "{share} of 1000");
    }
}
