//! What a child uses, as measured.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// What one or more children used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time, user and system.
    pub(crate) cpu_seconds: f64,
    /// Highest resident set.
    pub(crate) peak_memory_bytes: u64,
    /// Highest CPU use over a sampling period; 100 is one core.
    pub(crate) peak_cpu_percent: f64,
}

impl Usage {
    /// Adds a child that ran after these.
    pub(crate) fn then(&mut self, next: Self) {
        self.cpu_seconds += next.cpu_seconds;
        self.peak_memory_bytes = self.peak_memory_bytes.max(next.peak_memory_bytes);
        self.peak_cpu_percent = self.peak_cpu_percent.max(next.peak_cpu_percent);
    }
}

/// Samples a running child's CPU time.
#[derive(Debug)]
pub(super) struct Sampler {
    pid: Pid,
    last: Option<(Instant, f64)>,
    peak_percent: f64,
}

impl Sampler {
    pub(super) fn new(pid: Pid) -> Self {
        Self {
            pid,
            last: None,
            peak_percent: 0.0,
        }
    }

    pub(super) fn sample(&mut self) {
        let Some(cpu_seconds) = cpu_seconds(self.pid) else {
            return;
        };
        let now = Instant::now();
        if let Some((then, before)) = self.last {
            let percent = 100.0 * (cpu_seconds - before) / now.duration_since(then).as_secs_f64().max(0.001);
            self.peak_percent = self.peak_percent.max(percent);
        }
        self.last = Some((now, cpu_seconds));
    }

    /// The highest sample; for a child that ended before the second one, its average.
    pub(super) fn peak_percent(&self, total_cpu_seconds: f64, wall: Duration) -> f64 {
        self.peak_percent
            .max(100.0 * total_cpu_seconds / wall.as_secs_f64().max(0.001))
    }
}

/// User and system time of a process so far: fields 14 and 15 of `/proc/<pid>/stat` (proc(5)), in clock ticks.
fn cpu_seconds(pid: Pid) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in field 2 may hold anything, but ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u32 = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "100 on every Linux")]
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(f64::from(ticks) / ticks_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_cpu_time_can_be_read() {
        assert!(cpu_seconds(rustix::process::getpid()).is_some());
    }

    #[test]
    fn usage_adds_time_and_keeps_peaks() {
        let mut total = Usage {
            cpu_seconds: 1.0,
            peak_memory_bytes: 10,
            peak_cpu_percent: 150.0,
        };
        total.then(Usage {
            cpu_seconds: 2.0,
            peak_memory_bytes: 5,
            peak_cpu_percent: 190.0,
        });
        assert_eq!(
            total,
            Usage {
                cpu_seconds: 3.0,
                peak_memory_bytes: 10,
                peak_cpu_percent: 190.0
            }
        );
    }
}
