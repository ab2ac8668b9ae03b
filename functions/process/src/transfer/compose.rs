//! An object put together by the store itself: pieces of other objects are copied where they are, and only what is small
//! or new is sent.

use aws_sdk_s3::types::CompletedPart;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reelay_core::adapters::{AwsError, call_error};
use sha2::{Digest as _, Sha256};

use super::{Bucket, ObjectRef, PARALLEL, PIECE_BYTES, Stored, Transfer, local};
use crate::range::Piece;

/// Smallest part of an upload that is not its last one (Amazon S3 User Guide, "Multipart upload limits").
pub(crate) const MIN_PART_BYTES: u64 = 5 << 20;
/// What a key may have that a copy source need not escape.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A part of an upload.
#[derive(Debug, Clone)]
enum Part {
    /// Is sent.
    Sent(Vec<Piece>),
    /// Is copied by the store.
    Copied(Piece),
}

impl Transfer {
    /// Puts pieces together to an object of the output bucket. The pieces' objects are in the same bucket.
    pub(crate) async fn compose(&self, pieces: Vec<Piece>, key: &str, content_type: &str) -> Result<Stored, AwsError> {
        let size_bytes = pieces.iter().map(Piece::size_bytes).sum();
        let upload = self.begin(key, content_type).await?;
        let parts = stream::iter(parts(pieces).into_iter().zip(1_i32..))
            .map(|(part, number)| self.part(key, &upload, part, number))
            .buffered(PARALLEL)
            .try_collect()
            .await;
        self.finish(key, &upload, parts).await?;
        self.digest(&ObjectRef {
            bucket: Bucket::Output,
            key: key.to_owned(),
            version_id: None,
            etag: None,
            size_bytes,
        })
        .await
    }

    async fn part(&self, key: &str, upload_id: &str, part: Part, number: i32) -> Result<CompletedPart, AwsError> {
        match part {
            Part::Copied(Piece::Object { source, offset, bytes }) => {
                let path = format!("{}/{}", self.output_bucket, source.key);
                let output = self
                    .client
                    .upload_part_copy()
                    .bucket(&self.output_bucket)
                    .key(key)
                    .upload_id(upload_id)
                    .part_number(number)
                    .copy_source(utf8_percent_encode(&path, COPY_SOURCE).to_string())
                    .copy_source_range(format!("bytes={offset}-{}", offset + bytes - 1))
                    .send()
                    .await
                    .map_err(|error| call_error("UploadPartCopy", &error))?;
                let copied = output.copy_part_result;
                let (e_tag, crc32) = copied.map(|copied| (copied.e_tag, copied.checksum_crc32)).unzip();
                let part = CompletedPart::builder().part_number(number).set_e_tag(e_tag.flatten());
                Ok(part.set_checksum_crc32(crc32.flatten()).build())
            }
            Part::Copied(piece) => self.send(key, upload_id, &[piece], number).await,
            Part::Sent(pieces) => self.send(key, upload_id, &pieces, number).await,
        }
    }

    async fn send(&self, key: &str, upload_id: &str, pieces: &[Piece], number: i32) -> Result<CompletedPart, AwsError> {
        let mut body = BytesMut::new();
        for piece in pieces {
            body.extend_from_slice(&self.bytes_of(piece).await?);
        }
        self.upload_part(key, upload_id, body.freeze().into(), number).await
    }

    async fn bytes_of(&self, piece: &Piece) -> Result<Bytes, AwsError> {
        match piece {
            Piece::Bytes(bytes) => Ok(bytes.clone()),
            Piece::Object { source, offset, bytes } => self.read_range(source, *offset, offset + bytes).await,
            Piece::File { path, offset, bytes } => {
                let (path, offset, bytes) = (path.clone(), *offset, *bytes);
                let read = tokio::task::spawn_blocking(move || super::read_file(&path, offset, bytes)).await;
                read.map_err(std::io::Error::other)
                    .and_then(|result| result)
                    .map_err(|error| local("UploadPart", &error))
            }
        }
    }

