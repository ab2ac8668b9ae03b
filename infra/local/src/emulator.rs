//! The emulator process: started, found again, ended.
//!
//! `emulator/serve.py` runs it, in a session of its own. It ends with the process that started it, however that ends,
//! unless that process lets it go.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;

use crate::process::{Entry, explain, last_lines, lasting_command, process_table};
use crate::tools::{Ffmpeg, Venv};
use crate::workspace::Workspace;

/// The variable that serve.py sets for all it starts.
const MARK: &str = "REELAY_LOCAL_STACK";
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Names a running emulator: serve.py writes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Identity {
    pid: i32,
    started: u64,
    port: u16,
}

impl Identity {
    /// What the state folder says, running or not.
    fn recorded(state: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state.join("emulator.json")).ok()?).ok()
    }

    /// The emulator that runs on a state folder.
    pub(crate) fn running(state: &Path) -> Option<Self> {
        Self::recorded(state).filter(Self::is_alive)
    }

    fn is_alive(&self) -> bool {
        Entry::of(self.pid).is_some_and(|entry| entry.started == self.started)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// What a dead emulator left: its session, and what carries its mark. A session's number is not given out again
    /// while the session has a process, so if a process has it now as its pid, nothing of ours is left in it.
    fn leftovers(&self, state: &Path) -> Vec<Entry> {
        let reused = Entry::of(self.pid).is_some_and(|entry| entry.started != self.started);
        let mark = mark(state);
        let ours = |entry: &Entry| (entry.session == self.pid && !reused) || entry.carries(&mark);
        process_table().into_iter().filter(ours).collect()
    }
}

fn mark(state: &Path) -> String {
    format!("{MARK}={}", state.display())
}

/// Ends the emulator of a state folder with all it started. Returns whether there was one.
pub(crate) fn stop(state: &Path) -> bool {
    let Some(identity) = Identity::recorded(state) else {
        return false;
    };
    let was_running = identity.is_alive();
    if was_running && let Some(keeper) = Entry::of(identity.pid) {
        keeper.kill(Signal::TERM);
        let until = Instant::now() + STOP_LIMIT;
        while identity.is_alive() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }
    // Nothing is left where serve.py could do its work; something is where it was killed in the middle of it.
    for _ in 0..50 {
        let left = identity.leftovers(state);
        if left.is_empty() {
            break;
        }
        for entry in left {
            entry.kill(Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = fs::remove_file(state.join("emulator.json"));
    was_running
}

/// An emulator that this process started. It ends with this value, unless it is let go.
#[derive(Debug)]
pub struct Emulator {
    state: PathBuf,
    child: Child,
    /// Its end is the emulator's.
    lifeline: Option<ChildStdin>,
    stop_on_drop: bool,
}

impl Emulator {
    /// Starts an empty emulator on a free port and waits until it answers.
    pub(crate) async fn start(
        workspace: &Workspace,
        state: &Path,
        python: &Venv,
        ffmpeg: &Ffmpeg,
    ) -> Result<(Self, Identity)> {
        stop(state);
        let scratch = state.join("tmp");
        for folder in [&scratch, &state.join("emulator")] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
                }
                _ => {}
            }
        }
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let log_path = state.join("emulator.log");
        let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;

        let mut serve = lasting_command(python.bin("python"));
        serve.arg(workspace.own("emulator/serve.py")).arg(state);
        // The functions inherit this environment. Lambda's path has /opt/bin, where a layer's tools are; the emulator
        // does not unpack layers.
        serve
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", ffmpeg.root().join("bin").display()));
        serve.env("HOME", state).env("TMPDIR", &scratch).env("LANG", "C.UTF-8");
        // Compiled scripts stay out of the source tree.
        serve.env("PYTHONPYCACHEPREFIX", workspace.tools().join("pycache"));
        serve.stdout(log.try_clone()?).stderr(log).current_dir(state);
        serve.stdin(Stdio::piped());
        let mut child = serve.spawn().map_err(|error| explain(serve.get_program(), error))?;
        let lifeline = child.stdin.take();
        let mut emulator = Self {
            state: state.to_owned(),
            child,
            lifeline,
            stop_on_drop: true,
        };
        let identity = emulator.wait_until_ready(&log_path).await?;
        Ok((emulator, identity))
    }

    async fn wait_until_ready(&mut self, log: &Path) -> Result<Identity> {
        let http = reqwest::Client::new();
        let until = Instant::now() + START_LIMIT;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                let written = fs::read(log).unwrap_or_default();
                bail!(
                    "the emulator did not start ({status}):\n{}",
                    last_lines(&String::from_utf8_lossy(&written), 10)
                );
            }
            if let Some(identity) = Identity::running(&self.state) {
                let ready = http
                    .get(format!("{}/_ministack/ready", identity.endpoint()))
                    .send()
                    .await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(identity);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "the emulator did not answer within {} s, see {}",
            START_LIMIT.as_secs(),
            log.display()
        )
    }

    /// Lets the emulator go on without us.
    pub(crate) fn let_go(mut self) -> Result<()> {
        if let Some(lifeline) = &mut self.lifeline {
            lifeline.write_all(b"go on\n").context("the emulator has ended")?;
        }
        self.stop_on_drop = false;
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if self.stop_on_drop {
            drop(self.lifeline.take());
            stop(&self.state);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_record_is_not_a_running_emulator() {
        let folder = tempfile::tempdir().unwrap();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        // Our own pid with another start: the number was given out again.
        let record = format!(r#"{{"pid": {own}, "started": 1, "port": 4566}}"#);
        fs::write(folder.path().join("emulator.json"), record).unwrap();
        assert!(Identity::running(folder.path()).is_none());
        assert!(!stop(folder.path()), "and it is not ended");
        assert!(Identity::recorded(folder.path()).is_none(), "but forgotten");
    }
}
