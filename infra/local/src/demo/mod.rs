//! The demo: one file from upload to mail, as a client would do it.

mod client;
mod source;
mod view;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::client::{Client, Job, Mail, Output, Progress, is_file_name};
use self::source::Source;
use self::view::View;
use crate::build::Build;
use crate::stack;
use crate::terminal::{bytes, note, printable, say};
use crate::workspace::Workspace;

const POLL: Duration = Duration::from_millis(250);
/// Without any change of a job: longer than a worker's heartbeat, shorter than patience.
const STUCK_LIMIT: Duration = Duration::from_mins(3);
const MAIL_LIMIT: Duration = Duration::from_secs(30);

/// What a demo measured.
struct Times {
    upload: Duration,
    queue: Duration,
    processing: Duration,
    total: Duration,
}

/// Runs a demo with a file, or with a clip that is made. Its stack is the running one if that is this build.
pub async fn run(file: Option<&Path>) -> Result<()> {
    // Before anything is started or written.
    let given = file.map(Source::check).transpose()?;
    let workspace = Workspace::find().await?;
    let (state, claim) = stack::own_folder(&workspace)?;
    let build = Build::make(&workspace, &state).await?;
    let source = match given {
        Some(source) => source,
        None => Source::make(&workspace).await?,
    };
    if let Some(environment) = stack::running_current(&workspace, &build) {
        note("stack: using the running one");
        return process(Client::new(&environment)?, &source).await;
    }
    let stack = stack::start(&workspace, &build, state, claim).await?;
    process(Client::new(stack.environment())?, &source).await
}

async fn process(mut client: Client, source: &Source) -> Result<()> {
    let began = Instant::now();
    let address = client.sign_up().await.context("signing up")?;
    let (job, upload) = client.create_job(source).await.context("the job was not created")?;
    note(format!(
        "demo: job {} for {}",
        printable(&job.id),
        printable(&source.name)
    ));

    let view = View::new("upload");
    let upload_began = Instant::now();
    client
        .upload(&upload, source, |done| view.transferred(done, source.size_bytes))
        .await?;
    view.finish();
    let uploaded = Instant::now();

    let started = follow(&mut client, &job.id).await?;
    let ended = Instant::now();
    let started = started.unwrap_or(ended);
    let times = Times {
        upload: uploaded - upload_began,
        queue: started - uploaded,
        processing: ended - started,
        total: ended - began,
    };

    let job = client.job(&job.id).await?;
    if job.status != "COMPLETED" {
        show_mail(wait_for_mail(&client, &address).await?.as_ref())?;
        return fail(&job);
    }
    let outputs = client.outputs(&job.id).await?;
    let folder = download(&client, &job.id, &outputs).await?;
    show_mail(wait_for_mail(&client, &address).await?.as_ref())?;
    summarize(source, &job, &outputs, &folder, &times)
}

