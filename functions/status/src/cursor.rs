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
    BASE64_URL_SAFE_NO_PAD.encode(format!("{job_id} {created_at} {}", binding(account, filter, job_id)))
}

/// Reads a cursor; `None` for anything that [`encode`] did not write for this account and filter.
pub(crate) fn decode(account: &AccountId, filter: &JobFilter, text: &str) -> Option<(JobId, UtcTime)> {
    let plain = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let mut parts = plain.split(' ');
    let (job_id, created_at, bound) = (parts.next()?, parts.next()?, parts.next()?);
    let job_id: JobId = job_id.parse().ok()?;
    let genuine = parts.next().is_none() && bound == binding(account, filter, &job_id);
    genuine.then_some((job_id, created_at.parse().ok()?))
}

/// Ties a cursor to its account and its filter. It guards against mix-ups, not forgery: a list only ever queries the
/// caller's own partition, wherever a cursor points.
fn binding(account: &AccountId, filter: &JobFilter, job_id: &JobId) -> String {
    let digest = Sha256::new()
        .chain_update(account.as_str())
        .chain_update(job_id.as_str())
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
        assert_eq!(decode(&account, &all, &cursor), Some(place));
        assert_eq!(decode(&AccountId::generate(), &all, &cursor), None);
        let other = JobFilter {
            status: Some(Status::Failed),
            ..JobFilter::default()
        };
        assert_eq!(decode(&account, &other, &cursor), None);
        for bad in ["", "x", &cursor[1..], &format!("{cursor}AAAA"), "////"] {
            assert_eq!(decode(&account, &all, bad), None, "{bad}");
        }
    }
}
