//! A chunk: encoded, checked by its own tables, stored.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reelay_core::domain::{
    audio::{AudioCodec, AudioCut},
    failure::Stage,
    mp4::{self, Codec, Init, Mp4Error, PacketGroup, TrackFile},
    plan::{Chunk, Plan, VideoCodec, VideoRendition},
    task::{ChunkResult, StoredObject, TrackObject},
    time::UtcTime,
};
use sha2::{Digest as _, Sha256};

use super::{
    Attempt, Made, encode,
    input::{self, Served},
    internal, invalid, stills,
    track::{Part, Place, Table, Track, unreadable},
};
use crate::{cage::Usage, error::TaskError, scratch::Scratch};

/// What a chunk may need of the scratch space beside twice its share of the source.
const SPARE_BYTES: u64 = 256 << 20;
/// Tracks that are stored at the same time.
const PARALLEL: usize = 4;
/// The media type of a track file.
const TRACK_TYPE: &str = "video/mp4";

/// A track of a chunk, in scratch space.
#[derive(Debug)]
pub(super) struct MadeTrack {
    name: String,
    published: bool,
    pub(super) init: Vec<u8>,
    pub(super) timescale: u32,
    pub(super) codec: Codec,
    file: PathBuf,
    size_bytes: u64,
    table: Table,
}

/// A chunk in scratch space.
#[derive(Debug)]
pub(super) struct MadeChunk {
    pub(super) chunk: Chunk,
    pub(super) videos: Vec<MadeTrack>,
    pub(super) audios: Vec<MadeTrack>,
    /// Numbers of the stills that lie in it.
    pub(super) stills: Vec<u32>,
}

impl MadeTrack {
    /// The whole track, of a source that is one chunk.
    pub(super) fn into_track(self, stored: Option<StoredObject>) -> Track {
        Track {
            init: self.init,
            timescale: self.timescale,
            codec: self.codec,
            parts: vec![Part {
                place: Place::File(self.file, stored),
                size_bytes: self.size_bytes,
                table: self.table,
            }],
        }
    }
}

/// An encode task.
pub(super) async fn work(attempt: &Attempt<'_>, plan: &Plan, index: u32) -> Result<Made, TaskError> {
    if index >= plan.chunks {
        return Err(internal(Stage::Encode, "the plan has no such chunk"));
    }
    let chunk = plan.chunk(index);
    let object = input::planned(attempt, &plan.input)?;
    let share = object.size_bytes / u64::from(plan.chunks);
    let scratch = attempt.scratch(share.saturating_mul(2).saturating_add(SPARE_BYTES))?;
    let served = Served::start(attempt, object)?;
    let mut usage = Usage::default();
    let made = make(attempt, plan, &chunk, &served, &scratch, &mut usage).await?;
    let result = store(attempt, &made, &scratch, &usage, served.read_bytes()).await?;
    Ok(Made::Chunk {
        result: Box::new(result),
        makes_playable: plan.hls.is_some() && index == 0,
    })
}

/// Encodes a chunk and checks what came out.
pub(super) async fn make(
    attempt: &Attempt<'_>,
    plan: &Plan,
    chunk: &Chunk,
    served: &Served,
    scratch: &Scratch,
    usage: &mut Usage,
) -> Result<MadeChunk, TaskError> {
    encode::encode(attempt, plan, chunk, served, scratch, usage).await?;
    stills::take(attempt, plan, chunk, scratch, usage).await?;
    let (owned, chunk, folder) = (plan.clone(), *chunk, scratch.path().to_owned());
    // Tables of minutes of video are read and sound is cut: too much for the thread that renews the lease.
    let tracks = tokio::task::spawn_blocking(move || tracks(&owned, &chunk, &folder)).await;
    let (videos, audios) = tracks.map_err(|_| internal(Stage::Verify, "the check was interrupted"))??;
    Ok(MadeChunk {
        chunk,
        videos,
        audios,
        stills: plan.thumbnails_of(&chunk).into_iter().map(|(n, _)| n).collect(),
    })
}

