//! Audit entries, for operators: an account's, or those of all accounts, newest first.

use axum::{Json, extract::State};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use reelay_core::{
    adapters::audit::{Page, Place},
    domain::{audit::Entry, create::FieldError, id::AccountId, time::UtcTime},
    http::{ApiError, Code, Operator, QueryOf},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::AppState;

/// Entries on a page that does not say how many.
const DEFAULT_LIMIT: i32 = 50;
/// Most entries on a page.
const MAX_LIMIT: i32 = 200;
/// How far back is looked when nothing is said.
const DEFAULT_DAYS: i64 = 7;
/// Longest time that is looked through.
const MAX_DAYS: i64 = 400;
/// Days that one request reads: a page may be empty and still have a next one.
const DAYS_A_PAGE: usize = 31;
const DAY_MS: i64 = 86_400_000;

#[derive(Deserialize)]
pub(super) struct AuditQuery {
    account_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<i32>,
    cursor: Option<String>,
}

#[derive(Serialize)]
pub(super) struct AuditList {
    entries: Vec<Entry>,
    next_cursor: Option<String>,
}

/// Where the next page begins: on a day, after an entry of it if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    day_ms: i64,
    after: Option<(String, String)>,
    binding: String,
}

pub(super) async fn entries(
    State(state): State<AppState>,
    Operator(caller): Operator,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<AuditList>, ApiError> {
    let now = UtcTime::now();
    let Wanted { account, span, limit } = Wanted::read(&query, now).map_err(ApiError::fields)?;
    let binding = binding(&caller.account.account_id, &query);
    let cursor = match query.cursor.as_deref() {
        Some(text) => Some(decode(text, &binding).ok_or_else(|| ApiError::new(Code::InvalidCursor))?),
        None => None,
    };
    let mut place = cursor
        .as_ref()
        .and_then(|cursor| cursor.after.clone())
        .map(|(pk, sk)| Place { pk, sk });

    let mut entries = Vec::new();
    let mut next = None;
    if let Some(account) = account {
        let page = state.audit.of_account(&account, span, limit, place.as_ref()).await?;
        next = page.last.map(|last| (0, Some(last)));
        entries = page.entries;
    } else {
        let first_day = span.0.epoch_ms().div_euclid(DAY_MS);
        let last_day = span.1.epoch_ms().div_euclid(DAY_MS);
        let begin = cursor
            .as_ref()
            .map_or(last_day, |cursor| cursor.day_ms.div_euclid(DAY_MS))
            .min(last_day);
        for (read, day) in (first_day..=begin).rev().enumerate() {
            let left = limit - i32::try_from(entries.len()).unwrap_or(limit);
            if left <= 0 || read == DAYS_A_PAGE {
                next = Some((day * DAY_MS, None));
                break;
            }
            let name = UtcTime::from_epoch_ms(day * DAY_MS).to_string();
            let Page { entries: of_day, last } = state.audit.of_day(&name[..10], span, left, place.as_ref()).await?;
            place = None;
            entries.extend(of_day);
            if let Some(last) = last {
                next = Some((day * DAY_MS, Some(last)));
                break;
            }
        }
    }
    let next_cursor = next.map(|(day_ms, after)| {
        encode(&Cursor {
            day_ms,
            after: after.map(|place| (place.pk, place.sk)),
            binding,
        })
    });
    Ok(Json(AuditList { entries, next_cursor }))
}

/// What was asked for, once it is checked.
struct Wanted {
    account: Option<AccountId>,
    span: (UtcTime, UtcTime),
    limit: i32,
}

impl Wanted {
    fn read(query: &AuditQuery, now: UtcTime) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let account = query.account_id.as_deref().map(str::parse::<AccountId>);
        if account.as_ref().is_some_and(Result::is_err) {
            errors.push(FieldError::new("/account_id", "must be an account's id"));
        }
        let mut time = |name: &str, text: &Option<String>, otherwise: UtcTime| match text.as_deref().map(str::parse) {
            None => otherwise,
            Some(Ok(time)) => time,
            Some(Err(_)) => {
                errors.push(FieldError::new(name, "must be a time such as 2026-11-26T08:00:00Z"));
                otherwise
            }
        };
        let to = time("/to", &query.to, now);
        let from = UtcTime::from_epoch_ms(to.epoch_ms() - DEFAULT_DAYS * DAY_MS);
        let from = time("/from", &query.from, from);
        if from > to {
            errors.push(FieldError::new("/from", "must not be after to"));
        } else if to.epoch_ms() - from.epoch_ms() > MAX_DAYS * DAY_MS {
            errors.push(FieldError::new(
                "/from",
                format!("must not be more than {MAX_DAYS} days before to"),
            ));
        }
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            errors.push(FieldError::new("/limit", format!("must be 1 to {MAX_LIMIT}")));
        }
        if errors.is_empty() {
            Ok(Self {
                account: account.and_then(Result::ok),
                span: (from, to),
                limit,
            })
        } else {
            Err(errors)
        }
    }
}

/// Ties a cursor to who asked, and for what: a place in one list means nothing in another.
fn binding(operator: &AccountId, query: &AuditQuery) -> String {
    let mut digest = Sha256::new().chain_update(operator.as_str());
    for text in [&query.account_id, &query.from, &query.to] {
        digest.update([0]);
        digest.update(text.as_deref().unwrap_or_default());
    }
    hex::encode(&digest.finalize()[..8])
}

/// The cursor's text, with a digest of its own over all of it.
fn encode(cursor: &Cursor) -> String {
    let plain = serde_json::to_string(cursor).unwrap_or_default();
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}{plain}", seal(&plain)))
}

fn decode(text: &str, binding: &str) -> Option<Cursor> {
    let plain = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (sealed, plain) = plain.split_at_checked(16)?;
    if sealed != seal(plain) {
        return None;
    }
    serde_json::from_str::<Cursor>(plain)
        .ok()
        .filter(|cursor| cursor.binding == binding)
}

fn seal(plain: &str) -> String {
    hex::encode(&Sha256::digest(plain)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_whole_and_for_its_own_list_only() {
        let cursor = Cursor {
            day_ms: 86_400_000,
            after: Some(("audit#none".into(), "2026-11-26T00:00:00.000Z#1".into())),
            binding: "one".into(),
        };
        let text = encode(&cursor);
        assert_eq!(decode(&text, "one"), Some(cursor));
        assert_eq!(decode(&text, "two"), None);
        for index in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(decode(std::str::from_utf8(&altered).unwrap(), "one"), None, "{index}");
        }
        for bad in ["", "x", "////"] {
            assert_eq!(decode(bad, "one"), None);
        }
    }

    #[test]
    fn what_is_asked_for_is_checked_field_by_field() {
        let query = AuditQuery {
            account_id: Some("nobody".into()),
            from: Some("yesterday".into()),
            to: None,
            limit: Some(0),
            cursor: None,
        };
        let Err(errors) = Wanted::read(&query, UtcTime::from_epoch_ms(0)) else {
            panic!("all of it is wrong");
        };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/account_id", "/from", "/limit"]);
    }
}
