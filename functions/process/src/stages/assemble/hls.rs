//! The HLS output: playlists over the chunks' own objects. Nothing is moved.

use reelay_core::domain::{
    failure::Stage,
    hls::{
        AudioRendition, ByteRange, Kind, MediaPlaylist, MultivariantPlaylist, Segment, Variant, relative_uri,
        target_duration_seconds,
    },
    job::{Output, OutputType},
    plan::{HlsOutput, Plan},
    task::StoredObject,
    timeline::FrameRate,
};

use super::{
    super::{Attempt, internal, track::Track},
    Encoded, bitrate_bps,
    proof::{self, Counted, Evidence},
};
use crate::error::TaskError;

const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";
/// The multivariant playlist's file.
const INDEX: &str = "index.m3u8";
/// The sound's media playlist.
const AUDIO: &str = "audio.m3u8";
/// What the rungs call the sound by.
const GROUP: &str = "audio";

/// A rung whose playlist is ready.
struct Ready {
    id: String,
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
    let missing = || internal(Stage::Publish, "the plan names a rendition that it does not have");
    let audio = match hls.audio {
        Some(index) => Some((encoded.audios.get(index).ok_or_else(missing)?, index)),
        None => None,
    };
    let index_key = attempt.prefix().output(INDEX);
    let sound = audio
        .map(|(track, _)| media_playlist(track, sample_rate(track)?, 1, &index_key))
        .transpose()?;
    let target = target_duration(plan, sound.as_ref());

    let mut ready = Vec::new();
    for rung in &hls.rungs {
        let track = encoded.videos.get(rung.video).ok_or_else(missing)?;
        let size = plan.videos.get(rung.video).ok_or_else(missing)?.size;
        let (_, frame_ticks) = plan.timeline.rate.timescale();
        let mut playlist = media_playlist(track, plan.timeline.rate, frame_ticks, &index_key)?;
        playlist.target_duration_seconds = target;
        let quality = rung.quality.as_str();
        let counted = proof::count(plan, track, audio)?;
        let objects = objects(track);
        let media_bytes = objects.iter().map(|object| object.size_bytes).sum();
        let duration_seconds = plan.timeline.duration_seconds();
        let output = Output {
            id: format!("hls-{quality}"),
            output_type: OutputType::Rendition,
            format: "hls".into(),
            quality: Some(quality.into()),
            width_px: size.width_px,
            height_px: size.height_px,
            duration_seconds: Some(duration_seconds),
            frames: Some(counted.frames),
            bitrate_bps: Some(bitrate_bps(media_bytes, duration_seconds)),
            size_bytes: 0,
            sha256: String::new(),
            content_type: CONTENT_TYPE.into(),
            key: attempt.prefix().output(&format!("video-{quality}.m3u8")),
            proof: None,
        };
        ready.push(Ready {
            id: output.id.clone(),
            playlist,
            counted,
            objects,
            output,
        });
    }
    let index = multivariant(
        plan,
        encoded,
        hls,
        &ready,
        sound.as_ref().zip(audio.map(|(track, _)| track)),
    );
    if let (Some(mut playlist), Some((track, _))) = (sound, audio) {
        playlist.target_duration_seconds = target;
        let key = attempt.prefix().output(AUDIO);
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
        rung.output.proof = Some(evidence.add(&rung.id, rung.counted, rung.objects));
        outputs.push(rung.output);
    }
    outputs.push(index_output(attempt, &outputs, index, &index_key).await?);
    Ok(outputs)
}

/// The whole ladder, as one output.
async fn index_output(
    attempt: &Attempt<'_>,
    rungs: &[Output],
    index: MultivariantPlaylist,
    key: &str,
) -> Result<Output, TaskError> {
    let stored = store(attempt, key, index.to_string()).await?;
    let largest = rungs.iter().max_by_key(|output| output.height_px);
    let mut output = largest
        .cloned()
        .ok_or_else(|| internal(Stage::Publish, "the ladder has no rung"))?;
    output.id = "hls".into();
    output.quality = None;
    output.bitrate_bps = None;
    output.size_bytes = stored.size_bytes;
    output.sha256 = stored.sha256;
    output.key = stored.key;
    output.proof = None;
    Ok(output)
}

fn multivariant(
    plan: &Plan,
    encoded: &Encoded,
    hls: &HlsOutput,
    ready: &[Ready],
    sound: Option<(&MediaPlaylist, &Track)>,
) -> MultivariantPlaylist {
    let sound_bandwidth = sound.map(|(playlist, _)| playlist.bandwidth()).unwrap_or_default();
    let variants = hls.rungs.iter().zip(ready).filter_map(|(rung, ready)| {
        let track = encoded.videos.get(rung.video)?;
        let codecs = [Some(track), sound.map(|(_, track)| track)];
        Some(Variant {
            uri: format!("video-{}.m3u8", rung.quality.as_str()),
            bandwidth: ready.playlist.bandwidth() + sound_bandwidth,
            codecs: codecs
                .into_iter()
                .flatten()
                .map(|track| track.codec.rfc6381())
                .collect(),
            size: plan.videos.get(rung.video)?.size,
            frame_rate: plan.timeline.rate,
        })
    });
    MultivariantPlaylist {
        variants: variants.collect(),
        audio: sound.map(|(_, track)| AudioRendition {
            uri: AUDIO.into(),
            group: GROUP.into(),
            name: "Main".into(),
            channels: track.codec.channels().map_or(2, u32::from),
            language: None,
        }),
    }
}

/// The segments of a track, in units of `unit_ticks` ticks.
fn media_playlist(
    track: &Track,
    unit_rate: FrameRate,
    unit_ticks: u32,
    index_key: &str,
) -> Result<MediaPlaylist, TaskError> {
    let mut segments = Vec::new();
    let mut init = None;
    for part in &track.parts {
        let Some(object) = part.object() else {
            return Err(internal(Stage::Publish, "a segment was not stored"));
        };
        let uri = relative_uri(index_key, &object.key);
        init.get_or_insert_with(|| ByteRange {
            uri: uri.clone(),
            offset_bytes: 0,
            length_bytes: u64::try_from(track.init.len()).unwrap_or(u64::MAX),
        });
        segments.extend(part.played().iter().map(|fragment| Segment {
            bytes: ByteRange {
                uri: uri.clone(),
                offset_bytes: fragment.offset,
                length_bytes: fragment.bytes,
            },
            units: fragment.samples.total_ticks() / u64::from(unit_ticks.max(1)),
        }));
    }
    Ok(MediaPlaylist {
        kind: Kind::Vod,
        target_duration_seconds: 1,
        unit_rate,
        init: init.ok_or_else(|| internal(Stage::Publish, "there are no segments"))?,
        segments,
    })
}

/// The same for all playlists of the job.
fn target_duration(plan: &Plan, sound: Option<&MediaPlaylist>) -> u32 {
    let of_sound = sound.map_or(0, |playlist| {
        let longest = playlist.segments.iter().map(|segment| segment.units).max();
        target_duration_seconds(playlist.unit_rate, longest.unwrap_or(0))
    });
    target_duration_seconds(plan.timeline.rate, plan.timeline.gop_frames()).max(of_sound)
}

fn sample_rate(track: &Track) -> Result<FrameRate, TaskError> {
    FrameRate::new(track.timescale, 1).ok_or_else(|| internal(Stage::Publish, "the sound has no sample rate"))
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
