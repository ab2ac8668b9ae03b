//! One response's way through a blob, with read-ahead.

use std::{collections::VecDeque, fs::File, io, ops::Range, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    blob::{Blob, Piece},
    blocks::{BLOCK_BYTES, BlockId, Blocks, Found, Load, fault},
    meter::{Meter, ReadError},
};

/// What is handed to the connection at a time. What a client leaves in the socket when it seeks elsewhere is waste.
const SLICE_BYTES: u64 = 64 << 10;
/// Reading ahead begins when this much was sent: a client that looks at a header and seeks away does not cause it.
const READ_AHEAD_AFTER_BYTES: u64 = 2 * BLOCK_BYTES;
/// Largest read ahead, in blocks.
const MAX_RUN_BLOCKS: u64 = 16;
/// Most reads ahead.
const MAX_RUNS: usize = 4;

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
    /// How many runs may be ahead; grows when the client had to wait.
    max_runs: usize,
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
            max_runs: 1,
        }
    }

    /// The next bytes, until the end. What goes wrong is noted before the client can see it.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let result = self.step().await;
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
        let bytes = match self.blocks.find(&id) {
            Found::Ready(bytes) => bytes,
            Found::Loading(load) => self.wait(&load, &id).await?,
            // It may have been dropped since it was read ahead.
            Found::Absent => {
                if let Some(bytes) = self.runs.iter().find_map(|run| run.load.block(&id)) {
                    bytes
                } else {
                    let load = self.blocks.load(&id.object, id.number..id.number + 1)?;
                    self.wait(&load, &id).await?
                }
            }
        };
        self.block = Some((id, bytes.clone()));
        Ok(bytes)
    }

    async fn wait(&mut self, load: &Load, id: &BlockId) -> Result<Bytes, ReadError> {
        if self.sent_bytes >= READ_AHEAD_AFTER_BYTES {
            self.max_runs = (self.max_runs * 2).min(MAX_RUNS);
            self.read_ahead();
        }
        load.wait(id).await
    }

    /// Begins reads of what comes next. A run is at most a quarter of what was sent, so what is read for nothing when
    /// the client goes is bounded by what it used.
    fn read_ahead(&mut self) {
        if self.sent_bytes < READ_AHEAD_AFTER_BYTES {
            return;
        }
        let quarter = (self.sent_bytes / 4 / BLOCK_BYTES).clamp(1, MAX_RUN_BLOCKS);
        let most_blocks = 1 << quarter.ilog2();
        let window_bytes = most_blocks * BLOCK_BYTES * (self.max_runs as u64 + 1);
        let until = self.end.min(self.position.saturating_add(window_bytes));
        self.ahead = self.ahead.max(self.position);
        while self.ahead < until && self.runs_ahead() < self.max_runs {
            let Some(run) = self.next_run(most_blocks) else {
                return;
            };
            self.ahead = run.end;
        }
    }

    fn runs_ahead(&self) -> usize {
        let ahead = self.runs.iter().filter(|run| run.positions.start > self.position);
        ahead.count()
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
