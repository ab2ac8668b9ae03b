//! Progress: a bar on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::client::Progress;
use crate::terminal::{bytes, is_drawable, note, printable};

/// Steps of plain lines, in percent.
const STEP: u64 = 20;

/// One activity with an end.
pub(super) struct View {
    bar: Option<ProgressBar>,
    title: String,
    /// What the last plain line said.
    last: std::cell::RefCell<String>,
}

impl View {
    pub(super) fn new(title: &str) -> Self {
        let bar = is_drawable().then(|| {
            let bar = ProgressBar::new(100);
            let style = ProgressStyle::with_template("{prefix:<10} {bar:32} {percent:>3}% {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            title: title.to_owned(),
            last: std::cell::RefCell::default(),
        }
    }

    /// Shows how much of a transfer is done.
    pub(super) fn transferred(&self, done: u64, total: u64) {
        let percent = percent_of(done, total);
        self.show(
            percent,
            &format!("{} of {}", bytes(done), bytes(total)),
            &(percent / STEP).to_string(),
        );
    }

    /// Shows what the worker does.
    pub(super) fn processing(&self, progress: &Progress) {
        let percent = whole_percent(progress.percent);
        let key = format!("{} {:?} {}", progress.status, progress.phase, percent / STEP);
        self.show(percent, &describe(progress), &key);
    }

    /// Ends the activity.
    pub(super) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }

    /// A plain line is written only where `key` differs from the last one's.
    fn show(&self, percent: u64, text: &str, key: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(percent);
            bar.set_message(text.to_owned());
        } else if *self.last.borrow() != key {
            key.clone_into(&mut self.last.borrow_mut());
            note(format!("{}: {percent:>3}% {text}", self.title));
        }
    }
}

fn describe(progress: &Progress) -> String {
    let mut parts = vec![printable(progress.phase.as_deref().unwrap_or(&progress.status)).to_lowercase()];
    if let (Some(done), Some(total)) = (progress.frames_done, progress.frames_total.filter(|total| *total > 0)) {
        parts.push(format!("frame {done} of {total}"));
    }
    parts.extend(progress.fps.filter(|fps| *fps > 0.0).map(|fps| format!("{fps:.0} fps")));
    parts.extend(
        progress
            .eta_seconds
            .filter(|eta| *eta > 0.0)
            .map(|eta| format!("{eta:.0} s left")),
    );
    parts.join(", ")
}

fn percent_of(done: u64, total: u64) -> u64 {
    if total == 0 {
        100
    } else {
        (u128::from(done) * 100 / u128::from(total))
            .try_into()
            .unwrap_or(100)
            .min(100)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100 first"
)]
fn whole_percent(percent: Option<f64>) -> u64 {
    percent.unwrap_or_default().clamp(0.0, 100.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_stays_in_its_bounds() {
        assert_eq!(percent_of(0, 0), 100);
        assert_eq!(percent_of(1, 3), 33);
        assert_eq!(percent_of(9, 3), 100);
        assert_eq!(percent_of(u64::MAX, u64::MAX), 100);
        assert_eq!(whole_percent(None), 0);
        assert_eq!(whole_percent(Some(f64::NAN)), 0);
        assert_eq!(whole_percent(Some(99.9)), 99);
    }

    #[test]
    fn the_phase_comes_before_the_numbers() {
        let progress = Progress {
            status: "IN_PROGRESS".into(),
            phase: Some("encoding".into()),
            fps: Some(61.7),
            frames_done: Some(10),
            frames_total: Some(500),
            eta_seconds: Some(8.2),
            ..Progress::default()
        };
        assert_eq!(describe(&progress), "encoding, frame 10 of 500, 62 fps, 8 s left");
        let queued = Progress {
            status: "QUEUED".into(),
            ..Progress::default()
        };
        assert_eq!(describe(&queued), "queued");
    }
}