fn tracks(plan: &Plan, chunk: &Chunk, folder: &Path) -> Result<(Vec<MadeTrack>, Vec<MadeTrack>), TaskError> {
    let videos = plan.videos.iter().enumerate().map(|(index, video)| {
        let file = folder.join(encode::video_file(index));
        let track = open(&file)?;
        check_video(plan, chunk, video, &track)?;
        Ok(MadeTrack {
            name: video.name(),
            published: video.published,
            size_bytes: length(&file)?,
            file,
            init: track.init,
            timescale: track.timescale,
            codec: track.codec,
            table: Table {
                fragments: track.fragments,
                priming_fragments: 0,
            },
        })
    });
    let videos = videos.collect::<Result<_, TaskError>>()?;
    let mut audios = Vec::new();
    for (index, audio) in plan.audios.iter().enumerate() {
        let Some(grid) = plan.audio_grid(audio) else { continue };
        let cut = grid.cut(chunk.first_frame, chunk.end_frame, chunk.last);
        let raw = folder.join(encode::audio_file(index));
        let file = folder.join(format!("cut-{}", encode::audio_file(index)));
        let mut made = cut_audio(audio.codec, &cut, grid.sample_rate_hz(), &raw, file)?;
        made.published = audio.published;
        audios.push(made);
    }
    Ok((videos, audios))
}

fn open(file: &Path) -> Result<TrackFile, TaskError> {
    let mut reader = BufReader::new(File::open(file).map_err(|_| invalid("a track is missing"))?);
    mp4::read(&mut reader).map_err(unreadable)
}

fn length(file: &Path) -> Result<u64, TaskError> {
    let metadata = std::fs::metadata(file);
    metadata
        .map(|metadata| metadata.len())
        .map_err(|error| TaskError::internal(Stage::Verify, &error))
}

/// Whether a rendition has exactly its frames, at exactly their times, and every fragment can be decoded by itself.
fn check_video(plan: &Plan, chunk: &Chunk, video: &VideoRendition, track: &TrackFile) -> Result<(), TaskError> {
    let codec_fits = match video.codec {
        VideoCodec::H264 => track.codec.rfc6381().starts_with("avc1."),
        VideoCodec::Vp9 => track.codec.rfc6381().starts_with("vp09."),
    };
    if !codec_fits {
        return Err(invalid("its codec is another one"));
    }
    let size = track.codec.size_px().map(|(w, h)| (u32::from(w), u32::from(h)));
    if size != Some((video.size.width_px, video.size.height_px)) {
        return Err(invalid("its picture has another size"));
    }
    if u64::try_from(track.sample_count()).ok() != Some(chunk.frames()) {
        return Err(invalid("it has another number of frames"));
    }
    let (timescale, ticks) = plan.timeline.rate.timescale();
    let gop = plan.timeline.gop_frames();
    let mut next = chunk.first_frame.saturating_mul(u64::from(ticks));
    for (index, fragment) in track.fragments.iter().enumerate() {
        let is_whole = index + 1 == track.fragments.len() || u64::try_from(fragment.samples.len()).ok() == Some(gop);
        if track.timescale != timescale
            || fragment.start_ticks != next
            || fragment.samples.constant_duration_ticks() != Some(ticks)
            || !fragment.samples.starts_with_sync()
            || !is_whole
        {
            return Err(invalid("its frames are not at their times"));
        }
        next = fragment.end_ticks();
    }
    Ok(())
}

/// Keeps the packets of this chunk and gives them their times in the whole track, one fragment a segment.
fn cut_audio(
    codec: AudioCodec,
    cut: &AudioCut,
    sample_rate_hz: u32,
    raw: &Path,
    file: PathBuf,
) -> Result<MadeTrack, TaskError> {
    let failed = |error: std::io::Error| TaskError::internal(Stage::Verify, &error);
    let track = open(raw)?;
    if track.timescale != sample_rate_hz {
        return Err(invalid("its sound has another sample rate"));
    }
    let number = |packets: u64| usize::try_from(packets).map_err(|_| invalid("its sound is too long"));
    let first = number(cut.drop_packets)?;
    let end = first + number(cut.packets())?;
    if track.sample_count() < end {
        return Err(invalid("its sound is too short"));
    }
    let mut reader = BufReader::new(File::open(raw).map_err(failed)?);
    let packets = track.read_packets(&mut reader, first..end).map_err(unreadable)?;

    let (packet_samples, priming) = (codec.packet_samples(), codec.priming_samples());
    let mut groups = Vec::new();
    let mut rest: &[Vec<u8>] = &packets;
    let mut packet = cut.first_packet;
    // The packet that only primes the decoder is a fragment of its own: playlists leave it out.
    let primes = packet == 0;
    let lone = primes.then_some(1);
    for (index, wanted) in lone.into_iter().chain(cut.segments.iter().copied()).enumerate() {
        let wanted = if primes && index == 1 { wanted - 1 } else { wanted };
        let (group, later) = rest
            .split_at_checked(number(wanted)?)
            .ok_or_else(|| invalid("its sound is too short"))?;
        if !group.is_empty() {
            groups.push(PacketGroup {
                start_ticks: (packet * packet_samples).saturating_sub(priming),
                packets: group,
            });
        }
        packet += wanted;
        rest = later;
    }
    let init = Init::common(&track.init).map_err(unreadable)?;
    let mut writer = BufWriter::new(File::create(&file).map_err(failed)?);
    let ticks = u32::try_from(packet_samples).map_err(|_| unreadable(Mp4Error::Limit("samples of a packet")))?;
    let fragments = mp4::write_track(&mut writer, &init, ticks, groups).map_err(unreadable)?;
    writer.flush().map_err(failed)?;
    Ok(MadeTrack {
        name: codec.as_str().into(),
        published: false,
        init: init.as_bytes().to_vec(),
        timescale: track.timescale,
        codec: track.codec,
        size_bytes: length(&file)?,
        file,
        table: Table {
            fragments,
            priming_fragments: usize::from(primes),
        },
    })
}

