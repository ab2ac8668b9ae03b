//! What a job made, and what it was made of: links that S3 answers.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use reelay_core::{
    adapters::objects::Disposition,
    domain::{
        filename,
        job::{Job, Output, OutputType, Proof},
    },
    http::{ApiError, Caller, Code, QueryOf},
};
use serde::{Deserialize, Serialize};

use super::{AppState, hls, not_ready, redirect};

#[derive(Serialize)]
struct OutputBody {
    id: String,
    r#type: OutputType,
    format: String,
    quality: Option<String>,
    width_px: u32,
    height_px: u32,
    duration_seconds: Option<f64>,
    frames: Option<u64>,
    bitrate_bps: Option<u64>,
    size_bytes: u64,
    sha256: String,
    content_type: String,
    url: String,
    proof: Option<Proof>,
}

#[derive(Serialize)]
pub(super) struct OutputList {
    outputs: Vec<OutputBody>,
}

pub(super) async fn outputs(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OutputList>, ApiError> {
    let (job, outputs) = state.published(&caller, &id).await?;
    let mut views = Vec::with_capacity(outputs.len());
    for output in outputs {
        let url = if hls::is_hls(&output) {
            hls::path_of(&job.job_id, &output)
        } else {
            state
                .sign(&output, &Disposition::Inline(file_name(&job, &output)))
                .await?
        };
        views.push(OutputBody {
            id: output.id,
            r#type: output.output_type,
            format: output.format,
            quality: output.quality,
            width_px: output.width_px,
            height_px: output.height_px,
            duration_seconds: output.duration_seconds,
            frames: output.frames,
            bitrate_bps: output.bitrate_bps,
            size_bytes: output.size_bytes,
            sha256: output.sha256,
            content_type: output.content_type,
            url,
            proof: output.proof,
        });
    }
    Ok(Json(OutputList { outputs: views }))
}

/// An output's name at the user's side: the source's, and what tells the outputs of a job apart.
fn file_name(job: &Job, output: &Output) -> String {
    let stem = filename::stem(&job.filename);
    let part = match output.output_type {
        OutputType::Rendition => output.quality.as_deref(),
        // Their ids are `thumbnail-01` and `proof`.
        OutputType::Thumbnail | OutputType::Proof => Some(output.id.as_str()),
    };
    let part = part.map(|part| format!("-{part}")).unwrap_or_default();
    let ending = output
        .key
        .rsplit_once('.')
        .map_or(output.format.as_str(), |(_, ending)| ending);
    format!("{stem}{part}.{ending}")
}

#[derive(Deserialize)]
pub(super) struct ThumbnailQuery {
    #[serde(default)]
    index: usize,
}

pub(super) async fn thumbnail(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    QueryOf(query): QueryOf<ThumbnailQuery>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let (job, outputs) = state.published(&caller, &id).await?;
    let mut thumbnails = outputs
        .iter()
        .filter(|output| output.output_type == OutputType::Thumbnail);
    let chosen = thumbnails
        .nth(query.index)
        .ok_or_else(|| ApiError::new(Code::NotFound))?;
    let shown = Disposition::Inline(file_name(&job, chosen));
    redirect(&state.sign(chosen, &shown).await?)
}

#[derive(Deserialize)]
pub(super) struct DownloadQuery {
    format: Option<String>,
    quality: Option<String>,
}

/// Of the renditions that fit, one that is a file before one that is many, a whole ladder before one of its rungs, then
/// the one with the largest picture.
fn choose<'a>(outputs: &'a [Output], query: &DownloadQuery) -> Option<&'a Output> {
    let fits = |output: &&Output| {
        output.output_type == OutputType::Rendition
            && query.format.as_ref().is_none_or(|format| *format == output.format)
            && query
                .quality
                .as_ref()
                .is_none_or(|quality| Some(quality) == output.quality.as_ref())
    };
    outputs
        .iter()
        .filter(fits)
        .max_by_key(|output| (!hls::is_hls(output), hls::is_ladder(output), output.height_px))
}

