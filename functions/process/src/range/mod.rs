//! The range server: what ffmpeg reads instead of a stored object.
//!
//! It serves virtual objects on loopback, under a path that nobody can guess, and nothing else: GET and HEAD with
//! ranges, no redirects. Stored objects are read block by block, ahead of a client that reads on, and each block once
//! for all clients while memory lasts. What is read is counted and ends at a budget.
//!
//! ffmpeg takes a response that breaks off for the end of the file as often as for an error, and may end with code 0.
//! So whoever ran it asks [`RangeServer::check`] afterwards, however it ended: what could not be read is no reason to
//! call a source corrupt, nor an output complete.

mod blob;
mod blocks;
mod http;
mod meter;
mod reading;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use reelay_core::adapters::AwsError;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
};
use uuid::Uuid;

pub(crate) use self::{
    blob::{Blob, Piece},
    blocks::ReadObject,
    meter::ReadError,
};
use self::{blocks::Blocks, meter::Meter};

/// How long a client may have to wait for the next bytes, tries and all; then the response breaks off, with a fault.
/// Clients have to be more patient than this, or a slow store looks to them like a broken source.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Connections at a time; more wait to be accepted. ffmpeg has two while it seeks.
const MAX_CONNECTIONS: usize = 16;
/// Longest head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Most header fields of a request.
const MAX_HEADERS: usize = 32;
/// What the kernel holds back for a client that does not read: it was sent for nothing when the client seeks.
/// The kernel makes it twice as much; with half of it, a copy takes twice as long.
const SEND_BUFFER_BYTES: u32 = 32 << 10;
/// Wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What a server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Memory for blocks: kept, being read and being sent. A client that waits for a block gets it beyond this, so it
    /// is exceeded by two blocks for each connection at most: one being read, one being sent. The buffers of a read come
    /// on top while it lasts.
    pub(crate) cache_bytes: u64,
    /// Bytes that are read of stored objects, and bytes that are sent: each ends here.
    pub(crate) max_bytes: u64,
}

/// A running server. Dropping it stops it: connections close and reads end.
#[derive(Debug)]
pub(crate) struct RangeServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: AbortHandle,
}

/// What the connections work with.
#[derive(Debug)]
struct Shared {
    /// The folder of all paths.
    secret: String,
    blobs: RwLock<HashMap<String, Arc<Blob>>>,
    blocks: Arc<Blocks>,
    meter: Arc<Meter>,
}

impl RangeServer {
    /// Starts a server on the runtime that this is called on.
    pub(crate) fn start(reader: Arc<dyn ReadObject>, budget: Budget) -> io::Result<Self> {
        Self::start_with(reader, budget, PATIENCE)
    }

    fn start_with(reader: Arc<dyn ReadObject>, budget: Budget, patience: Duration) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(64)?;
        let address = listener.local_addr()?;
        let meter = Arc::new(Meter::new(budget.max_bytes));
        let shared = Arc::new(Shared {
            secret: Uuid::new_v4().simple().to_string(),
            blobs: RwLock::default(),
            blocks: Blocks::new(reader, Arc::clone(&meter), budget.cache_bytes, patience),
            meter,
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, address, task })
    }

    /// Serves a virtual object, in place of one of the same name; returns its URL. The name is one of ours: letters,
    /// digits, `.`, `-` and `_`, whatever else becomes `_`.
    pub(crate) fn add(&self, name: &str, blob: Blob) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let path = format!("/{}/{name}", self.shared.secret);
        let url = format!("http://{}{path}", self.address);
        let mut blobs = self.shared.blobs.write().unwrap_or_else(PoisonError::into_inner);
        blobs.insert(path, Arc::new(blob));
        url
    }

    /// Bytes that were asked of stored objects, reads that were stopped included.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.shared.meter.read_bytes()
    }

    /// Reads of stored objects that were begun.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.meter.reads()
    }

    /// Whether a response broke off because the budget was used up.
    pub(crate) fn exhausted(&self) -> bool {
        self.shared.meter.exhausted()
    }

    /// The first fault that broke off a response.
    pub(crate) fn fault(&self) -> Option<Arc<AwsError>> {
        self.shared.meter.fault()
    }

    /// Whether all that was asked for was sent. A fault comes before the budget: the next attempt may not need as much.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        match self.fault() {
            Some(fault) => Err(ReadError::Fault(fault)),
            None if self.exhausted() => Err(ReadError::Exhausted),
            None => Ok(()),
        }
    }
}

impl Drop for RangeServer {
    fn drop(&mut self) {
        self.task.abort();
        tracing::debug!(
            bytes_read = self.bytes_read(),
            requests = self.requests(),
            "the range server stops"
        );
    }
}

impl Shared {
    fn blob(&self, path: &str) -> Option<Arc<Blob>> {
        let blobs = self.blobs.read().unwrap_or_else(PoisonError::into_inner);
        blobs.get(path).cloned()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) if peer.ip().is_loopback() => {
                    connections.spawn(converse(stream, Arc::clone(&shared)));
                }
                Ok(_) => {}
                // Out of file descriptors, most likely.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    // A head and the first slice are two writes.
    let _ = stream.set_nodelay(true);
    let service = service_fn(async |request| http::respond(&request, &shared));
    // An error is a client that has gone, or one that was broken off: the meter has it.
    let _ = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests;