/// Follows a job to its end. Returns when it was seen to start.
async fn follow(client: &mut Client, id: &str) -> Result<Option<Instant>> {
    let view = View::new("processing");
    let mut started = None;
    let mut last = Progress::default();
    let mut changed = Instant::now();
    loop {
        let progress = client.progress(id).await?;
        view.processing(&progress);
        if progress.status == "IN_PROGRESS" {
            started.get_or_insert_with(Instant::now);
        }
        if progress.is_terminal() {
            view.finish();
            return Ok(started);
        }
        if progress != last {
            (last, changed) = (progress, Instant::now());
        } else if changed.elapsed() > STUCK_LIMIT {
            bail!(
                "nothing has happened to the job for {} s (it is {}); see `cargo local up` and `cargo local logs`",
                STUCK_LIMIT.as_secs(),
                last.status
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Downloads all outputs into `./out/<job id>`. The folder appears when all of them are there.
async fn download(client: &Client, id: &str, outputs: &[Output]) -> Result<PathBuf> {
    if !is_file_name(id) {
        bail!("the job's id {id:?} cannot be a folder name");
    }
    let out = PathBuf::from("out");
    fs::create_dir_all(&out).context("cannot make ./out")?;
    let part = tempfile::Builder::new()
        .prefix(".part-")
        .tempdir_in(&out)
        .context("cannot write into ./out")?;
    let total = outputs.iter().map(|output| output.size_bytes).sum();
    let view = View::new("download");
    let mut done = 0;
    for output in outputs {
        client.download(output, &part.path().join(output.file_name()?)).await?;
        done += output.size_bytes;
        view.transferred(done, total);
    }
    view.finish();
    let folder = out.join(id);
    // A temporary folder is for its owner only.
    fs::set_permissions(part.path(), fs::Permissions::from_mode(0o755)).context("cannot write into ./out")?;
    fs::rename(part.path(), &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // It has another name now: there is nothing to remove.
    let _ = part.keep();
    Ok(folder)
}

async fn wait_for_mail(client: &Client, address: &str) -> Result<Option<Mail>> {
    let until = Instant::now() + MAIL_LIMIT;
    while Instant::now() < until {
        if let Some(mail) = client.mails(address).await?.pop() {
            return Ok(Some(mail));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(None)
}

fn show_mail(mail: Option<&Mail>) -> Result<()> {
    let Some(mail) = mail else {
        note(format!("demo: no mail has come within {} s", MAIL_LIMIT.as_secs()));
        return Ok(());
    };
    say("")?;
    say(format!("  | Subject: {}", printable(&mail.subject)))?;
    say("  |")?;
    for line in printable(mail.text.trim_end()).lines() {
        say(format!("  | {line}"))?;
    }
    say("")?;
    Ok(())
}

/// Tells why a job has no outputs.
fn fail(job: &Job) -> Result<()> {
    let error = job.error.clone().unwrap_or_default();
    let mut text = format!(
        "the job is {}: {} ({})",
        job.status,
        printable(&error.message),
        printable(&error.code)
    );
    if let Some(hint) = error.hint.filter(|hint| !hint.is_empty()) {
        text += "\nhint: ";
        text += &printable(&hint);
    }
    bail!(text)
}

fn summarize(source: &Source, job: &Job, outputs: &[Output], folder: &Path, times: &Times) -> Result<()> {
    let metrics = job.metrics.clone().unwrap_or_default();
    let duration = job
        .duration_seconds
        .or_else(|| outputs.iter().find_map(|output| output.duration_seconds));
    let processing = metrics.processing_seconds.unwrap_or(times.processing.as_secs_f64());
    let speed = metrics
        .speed_ratio
        .or_else(|| duration.map(|duration| duration / processing.max(0.001)));

    let row = |name: &str, value: String| say(format!("{name:<12}{value}"));
    let length = duration
        .map(|duration| format!(", {duration:.1} s"))
        .unwrap_or_default();
    row(
        "source",
        format!("{}, {}{length}", printable(&source.name), bytes(source.size_bytes)),
    )?;
    row("upload", format!("{:.1} s", times.upload.as_secs_f64()))?;
    row("queue", format!("{:.1} s", times.queue.as_secs_f64()))?;
    let ratio = speed
        .map(|speed| format!(", {speed:.1} times real time"))
        .unwrap_or_default();
    row("processing", format!("{processing:.1} s{ratio}"))?;
    if let Some(tasks) = metrics.tasks {
        row("tasks", tasks.to_string())?;
    }
    if let (Some(cpu), Some(memory)) = (metrics.peak_cpu_percent, metrics.peak_memory_mb) {
        row("used", format!("{cpu:.0} % of a core, {memory:.0} MB at most"))?;
    }
    row("total", format!("{:.1} s", times.total.as_secs_f64()))?;
    row("outputs", format!("{}/", folder.display()))?;
    for output in outputs {
        say(format!(
            "  {:<26}{:>10}  {}",
            output.file_name()?,
            bytes(output.size_bytes),
            describe(output)
        ))?;
    }
    Ok(())
}

fn describe(output: &Output) -> String {
    let mut parts = Vec::new();
    if let (Some(width @ 1..), Some(height)) = (output.width_px, output.height_px) {
        parts.push(format!("{width}x{height}"));
    }
    parts.extend(output.quality.as_deref().map(printable));
    parts.extend(output.duration_seconds.map(|duration| format!("{duration:.1} s")));
    parts.join(", ")
}
