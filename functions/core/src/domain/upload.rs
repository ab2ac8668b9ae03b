//! Uploads in parts: how a source is cut, and what a finished one must consist of.

use serde::{Deserialize, Serialize};

use super::{create::FieldError, json, words::words};

/// Smallest part that S3 takes, but for the last one.
pub const MIN_PART_BYTES: u64 = 5 << 20;
/// Largest part that S3 takes, and the largest object that it takes in one PUT.
pub const MAX_PART_BYTES: u64 = 5 << 30;
/// Most parts that S3 takes.
pub const MAX_PARTS: u64 = 10_000;
/// Length of a part, and what it grows by for sources that would have too many.
const USUAL_PART_BYTES: u64 = 8 << 20;
/// Parts of an upload that did not choose: as many as have room in one request to complete it, with a tag for each.
const USUAL_PARTS: u64 = 640;

words! {
    /// How a source is sent.
    UploadMethod {
        /// By one request.
        Put = "put",
        /// In parts, each of which can be sent again.
        Multipart = "multipart",
    }
}

/// An upload in parts, as the job has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multipart {
    /// S3's name for it.
    pub upload_id: String,
    /// Length of every part but the last.
    pub part_size_bytes: u64,
}

/// How a source is cut. Every part has a number, from 1, and by it a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Length of the source.
    pub size_bytes: u64,
    /// Length of every part but the last.
    pub part_size_bytes: u64,
}

/// A part that S3 has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredPart {
    /// From 1.
    pub part_number: u32,
    /// Entity tag, in quotes, as S3 writes it.
    pub etag: String,
    /// Its length.
    pub size_bytes: u64,
}

/// A part as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamedPart {
    /// From 1.
    #[serde(alias = "PartNumber", deserialize_with = "json::required")]
    pub part_number: u32,
    /// Entity tag, with or without its quotes.
    #[serde(alias = "ETag")]
    pub etag: String,
}

/// Why an upload cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// Not everything has been sent.
    #[error("{stored_bytes} of {size_bytes} bytes are there; the first missing part is {first_missing}")]
    Incomplete {
        /// What was sent.
        stored_bytes: u64,
        /// What was declared.
        size_bytes: u64,
        /// The lowest number that is not there, or not with its length.
        first_missing: u32,
    },
    /// The list names other parts than were sent.
    #[error("the list is not that of the parts that were sent")]
    Mismatch(Vec<FieldError>),
}

impl PartsError {
    /// The stable code of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Incomplete { .. } => "upload_incomplete",
            Self::Mismatch(_) => "parts_mismatch",
        }
    }

    /// Whether the same request may succeed later: when the rest was sent.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Incomplete { .. })
    }
}

impl Parts {
    /// The usual parts of a source.
    #[must_use]
    pub fn of(size_bytes: u64) -> Self {
        let steps = size_bytes.div_ceil(USUAL_PARTS).div_ceil(USUAL_PART_BYTES).max(1);
        Self {
            size_bytes,
            part_size_bytes: steps * USUAL_PART_BYTES,
        }
    }

