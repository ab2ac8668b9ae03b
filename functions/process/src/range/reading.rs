//! One response's way through a blob, with read-ahead.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    blob::{Blob, Piece},
    blocks::{BLOCK_BYTES, BlockId, Blocks, Found, Load, fault},
    meter::{Meter, ReadError},
};

/// What is handed to the connection at a time. What a client leaves in the socket when it seeks elsewhere is waste.
const SLICE_BYTES: u64 = 16 << 10;
/// Reading ahead begins when this much was sent: a client that looks at a header and seeks away does not cause it.
pub(super) const READ_AHEAD_AFTER_BYTES: u64 = 4 * BLOCK_BYTES;
/// Until then the next block is read only for a client that is still there after this long: the socket takes more than a
/// header, and who has what it wants leaves at once.
const MOMENT: Duration = Duration::from_millis(5);
/// When this much was sent it shows how fast the client takes it, and reads ahead begin to grow.
const PACE_AFTER_BYTES: u64 = 16 * BLOCK_BYTES;
/// A client that takes more than this in a microsecond of its own time copies, or reads an index. One that decodes and
/// encodes takes 3 to 16 MB a second from small pictures, and less from large ones.
const COPYING_BYTES_PER_US: u128 = 32;
/// Largest read ahead, in blocks: 4 MiB.
pub(super) const MAX_RUN_BLOCKS: u64 = 64;
/// From this much on, no further read is begun.
const MAX_LEAD_BYTES: u64 = 4 * MAX_RUN_BLOCKS * BLOCK_BYTES;

/// A part of a blob that is being sent.
#[derive(Debug)]
pub(super) struct Reading {
    blob: Arc<Blob>,
    blocks: Arc<Blocks>,
    meter: Arc<Meter>,
    position: u64,
    end: u64,
    sent_bytes: u64,
    /// The block at the position.
    block: Option<(BlockId, Bytes)>,
    /// The file at the position, with the number of its piece.
    file: Option<(usize, Arc<File>)>,
    runs: VecDeque<Run>,
    /// Up to where reads have begun.
    ahead: u64,
    /// How long the client has taken over what was sent.
    own_time: Duration,
    /// When it got the last of it.
    sent_at: Option<Instant>,
}

/// A read that was begun ahead, and what it is in the blob.
#[derive(Debug)]
struct Run {
    positions: Range<u64>,
    load: Arc<Load>,
}

impl Reading {
    pub(super) fn new(blob: Arc<Blob>, blocks: Arc<Blocks>, meter: Arc<Meter>, range: Range<u64>) -> Self {
        Self {
            blob,
            blocks,
            meter,
            position: range.start,
            end: range.end,
            sent_bytes: 0,
            block: None,
            file: None,
            runs: VecDeque::new(),
            ahead: range.start,
            own_time: Duration::ZERO,
            sent_at: None,
        }
    }

