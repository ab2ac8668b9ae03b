//! MP4 and WebM from tracks in parts.
//!
//! Below a size, and always for WebM, ffmpeg copies the streams into a file in scratch space: seconds of work, and a file
//! like any other. From that size on an MP4 is put together by the store itself: its header is computed from the tables,
//! and the parts become its payload where they are, with their own headers as dead bytes of half a per mille.

use reelay_core::domain::{
    audio::AudioCodec,
    failure::Stage,
    job::{Output, OutputType},
    mp4::{self, Extent, MovieTrack},
    plan::{FileOutput, Plan},
    spec::Format,
    task::StoredObject,
};

use super::{
    super::{
        Attempt, input, internal,
        track::{Part, Track, unreadable},
    },
    Encoded, bitrate_bps,
    proof::{self, Evidence},
    quality_name, remux, verify,
};
use crate::{
    cage::Usage,
    error::TaskError,
    range::{Blob, Piece},
    transfer::MIN_PART_BYTES,
};

/// What a file is to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tracks<'a> {
    pub(super) format: Format,
    pub(super) video: &'a Track,
    pub(super) audio: Option<(&'a Track, AudioCodec)>,
}

impl Tracks<'_> {
    /// Bytes of all samples.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.video.payload_bytes() + self.audio.map_or(0, |(track, _)| track.payload_bytes())
    }
}

/// Makes one file.
pub(super) async fn make(
    attempt: &Attempt<'_>,
    plan: &Plan,
    encoded: &Encoded,
    file: &FileOutput,
    evidence: &mut Evidence,
    usage: &mut Usage,
    read_bytes: &mut u64,
) -> Result<Output, TaskError> {
    let missing = || internal(Stage::Publish, "the plan names a rendition that it does not have");
    let video = encoded.videos.get(file.video).ok_or_else(missing)?;
    let audio = match file.audio {
        Some(index) => Some((encoded.audios.get(index).ok_or_else(missing)?, index)),
        None => None,
    };
    let counted = proof::count(plan, video, audio)?;
    let codec = file
        .audio
        .and_then(|index| plan.audios.get(index))
        .map(|audio| audio.codec);
    let tracks = Tracks {
        format: file.spec.format,
        video,
        audio: audio.map(|(track, _)| track).zip(codec),
    };
    let id = file.spec.id();
    let name = format!("{id}.{}", file.spec.format.as_str());
    let key = attempt.prefix().output(&name);
    let content_type = media_type(file.spec.format);
    let stored = if file.spec.format == Format::Mp4 && tracks.payload_bytes() >= attempt.bench.compose_min_bytes {
        let pieces = compose(&tracks)?;
        let composed = attempt.bench.transfer.compose(pieces, &key, content_type).await;
        let stored = composed.map_err(|error| TaskError::aws(Stage::Publish, error))?;
        let object = StoredObject {
            key: key.clone(),
            size_bytes: stored.size_bytes,
            sha256: stored.sha256.clone(),
        };
        verify::object(attempt, plan, &tracks, input::stored(&object), usage).await?;
        stored
    } else {
        remux::make(attempt, plan, &tracks, &name, usage, read_bytes).await?
    };
    let object = StoredObject {
        key: key.clone(),
        size_bytes: stored.size_bytes,
        sha256: stored.sha256.clone(),
    };
    let size = plan.videos.get(file.video).ok_or_else(missing)?.size;
    let duration_seconds = plan.timeline.duration_seconds();
    Ok(Output {
        output_type: OutputType::Rendition,
        format: file.spec.format.as_str().into(),
        quality: quality_name(file.spec),
        width_px: size.width_px,
        height_px: size.height_px,
        duration_seconds: Some(duration_seconds),
        frames: Some(counted.frames),
        bitrate_bps: Some(bitrate_bps(stored.size_bytes, duration_seconds)),
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        content_type: content_type.into(),
        key,
        proof: Some(evidence.add(&id, counted, vec![object])),
        id,
    })
}

pub(super) fn media_type(format: Format) -> &'static str {
    match format {
        Format::Mp4 => "video/mp4",
        Format::Webm => "video/webm",
        Format::Hls => "application/vnd.apple.mpegurl",
    }
}

/// The pieces of an MP4: a computed header, then for each chunk its sound and its picture.
///
/// A part that the store can copy goes in as it is, and its samples are found inside it. A smaller one has to be moved
/// anyway, so only its samples are.
fn compose(tracks: &Tracks<'_>) -> Result<Vec<Piece>, TaskError> {
    let mut payload = Payload::default();
    let mut video = Vec::new();
    let mut sound = Vec::new();
    for (index, part) in tracks.video.parts.iter().enumerate() {
        if let Some(part) = tracks.audio.and_then(|(track, _)| track.parts.get(index)) {
            payload.push_samples(part, &mut sound);
        }
        if part.size_bytes >= MIN_PART_BYTES {
            let start = payload.push(part.piece(0, part.size_bytes));
            video.extend(part.played().iter().map(|fragment| Extent {
                offset: start + fragment.payload_offset,
                samples: &fragment.samples,
            }));
        } else {
            payload.push_samples(part, &mut video);
        }
    }
    let mut movie = vec![tracks.video.movie(0, video)];
    if let Some((track, codec)) = tracks.audio {
        movie.push(track.movie(codec.priming_samples(), sound));
    }
    payload.into_file(&movie)
}

/// The tracks as one movie each, for a reader that goes through each once.
///
/// Not as they are, in fragments: of those ffmpeg takes the picture's times by the reordering too late, and does not
/// believe the priming of Opus.
pub(super) fn inputs(tracks: &Tracks<'_>) -> Result<Vec<Blob>, TaskError> {
    let sound = tracks.audio.map(|(track, codec)| (track, codec.priming_samples()));
    let alone = [Some((tracks.video, 0)), sound].into_iter().flatten();
    alone
        .map(|(track, priming_ticks)| {
            let mut payload = Payload::default();
            let mut extents = Vec::new();
            for part in &track.parts {
                payload.push_samples(part, &mut extents);
            }
            Ok(Blob::new(payload.into_file(&[track.movie(priming_ticks, extents)])?))
        })
        .collect()
}

/// The payload of a file as it grows.
#[derive(Debug, Default)]
struct Payload {
    pieces: Vec<Piece>,
    bytes: u64,
}

impl Payload {
    /// Adds a piece; returns where it begins.
    fn push(&mut self, piece: Piece) -> u64 {
        let start = self.bytes;
        self.bytes += piece.size_bytes();
        self.pieces.push(piece);
        start
    }

    /// Adds the samples of a part, without its own headers.
    fn push_samples<'a>(&mut self, part: &'a Part, extents: &mut Vec<Extent<'a>>) {
        for fragment in &part.table.fragments {
            let piece = part.piece(fragment.payload_offset, fragment.samples.total_bytes());
            extents.push(Extent {
                offset: self.push(piece),
                samples: &fragment.samples,
            });
        }
    }

    /// Puts the header before it.
    fn into_file(self, movie: &[MovieTrack<'_>]) -> Result<Vec<Piece>, TaskError> {
        let header = mp4::header(movie, self.bytes).map_err(unreadable)?;
        Ok([Piece::Bytes(header.into())].into_iter().chain(self.pieces).collect())
    }
}
