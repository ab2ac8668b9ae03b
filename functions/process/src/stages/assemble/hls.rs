//! The HLS output: playlists over the chunks' own objects. Nothing is moved.

use reelay_core::domain::{
    failure::Stage,
    hls::{
        AUDIO_FILE, CONTENT_TYPE, INDEX_FILE, Kind, Ladder, MediaPlaylist, Part, PlayedFragment, TrackFacts, video_file,
    },
    job::{Output, OutputType},
    plan::{HlsOutput, Plan, Rung},
    spec::{Format, OutputSpec},
    task::StoredObject,
};

use super::{
    super::{Attempt, internal, track::Track},
    Encoded, bitrate_bps,
    proof::{self, Counted, Evidence},
};
use crate::error::TaskError;

/// A rung whose playlist is ready.
struct Ready<'a> {
    track: &'a Track,
    playlist: MediaPlaylist,
    counted: Counted,
    objects: Vec<StoredObject>,
    output: Output,
}

/// Writes the playlists.
pub(super) async fn make(
    attempt: &Attempt<'_>,
    plan: &Plan,
    encoded: &Encoded,
    hls: &HlsOutput,
    evidence: &mut Evidence,
) -> Result<Vec<Output>, TaskError> {
    let audio = match hls.audio {
        Some(index) => Some((encoded.audios.get(index).ok_or_else(missing)?, index)),
        None => None,
    };
    let index_key = attempt.prefix().output(INDEX_FILE);
    let ladder = Ladder {
        plan,
        hls,
        index_key: &index_key,
        kind: Kind::Vod,
    };
    let sound = match audio {
        Some((track, _)) => Some((ladder.audio(&parts(track)?).ok_or_else(empty)?, track)),
        None => None,
    };
    let mut ready = Vec::new();
    for rung in &hls.rungs {
        let track = encoded.videos.get(rung.video).ok_or_else(missing)?;
        let counted = proof::count(plan, track, audio)?;
        let objects = objects(track);
        ready.push(Ready {
            track,
            playlist: ladder.video(&parts(track)?).ok_or_else(empty)?,
            output: rung_output(attempt, plan, rung, counted, &objects)?,
            counted,
            objects,
        });
    }
    let videos: Vec<_> = ready.iter().map(|rung| facts(&rung.playlist, rung.track)).collect();
    let heard = sound.as_ref().map(|(playlist, track)| facts(playlist, track));
    let index = ladder.multivariant(&videos, heard).to_string();
    if let Some((playlist, track)) = sound {
        let key = attempt.prefix().output(AUDIO_FILE);
        let stored = store(attempt, &key, playlist.to_string()).await?;
        if let Some(first) = ready.first_mut() {
            // The sound belongs to every rung; it is told of with the first.
            first.objects.extend(objects(track));
            first.objects.push(stored);
        }
    }
    let mut outputs = Vec::new();
    for mut rung in ready {
        let stored = store(attempt, &rung.output.key, rung.playlist.to_string()).await?;
        rung.output.size_bytes = stored.size_bytes;
        rung.output.sha256.clone_from(&stored.sha256);
        rung.objects.push(stored);
        rung.output.proof = Some(evidence.add(&rung.output.id, rung.counted, rung.objects));
        outputs.push(rung.output);
    }
    outputs.push(index_output(attempt, &outputs, index, &index_key).await?);
    Ok(outputs)
}

/// A rung as one output; what is said of its playlist is not known yet.
fn rung_output(
    attempt: &Attempt<'_>,
    plan: &Plan,
    rung: &Rung,
    counted: Counted,
    objects: &[StoredObject],
) -> Result<Output, TaskError> {
    let size = plan.videos.get(rung.video).ok_or_else(missing)?.size;
    let media_bytes = objects.iter().map(|object| object.size_bytes).sum();
    let duration_seconds = plan.timeline.duration_seconds();
    Ok(Output {
        id: id(Some(rung)),
        output_type: OutputType::Rendition,
        format: Format::Hls.as_str().into(),
        quality: Some(rung.quality.as_str().into()),
        width_px: size.width_px,
        height_px: size.height_px,
        duration_seconds: Some(duration_seconds),
        frames: Some(counted.frames),
        bitrate_bps: Some(bitrate_bps(media_bytes, duration_seconds)),
        size_bytes: 0,
        sha256: String::new(),
        content_type: CONTENT_TYPE.into(),
        key: attempt.prefix().output(&video_file(rung.quality)),
        proof: None,
    })
}

/// The output's id: of a rung, or of the whole ladder.
fn id(rung: Option<&Rung>) -> String {
    let spec = OutputSpec {
        format: Format::Hls,
        quality: rung.map(|rung| rung.quality),
    };
    spec.id()
}

/// The whole ladder, as one output.
async fn index_output(attempt: &Attempt<'_>, rungs: &[Output], index: String, key: &str) -> Result<Output, TaskError> {
    let stored = store(attempt, key, index).await?;
    let largest = rungs.iter().max_by_key(|output| output.height_px);
    let mut output = largest
        .cloned()
        .ok_or_else(|| internal(Stage::Publish, "the ladder has no rung"))?;
    output.id = id(None);
    output.quality = None;
    output.bitrate_bps = None;
    output.size_bytes = stored.size_bytes;
    output.sha256 = stored.sha256;
    output.key = stored.key;
    output.proof = None;
    Ok(output)
}

/// What the multivariant playlist says of a track.
fn facts<'a>(playlist: &MediaPlaylist, track: &'a Track) -> TrackFacts<'a> {
    TrackFacts {
        bandwidth: playlist.bandwidth(),
        codec: &track.codec,
    }
}

/// The segments of a track, chunk by chunk.
fn parts(track: &Track) -> Result<Vec<Part>, TaskError> {
    let init_bytes = u64::try_from(track.init.len()).unwrap_or(u64::MAX);
    let parts = track.parts.iter().map(|part| {
        let object = part
            .object()
            .ok_or_else(|| internal(Stage::Publish, "a segment was not stored"))?;
        let fragments = part.played().iter().map(|fragment| PlayedFragment {
            offset_bytes: fragment.offset,
            length_bytes: fragment.bytes,
            ticks: fragment.samples.total_ticks(),
        });
        Ok(Part {
            key: object.key.clone(),
            init_bytes,
            fragments: fragments.collect(),
        })
    });
    parts.collect()
}

fn missing() -> TaskError {
    internal(Stage::Publish, "the plan names a rendition that it does not have")
}

fn empty() -> TaskError {
    internal(Stage::Publish, "there are no segments")
}

fn objects(track: &Track) -> Vec<StoredObject> {
    track.parts.iter().filter_map(|part| part.object().cloned()).collect()
}

async fn store(attempt: &Attempt<'_>, key: &str, text: String) -> Result<StoredObject, TaskError> {
    let stored = attempt
        .bench
        .transfer
        .store_bytes(text.into_bytes(), key, CONTENT_TYPE)
        .await
        .map_err(|error| TaskError::aws(Stage::Publish, error))?;
    Ok(StoredObject {
        key: key.into(),
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
    })
}
