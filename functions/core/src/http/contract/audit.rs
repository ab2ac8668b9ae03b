//! Operations and schemas for operators.

use serde_json::{Value, json};

use super::{
    operation::Operation,
    schema::{id, in_query, list, nullable, object, reference, said, text, time, words},
};
use crate::{
    domain::audit::{Action, Outcome},
    http::Code,
};

const TAG: &str = "Operators";

pub(super) fn operations() -> Vec<Operation> {
    let account = "acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b";
    vec![
        Operation::new("status", "GET", "/analytics/audit", "listAuditEntries")
            .says(
                TAG,
                "Who did what, newest first",
                "For operators. A page may be empty and still have a next one.",
            )
            .takes(in_query(
                "account_id",
                "Of one account only.",
                id("acct"),
                json!(account),
            ))
            .takes(in_query(
                "from",
                "From this time on; seven days before `to` when absent, 400 at most.",
                time(),
                json!("2026-03-01T00:00:00Z"),
            ))
            .takes(in_query(
                "to",
                "Up to this time; now when absent.",
                time(),
                json!("2026-03-02T00:00:00Z"),
            ))
            .takes(in_query(
                "limit",
                "Most entries on the page.",
                json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
                json!(50),
            ))
            .takes(in_query(
                "cursor",
                "`next_cursor` of the page before, for the same question.",
                text(),
                json!("eyJkYXlfbXMiOjB9"),
            ))
            .answers(
                200,
                "A page.",
                "AuditList",
                json!({"entries": [{"at": "2026-03-01T09:00:00.000Z", "action": "login", "outcome": "ok",
                    "account_id": account, "resource": null, "source_address": "192.0.2.7",
                    "user_agent": "curl/8.5.0", "request_id": "JKJaXmPLvHcESHA="}], "next_cursor": null}),
            )
            .problems(&[Code::Forbidden, Code::ValidationFailed, Code::InvalidCursor]),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let entry = object(
        "Something that was done.",
        vec![
            ("at", time()),
            ("action", words(Action::ALL, Action::as_str)),
            ("outcome", words(Outcome::ALL, Outcome::as_str)),
            (
                "account_id",
                said(nullable(id("acct")), "Null when the address has no account."),
            ),
            (
                "resource",
                said(nullable(text()), "What it was done to, if not to the account."),
            ),
            ("source_address", text()),
            ("user_agent", text()),
            ("request_id", text()),
        ],
        &[],
    );
    vec![
        (
            "AuditList",
            object(
                "A page of entries.",
                vec![
                    ("entries", list(reference("AuditEntry"))),
                    ("next_cursor", said(nullable(text()), "Null on the last page.")),
                ],
                &[],
            ),
        ),
        ("AuditEntry", entry),
    ]
}
