//! What the tests of the server share: a store, and a client that sees every byte.

mod ahead;
mod serving;

use std::{
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
};

use super::*;
use crate::transfer::{Bucket, ObjectRef};

const MIB: u64 = 1 << 20;

/// A store whose objects' bytes follow from their positions.
struct Store {
    reads: Mutex<Vec<std::ops::Range<u64>>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// Each read takes one.
    permits: Semaphore,
    /// What every read from this position on fails with.
    failing: Mutex<Option<(u64, &'static str)>>,
    /// Bytes that each body lacks.
    missing: AtomicUsize,
    /// Counts memory, once there is a server.
    watched: Mutex<Option<Arc<Blocks>>>,
    most_resident: Mutex<u64>,
}

/// Counts a read until it is over or dropped.
struct UnderWay<'a>(&'a Store);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

impl Store {
    fn new() -> Arc<Self> {
        Self::with_permits(Semaphore::MAX_PERMITS)
    }

    fn with_permits(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            reads: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            permits: Semaphore::new(permits),
            failing: Mutex::default(),
            missing: AtomicUsize::new(0),
            watched: Mutex::default(),
            most_resident: Mutex::default(),
        })
    }

    fn reads(&self) -> Vec<std::ops::Range<u64>> {
        self.reads.lock().unwrap().clone()
    }

    fn under_way(&self) -> usize {
        self.under_way.load(SeqCst)
    }

    async fn answer(&self, range: std::ops::Range<u64>) -> Result<Vec<Bytes>, AwsError> {
        self.reads.lock().unwrap().push(range.clone());
        let most = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most_under_way.fetch_max(most, SeqCst);
        let _under_way = UnderWay(self);
        if let Some(blocks) = &*self.watched.lock().unwrap() {
            let mut most = self.most_resident.lock().unwrap();
            *most = (*most).max(blocks.resident_bytes());
        }
        self.permits.acquire().await.unwrap().forget();
        tokio::time::sleep(Duration::from_millis(2)).await;
        if let Some((from, aws_code)) = *self.failing.lock().unwrap()
            && range.end > from
        {
            return Err(AwsError::Call {
                operation: "GetObject",
                aws_code: aws_code.into(),
                retryable: true,
            });
        }
        let mut bytes = content(range.start, range.end);
        bytes.truncate(bytes.len() - self.missing.load(SeqCst));
        // Chunks of an odd size, as a network has them.
        Ok(bytes.chunks(77_777).map(Bytes::copy_from_slice).collect())
    }
}

impl ReadObject for Store {
    fn read<'a>(
        &'a self,
        object: &'a ObjectRef,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'a, Result<Vec<Bytes>, AwsError>> {
        assert!(range.start < range.end && range.end <= object.size_bytes, "{range:?}");
        self.answer(range).boxed()
    }
}

/// The period is a prime, so that no two blocks are alike.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..251).cycle().take(251 * 4_096).collect());

fn content(start: u64, end: u64) -> Vec<u8> {
    let mut content = Vec::new();
    let mut left = usize::try_from(end - start).unwrap();
    let mut from = usize::try_from(start).unwrap() % 251;
    while left > 0 {
        let part = &PATTERN[from..PATTERN.len().min(from + left)];
        content.extend_from_slice(part);
        left -= part.len();
        from = 0;
    }
    content
}

fn object(size_bytes: u64) -> ObjectRef {
    ObjectRef {
        bucket: Bucket::Output,
        key: "video".into(),
        version_id: None,
        etag: None,
        size_bytes,
    }
}

const ROOMY: Budget = Budget {
    cache_bytes: 64 * MIB,
    max_bytes: 1 << 40,
};

fn serve_object(store: &Arc<Store>, budget: Budget, size_bytes: u64) -> (RangeServer, String) {
    let server = RangeServer::start(Arc::clone(store) as _, budget).unwrap();
    *store.watched.lock().unwrap() = Some(Arc::clone(&server.shared.blocks));
    let url = server.add("source", Blob::object(object(size_bytes)));
    (server, url)
}

/// A connection of a client.
struct Client {
    stream: TcpStream,
    path: String,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the body has the length that the head says.
    whole: bool,
}

impl Client {
    async fn new(url: &str) -> Self {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // Else the kernel reads on for a client that does not, how far is a setting of the machine.
        socket.set_recv_buffer_size(128 << 10).unwrap();
        Self {
            stream: socket.connect(address.parse().unwrap()).await.unwrap(),
            path: format!("/{path}"),
        }
    }

    async fn send(&mut self, method: &str, fields: &str) {
        let request = format!("{method} {} HTTP/1.1\r\nHost: x\r\n{fields}\r\n", self.path);
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// The head of the answer; `None` when the connection closes without one.
    async fn head(&mut self) -> Option<(u16, String)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        Some((head[9..12].parse().unwrap(), head))
    }

    async fn request(&mut self, method: &str, fields: &str) -> Option<Answer> {
        self.send(method, fields).await;
        let (status, head) = self.head().await?;
        let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
        let mut body = Vec::new();
        if method != "HEAD" {
            let mut limited = (&mut self.stream).take(length as u64);
            // A connection that is reset is one that breaks off.
            let _ = limited.read_to_end(&mut body).await;
        }
        let whole = method == "HEAD" || body.len() == length;
        Some(Answer {
            status,
            head,
            body,
            whole,
        })
    }

    /// Whether an answer ends before its time, or never begins.
    async fn breaks_off(&mut self, range: &str) -> bool {
        let answer = self.request("GET", &format!("Range: bytes={range}\r\n")).await;
        answer.is_none_or(|answer| !answer.whole)
    }

    async fn range(&mut self, range: &str) -> Answer {
        self.request("GET", &format!("Range: bytes={range}\r\n")).await.unwrap()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    value.map(str::trim)
}

async fn get(url: &str, range: &str) -> Answer {
    Client::new(url).await.range(range).await
}

async fn breaks_off(url: &str, range: &str) -> bool {
    Client::new(url).await.breaks_off(range).await
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Long enough for whatever would go on to go on.
async fn settle(store: &Store) {
    let mut before = usize::MAX;
    while before != store.reads().len() {
        before = store.reads().len();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
