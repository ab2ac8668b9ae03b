//! Starting, limiting, killing and reaping a child. The one module with `unsafe`.
#![expect(
    unsafe_code,
    reason = "limits are set between fork and exec, and only wait4 tells what a child used"
)]

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::Limits;

/// Open files that a child may have: its inputs, its outputs, and the loader's.
const OPEN_FILES: u64 = 128;
const CLOSE_ON_EXEC: libc::c_uint = libc::CLOSE_RANGE_CLOEXEC;

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) group: Group,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A child's process group; dropping it kills whatever is left of it.
#[derive(Debug)]
pub(super) struct Group {
    pid: Pid,
    reaped: bool,
}

/// How a child ended and what it used.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) cpu_seconds: f64,
    pub(super) peak_memory_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Signal(i32),
}

/// Starts a tool with nothing of ours: environment, working directory, file descriptors and limits are all given here.
pub(super) fn spawn(tool: &Path, args: &[String], scratch: &Path, limits: &Limits) -> io::Result<Child> {
    let limits = [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, limits.cpu.as_secs().max(1)),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
    ];
    #[expect(clippy::disallowed_methods, reason = "this is the one spawn function")]
    let mut command = Command::new(tool);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", scratch)
        .env("LANG", "C")
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let prepare = move || -> io::Result<()> {
        for (resource, maximum) in limits {
            let limit = Rlimit {
                current: Some(maximum),
                maximum: Some(maximum),
            };
            rustix::process::setrlimit(resource, limit)?;
        }
        // Files that a library left open over exec. Kernels before 5.11 do not know the flag; there, the standard
        // library's own flag on everything that we open has to do.
        // By number, since the oldest C library that this links with has no function for it.
        // SAFETY: a system call on plain numbers; it only marks descriptors.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_ON_EXEC) };
        // Whatever ends the worker, kill -9 included, ends the child.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: the closure runs in the forked child before exec. It makes system calls on values it owns, and neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let group = Group { pid, reaped: false };
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Ok(Child {
            group,
            stdout: stdout.into(),
            stderr: stderr.into(),
        }),
        _ => Err(io::Error::other("the child has no pipes")),
    }
}

impl Group {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the child and reaps it.
    pub(super) async fn wait(&mut self) -> io::Result<Ended> {
        let pid = self.pid;
        let ended = tokio::task::spawn_blocking(move || reap(pid))
            .await
            .map_err(io::Error::other)??;
        self.reaped = true;
        Ok(ended)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Grandchildren may outlive the child, so the group is killed in any case; a group that is gone is no error.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        if !self.reaped {
            // After SIGKILL this returns at once.
            let _ = reap(self.pid);
        }
    }
}

fn reap(pid: Pid) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: `rusage` is plain old data, for which all-zero bytes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals that outlive the call; the process is our own child.
        let result = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        if result >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let status = ExitStatus::from_raw(status);
    Ok(Ended {
        end: status
            .code()
            .map_or_else(|| End::Signal(status.signal().unwrap_or(0)), End::Exit),
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        // Linux counts in KiB (getrusage(2)).
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1_024,
    })
}

fn seconds(time: libc::timeval) -> f64 {
    let micros = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_micros(micros).as_secs_f64()
}
