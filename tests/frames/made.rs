//! What came of a job: its files as they lie in the bucket, and where its chunks meet.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::{Account, Run, Studio};
use serde::Deserialize;
use serde_json::Value;

/// A completed job.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) frames_total: u64,
    /// Frames a second, as a fraction.
    pub(crate) rate: (u32, u32),
    pub(crate) metrics: Metrics,
    /// The first frame of each chunk but the first.
    pub(crate) seams: Vec<u64>,
    /// Everything below the job's prefix, with the same names beside each other.
    folder: PathBuf,
    pub(crate) outputs: Vec<Shown>,
    /// The keys of the outputs below the job's prefix, as the table has them.
    items: Vec<Value>,
}

/// What its tasks read.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Metrics {
    pub(crate) source_bytes: u64,
    pub(crate) read_bytes: u64,
}

/// An output as the API shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) output_type: String,
    pub(crate) proof: Option<Proof>,
}

/// What was counted of a rendition.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Proof {
    pub(crate) expected_frames: u64,
    pub(crate) counted_frames: u64,
    pub(crate) largest_gap_ms: f64,
    pub(crate) audio_drift_ms: Option<f64>,
    objects: u32,
    object_bytes: u64,
}

/// The published evidence.
#[derive(Debug, Deserialize)]
struct Evidence {
    renditions: Vec<Rendition>,
}

#[derive(Debug, Deserialize)]
struct Rendition {
    id: String,
    expected_frames: u64,
    counted_frames: u64,
    objects: Vec<Stored>,
}

#[derive(Debug, Deserialize)]
struct Stored {
    key: String,
    size_bytes: u64,
    sha256: String,
}

impl Made {
    /// Waits for a job and fetches all that it published.
    pub(crate) async fn by(account: &Account<'_>, studio: &Studio, run: Run, name: &str) -> Result<Self> {
        let job = account.finish(run).await?;
        ensure!(
            job.status == "COMPLETED",
            "{} is {}: {:?}",
            job.id,
            job.status,
            job.error
        );
        let id = job.id;
        let harness = account.harness;
        let prefix = format!("outputs/{}/{id}/", account.id);
        let folder = studio.path(name);
        for object in harness.objects("OUTPUT_BUCKET", &prefix).await? {
            let place = folder.join(object.key.strip_prefix(&prefix).context("another prefix")?);
            std::fs::create_dir_all(place.parent().context("no folder")?)?;
            std::fs::write(place, harness.object("OUTPUT_BUCKET", &object.key).await?)?;
        }
        let items = harness.items(&id).await?;
        let chunks = items.iter().filter(|(key, _)| key.starts_with("task#1#encode#"));
        let mut seams: Vec<u64> = chunks
            .filter_map(|(_, item)| item["result"]["frames"].as_u64())
            .scan(0, |end, frames| {
                *end += frames;
                Some(*end)
            })
            .collect();
        let end = seams.pop();
        let frames_total = account.progress(&id).await?.frames_total;
        ensure!(
            end.is_none_or(|end| end == frames_total),
            "chunks end with frame {end:?} of {frames_total}"
        );
        let shown = account.get(&format!("/jobs/{id}/outputs"), 200).await?;
        let metadata = account.get(&format!("/jobs/{id}/metadata"), 200).await?;
        let rate = metadata.text("/source/video/frame_rate")?;
        let (frames, seconds) = rate.split_once('/').context("no frame rate")?;
        Ok(Self {
            frames_total,
            rate: (frames.parse()?, seconds.parse()?),
            metrics: serde_json::from_value(account.get(&format!("/jobs/{id}"), 200).await?.value("/metrics")?)?,
            seams,
            folder,
            outputs: serde_json::from_value(shown.value("/outputs")?)?,
            items: items
                .into_iter()
                .filter(|(key, _)| key.starts_with("output#1-"))
                .map(|(_, item)| item)
                .collect(),
            id,
        })
    }

    /// The file of an output.
    pub(crate) fn file(&self, output: &str) -> Result<PathBuf> {
        let item = self.items.iter().find(|item| item["id"] == output);
        let key = item
            .and_then(|item| item["key"].as_str())
            .with_context(|| format!("no output {output}"))?;
        self.place(key)
    }

    /// Where an object was put.
    fn place(&self, key: &str) -> Result<PathBuf> {
        let (_, below) = key
            .split_once(&format!("/{}/", self.id))
            .context("a key of another job")?;
        Ok(self.folder.join(below))
    }

    /// What the API shows as counted of a rendition, after a look at the evidence: every object that it names must lie in
    /// the bucket as it says.
    pub(crate) fn proof(&self, output: &str) -> Result<Proof> {
        let shown = self
            .outputs
            .iter()
            .find(|shown| shown.id == output)
            .context("no such output")?;
        let proof = shown.proof.clone().context("no proof")?;
        let evidence = self.outputs.iter().find(|shown| shown.output_type == "proof");
        let evidence = std::fs::read(self.file(&evidence.context("no evidence")?.id)?)?;
        let evidence: Evidence = serde_json::from_slice(&evidence)?;
        let rendition = evidence.renditions.iter().find(|rendition| rendition.id == output);
        let rendition = rendition.with_context(|| format!("no evidence of {output}"))?;
        ensure!(
            (rendition.expected_frames, rendition.counted_frames) == (proof.expected_frames, proof.counted_frames),
            "{rendition:?} is shown as {proof:?}"
        );
        let mut bytes = 0;
        for object in &rendition.objects {
            let stored = std::fs::read(self.place(&object.key)?).with_context(|| object.key.clone())?;
            ensure!(
                stored.len() as u64 == object.size_bytes,
                "{object:?} has {} bytes",
                stored.len()
            );
            ensure!(
                e2e::account::sha256(&stored) == object.sha256,
                "{object:?} has another digest"
            );
            bytes += object.size_bytes;
        }
        ensure!(
            (rendition.objects.len(), bytes) == (proof.objects as usize, proof.object_bytes),
            "{rendition:?} is shown as {proof:?}"
        );
        Ok(proof)
    }
}
