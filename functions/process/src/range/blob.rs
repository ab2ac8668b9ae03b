//! Virtual objects: pieces, one after the other.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::transfer::ObjectRef;

/// A part of a virtual object.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// Bytes that are at hand.
    Bytes(Bytes),
    /// A part of a local file.
    File {
        /// The file; it stays until the server has gone.
        path: PathBuf,
        /// Where the piece begins in it, in bytes.
        offset: u64,
        /// Length of the piece.
        bytes: u64,
    },
    /// A part of a stored object.
    Object {
        /// The object.
        source: Arc<ObjectRef>,
        /// Where the piece begins in it, in bytes.
        offset: u64,
        /// Length of the piece.
        bytes: u64,
    },
}

impl Piece {
    /// Its first `head_bytes` bytes, unless that is none, and the rest.
    pub(crate) fn split_at(mut self, head_bytes: u64) -> (Option<Self>, Self) {
        if head_bytes == 0 {
            return (None, self);
        }
        let mut head = self.clone();
        match (&mut head, &mut self) {
            (Self::Bytes(head), Self::Bytes(rest)) => {
                let at = usize::try_from(head_bytes).unwrap_or(usize::MAX).min(rest.len());
                *head = rest.split_to(at);
            }
            (
                Self::File { bytes: head, .. } | Self::Object { bytes: head, .. },
                Self::File { offset, bytes, .. } | Self::Object { offset, bytes, .. },
            ) => {
                *head = head_bytes.min(*bytes);
                *offset += *head;
                *bytes -= *head;
            }
            // A clone is of the same kind.
            _ => {}
        }
        (Some(head), self)
    }

    /// Its length.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } | Self::Object { bytes, .. } => *bytes,
        }
    }
}

/// A virtual object.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pieces: Vec<Piece>,
    /// Where each piece ends, in bytes.
    ends: Vec<u64>,
}

/// A position in a blob.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The piece that it is in.
    pub(super) piece: &'a Piece,
    /// Which one that is.
    pub(super) index: usize,
    /// How far into the piece, in bytes.
    pub(super) offset: u64,
    /// From here to the piece's end.
    pub(super) left_bytes: u64,
}

impl Blob {
    /// Puts pieces together.
    pub(crate) fn new(pieces: Vec<Piece>) -> Self {
        let mut end = 0;
        let ends = pieces.iter().map(|piece| {
            end += piece.size_bytes();
            end
        });
        Self {
            ends: ends.collect(),
            pieces,
        }
    }

    /// A whole object.
    pub(crate) fn object(source: ObjectRef) -> Self {
        Self::new(vec![Piece::Object {
            offset: 0,
            bytes: source.size_bytes,
            source: Arc::new(source),
        }])
    }

    /// Length of all pieces.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// What is at a position; nothing is from the end on.
    pub(super) fn place(&self, position: u64) -> Option<Place<'_>> {
        // The first piece that ends later: one that is empty never does.
        let index = self.ends.partition_point(|end| *end <= position);
        let piece = self.pieces.get(index)?;
        let left_bytes = self.ends.get(index)? - position;
        Some(Place {
            piece,
            index,
            offset: piece.size_bytes() - left_bytes,
            left_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_at_every_border() {
        let pieces = ["ab", "", "cde", "f"].map(|text| Piece::Bytes(text.into()));
        let blob = Blob::new(pieces.into());
        assert_eq!(blob.size_bytes(), 6);
        let places: Vec<_> = (0..7)
            .map(|position| {
                blob.place(position)
                    .map(|place| (place.index, place.offset, place.left_bytes))
            })
            .collect();
        let expected = [(0, 0, 2), (0, 1, 1), (2, 0, 3), (2, 1, 2), (2, 2, 1), (3, 0, 1)];
        assert_eq!(places, [expected.map(Some).as_slice(), &[None]].concat());
        assert!(Blob::new(Vec::new()).place(0).is_none());
    }
}