    /// Reads an object once, in order, for its hash: what the store put together was in nobody's hands before.
    pub(crate) async fn digest(&self, object: &ObjectRef) -> Result<Stored, AwsError> {
        let starts = (0..object.size_bytes).step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX));
        let mut pieces = stream::iter(starts)
            .map(|start| self.read_range(object, start, (start + PIECE_BYTES).min(object.size_bytes)))
            .buffered(PARALLEL);
        let mut hash = Sha256::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let hashed = tokio::task::spawn_blocking(move || {
                hash.update(&piece);
                hash
            });
            hash = hashed
                .await
                .map_err(|error| local("GetObject", &std::io::Error::other(error)))?;
        }
        Ok(Stored {
            size_bytes: object.size_bytes,
            sha256: hex::encode(hash.finalize()),
        })
    }
}

/// Cuts pieces into parts. Each but the last has at least [`MIN_PART_BYTES`]; a piece of an object that has as many is
/// copied, but for what its predecessor lacks.
fn parts(pieces: Vec<Piece>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut waiting = Vec::new();
    let mut waiting_bytes = 0;
    for piece in pieces {
        let lacking = if waiting_bytes == 0 {
            0
        } else {
            MIN_PART_BYTES.saturating_sub(waiting_bytes)
        };
        let is_object = matches!(piece, Piece::Object { .. });
        if is_object && piece.size_bytes() >= lacking + MIN_PART_BYTES {
            let (head, rest) = piece.split_at(lacking);
            waiting.extend(head);
            if !waiting.is_empty() {
                parts.push(Part::Sent(std::mem::take(&mut waiting)));
            }
            waiting_bytes = 0;
            parts.push(Part::Copied(rest));
        } else {
            waiting_bytes += piece.size_bytes();
            waiting.push(piece);
            if waiting_bytes >= PIECE_BYTES {
                parts.push(Part::Sent(std::mem::take(&mut waiting)));
                waiting_bytes = 0;
            }
        }
    }
    if !waiting.is_empty() {
        parts.push(Part::Sent(waiting));
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn object(offset: u64, bytes: u64) -> Piece {
        Piece::Object {
            source: Arc::new(ObjectRef {
                bucket: Bucket::Output,
                key: "k".into(),
                version_id: None,
                etag: None,
                size_bytes: 1 << 40,
            }),
            offset,
            bytes,
        }
    }

    fn size(part: &Part) -> u64 {
        match part {
            Part::Sent(pieces) => pieces.iter().map(Piece::size_bytes).sum(),
            Part::Copied(piece) => piece.size_bytes(),
        }
    }

    #[test]
    fn large_objects_are_copied_and_a_small_head_takes_what_it_lacks() {
        let pieces = vec![
            Piece::Bytes(Bytes::from_static(b"header")),
            object(0, 20 << 20),
            object(0, 1 << 20),
            object(0, 8 << 20),
            object(0, 100),
        ];
        let parts = parts(pieces);
        assert_eq!(
            parts.iter().map(size).collect::<Vec<_>>(),
            [MIN_PART_BYTES, (15 << 20) + 6, (9 << 20) + 100],
        );
        assert!(matches!(&parts[1], Part::Copied(Piece::Object { offset, .. }) if *offset == MIN_PART_BYTES - 6));
    }

    proptest! {
        #[test]
        fn parts_have_all_bytes_and_none_is_too_small(sizes in prop::collection::vec((any::<bool>(), 1_u64..40 << 20), 1..60)) {
            let pieces: Vec<Piece> = sizes.iter().map(|(is_object, bytes)| {
                if *is_object {
                    object(7, *bytes)
                } else {
                    Piece::File { path: "f".into(), offset: 3, bytes: *bytes }
                }
            }).collect();
            let total: u64 = pieces.iter().map(Piece::size_bytes).sum();
            let parts = parts(pieces);
            prop_assert_eq!(parts.iter().map(size).sum::<u64>(), total);
            for part in &parts[..parts.len() - 1] {
                prop_assert!(size(part) >= MIN_PART_BYTES);
            }
            for part in &parts {
                if let Part::Sent(pieces) = part {
                    let moved: u64 = pieces.iter().map(Piece::size_bytes).sum();
                    prop_assert!(moved < PIECE_BYTES + (40 << 20), "memory is bounded");
                }
            }
        }
    }
}
