//! The README's example is run as it stands there.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Clip, Harness, Studio, node};

/// One small job, and some requests.
const LIMIT: Duration = Duration::from_mins(3);

/// The shell blocks of a chapter, one after the other.
fn shell_of(readme: &str, chapter: &str) -> Result<String> {
    let from = readme.find(&format!("\n## {chapter}\n")).context("no such chapter")? + 1;
    let text = &readme[from..];
    let text = text.find("\n## ").map_or(text, |end| &text[..end]);
    let blocks = text.split("\n```sh\n").skip(1);
    Ok(blocks
        .filter_map(|block| block.split("\n```").next())
        .fold(String::new(), |mut script, block| {
            let _ = writeln!(script, "{block}");
            script
        }))
}

#[tokio::test]
async fn the_api_by_example_works_as_it_stands() -> Result<()> {
    let harness = Harness::open().await?;
    let studio = Studio::open(&harness)?;
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let script = shell_of(&readme, "The API by example")?;
    assert!(script.matches("curl ").count() >= 9, "{script}");

    let clip = Clip {
        seconds: 2,
        size: (1_280, 720),
        ..Clip::default()
    };
    studio.clip("holiday.mp4", &clip).await?;
    // Its first lines start a stack: there is one, and this tells about it what `cargo local env` would.
    let environment =
        ["API_URL", "MAIL_URL"].map(|name| Ok::<_, anyhow::Error>(format!("{name}='{}'\n", harness.name(name)?)));
    let environment = environment.into_iter().collect::<Result<String>>()?;
    fs::write(studio.path("environment"), environment)?;
    let cargo = studio.path("bin/cargo");
    fs::create_dir_all(studio.path("bin"))?;
    fs::write(
        &cargo,
        "#!/bin/sh\n[ \"$*\" = \"local up\" ] || [ \"$*\" = \"local env\" ] || exit 1\n[ \"$2\" = up ] || cat environment\n",
    )?;
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
    fs::write(studio.path("script"), script)?;

    let mut bash = node::command("bash");
    bash.args(["-c", "export PATH=\"$PWD/bin:$PATH\"; exec bash -euo pipefail script"])
        .current_dir(studio.path(""));
    let output = tokio::time::timeout(LIMIT, node::run(bash, "bash", &[]))
        .await
        .context("it takes too long")??;
    let told = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "\"status\": \"COMPLETED\"",
        "\"error\": null",
        "\"cpu_seconds\"",
        "mp4-720p 1280x720",
        "hls 1280x720",
    ] {
        assert!(told.contains(expected), "no {expected} in {told}");
    }
    let look = studio
        .look_at("copy.mp4", &fs::read(studio.path("holiday-720p.mp4"))?)
        .await?;
    assert_eq!((look.size()?, look.frames()?), ((1_280, 720), 50));
    Ok(())
}
