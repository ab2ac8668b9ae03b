//! Sound that tells the time: a beep of 50 ms at 1 kHz begins together with every frame that [`beeps_at`] names.

use std::f64::consts::TAU;
use std::ffi::OsStr;
use std::io::Write;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::studio::{Studio, input_words, words};

/// The first frame with a beep, and the frames from one to the next: every 5 s at 30 frames a second.
const BEEP_FIRST: u32 = 30;
const BEEP_EVERY: u32 = 150;
const BEEP_SECONDS: f64 = 0.05;
const BEEP_HZ: f64 = 1000.0;
/// Below the beeps lies a hum that changes slowly. The detector's window is one period of it, so it does not hear it.
const HUM_HZ: f64 = 250.0;

/// What sound is read at.
const READING_RATE_HZ: u32 = 48_000;
/// 4 ms: whole periods of beep and hum.
const WINDOW_SAMPLES: usize = 192;
/// A beep is louder than this, of a full scale of 1.
const BEEP_MINIMUM: f64 = 0.05;

/// Whether a beep begins with the frame of this number.
pub fn beeps_at(number: u32) -> bool {
    number >= BEEP_FIRST && (number - BEEP_FIRST).is_multiple_of(BEEP_EVERY)
}

/// The sound of a source, or of one of its tracks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sound {
    /// Frames of picture a second, as a fraction: beeps belong to frames.
    pub(crate) frame_rate: (u32, u32),
    pub(crate) sample_rate_hz: u32,
    pub(crate) channels: usize,
    /// Where it begins and ends on the picture's clock, in frames.
    pub(crate) frames: (u32, u32),
    /// The frame before which beeps end.
    pub(crate) beeps_until: u32,
}

impl Sound {
    /// Writes the samples, 16 bit, little-endian, interleaved. Every channel has the same.
    pub(crate) fn write(&self, mut to: impl Write) -> Result<()> {
        let (first, end) = (self.sample_of(self.frames.0), self.sample_of(self.frames.1));
        let beeps: Vec<u64> = (0..self.beeps_until)
            .filter(|&number| beeps_at(number))
            .map(|number| self.sample_of(number))
            .collect();
        let mut next = 0;
        for sample in first..end {
            while next + 1 < beeps.len() && sample >= beeps[next + 1] {
                next += 1;
            }
            let since_beep = beeps.get(next).and_then(|beep| sample.checked_sub(*beep));
            let value = self.value(sample, since_beep).to_le_bytes();
            for _ in 0..self.channels {
                to.write_all(&value)?;
            }
        }
        Ok(to.flush()?)
    }

    /// The sample that begins with a frame.
    fn sample_of(&self, number: u32) -> u64 {
        let (frames, seconds) = self.frame_rate;
        let (exact, half) = (
            u64::from(number) * u64::from(seconds) * u64::from(self.sample_rate_hz),
            u64::from(frames) / 2,
        );
        (exact + half) / u64::from(frames)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "an hour has less than 2^52 samples, and a sample is scaled to 16 bit"
    )]
    fn value(&self, sample: u64, since_beep: Option<u64>) -> i16 {
        let rate = f64::from(self.sample_rate_hz);
        let seconds = sample as f64 / rate;
        let mut value = (0.08 + 0.04 * (TAU * 0.3 * seconds).sin()) * (TAU * HUM_HZ * seconds).sin();
        if let Some(since) = since_beep.map(|since| since as f64 / rate)
            && since < BEEP_SECONDS
        {
            value += 0.5 * (TAU * BEEP_HZ * since).sin();
        }
        (value * f64::from(i16::MAX)) as i16
    }
}