    /// The next bytes, until the end. What goes wrong is noted before the client can see it.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.own_time += self.sent_at.map_or(Duration::ZERO, |sent_at| sent_at.elapsed());
        let result = self.step().await;
        self.sent_at = Some(Instant::now());
        if let Err(error) = &result {
            self.meter.note(error);
        }
        result
    }

    async fn step(&mut self) -> Result<Option<Bytes>, ReadError> {
        let blob = Arc::clone(&self.blob);
        let Some(place) = blob.place(self.position).filter(|_| self.position < self.end) else {
            return Ok(None);
        };
        let most = SLICE_BYTES.min(place.left_bytes).min(self.end - self.position);
        let bytes = match place.piece {
            Piece::Bytes(bytes) => slice(bytes, place.offset, most),
            Piece::File { path, offset, .. } => {
                let file = self.open(place.index, path).await?;
                read_file(file, offset + place.offset, most).await?
            }
            Piece::Object { source, offset, .. } => {
                let at = offset + place.offset;
                let object = Arc::clone(source);
                let number = at / BLOCK_BYTES;
                let block = self.block(BlockId { object, number }).await?;
                slice(&block, at % BLOCK_BYTES, most)
            }
        };
        if bytes.is_empty() {
            return Err(fault("PieceOutsideObject", false));
        }
        let length = bytes.len() as u64;
        self.meter.send(length)?;
        self.position += length;
        self.sent_bytes += length;
        self.read_ahead();
        Ok(Some(bytes))
    }

    async fn open(&mut self, index: usize, path: &Path) -> Result<Arc<File>, ReadError> {
        if let Some((open, file)) = &self.file
            && *open == index
        {
            return Ok(Arc::clone(file));
        }
        let path = path.to_owned();
        let file = Arc::new(blocking(move || File::open(path)).await?);
        self.file = Some((index, Arc::clone(&file)));
        Ok(file)
    }

    async fn block(&mut self, id: BlockId) -> Result<Bytes, ReadError> {
        if let Some((at_hand, bytes)) = &self.block
            && *at_hand == id
        {
            return Ok(bytes.clone());
        }
        self.block = None;
        self.runs.retain(|run| run.positions.end > self.position);
        if (1..READ_AHEAD_AFTER_BYTES).contains(&self.sent_bytes) && matches!(self.blocks.find(&id), Found::Absent) {
            tokio::time::sleep(MOMENT).await;
        }
        let bytes = match self.blocks.find(&id) {
            Found::Ready(bytes) => bytes,
            Found::Loading(load) => load.wait(&id).await?,
            // It may have been dropped since it was read ahead.
            Found::Absent => {
                if let Some(bytes) = self.runs.iter().find_map(|run| run.load.block(&id)) {
                    bytes
                } else {
                    let load = self.blocks.load(&id.object, id.number..id.number + 1)?;
                    load.wait(&id).await?
                }
            }
        };
        self.block = Some((id, bytes.clone()));
        Ok(bytes)
    }

    /// Begins reads of what comes next. What is read for nothing when the client goes is a part of what it used: less
    /// than a quarter, or three quarters for one that copies and hardly ever goes.
    fn read_ahead(&mut self) {
        if self.sent_bytes < READ_AHEAD_AFTER_BYTES {
            return;
        }
        let paced_bytes = self.sent_bytes.saturating_sub(PACE_AFTER_BYTES);
        let (run_bytes, lead_bytes) = if self.copies() {
            (self.sent_bytes / 4, self.sent_bytes / 2)
        } else {
            (paced_bytes / 8, paced_bytes / 16)
        };
        let run_blocks = (run_bytes / BLOCK_BYTES).clamp(1, MAX_RUN_BLOCKS);
        let lead_bytes = lead_bytes.clamp(BLOCK_BYTES, MAX_LEAD_BYTES);
        let until = self.end.min(self.position.saturating_add(lead_bytes));
        self.ahead = self.ahead.max(self.position);
        while self.ahead < until {
            let Some(run) = self.next_run(run_blocks) else {
                return;
            };
            self.ahead = run.end;
        }
    }

    /// Whether the client takes bytes as fast as they come.
    fn copies(&self) -> bool {
        let copied_bytes = self.own_time.as_micros() * COPYING_BYTES_PER_US;
        self.sent_bytes >= PACE_AFTER_BYTES && u128::from(self.sent_bytes) > copied_bytes
    }

    /// Sees to the next run of blocks, or the next piece that needs no reading ahead; `None` when it has to wait.
    fn next_run(&mut self, most_blocks: u64) -> Option<Range<u64>> {
        let start = self.ahead;
        let place = self.blob.place(start)?;
        let Piece::Object { source, offset, .. } = place.piece else {
            return Some(start..start + place.left_bytes);
        };
        let at = offset + place.offset;
        let left_bytes = place.left_bytes.min(self.end - start);
        let first = at / BLOCK_BYTES;
        let last = (at + left_bytes - 1) / BLOCK_BYTES;
        let id = |number| BlockId {
            object: Arc::clone(source),
            number,
        };
        let until = |number: u64| start + left_bytes.min(number * BLOCK_BYTES - at);
        let at_hand = self.block.as_ref().is_some_and(|(block, _)| *block == id(first));
        let (load, positions) = match self.blocks.find(&id(first)) {
            _ if at_hand => return Some(start..until(first + 1)),
            Found::Ready(_) => return Some(start..until(first + 1)),
            Found::Loading(load) => (load, start..until(first + 1)),
            Found::Absent => {
                let is_absent = |number: &u64| matches!(self.blocks.find(&id(*number)), Found::Absent);
                let more = (first + 1..=last.min(first + most_blocks - 1)).take_while(is_absent);
                let end = more.last().unwrap_or(first) + 1;
                (self.blocks.load_ahead(source, first..end)?, start..until(end))
            }
        };
        self.runs.push_back(Run {
            positions: positions.clone(),
            load,
        });
        Some(positions)
    }
}

fn slice(bytes: &Bytes, offset: u64, most: u64) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(index(offset)..index(offset.saturating_add(most)))
}

async fn read_file(file: Arc<File>, offset: u64, bytes: u64) -> Result<Bytes, ReadError> {
    let read = move || {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    };
    blocking(read).await
}

/// A fault of a file is one of the machine: the file is ours.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|result| result)
        .map_err(|error| fault(&format!("Local{:?}", error.kind()), true))
}
