use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::*;

/// Shell scripts in the tools' places: what is tested is the cage, not ffmpeg.
fn tools(folder: &Path, script: &str) -> Tools {
    for tool in ["ffmpeg", "ffprobe"] {
        let path = folder.join(tool);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder.to_str().unwrap().parse().unwrap()
}

const LIMITS: Limits = Limits {
    memory_bytes: 512 << 20,
    cpu: Duration::from_secs(10),
    file_bytes: 1 << 20,
    wall: Duration::from_secs(20),
};

async fn script(script: &str, limits: Limits) -> (Result<Usage, CageError>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let tools = tools(folder.path(), script);
    let mut lines = Vec::new();
    let result = run(
        &tools,
        Tool::Ffmpeg,
        &["-version".into()],
        folder.path(),
        &limits,
        |line| {
            lines.push(line.to_owned());
        },
    )
    .await;
    (result, lines)
}

fn is_running(pid: &str) -> bool {
    // A killed orphan may stay a zombie for a moment; what counts is that it no longer runs.
    let stat = fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn wait_until_gone(pid: &str) {
    for _ in 0..200 {
        if !is_running(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn the_environment_is_ours_and_only_ours() {
    let (result, lines) = script("env | sort", LIMITS).await;
    result.unwrap();
    let names: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    // A shell adds PWD, SHLVL and _ by itself.
    let ours: Vec<_> = names
        .into_iter()
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(ours, ["HOME", "LANG", "PATH"]);
}

#[tokio::test]
async fn no_file_of_ours_stays_open() {
    // A file that is kept over exec, as a careless library might leave one.
    let ours = fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
    let (result, lines) = script("exec ls /proc/self/fd", LIMITS).await;
    result.unwrap();
    // 0 to 2, and the folder that ls itself has open.
    assert_eq!(lines, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn every_limit_is_set() {
    let (result, lines) = script("ulimit -v; ulimit -t; ulimit -f; ulimit -n; ulimit -c", LIMITS).await;
    result.unwrap();
    assert_eq!(lines, ["524288", "10", "2048", "128", "0"]);
}

#[tokio::test]
async fn a_file_over_its_limit_ends_the_child() {
    let (result, _) = script("exec head -c 2000000 /dev/zero > big", LIMITS).await;
    let error = result.unwrap_err();
    assert_eq!(error.failure_code(), Some(FailureCode::LimitOutputSize), "{error}");
}

#[tokio::test]
async fn cpu_time_is_limited_and_counted() {
    let limits = Limits {
        cpu: Duration::from_secs(1),
        ..LIMITS
    };
    let (result, _) = script("while :; do :; done", limits).await;
    // The soft and the hard limit are one, so the kernel may send either signal.
    assert!(
        matches!(result, Err(CageError::Signal(libc::SIGXCPU | libc::SIGKILL))),
        "{result:?}"
    );
    let (usage, _) = script("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done", LIMITS).await;
    let usage = usage.unwrap();
    assert!(
        usage.cpu_seconds > 0.01 && usage.peak_cpu_percent > 1.0 && usage.peak_memory_bytes > 100_000,
        "{usage:?}"
    );
}

#[tokio::test]
async fn the_clock_ends_the_child_and_what_it_started() {
    let limits = Limits {
        wall: Duration::from_millis(300),
        ..LIMITS
    };
    let (result, lines) = script("sleep 60 & echo $!; echo $$; trap '' TERM; wait", limits).await;
    assert!(matches!(result, Err(CageError::Wall)));
    assert_eq!(lines.len(), 2);
    for pid in lines {
        wait_until_gone(&pid).await;
    }
}

#[tokio::test]
async fn dropping_the_run_kills_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let tools = tools(folder.path(), "echo $$; sleep 60");
    let pid = std::sync::Mutex::new(None);
    {
        let work = run(&tools, Tool::Ffmpeg, &[], folder.path(), &LIMITS, |line| {
            *pid.lock().unwrap() = Some(line.to_owned());
        });
        let seen = async {
            while pid.lock().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = work => panic!("the child ended by itself"),
            () = seen => {}
        }
    }
    let pid = pid.lock().unwrap().clone().unwrap();
    wait_until_gone(&pid).await;
}

#[tokio::test]
async fn endless_chatter_neither_blocks_nor_fills_memory() {
    let (result, _) = script("head -c 3000000 /dev/zero >&2; exit 3", LIMITS).await;
    assert!(matches!(result, Err(CageError::Exit(3))), "{result:?}");
}

#[test]
fn exit_codes_tell_what_ran_out() {
    assert_eq!(CageError::Exit(244).failure_code(), Some(FailureCode::LimitMemory));
    assert_eq!(CageError::Exit(228).failure_code(), Some(FailureCode::NoSpace));
    assert_eq!(CageError::Exit(1).failure_code(), Some(FailureCode::SourceCorrupt));
    assert_eq!(CageError::Io(io::Error::other("x")).failure_code(), None);
}
