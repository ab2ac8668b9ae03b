//! HLS: a job's playlists, stored ones when it is done and growing ones while it is playable already. The objects that
//! they name are private, so each URI becomes a signed URL on the way out; the multivariant playlist names only playlists
//! beside it, which are answered here again.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::future::try_join_all;
use reelay_core::{
    adapters::objects::Bucket,
    domain::{
        hls::{self, PlaylistError},
        id::JobId,
        job::{Job, Output, Status},
        keys::AttemptPrefix,
        mp4::{Codec, Init, Mp4Error},
        spec::{Format, OutputSpec},
        task::{TaskId, TrackObject},
    },
    http::{ApiError, Caller, Code},
};

use super::{AppState, not_ready};
use crate::{growing::Growing, gzip};

/// Most bytes of a stored playlist: a segment takes about 100, and the longest source has 10,800 of them.
const MAX_PLAYLIST_BYTES: usize = 4 * 1_024 * 1_024;
/// Longest accepted file name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The media type of what playlists name: sound is in the same container.
const SEGMENT_TYPE: &str = "video/mp4";
/// Which attempt would store the playlists that are not stored yet. Only how their URIs begin depends on it.
const NEXT_ATTEMPT: u32 = 1;

/// Whether this output is a playlist and what it names, not one file.
pub(super) fn is_hls(output: &Output) -> bool {
    output.format == Format::Hls.as_str()
}

/// Whether this output is the whole ladder of the job, under its multivariant playlist.
pub(super) fn is_ladder(output: &Output) -> bool {
    let ladder = OutputSpec {
        format: Format::Hls,
        quality: None,
    };
    output.id == ladder.id()
}

/// Where an output's playlist is answered. Absolute, since a path that ends in a slash moves what is relative to it.
pub(super) fn path_of(job_id: &JobId, output: &Output) -> String {
    let file = output.key.rsplit('/').next().unwrap_or_default();
    format!("/api/v1/jobs/{job_id}/hls/{file}")
}

