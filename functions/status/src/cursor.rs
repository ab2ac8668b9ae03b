//! Opaque cursors of lists: where a page ended, bound to the account that asked and to what it asked for.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use reelay_core::{
    adapters::jobs::JobFilter,
    domain::{
        id::{AccountId, JobId},
        time::UtcTime,
    },
};
use sha2::{Digest, Sha256};

/// Writes a cursor.
pub(crate) fn encode(account: &AccountId, filter: &JobFilter, (job_id, created_at): &(JobId, UtcTime)) -> String {
    let bound = binding(account, filter, job_id, *created_at);
    BASE64_URL_SAFE_NO_PAD.encode(format!("{job_id} {created_at} {bound}"))
}

/// Reads a cursor; `None` for anything that [`encode`] did not write for this account and filter.
pub(crate) fn decode(account: &AccountId, filter: &JobFilter, text: &str) -> Option<(JobId, UtcTime)> {
    let plain = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let mut parts = plain.split(' ');
    let (job_id, created_at, bound) = (parts.next()?, parts.next()?, parts.next()?);
    let (job_id, created_at) = (job_id.parse().ok()?, created_at.parse().ok()?);
    let genuine = parts.next().is_none() && bound == binding(account, filter, &job_id, created_at);
    genuine.then_some((job_id, created_at))
}

/// Ties a cursor's parts to each other, to its account and to its filter. It guards against mix-ups, not forgery: a list
/// only ever queries the caller's own partition, wherever a cursor points.
fn binding(account: &AccountId, filter: &JobFilter, job_id: &JobId, created_at: UtcTime) -> String {
    let digest = Sha256::new()
        .chain_update(account.as_str())
        .chain_update(job_id.as_str())
        .chain_update(created_at.to_string())
        .chain_update(format!("{filter:?}"))
        .finalize();
    hex::encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use reelay_core::domain::job::Status;

    use super::*;

    #[test]
    fn a_cursor_reads_back_for_its_account_only() {
        let account = AccountId::generate();
        let place = (JobId::generate(), UtcTime::from_epoch_ms(1_234));
        let all = JobFilter::default();
        let cursor = encode(&account, &all, &place);
        assert_eq!(decode(&account, &all, &cursor), Some(place.clone()));
        assert_eq!(decode(&AccountId::generate(), &all, &cursor), None);
        let other = JobFilter {
            status: Some(Status::Failed),
            ..JobFilter::default()
        };
        assert_eq!(decode(&account, &other, &cursor), None);
        let moved = encode(&account, &all, &(place.0.clone(), UtcTime::from_epoch_ms(9_999)));
        let moved = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(moved).unwrap()).unwrap();
        let genuine = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(&cursor).unwrap()).unwrap();
        let (elsewhere, bound) = (moved.rsplit_once(' ').unwrap().0, genuine.rsplit_once(' ').unwrap().1);
        let mixed = BASE64_URL_SAFE_NO_PAD.encode(format!("{elsewhere} {bound}"));
        assert_eq!(decode(&account, &all, &mixed), None, "another time");
        for bad in ["", "x", &cursor[1..], &format!("{cursor}AAAA"), "////"] {
            assert_eq!(decode(&account, &all, bad), None, "{bad}");
        }
    }
}
