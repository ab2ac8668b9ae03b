//! The playlists of a job that is still encoding: over its chunks from the first one up to the first that is not done.
//! Chunks are done in any order, and what comes after a gap cannot be played without it.

use reelay_core::domain::{
    hls::{AUDIO_FILE, Kind, Ladder, MediaPlaylist, MultivariantPlaylist, Part, TrackFacts, video_file},
    mp4::Codec,
    plan::{Plan, Rung},
    task::{ChunkResult, TaskId, TaskItem, TaskState, TrackObject},
};

/// What can be played of a job.
pub(crate) struct Growing<'a> {
    ladder: Ladder<'a>,
    /// At least one.
    chunks: Vec<&'a ChunkResult>,
}

/// The tracks of a chunk that are played.
#[derive(Debug)]
pub(crate) struct PlayedTracks<'a> {
    /// One for each rung, in the plan's order.
    pub(crate) videos: Vec<&'a TrackObject>,
    pub(crate) audio: Option<&'a TrackObject>,
}

impl<'a> Growing<'a> {
    /// What the encode tasks of a generation, in their order, have made that can be played. `None` when that is nothing.
    /// `index_key` is where the multivariant playlist is to be.
    pub(crate) fn new(plan: &'a Plan, tasks: &'a [TaskItem], index_key: &'a str) -> Option<Self> {
        let hls = plan.hls.as_ref()?;
        let chunks: Vec<_> = (0..plan.chunks)
            .zip(tasks)
            .map_while(|(index, task)| finished(plan, index, task))
            .collect();
        let ladder = Ladder {
            plan,
            hls,
            index_key,
            kind: Kind::Event,
        };
        (!chunks.is_empty()).then_some(Self { ladder, chunks })
    }

    /// The tracks of the first chunk: its initialisation sections are those of all chunks.
    pub(crate) fn first(&self) -> Option<PlayedTracks<'a>> {
        let chunk = *self.chunks.first()?;
        let videos = self.ladder.hls.rungs.iter().map(|rung| chunk.videos.get(rung.video));
        let audio = match self.ladder.hls.audio {
            Some(index) => Some(chunk.audios.get(index)?),
            None => None,
        };
        Some(PlayedTracks {
            videos: videos.collect::<Option<_>>()?,
            audio,
        })
    }

    /// The multivariant playlist, for tracks that are coded like this. `None` when these are not those of
    /// [`Self::first`].
    ///
    /// Players ask for it once, and for the media playlists again and again. So the peaks are not only of what is there:
    /// the first minute may be a title on black, and a player that believed it would stall in what follows. They are
    /// those that the plan allows, or the measured ones if these are higher. Too much costs a player some quality until
    /// it has measured its line; too little costs it the playback. The averages are measured.
    pub(crate) fn index(&self, videos: &[Codec], audio: Option<&Codec>) -> Option<MultivariantPlaylist> {
        let rungs = &self.ladder.hls.rungs;
        if videos.len() != rungs.len() || audio.is_some() != self.ladder.hls.audio.is_some() {
            return None;
        }
        let mut facts = Vec::with_capacity(videos.len());
        for (rung, codec) in rungs.iter().zip(videos) {
            let measured = self.video(rung)?.bandwidth();
            facts.push(TrackFacts {
                bandwidth: measured.with_peak(self.ladder.video_limit_bps(rung)),
                codec,
            });
        }
        let audio = match audio {
            Some(codec) => Some(TrackFacts {
                bandwidth: self.audio()?.bandwidth().with_peak(self.ladder.audio_aim_bps()),
                codec,
            }),
            None => None,
        };
        Some(self.ladder.multivariant(&facts, audio))
    }

    /// The media playlist of this name; `None` when the job has none such.
    pub(crate) fn media(&self, file: &str) -> Option<MediaPlaylist> {
        if file == AUDIO_FILE {
            return self.audio();
        }
        let mut rungs = self.ladder.hls.rungs.iter();
        self.video(rungs.find(|rung| video_file(rung.quality) == file)?)
    }

    fn video(&self, rung: &Rung) -> Option<MediaPlaylist> {
        self.ladder.video(&self.parts(|chunk| chunk.videos.get(rung.video)))
    }

    fn audio(&self) -> Option<MediaPlaylist> {
        let index = self.ladder.hls.audio?;
        self.ladder.audio(&self.parts(|chunk| chunk.audios.get(index)))
    }

    fn parts(&self, of: impl Fn(&ChunkResult) -> Option<&TrackObject>) -> Vec<Part> {
        self.chunks
            .iter()
            .filter_map(|chunk| of(chunk))
            .map(Part::from)
            .collect()
    }
}

/// What this task made, if it is that of the chunk and done: every rendition of the plan, so that the playlists of all
/// renditions end at the same chunk.
fn finished<'a>(plan: &Plan, index: u32, task: &'a TaskItem) -> Option<&'a ChunkResult> {
    let is_done = task.id() == Some(TaskId::Encode(index)) && task.state == TaskState::Done;
    let result = task.result.as_ref().filter(|_| is_done)?;
    let is_whole = result.videos.len() == plan.videos.len() && result.audios.len() == plan.audios.len();
    is_whole.then_some(result)
}

#[cfg(test)]
#[path = "growing_tests.rs"]
mod tests;
