//! The sample table of a stretch of a track, by columns.

use serde::{Deserialize, Serialize};

/// One coded picture or one packet of sound, as the container knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its coded size.
    pub bytes: u32,
    /// Decode time until the next sample.
    pub duration_ticks: u32,
    /// Presentation time minus decode time; negative where the first picture's is zero although pictures are reordered.
    pub composition_ticks: i32,
    /// Whether decoding can begin with it.
    pub is_sync: bool,
}

/// How often a value follows itself, and the value.
pub(super) type Run<T> = (u32, T);

/// Samples in decode order.
///
/// As JSON it is an object of columns: `bytes` has a number for each sample; `duration_ticks` and `composition_ticks`
/// are lists of `[count, value]`; `sync` lists the indexes of the sync samples and is absent when every sample is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Columns")]
pub struct Samples {
    bytes: Vec<u32>,
    duration_ticks: Vec<Run<u32>>,
    composition_ticks: Vec<Run<i32>>,
    /// Strictly rising, and shorter than `bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sync: Option<Vec<u32>>,
}

/// [`Samples`] before its columns are known to agree.
#[derive(Deserialize)]
struct Columns {
    bytes: Vec<u32>,
    duration_ticks: Vec<Run<u32>>,
    composition_ticks: Vec<Run<i32>>,
    #[serde(default)]
    sync: Option<Vec<u32>>,
}

impl Samples {
    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes of all samples.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().copied().map(u64::from).sum()
    }

    /// From the first sample's decode time to the end of the last one's.
    #[must_use]
    pub fn total_ticks(&self) -> u64 {
        self.duration_ticks
            .iter()
            .map(|&(count, ticks)| u64::from(count) * u64::from(ticks))
            .sum()
    }

    /// The duration of every sample, when they all have the same.
    #[must_use]
    pub fn constant_duration_ticks(&self) -> Option<u32> {
        match self.duration_ticks[..] {
            [(_, ticks)] => Some(ticks),
            _ => None,
        }
    }

    /// The longest distance from one sample to the next; zero when there is no sample.
    #[must_use]
    pub fn longest_duration_ticks(&self) -> u32 {
        self.duration_ticks.iter().map(|&(_, ticks)| ticks).max().unwrap_or(0)
    }

    /// Whether decoding can begin with the first sample.
    #[must_use]
    pub fn starts_with_sync(&self) -> bool {
        match &self.sync {
            None => !self.is_empty(),
            Some(indexes) => indexes.first() == Some(&0),
        }
    }

    /// Whether decoding can begin with any sample.
    #[must_use]
    pub fn is_all_sync(&self) -> bool {
        self.sync.is_none()
    }

    /// The indexes of the samples that decoding can begin with, rising.
    pub fn sync_indexes(&self) -> impl Iterator<Item = u32> + '_ {
        let every = match self.sync {
            None => u32::try_from(self.len()).unwrap_or(u32::MAX),
            Some(_) => 0,
        };
        (0..every).chain(self.sync.iter().flatten().copied())
    }

    /// From when until when these samples are shown, relative to the first one's decode time; `None` when there is no
    /// sample.
    #[must_use]
    pub fn presentation_ticks(&self) -> Option<(i64, i64)> {
        let mut decode_ticks = 0_i64;
        let mut shown = None;
        for sample in self.iter() {
            let start = decode_ticks + i64::from(sample.composition_ticks);
            let end = start + i64::from(sample.duration_ticks);
            let (first, last) = shown.unwrap_or((start, end));
            shown = Some((start.min(first), end.max(last)));
            decode_ticks += i64::from(sample.duration_ticks);
        }
        shown
    }

    /// The samples, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        let mut sync = self.sync.as_ref().map(|indexes| indexes.iter().copied().peekable());
        self.bytes
            .iter()
            .zip(expanded(&self.duration_ticks))
            .zip(expanded(&self.composition_ticks))
            .zip(0..)
            .map(move |(((&bytes, duration_ticks), composition_ticks), index)| Sample {
                bytes,
                duration_ticks,
                composition_ticks,
                is_sync: sync.as_mut().is_none_or(|sync| sync.next_if_eq(&index).is_some()),
            })
    }

    /// Appends a sample.
    pub fn push(&mut self, sample: Sample) {
        let index = u32::try_from(self.len()).unwrap_or(u32::MAX);
        match (&mut self.sync, sample.is_sync) {
            (Some(indexes), true) => indexes.push(index),
            (None, false) => self.sync = Some((0..index).collect()),
            (Some(_), false) | (None, true) => {}
        }
        self.bytes.push(sample.bytes);
        lengthen(&mut self.duration_ticks, sample.duration_ticks);
        lengthen(&mut self.composition_ticks, sample.composition_ticks);
    }

    pub(super) fn sizes_bytes(&self) -> &[u32] {
        &self.bytes
    }

    pub(super) fn duration_runs(&self) -> &[Run<u32>] {
        &self.duration_ticks
    }

    pub(super) fn composition_runs(&self) -> &[Run<i32>] {
        &self.composition_ticks
    }
}

impl FromIterator<Sample> for Samples {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        let mut table = Self::default();
        for sample in samples {
            table.push(sample);
        }
        table
    }
}

impl TryFrom<Columns> for Samples {
    type Error = &'static str;

    fn try_from(columns: Columns) -> Result<Self, Self::Error> {
        let Columns {
            bytes,
            duration_ticks,
            composition_ticks,
            sync,
        } = columns;
        let len = u32::try_from(bytes.len()).map_err(|_| "too many samples")?;
        if counted(&duration_ticks) != Some(len) || counted(&composition_ticks) != Some(len) {
            return Err("the columns of a sample table differ in length");
        }
        let sync = sync.filter(|indexes| indexes.len() != bytes.len());
        if let Some(indexes) = &sync
            && (!indexes.is_sorted_by(|a, b| a < b) || indexes.last().is_some_and(|&last| last >= len))
        {
            return Err("the sync samples of a sample table are not rising indexes into it");
        }
        Ok(Self {
            bytes,
            duration_ticks: merged(duration_ticks),
            composition_ticks: merged(composition_ticks),
            sync,
        })
    }
}