pub(super) async fn download(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    QueryOf(query): QueryOf<DownloadQuery>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let (job, outputs) = state.published(&caller, &id).await?;
    let chosen = choose(&outputs, &query).ok_or_else(|| ApiError::new(Code::NotFound))?;
    if hls::is_hls(chosen) {
        return redirect(&hls::path_of(&job.job_id, chosen));
    }
    let stored = Disposition::Attachment(file_name(&job, chosen));
    redirect(&state.sign(chosen, &stored).await?)
}

pub(super) async fn source(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let job = state.find(&caller, &id).await?;
    let Some(pinned) = &job.source else {
        return Err(not_ready(&job, "its source was not accepted yet"));
    };
    let key = job.source_key().to_string();
    // Always an attachment: the content is the user's, and must not be rendered by a browser on our origin.
    let url = state
        .sources
        .sign_download(
            &key,
            Some(&pinned.version_id),
            "application/octet-stream",
            Some(&Disposition::Attachment(job.filename.clone())),
            state.download_window,
        )
        .await?;
    redirect(&url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(output_type: OutputType, spec: &str, height_px: u32) -> Output {
        let (format, quality) = match spec.split_once('-') {
            Some((format, quality)) => (format, Some(quality)),
            None => (spec, None),
        };
        let item = json!({"id": spec, "type": output_type.as_str(), "format": format, "quality": quality,
            "width_px": 2, "height_px": height_px, "size_bytes": 1, "sha256": "", "content_type": "", "key": ""});
        serde_json::from_value(item).unwrap()
    }

    fn rendition(spec: &str, height_px: u32) -> Output {
        output(OutputType::Rendition, spec, height_px)
    }

    fn chosen(outputs: &[Output], format: Option<&str>, quality: Option<&str>) -> Option<String> {
        let query = DownloadQuery {
            format: format.map(str::to_owned),
            quality: quality.map(str::to_owned),
        };
        choose(outputs, &query).map(|output| output.id.clone())
    }

    #[test]
    fn a_download_is_a_file_when_there_is_one() {
        let all = [
            rendition("mp4-480p", 480),
            rendition("mp4-720p", 720),
            rendition("hls-1080p", 1_080),
            rendition("hls", 1_080),
        ];
        let id = |id: &str| Some(id.to_owned());
        assert_eq!(chosen(&all, None, None), id("mp4-720p"));
        assert_eq!(chosen(&all, None, Some("480p")), id("mp4-480p"));
        assert_eq!(chosen(&all, None, Some("1080p")), id("hls-1080p"));
        assert_eq!(chosen(&all, Some("webm"), None), None);
    }

    #[test]
    fn a_ladder_is_one_download_and_so_is_each_rung() {
        let ladders = [
            [
                rendition("hls", 720),
                rendition("hls-480p", 480),
                rendition("hls-720p", 720),
            ],
            [
                rendition("hls-480p", 480),
                rendition("hls-720p", 720),
                rendition("hls", 720),
            ],
        ];
        for all in ladders {
            let id = |id: &str| Some(id.to_owned());
            assert_eq!(chosen(&all, None, None), id("hls"));
            assert_eq!(chosen(&all, Some("hls"), None), id("hls"));
            assert_eq!(chosen(&all, Some("hls"), Some("480p")), id("hls-480p"));
            assert_eq!(chosen(&all, Some("hls"), Some("360p")), None);
        }
    }

    #[test]
    fn only_renditions_are_downloads() {
        let all = [
            output(OutputType::Proof, "json", 9_000),
            output(OutputType::Thumbnail, "jpeg", 9_000),
        ];
        assert_eq!(chosen(&all, None, None), None);
        assert_eq!(chosen(&all, Some("json"), None), None);
    }
}
