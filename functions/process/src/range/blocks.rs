//! Blocks of stored objects: read once for all who want them, and kept while there is room.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reelay_core::adapters::AwsError;
use tokio::{sync::watch, task::AbortHandle};

use super::meter::{Meter, ReadError};
use crate::transfer::ObjectRef;

/// Size of a block. A seek costs half of one at either end, and a client that wants half a megabyte in all seeks three
/// times first: blocks have to be small for that. Who reads on gets them in runs.
pub(super) const BLOCK_BYTES: u64 = 64 << 10;

/// Where blocks come from.
pub(crate) trait ReadObject: Send + Sync {
    /// Reads a range of an object: all of it, in chunks of any size. It tries again by itself whatever is worth it.
    fn read<'a>(&'a self, object: &'a ObjectRef, range: Range<u64>) -> BoxFuture<'a, Result<Vec<Bytes>, AwsError>>;
}

/// A block of an object, by its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BlockId {
    pub(super) object: Arc<ObjectRef>,
    pub(super) number: u64,
}

/// What is there of a block.
#[derive(Debug)]
pub(super) enum Found {
    /// All of it.
    Ready(Bytes),
    /// It is being read.
    Loading(Arc<Load>),
    /// Nothing.
    Absent,
}

/// The blocks of a server.
pub(super) struct Blocks {
    reader: Arc<dyn ReadObject>,
    meter: Arc<Meter>,
    /// How long a read may take, tries and all.
    patience: Duration,
    capacity_bytes: u64,
    resident: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: HashMap<BlockId, Ready>,
    /// When each block was last asked for.
    asked: BTreeMap<u64, BlockId>,
    clock: u64,
    loading: HashMap<BlockId, Weak<Load>>,
}

#[derive(Debug)]
struct Ready {
    bytes: Bytes,
    asked: u64,
}

type Outcome = Result<Arc<[Bytes]>, ReadError>;

/// A read of one or more blocks that is under way or done. It stops when nobody holds it any more.
#[derive(Debug)]
pub(super) struct Load {
    object: Arc<ObjectRef>,
    numbers: Range<u64>,
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
    blocks: Weak<Blocks>,
}

impl Blocks {
    pub(super) fn new(
        reader: Arc<dyn ReadObject>,
        meter: Arc<Meter>,
        capacity_bytes: u64,
        patience: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            reader,
            meter,
            patience,
            capacity_bytes,
            resident: Arc::default(),
            state: Mutex::default(),
        })
    }

    /// What is there of a block; asking keeps it from being dropped soon.
    pub(super) fn find(&self, id: &BlockId) -> Found {
        let mut state = self.state();
        if let Some(bytes) = state.ask(id) {
            return Found::Ready(bytes);
        }
        match state.loading.get(id).and_then(Weak::upgrade) {
            Some(load) => Found::Loading(load),
            None => Found::Absent,
        }
    }

    /// Begins to read blocks that somebody waits for.
    pub(super) fn load(self: &Arc<Self>, object: &Arc<ObjectRef>, numbers: Range<u64>) -> Result<Arc<Load>, ReadError> {
        let range = byte_range(object, &numbers);
        self.make_room(range.end - range.start);
        self.begin(object, numbers, range)
    }

    /// Begins to read blocks that somebody will want, if there is room and budget for them.
    pub(super) fn load_ahead(self: &Arc<Self>, object: &Arc<ObjectRef>, numbers: Range<u64>) -> Option<Arc<Load>> {
        let range = byte_range(object, &numbers);
        if !self.make_room(range.end - range.start) {
            return None;
        }
        self.begin(object, numbers, range).ok()
    }

    fn begin(
        self: &Arc<Self>,
        object: &Arc<ObjectRef>,
        numbers: Range<u64>,
        range: Range<u64>,
    ) -> Result<Arc<Load>, ReadError> {
        if range.is_empty() {
            return Err(fault("BlockOutsideObject", false));
        }
        self.meter.begin_read(range.end - range.start)?;
        let held = Held::new(&self.resident, range.end - range.start);
        let (sender, outcome) = watch::channel(None);
        let task = {
            let (blocks, object, numbers) = (Arc::clone(self), Arc::clone(object), numbers.clone());
            tokio::spawn(async move {
                let outcome = blocks.read(&object, range, held).await;
                blocks.finish(&object, numbers, &outcome);
                // Whoever waited may have gone.
                let _ = sender.send(Some(outcome));
            })
        };
        let load = Arc::new(Load {
            object: Arc::clone(object),
            numbers,
            outcome,
            task: task.abort_handle(),
            blocks: Arc::downgrade(self),
        });
        self.state()
            .loading
            .extend(load.ids().map(|id| (id, Arc::downgrade(&load))));
        Ok(load)
    }

    async fn read(&self, object: &ObjectRef, range: Range<u64>, held: Held) -> Outcome {
        let wanted = range.end - range.start;
        match tokio::time::timeout(self.patience, self.reader.read(object, range)).await {
            Ok(Ok(chunks)) => split(chunks, wanted, held),
            Ok(Err(error)) => Err(ReadError::Fault(Arc::new(error))),
            Err(_) => Err(fault("TookTooLong", true)),
        }
    }

    fn finish(&self, object: &Arc<ObjectRef>, numbers: Range<u64>, outcome: &Outcome) {
        let mut state = self.state();
        let blocks = outcome.as_deref().unwrap_or_default();
        for (index, number) in numbers.enumerate() {
            let object = Arc::clone(object);
            let id = BlockId { object, number };
            state.loading.remove(&id);
            if let Some(bytes) = blocks.get(index) {
                state.keep(id, bytes.clone());
            }
        }
    }

    /// Drops blocks, longest unasked first, until so many bytes more fit in; tells whether they do. What is being
    /// read or sent cannot be dropped.
    fn make_room(&self, bytes: u64) -> bool {
        let mut state = self.state();
        while self.resident_bytes() + bytes > self.capacity_bytes {
            if !state.drop_oldest() {
                return false;
            }
        }
        true
    }

    /// Memory of all blocks: kept, being read, and being sent.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident.load(Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks")
            .field("capacity_bytes", &self.capacity_bytes)
            .field("resident", &self.resident)
            .finish_non_exhaustive()
    }
}