/// How many values the runs stand for; `None` when that is no count.
fn counted<T>(runs: &[Run<T>]) -> Option<u32> {
    runs.iter().try_fold(0_u32, |sum, (count, _)| sum.checked_add(*count))
}

/// One more of `value`.
fn lengthen<T: PartialEq>(runs: &mut Vec<Run<T>>, value: T) {
    match runs.last_mut() {
        Some((count, last)) if *last == value => *count += 1,
        _ => runs.push((1, value)),
    }
}

/// The runs with no empty one and no two neighbours of one value, so that equal tables compare as equal.
pub(super) fn merged<T: PartialEq>(runs: impl IntoIterator<Item = Run<T>>) -> Vec<Run<T>> {
    let mut merged: Vec<Run<T>> = Vec::new();
    for (count, value) in runs {
        match merged.last_mut() {
            _ if count == 0 => {}
            Some((sum, last)) if *last == value => *sum = sum.saturating_add(count),
            _ => merged.push((count, value)),
        }
    }
    merged
}

fn expanded<T: Copy>(runs: &[Run<T>]) -> impl Iterator<Item = T> + '_ {
    runs.iter()
        .flat_map(|&(count, value)| std::iter::repeat_n(value, usize::try_from(count).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{pictures, sample};
    use super::*;

    #[test]
    fn columns_are_compact() {
        let json = serde_json::to_string(&pictures()).unwrap();
        assert_eq!(
            json,
            r#"{"bytes":[9,4,2,1],"duration_ticks":[[4,3000]],"composition_ticks":[[1,0],[1,6000],[2,-3000]],"sync":[0]}"#
        );
        let sound: Samples = [sample(7, 1_024, 0, true); 3].into_iter().collect();
        let json = serde_json::to_string(&sound).unwrap();
        assert_eq!(
            json,
            r#"{"bytes":[7,7,7],"duration_ticks":[[3,1024]],"composition_ticks":[[3,0]]}"#
        );
    }

    #[test]
    fn columns_that_contradict_each_other_are_refused() {
        let table = |bytes: &str, durations: &str, composition: &str, sync: &str| {
            serde_json::from_str::<Samples>(&format!(
                r#"{{"bytes":{bytes},"duration_ticks":{durations},"composition_ticks":{composition},"sync":{sync}}}"#
            ))
        };
        assert!(table("[1,2]", "[[2,5]]", "[[2,0]]", "[0]").is_ok());
        assert!(table("[1,2]", "[[1,5]]", "[[2,0]]", "[0]").is_err());
        assert!(table("[1,2]", "[[2,5]]", "[[3,0]]", "[0]").is_err());
        assert!(table("[1,2]", "[[4294967295,5],[3,5]]", "[[2,0]]", "[0]").is_err());
        assert!(table("[1,2,3]", "[[3,5]]", "[[3,0]]", "[1,0]").is_err());
        assert!(table("[1,2,3]", "[[3,5]]", "[[3,0]]", "[1,1]").is_err());
        assert!(table("[1,2,3]", "[[3,5]]", "[[3,0]]", "[0,3]").is_err());
    }

    #[test]
    fn equal_tables_are_equal_however_they_were_written() {
        let loose: Samples = serde_json::from_str(
            r#"{"bytes":[7,7,7],"duration_ticks":[[1,5],[0,9],[2,5]],"composition_ticks":[[3,0]],"sync":[0,1,2]}"#,
        )
        .unwrap();
        assert_eq!(loose, [sample(7, 5, 0, true); 3].into_iter().collect());
    }

    #[test]
    fn a_table_knows_its_extent() {
        let pictures = pictures();
        assert_eq!(
            (pictures.len(), pictures.total_bytes(), pictures.total_ticks()),
            (4, 16, 12_000)
        );
        // Decode times 0, 3000, 6000, 9000 are shown at 0, 9000, 3000, 6000.
        assert_eq!(pictures.presentation_ticks(), Some((0, 12_000)));
        assert_eq!(pictures.constant_duration_ticks(), Some(3_000));
        assert!(pictures.starts_with_sync() && !pictures.is_all_sync());
        let uneven: Samples = [sample(1, 5, 0, false), sample(1, 9, 0, true)].into_iter().collect();
        assert_eq!(
            (uneven.constant_duration_ticks(), uneven.longest_duration_ticks()),
            (None, 9)
        );
        assert!(!uneven.starts_with_sync());
        let empty = Samples::default();
        assert_eq!((empty.presentation_ticks(), empty.total_ticks()), (None, 0));
        assert!(!empty.starts_with_sync());
    }

    proptest! {
        #[test]
        fn any_table_survives_json(rows in prop::collection::vec((any::<u32>(), 0..3_u32, -2..2_i32, any::<bool>()), 0..50)) {
            let rows: Vec<_> = rows.into_iter().map(|(bytes, duration, composition, is_sync)| sample(bytes, duration, composition, is_sync)).collect();
            let table: Samples = rows.iter().copied().collect();
            let json = serde_json::to_string(&table).unwrap();
            let read: Samples = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read, &table);
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), rows.clone());
            let sync: Vec<_> = rows.iter().zip(0_u32..).filter(|(row, _)| row.is_sync).map(|(_, index)| index).collect();
            prop_assert_eq!(read.sync_indexes().collect::<Vec<_>>(), sync);
        }
    }
}
