//! The recordings that other journeys start from are what they say.

use anyhow::{Result, ensure};
use e2e::recordings::Recording;
use e2e::{Harness, Studio};

#[tokio::test]
async fn every_recording_shows_its_numbers_and_beeps_with_them() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    for recording in Recording::all() {
        let source = studio.source(recording, 12).await?;
        let frames = studio.frames(&source.path, 0).await?;
        ensure!(frames.numbers == source.numbers, "{recording:?}: {:?}", frames.numbers);
        if source.beeps.is_empty() {
            continue;
        }
        let heard = studio.beep_onsets_seconds(&source.path, 0).await?;
        ensure!(heard.len() == source.beeps.len(), "{recording:?}: beeps at {heard:?}");
        for (&number, heard) in source.beeps.iter().zip(heard) {
            let shown = frames.time_seconds(number).unwrap();
            // AVI does not tell of the MP3 encoder's delay.
            let limit = if recording == Recording::Avi { 0.012 } else { 0.001 };
            ensure!(
                (heard - shown).abs() < limit,
                "{recording:?}: frame {number} at {shown}, its beep at {heard}"
            );
        }
    }
    Ok(())
}
