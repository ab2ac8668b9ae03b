//! MP4 as chunks and movies need it: the tables of a fragmented one-track file, a writer of such files, and the header
//! of a whole movie over payload that stays where it is.
//!
//! Every time is in ticks of the track's own timescale unless its name says otherwise. Box layouts are those of
//! ISO/IEC 14496-12 (the base format), 14496-14 and -15 (AAC and AVC in it), and the VP9 and Opus bindings.
//!
//! What is read here was written by ffmpeg from a stranger's media, so nothing of it is trusted: every size and count
//! has a bound before it is used, and what does not fit is an [`Mp4Error`].

mod boxes;
mod codec;
mod error;
mod init;
mod movie;
mod read;
mod samples;
mod write;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use boxes::FourCc;
pub use codec::{Codec, TrackKind};
pub use error::Mp4Error;
pub use init::Init;
pub use movie::{Extent, MovieTrack, header};
pub use read::{Fragment, TrackFile, read};
pub use samples::{Sample, Samples};
pub use write::{PacketGroup, fragment_header, write_track};
