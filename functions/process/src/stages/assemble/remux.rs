//! Joining by stream copy: ffmpeg reads the tracks through the range server and writes a file into scratch space.

use reelay_core::domain::{failure::Stage, plan::Plan, spec::Format};

use super::{
    super::{Attempt, input},
    OVERHEAD_SHARE,
    files::{Tracks, inputs},
    verify,
};
use crate::{
    cage::{self, Usage},
    error::TaskError,
    transfer::Stored,
};

/// Makes a file of the tracks and stores it.
pub(super) async fn make(
    attempt: &Attempt<'_>,
    plan: &Plan,
    tracks: &Tracks<'_>,
    name: &str,
    usage: &mut Usage,
    read_bytes: &mut u64,
) -> Result<Stored, TaskError> {
    let payload_bytes = tracks.payload_bytes();
    let scratch = attempt.scratch(payload_bytes + payload_bytes / OVERHEAD_SHARE)?;
    let server = input::server(attempt, payload_bytes)?;
    let mut args: Vec<String> = "-nostdin -hide_banner -v error -y".split(' ').map(Into::into).collect();
    for (index, blob) in inputs(tracks)?.into_iter().enumerate() {
        args.extend(cage::input_url(&server.add(&format!("track{index}.mp4"), blob)));
    }
    args.extend(["-map".into(), "0:v".into()]);
    if tracks.audio.is_some() {
        args.extend(["-map".into(), "1:a".into()]);
    }
    let muxer = match tracks.format {
        Format::Webm => "-f webm",
        Format::Mp4 | Format::Hls => "-movflags +faststart -f mp4",
    };
    let options = format!("-c copy -map_metadata -1 -map_chapters -1 -bitexact {muxer}");
    args.extend(options.split(' ').map(Into::into));
    args.push(format!("file:{name}"));
    let ran = attempt.ffmpeg(&args, &scratch, Stage::Publish).await;
    usage.then(input::judge(&server, Stage::Publish, ran)?);
    *read_bytes += server.bytes_read();
    let file = scratch.file(name);
    verify::file(attempt, plan, tracks, &scratch, &file, usage).await?;
    let key = attempt.prefix().output(name);
    attempt
        .bench
        .transfer
        .store(&file, &key, super::files::media_type(tracks.format))
        .await
        .map_err(|error| TaskError::aws(Stage::Publish, error))
}