pub(super) async fn hls(
    State(state): State<AppState>,
    caller: Caller,
    Path((id, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = state.find(&caller, &id).await?;
    let playlist = playlist(&state, &job, &file).await?;
    let mut response = gzip::answer(&headers, playlist).into_response();
    let content_type = HeaderValue::from_static(hls::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// A playlist of a job, as players get it.
async fn playlist(state: &AppState, job: &Job, file: &str) -> Result<Vec<u8>, ApiError> {
    if !is_playlist_name(file) {
        return Err(not_found());
    }
    if job.published_attempt.is_some() {
        published(state, job, file).await
    } else if job.status == Status::InProgress && job.playable {
        growing(state, job, file).await
    } else {
        Err(none_yet(job))
    }
}

/// A playlist that was stored at the end of the job.
async fn published(state: &AppState, job: &Job, file: &str) -> Result<Vec<u8>, ApiError> {
    let outputs = state.jobs.outputs(job).await?;
    let index_key = &outputs
        .iter()
        .find(|output| is_ladder(output))
        .ok_or_else(not_found)?
        .key;
    let index = stored(state, index_key).await?;
    if file == hls::INDEX_FILE {
        return Ok(index);
    }
    // Looked up before it is read: S3 does not tell the function whether an object exists.
    let key = beside(index_key, file)?;
    if !hls::keys(&index, index_key).map_err(unreadable)?.contains(&key) {
        return Err(not_found());
    }
    let playlist = stored(state, &key).await?;
    sign(&state.outputs, &playlist, &key, state.download_window).await
}

/// A playlist over the chunks that are there so far. The job can be played, and still nothing of it is published: these
/// playlists and what they name is all that can be had.
async fn growing(state: &AppState, job: &Job, file: &str) -> Result<Vec<u8>, ApiError> {
    let (job_id, generation) = (&job.job_id, job.generation);
    let plan = state.jobs.plan(job_id, generation).await?;
    let plan = plan.ok_or_else(|| none_yet(job))?;
    let tasks = state.jobs.tasks(job_id, &TaskId::encode_prefix(generation)).await?;
    let index_key = AttemptPrefix {
        account: job.account_id.clone(),
        job: job_id.clone(),
        generation,
        task: TaskId::Assemble,
        attempt: NEXT_ATTEMPT,
    }
    .output(hls::INDEX_FILE);
    let growing = Growing::new(&plan, &tasks, &index_key).ok_or_else(|| none_yet(job))?;
    if file == hls::INDEX_FILE {
        let first = growing.first().ok_or_else(|| none_yet(job))?;
        let videos = try_join_all(first.videos.iter().map(|track| codec(state, track))).await?;
        let audio = try_join_all(first.audio.iter().map(|track| codec(state, track))).await?;
        let index = growing.index(&videos, audio.first()).ok_or_else(|| none_yet(job))?;
        return Ok(index.to_string().into_bytes());
    }
    let playlist = growing.media(file).ok_or_else(not_found)?.to_string();
    let key = beside(&index_key, file)?;
    sign(&state.outputs, playlist.as_bytes(), &key, state.download_window).await
}

/// What a track is coded with, from the initialisation section of its first chunk: the same in all of them.
async fn codec(state: &AppState, track: &TrackObject) -> Result<Codec, ApiError> {
    let init = state.outputs.read_range(&track.object.key, 0..track.init_bytes).await?;
    Init::codec(&init.ok_or_else(not_found)?).map_err(|error: Mp4Error| {
        tracing::error!(%error, code = error.code(), "a stored track cannot be read");
        ApiError::new(Code::InternalError)
    })
}

/// The key of a file beside the multivariant playlist.
fn beside(index_key: &str, file: &str) -> Result<String, ApiError> {
    let (folder, _) = index_key.rsplit_once('/').ok_or_else(not_found)?;
    Ok(format!("{folder}/{file}"))
}

async fn stored(state: &AppState, key: &str) -> Result<Vec<u8>, ApiError> {
    let playlist = state.outputs.read(key, MAX_PLAYLIST_BYTES).await?;
    playlist.ok_or_else(not_found)
}

/// Puts a signed URL in place of every URI.
async fn sign(bucket: &Bucket, playlist: &[u8], key: &str, window: Duration) -> Result<Vec<u8>, ApiError> {
    let mut urls = Vec::new();
    for key in hls::keys(playlist, key).map_err(unreadable)? {
        urls.push(bucket.sign_download(&key, None, SEGMENT_TYPE, None, window).await?);
    }
    let mut urls = urls.into_iter();
    let signed = hls::rewrite(playlist, key, |_| Ok(urls.next().unwrap_or_default()));
    signed.map(String::into_bytes).map_err(unreadable)
}

fn is_playlist_name(file: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    file.len() <= MAX_NAME_BYTES
        && file
            .strip_suffix(".m3u8")
            .is_some_and(|stem| !stem.is_empty() && stem.bytes().all(allowed))
}

fn none_yet(job: &Job) -> ApiError {
    not_ready(job, "has no playlists yet")
}

fn not_found() -> ApiError {
    ApiError::new(Code::NotFound)
}

/// We wrote it, so it is a fault of ours.
fn unreadable(error: PlaylistError) -> ApiError {
    tracing::error!(%error, code = error.code(), "a stored playlist cannot be read");
    ApiError::new(Code::InternalError)
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
    use serde_json::json;
    use sha2::{Digest as _, Sha256};

    use super::*;

    const KEY: &str = "outputs/a/j/1-assemble-1/video-720p.m3u8";

    fn bucket() -> Bucket {
        // As long as those of a function's role, and as hard to pack.
        let token: String = (0..16_u32)
            .map(|part| hex::encode(Sha256::digest(part.to_le_bytes())))
            .collect();
        let credentials = Credentials::new("AKIA", "secret", Some(token), None, "tests");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        Bucket::new(&config, "reelay-output".to_owned())
    }

    #[test]
    fn only_names_of_playlists_are_looked_up() {
        for good in ["index.m3u8", "video-720p.m3u8", "audio.m3u8"] {
            assert!(is_playlist_name(good), "{good}");
        }
        let long = format!("{}.m3u8", "a".repeat(60));
        for bad in [
            "",
            ".m3u8",
            "index",
            "Index.m3u8",
            "a.b.m3u8",
            "../a.m3u8",
            "a/b.m3u8",
            "a.m3u8/",
            &long,
        ] {
            assert!(!is_playlist_name(bad), "{bad}");
        }
    }

    #[test]
    fn each_output_has_its_own_playlist() {
        let output = |id: &str, file: &str| -> Output {
            let item = json!({"id": id, "type": "rendition", "format": "hls", "quality": null, "width_px": 2,
                "height_px": 2, "size_bytes": 1, "sha256": "", "content_type": "",
                "key": format!("outputs/a/j/1-assemble-1/{file}")});
            serde_json::from_value(item).unwrap()
        };
        let job_id = JobId::generate();
        let (ladder, rung) = (output("hls", "index.m3u8"), output("hls-720p", "video-720p.m3u8"));
        assert!(is_ladder(&ladder) && !is_ladder(&rung) && is_hls(&rung));
        let path = |file| format!("/api/v1/jobs/{job_id}/hls/{file}");
        assert_eq!(path_of(&job_id, &ladder), path("index.m3u8"));
        assert_eq!(path_of(&job_id, &rung), path("video-720p.m3u8"));
    }

    #[tokio::test]
    async fn every_uri_of_a_playlist_is_signed_and_the_rest_kept() {
        let text = "#EXTM3U\n#EXT-X-MAP:URI=\"../1-c0000-1/v720.mp4\",BYTERANGE=\"8@0\"\n#EXTINF:4.004000,\n\
            #EXT-X-BYTERANGE:10@8\n../1-c0000-1/v720.mp4\n#EXT-X-ENDLIST\n";
        let signed = sign(&bucket(), text.as_bytes(), KEY, Duration::from_hours(1))
            .await
            .unwrap();
        let signed = String::from_utf8(signed).unwrap();
        let lines: Vec<_> = signed.lines().collect();
        let url = lines[4];
        assert!(url.starts_with("https://reelay-output.s3.eu-central-1.amazonaws.com/outputs/a/j/1-c0000-1/v720.mp4?"));
        for part in [
            "X-Amz-Signature=",
            "X-Amz-Expires=3600",
            "response-content-type=video%2Fmp4",
        ] {
            assert!(url.contains(part), "{part}");
        }
        assert_eq!(lines[1], format!("#EXT-X-MAP:URI=\"{url}\",BYTERANGE=\"8@0\""));
        assert_eq!(
            [lines[2], lines[3], lines[5]],
            ["#EXTINF:4.004000,", "#EXT-X-BYTERANGE:10@8", "#EXT-X-ENDLIST"]
        );
    }

    #[tokio::test]
    async fn nothing_of_another_job_is_signed() {
        let text = "#EXTM3U\n../../k/1-c0000-1/v720.mp4\n";
        let refused = sign(&bucket(), text.as_bytes(), KEY, Duration::from_mins(1))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InternalError);
    }

    #[tokio::test]
    async fn the_longest_playlist_fits_into_an_answer() {
        // Twelve hours: chunks of 20 seconds, segments of four.
        let segments = (0..10_800).map(|n| {
            let (chunk, offset_bytes) = (n / 5, n % 5 * 1_000_000 + 800);
            format!("#EXTINF:4.000000,\n#EXT-X-BYTERANGE:1000000@{offset_bytes}\n../1-c{chunk:04}-1/v720.mp4\n")
        });
        let text = format!("#EXTM3U\n{}", segments.collect::<Vec<_>>().concat());
        assert!(text.len() < MAX_PLAYLIST_BYTES);
        let signed = sign(&bucket(), text.as_bytes(), KEY, Duration::from_hours(1))
            .await
            .unwrap();
        assert!(signed.len() > 15_000_000);
        let (_, packed) = gzip::answer(&HeaderMap::new(), signed);
        assert!(packed.len() < 1_000_000, "{}", packed.len());
    }
}