    /// Parts of a length that somebody chose.
    ///
    /// # Errors
    /// Says what is wrong with that length.
    pub fn with(size_bytes: u64, part_size_bytes: u64) -> Result<Self, String> {
        if !(MIN_PART_BYTES..=MAX_PART_BYTES).contains(&part_size_bytes) {
            return Err(format!("must be {MIN_PART_BYTES} to {MAX_PART_BYTES}"));
        }
        if size_bytes.div_ceil(part_size_bytes) > MAX_PARTS {
            let least = size_bytes.div_ceil(MAX_PARTS);
            return Err(format!(
                "must be at least {least}: an upload has at most {MAX_PARTS} parts"
            ));
        }
        Ok(Self {
            size_bytes,
            part_size_bytes,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.size_bytes.div_ceil(self.part_size_bytes.max(1))).unwrap_or(u32::MAX)
    }

    /// The length of a part; `None` for a number that is none's.
    #[must_use]
    pub fn length(&self, number: u32) -> Option<u64> {
        let before = u64::from(number.checked_sub(1)?).checked_mul(self.part_size_bytes)?;
        let left = self.size_bytes.checked_sub(before).filter(|left| *left > 0)?;
        Some(left.min(self.part_size_bytes))
    }

    /// Checks that all parts are there, each with its length, and that a list of them, if there is one, is theirs: in
    /// order, and with their tags. What counts is what S3 has; a client's list only can be refused by it.
    pub fn check(&self, stored: &[StoredPart], named: Option<&[NamedPart]>) -> Result<(), PartsError> {
        if let Some(named) = named {
            mismatches(self.count(), stored, named)?;
        }
        let is_there = |number: &u32| {
            let part = stored.iter().find(|part| part.part_number == *number);
            part.map(|part| part.size_bytes) == self.length(*number)
        };
        let stored_bytes = stored.iter().map(|part| part.size_bytes).sum();
        let first_missing = (1..=self.count()).find(|number| !is_there(number));
        // A part more than there should be cannot be sent, since none is signed; but the sum is what counts.
        if first_missing.is_none() && stored_bytes == self.size_bytes {
            return Ok(());
        }
        Err(PartsError::Incomplete {
            stored_bytes,
            size_bytes: self.size_bytes,
            first_missing: first_missing.unwrap_or(self.count()),
        })
    }
}

fn mismatches(count: u32, stored: &[StoredPart], named: &[NamedPart]) -> Result<(), PartsError> {
    let mut errors = Vec::new();
    for (index, part) in named.iter().enumerate() {
        let mut wrong = |field: &str, message: &str| {
            errors.push(FieldError::new(format!("/parts/{index}/{field}"), message));
        };
        let expected = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        if part.part_number == 0 || part.part_number > count {
            wrong("part_number", "is no part of this upload");
        } else if part.part_number != expected {
            wrong("part_number", "is out of order: parts are listed once each, from 1 on");
        } else if let Some(stored) = stored.iter().find(|stored| stored.part_number == part.part_number)
            && stored.etag.trim_matches('"') != part.etag.trim_matches('"')
        {
            wrong("etag", "is not the tag of the part that was sent");
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(PartsError::Mismatch(errors))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn stored(lengths: &[u64]) -> Vec<StoredPart> {
        let part = |(number, size_bytes): (u32, &u64)| StoredPart {
            part_number: number,
            etag: format!("\"tag{number}\""),
            size_bytes: *size_bytes,
        };
        (1..).zip(lengths).map(part).collect()
    }

    fn named(numbers: &[u32]) -> Vec<NamedPart> {
        let part = |number: &u32| NamedPart {
            part_number: *number,
            etag: format!("tag{number}"),
        };
        numbers.iter().map(part).collect()
    }

    fn code(lengths: &[u64], numbers: Option<&[u32]>) -> Option<&'static str> {
        let parts = Parts::with(12 * MIB, 5 * MIB).unwrap();
        let named = numbers.map(named);
        parts
            .check(&stored(lengths), named.as_deref())
            .err()
            .map(|error| error.code())
    }

    #[test]
    fn what_s3_has_decides() {
        let all = [5 * MIB, 5 * MIB, 2 * MIB];
        assert_eq!(code(&all, None), None);
        assert_eq!(code(&all, Some(&[1, 2, 3])), None);
        assert_eq!(code(&all[..2], None), Some("upload_incomplete"));
        assert_eq!(code(&all[..2], Some(&[1, 2, 3])), Some("upload_incomplete"));
        assert_eq!(code(&[5 * MIB, 4 * MIB, 3 * MIB], None), Some("upload_incomplete"));
        assert_eq!(code(&[5 * MIB, 5 * MIB, 2 * MIB, 1], None), Some("upload_incomplete"));
        for bad in [&[2, 1, 3][..], &[1, 1, 2], &[1, 3], &[0], &[1, 2, 3, 4], &[10_001]] {
            assert_eq!(code(&all, Some(bad)), Some("parts_mismatch"), "{bad:?}");
        }
    }

    #[test]
    fn another_tag_is_another_part() {
        let parts = Parts::with(6 * MIB, 5 * MIB).unwrap();
        let mut list = named(&[1, 2]);
        list[1].etag = "\"other\"".into();
        let Err(PartsError::Mismatch(errors)) = parts.check(&stored(&[5 * MIB, MIB]), Some(&list)) else {
            panic!("no mismatch");
        };
        assert_eq!(errors[0].pointer, "/parts/1/etag");
    }

    #[test]
    fn no_part_is_outside_of_what_s3_takes() {
        assert!(Parts::with(1, MIN_PART_BYTES - 1).is_err());
        assert!(Parts::with(1, MAX_PART_BYTES + 1).is_err());
        assert!(Parts::with(MIN_PART_BYTES * MAX_PARTS, MIN_PART_BYTES).is_ok());
        assert!(Parts::with(MIN_PART_BYTES * MAX_PARTS + 1, MIN_PART_BYTES).is_err());
    }

    proptest! {
        #[test]
        fn the_parts_are_the_source(size_bytes in 1u64..(50 << 40)) {
            let parts = Parts::of(size_bytes);
            prop_assert!(u64::from(parts.count()) <= USUAL_PARTS);
            prop_assert!(Parts::with(size_bytes, parts.part_size_bytes).is_ok() || size_bytes > MAX_PART_BYTES * USUAL_PARTS);
            let lengths: Option<Vec<u64>> = (1..=parts.count()).map(|number| parts.length(number)).collect();
            prop_assert_eq!(lengths.unwrap().into_iter().sum::<u64>(), size_bytes);
            prop_assert_eq!(parts.length(0), None);
            prop_assert_eq!(parts.length(parts.count() + 1), None);
        }
    }
}
