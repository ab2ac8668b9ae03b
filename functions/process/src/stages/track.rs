//! A track in parts: one rendition, chunk by chunk, wherever the bytes are.

use std::{path::PathBuf, sync::Arc};

use reelay_core::domain::{
    mp4::{Codec, Extent, Fragment, MovieTrack, Mp4Error},
    task::StoredObject,
};
use serde::{Deserialize, Serialize};

use super::{input, invalid};
use crate::{error::TaskError, range::Piece};

/// The sample tables of a part, stored beside it: joining reads them and never the part itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Table {
    /// Whole fragments in their order, the priming ones first.
    pub(super) fragments: Vec<Fragment>,
    /// How many of the first ones are not played.
    pub(super) priming_fragments: usize,
}

/// Where the bytes of a part are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In scratch space, and in the output bucket too when segments of it are played.
    File(PathBuf, Option<StoredObject>),
    /// In the output bucket.
    Object(StoredObject),
}

/// One chunk's part of a track: an initialisation section, then fragments.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) size_bytes: u64,
    pub(super) table: Table,
}

/// A whole track.
#[derive(Debug, Clone)]
pub(super) struct Track {
    /// What every part begins with.
    pub(super) init: Vec<u8>,
    pub(super) timescale: u32,
    pub(super) codec: Codec,
    pub(super) parts: Vec<Part>,
}

impl Part {
    /// A range of its bytes.
    pub(super) fn piece(&self, offset: u64, bytes: u64) -> Piece {
        match &self.place {
            Place::File(path, _) => Piece::File {
                path: path.clone(),
                offset,
                bytes,
            },
            Place::Object(object) => Piece::Object {
                source: Arc::new(input::stored(object)),
                offset,
                bytes,
            },
        }
    }

    /// The stored object.
    pub(super) fn object(&self) -> Option<&StoredObject> {
        match &self.place {
            Place::File(_, object) => object.as_ref(),
            Place::Object(object) => Some(object),
        }
    }

    /// The fragments that are played.
    pub(super) fn played(&self) -> &[Fragment] {
        self.table
            .fragments
            .get(self.table.priming_fragments..)
            .unwrap_or_default()
    }
}

impl Track {
    /// The track as one of a movie's, with its samples in these places.
    pub(super) fn movie<'a>(&'a self, priming_ticks: u64, extents: Vec<Extent<'a>>) -> MovieTrack<'a> {
        MovieTrack {
            init: &self.init,
            media_start_ticks: priming_ticks,
            extents,
        }
    }

    /// Bytes of all samples.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.fragments().map(|fragment| fragment.samples.total_bytes()).sum()
    }

    /// All fragments, the priming ones included.
    pub(super) fn fragments(&self) -> impl Iterator<Item = &Fragment> {
        self.parts.iter().flat_map(|part| &part.table.fragments)
    }

    /// The fragments that are played.
    pub(super) fn played(&self) -> impl Iterator<Item = &Fragment> {
        self.parts.iter().flat_map(Part::played)
    }
}

/// A track file of ours that does not read.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
pub(super) fn unreadable(error: Mp4Error) -> TaskError {
    tracing::error!(%error, code = error.code(), "a track file cannot be read");
    invalid("a track cannot be read")
}