impl State {
    fn ask(&mut self, id: &BlockId) -> Option<Bytes> {
        let ready = self.ready.get_mut(id)?;
        self.clock += 1;
        self.asked.remove(&ready.asked);
        self.asked.insert(self.clock, id.clone());
        ready.asked = self.clock;
        Some(ready.bytes.clone())
    }

    fn keep(&mut self, id: BlockId, bytes: Bytes) {
        self.clock += 1;
        self.asked.insert(self.clock, id.clone());
        let asked = self.clock;
        if let Some(before) = self.ready.insert(id, Ready { bytes, asked }) {
            self.asked.remove(&before.asked);
        }
    }

    fn drop_oldest(&mut self) -> bool {
        match self.asked.pop_first() {
            Some((_, id)) => self.ready.remove(&id).is_some(),
            None => false,
        }
    }
}

impl Load {
    /// Waits for one of its blocks.
    pub(super) async fn wait(&self, id: &BlockId) -> Result<Bytes, ReadError> {
        let mut outcome = self.outcome.clone();
        let outcome = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            // The task has panicked: it is not stopped while somebody holds this.
            Err(_) => None,
        };
        let blocks = outcome.unwrap_or_else(|| Err(fault("ReadStopped", true)))?;
        self.pick(&blocks, id).ok_or_else(|| fault("BlockOutsideObject", false))
    }

    /// One of its blocks, if it has been read.
    pub(super) fn block(&self, id: &BlockId) -> Option<Bytes> {
        match &*self.outcome.borrow() {
            Some(Ok(blocks)) => self.pick(blocks, id),
            _ => None,
        }
    }

    fn pick(&self, blocks: &[Bytes], id: &BlockId) -> Option<Bytes> {
        let index = id.number.checked_sub(self.numbers.start)?;
        let block = blocks.get(usize::try_from(index).ok()?)?;
        (id.object == self.object).then(|| block.clone())
    }

    fn ids(&self) -> impl Iterator<Item = BlockId> {
        self.numbers.clone().map(|number| BlockId {
            object: Arc::clone(&self.object),
            number,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
        let Some(blocks) = self.blocks.upgrade() else {
            return;
        };
        let mut state = blocks.state();
        for id in self.ids() {
            // Another read of the same block may have begun.
            if state.loading.get(&id).is_some_and(|load| load.strong_count() == 0) {
                state.loading.remove(&id);
            }
        }
    }
}

/// Memory, counted for as long as this lives.
#[derive(Debug)]
struct Held {
    resident: Arc<AtomicU64>,
    bytes: u64,
}

impl Held {
    fn new(resident: &Arc<AtomicU64>, bytes: u64) -> Self {
        resident.fetch_add(bytes, Relaxed);
        let resident = Arc::clone(resident);
        Self { resident, bytes }
    }

    fn split_off(&mut self, bytes: u64) -> Self {
        self.bytes = self.bytes.saturating_sub(bytes);
        let resident = Arc::clone(&self.resident);
        Self { resident, bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.resident.fetch_sub(self.bytes, Relaxed);
    }
}

/// The memory of a block.
struct Counted {
    bytes: Vec<u8>,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Puts chunks into blocks. This is the one copy on the way; it gives every block memory of its own, which goes when
/// the block goes.
fn split(chunks: Vec<Bytes>, mut left_bytes: u64, mut held: Held) -> Outcome {
    let mut blocks = Vec::new();
    let mut chunks = chunks.into_iter();
    let mut chunk = Bytes::new();
    while left_bytes > 0 {
        let size_bytes = left_bytes.min(BLOCK_BYTES);
        let size = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            if chunk.is_empty() {
                chunk = chunks.next().ok_or_else(|| fault("BodyTooShort", true))?;
            }
            bytes.extend_from_slice(&chunk.split_to(chunk.len().min(size - bytes.len())));
        }
        left_bytes -= size_bytes;
        blocks.push(Bytes::from_owner(Counted {
            bytes,
            _held: held.split_off(size_bytes),
        }));
    }
    Ok(blocks.into())
}

/// The bytes of blocks; the last block of an object may be short.
fn byte_range(object: &ObjectRef, numbers: &Range<u64>) -> Range<u64> {
    let start = numbers.start.saturating_mul(BLOCK_BYTES).min(object.size_bytes);
    let end = numbers.end.saturating_mul(BLOCK_BYTES).min(object.size_bytes);
    start..end.max(start)
}

/// A fault that is not the service's own.
pub(super) fn fault(aws_code: &str, retryable: bool) -> ReadError {
    ReadError::Fault(Arc::new(AwsError::Call {
        operation: "GetObject",
        aws_code: aws_code.to_owned(),
        retryable,
    }))
}