impl Studio {
    /// When beeps begin in an audio stream (`audio` counts from 0), to about half a millisecond. Gaps between time
    /// stamps count as silence.
    pub async fn beep_onsets_seconds(&self, input: impl AsRef<OsStr>, audio: usize) -> Result<Vec<f64>> {
        let start_seconds = self.start_seconds(input.as_ref()).await?;
        let mut arguments = words("-loglevel error -copyts");
        arguments.extend(input_words(input.as_ref()));
        arguments.extend(words(&format!(
            "-map 0:a:{audio} -af asetpts=PTS-({start_seconds})/TB,\
             aresample={READING_RATE_HZ}:async=1:min_hard_comp=0.005:first_pts=0 -ac 1 -f f32le -"
        )));
        let samples = samples(&self.ffmpeg(&arguments).await?.stdout);
        let onsets = onsets(&loudness(&samples));
        Ok(onsets.into_iter().map(|seconds| start_seconds + seconds).collect())
    }

    /// The first audio stream through filters, mixed to one channel; a full scale is 1.
    pub async fn samples(&self, input: impl AsRef<OsStr>, filters: &str) -> Result<Vec<f64>> {
        let mut arguments = words("-loglevel error -copyts");
        arguments.extend(input_words(input.as_ref()));
        arguments.extend(words(&format!("-map 0:a:0 -af {filters} -ac 1 -f f32le -")));
        Ok(samples(&self.ffmpeg(&arguments).await?.stdout))
    }

    /// When the earliest stream begins.
    async fn start_seconds(&self, input: &OsStr) -> Result<f64> {
        let mut arguments = words("-v error -show_entries format=start_time -of json");
        arguments.extend(input_words(input));
        let answer: Value = serde_json::from_slice(&self.ffprobe(&arguments).await?.stdout)?;
        let text = answer["format"]["start_time"].as_str().context("no start time")?;
        Ok(text.parse()?)
    }
}

fn samples(bytes: &[u8]) -> Vec<f64> {
    let samples = bytes.chunks_exact(4);
    samples
        .map(|bytes| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
        .collect()
}

/// The beep's amplitude at each sample, over the window that ends there.
fn loudness(samples: &[f64]) -> Vec<f64> {
    let turn = TAU * BEEP_HZ / f64::from(READING_RATE_HZ);
    // The beep's period is a whole number of samples, so the angle may start anew with each window.
    let wave: Vec<(f64, f64)> = (0..WINDOW_SAMPLES)
        .scan(0.0, |angle, _| {
            let now = *angle;
            *angle += turn;
            Some((f64::cos(now), f64::sin(now)))
        })
        .collect();
    let scale = 2.0 / f64::from(u16::try_from(WINDOW_SAMPLES).unwrap_or(u16::MAX));
    let (mut real, mut imaginary) = (0.0, 0.0);
    let mut loudness = Vec::with_capacity(samples.len());
    for (index, sample) in samples.iter().enumerate() {
        let old = index.checked_sub(WINDOW_SAMPLES).map_or(0.0, |old| samples[old]);
        let (cosine, sine) = wave[index % WINDOW_SAMPLES];
        real += (sample - old) * cosine;
        imaginary += (sample - old) * sine;
        loudness.push(f64::hypot(real, imaginary) * scale);
    }
    loudness
}

/// Where the loudness passes half of its height upwards. It rises linearly over one window, so this is half a window
/// late.
fn onsets(loudness: &[f64]) -> Vec<f64> {
    let half = loudness.iter().copied().fold(0.0, f64::max) / 2.0;
    if half * 2.0 < BEEP_MINIMUM {
        return Vec::new();
    }
    let rises = loudness
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < half && pair[1] >= half);
    let mut found: Vec<f64> = Vec::new();
    for (index, _) in rises {
        #[expect(clippy::cast_precision_loss, reason = "an hour has less than 2^52 samples")]
        let samples = (index + 1) as f64 - f64::from(u16::try_from(WINDOW_SAMPLES / 2).unwrap_or_default());
        let seconds = samples / f64::from(READING_RATE_HZ);
        // A beep's own end may tremble around the height.
        if found.last().is_none_or(|last| seconds - last > 2.0 * BEEP_SECONDS) {
            found.push(seconds);
        }
    }
    found
}