/// Stores a chunk for the tasks that come after it.
async fn store(
    attempt: &Attempt<'_>,
    made: &MadeChunk,
    scratch: &Scratch,
    usage: &Usage,
    read_bytes: u64,
) -> Result<ChunkResult, TaskError> {
    let mut videos: Vec<TrackObject> = stream::iter(made.videos.iter().chain(&made.audios))
        .map(|track| store_track(attempt, track))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let audios = videos.split_off(made.videos.len());
    let thumbnails = store_stills(attempt, made, scratch).await?;
    let objects = videos.iter().chain(&audios).map(|track| track.object.size_bytes);
    let stills = thumbnails.iter().map(|(_, still)| still.size_bytes);
    let written_bytes = objects.chain(stills).sum();
    Ok(ChunkResult {
        chunk: made.chunk.index,
        frames: made.chunk.frames(),
        cost: attempt.cost(usage, read_bytes, written_bytes),
        made_at: UtcTime::now(),
        videos,
        audios,
        thumbnails,
    })
}

async fn store_track(attempt: &Attempt<'_>, track: &MadeTrack) -> Result<TrackObject, TaskError> {
    let failed = |error| TaskError::aws(Stage::Publish, error);
    let object = store_object(attempt, track).await?;
    let table_key = attempt.prefix().work(&format!("{}.json", track.name));
    let table = serde_json::to_vec(&track.table).map_err(|_| invalid("its table cannot be written"))?;
    let transfer = &attempt.bench.transfer;
    transfer
        .store_bytes(table, &table_key, "application/json")
        .await
        .map_err(failed)?;
    let init_bytes = u64::try_from(track.init.len()).unwrap_or(u64::MAX);
    let played = track
        .table
        .fragments
        .get(track.table.priming_fragments..)
        .unwrap_or_default();
    Ok(TrackObject {
        object,
        table_key,
        init_bytes,
        init_sha256: hex::encode(Sha256::digest(&track.init)),
        skip_bytes: played.first().map_or(0, |first| first.offset - init_bytes),
        fragments: played
            .iter()
            .map(|fragment| (fragment.bytes, fragment.samples.total_ticks()))
            .collect(),
        timescale: track.timescale,
    })
}

/// Stores a track where it belongs: for good when segments of it are played, else for later tasks only.
pub(super) async fn store_object(attempt: &Attempt<'_>, track: &MadeTrack) -> Result<StoredObject, TaskError> {
    let file = format!("{}.mp4", track.name);
    let prefix = attempt.prefix();
    let key = if track.published {
        prefix.output(&file)
    } else {
        prefix.work(&file)
    };
    let stored = attempt
        .bench
        .transfer
        .store(&track.file, &key, TRACK_TYPE)
        .await
        .map_err(|error| TaskError::aws(Stage::Publish, error))?;
    Ok(StoredObject {
        key,
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
    })
}

/// Stores a track of a source that is one chunk, when segments of it are played.
pub(super) async fn store_published(
    attempt: &Attempt<'_>,
    track: &MadeTrack,
) -> Result<Option<StoredObject>, TaskError> {
    if track.published {
        store_object(attempt, track).await.map(Some)
    } else {
        Ok(None)
    }
}

/// Stores the stills of a chunk.
pub(super) async fn store_stills(
    attempt: &Attempt<'_>,
    made: &MadeChunk,
    scratch: &Scratch,
) -> Result<Vec<(u32, StoredObject)>, TaskError> {
    let mut thumbnails = Vec::with_capacity(made.stills.len());
    for n in &made.stills {
        let file = stills::file(*n);
        let key = attempt.prefix().output(&file);
        let stored = attempt
            .bench
            .transfer
            .store(&scratch.file(&file), &key, "image/jpeg")
            .await
            .map_err(|error| TaskError::aws(Stage::Publish, error))?;
        let object = StoredObject {
            key,
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
        };
        thumbnails.push((*n, object));
    }
    Ok(thumbnails)
}
