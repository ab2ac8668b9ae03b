//! What is answered, and what ends the answers.

use super::{super::blocks::BLOCK_BYTES, *};

#[tokio::test]
async fn every_piece_is_served_up_to_its_borders() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content(0, 300_000)).unwrap();
    let source = Arc::new(object(3 * MIB + 5));
    let object = |offset, bytes| Piece::Object {
        source: Arc::clone(&source),
        offset,
        bytes,
    };
    let pieces = vec![
        Piece::Bytes(Bytes::from_static(b"moov")),
        object(MIB - 3, 7),
        Piece::Bytes(Bytes::new()),
        Piece::File {
            path: file.path().into(),
            offset: 100,
            bytes: 200_000,
        },
        object(0, 3 * MIB + 5),
        object(5, 0),
        object(2 * MIB + 1, 2),
    ];
    let whole = [
        b"moov".to_vec(),
        content(MIB - 3, MIB + 4),
        content(100, 200_100),
        content(0, 3 * MIB + 5),
        content(2 * MIB + 1, 2 * MIB + 3),
    ]
    .concat();
    let server = RangeServer::start(Store::new(), ROOMY).unwrap();
    let url = server.add("joined.mp4", Blob::new(pieces));
    let mut client = Client::new(&url).await;

    let answer = client.request("GET", "").await.unwrap();
    assert_eq!((answer.status, answer.body == whole), (200, true));
    assert_eq!(field(&answer.head, "accept-ranges"), Some("bytes"));

    // One connection for all of them: it is kept.
    let ends = [4, 11, 200_011, 200_011 + whole.len() - 200_013];
    for end in ends {
        for (first, last) in [
            (end - 1, end - 1),
            (end, end),
            (end - 2, end + 1),
            (0, end),
            (end, whole.len() - 1),
        ] {
            let answer = client.range(&format!("{first}-{last}")).await;
            let last = last.min(whole.len() - 1);
            let said = format!("bytes {first}-{last}/{}", whole.len());
            assert_eq!(answer.status, 206, "{first}-{last}");
            assert_eq!(field(&answer.head, "content-range"), Some(said.as_str()));
            assert!(answer.body == whole[first..=last], "{first}-{last}");
        }
    }
    server.check().unwrap();
}

#[tokio::test]
async fn hundreds_of_pieces_are_one_object() {
    let source = Arc::new(object(4 * MIB));
    let piece = |number: u64| Piece::Object {
        source: Arc::clone(&source),
        offset: number * 5_000,
        bytes: 3_000,
    };
    let store = Store::new();
    let server = RangeServer::start(Arc::clone(&store) as _, ROOMY).unwrap();
    let url = server.add("pieces", Blob::new((0..700).map(piece).collect()));
    let expected: Vec<u8> = (0..700)
        .flat_map(|number| content(number * 5_000, number * 5_000 + 3_000))
        .collect();
    assert!(get(&url, "0-").await.body == expected);
    assert!(get(&url, "1000000-").await.body == expected[1_000_000..]);
    // Every block up to the last piece's end.
    let blocks = (699_u64 * 5_000 + 3_000).div_ceil(BLOCK_BYTES);
    assert_eq!(server.bytes_read(), blocks * BLOCK_BYTES);
}

#[tokio::test]
async fn the_protocol_is_the_little_that_reading_takes() {
    let (server, url) = serve_object(&Store::new(), ROOMY, 10);
    let mut client = Client::new(&url).await;

    let head = client.request("HEAD", "").await.unwrap();
    assert_eq!((head.status, field(&head.head, "content-length")), (200, Some("10")));
    let head = client.request("HEAD", "Range: bytes=2-4\r\n").await.unwrap();
    assert_eq!((head.status, field(&head.head, "content-length")), (206, Some("3")));
    assert_eq!(server.requests(), 0);

    assert_eq!(client.range("-3").await.body, content(7, 10));
    let beyond = client.range("10-").await;
    assert_eq!(beyond.status, 416);
    assert_eq!(field(&beyond.head, "content-range"), Some("bytes */10"));
    assert_eq!(client.range("1-2,4-5").await.status, 400);
    let post = client.request("POST", "Content-Length: 0\r\n").await.unwrap();
    assert_eq!((post.status, field(&post.head, "allow")), (405, Some("get, head")));

    let path = std::mem::replace(&mut client.path, "/source".into());
    assert_eq!(client.request("GET", "").await.unwrap().status, 404);
    client.path = format!("{path}/../source");
    assert_eq!(client.request("GET", "").await.unwrap().status, 404);
    assert_eq!(path.len(), "/".len() + 32 + "/source".len());

    let mut client = Client::new(&url).await;
    client
        .send("GET", &format!("X-Long: {}\r\n", "x".repeat(MAX_HEAD_BYTES)))
        .await;
    assert_eq!(client.head().await.unwrap().0, 431);
    server.check().unwrap();
}

#[tokio::test]
async fn a_name_is_safe_in_a_url_and_taken_over_by_the_next() {
    let server = RangeServer::start(Store::new(), ROOMY).unwrap();
    let first = server.add("a b/ü?.mp4", Blob::new(vec![Piece::Bytes("1".into())]));
    assert!(
        first.ends_with("/a_b____.mp4") || first.ends_with("/a_b___.mp4"),
        "{first}"
    );
    let second = server.add("a b/ü?.mp4", Blob::new(vec![Piece::Bytes("2".into())]));
    assert_eq!(first, second);
    assert_eq!(get(&second, "0-").await.body, b"2");
    let empty = server.add("empty", Blob::new(Vec::new()));
    let answer = Client::new(&empty).await.request("GET", "").await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn the_budget_ends_everything() {
    let budget = Budget {
        max_bytes: 3 * MIB,
        ..ROOMY
    };
    let (server, url) = serve_object(&Store::new(), budget, 10 * MIB);
    let answer = get(&url, "0-").await;
    assert!(!answer.whole && answer.body.len() as u64 <= 3 * MIB);
    assert!(server.exhausted() && server.bytes_read() <= 3 * MIB);
    assert!(matches!(server.check(), Err(ReadError::Exhausted)));
    // The next request gets no answer at all.
    assert!(Client::new(&url).await.request("GET", "").await.is_none());

    // Nor is there a way around through what is cached.
    let (server, url) = serve_object(&Store::new(), budget, MIB);
    let mut client = Client::new(&url).await;
    for _ in 0..3 {
        assert!(client.range("0-").await.whole);
    }
    assert!(server.check().is_ok());
    assert!(client.breaks_off("0-").await);
    assert!(server.exhausted());
    assert_eq!(server.bytes_read(), MIB);
}

#[tokio::test]
async fn a_read_that_is_not_to_be_had_is_a_fault() {
    let store = Store::new();
    *store.failing.lock().unwrap() = Some((2 * MIB, "SlowDown"));
    let (server, url) = serve_object(&store, ROOMY, 10 * MIB);
    assert!(get(&url, "0-1999999").await.whole);
    server.check().unwrap();
    let answer = get(&url, "0-").await;
    // A read ahead over the border fails as a whole.
    assert!(!answer.whole && content(0, 2 * MIB).starts_with(&answer.body));
    let fault = server.fault().unwrap();
    assert!(fault.is_retryable());
    assert_eq!(fault.to_string(), "GetObject failed with SlowDown");
    // It stays the first, and a fault outranks the budget.
    *store.failing.lock().unwrap() = Some((0, "InternalError"));
    assert!(breaks_off(&url, "5000000-").await);
    assert_eq!(server.fault().unwrap().to_string(), fault.to_string());
    let error = server.check().unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("service_unavailable", true));
}

#[tokio::test]
async fn what_failed_ahead_is_tried_again_when_it_is_wanted() {
    let store = Store::new();
    let (server, url) = serve_object(&store, ROOMY, 12 * MIB);
    let mut client = Client::new(&url).await;
    client.send("GET", "").await;
    *store.failing.lock().unwrap() = Some((MIB, "SlowDown"));
    let mut body = vec![0; 600_000];
    client.head().await.unwrap();
    client.stream.read_exact(&mut body).await.unwrap();
    *store.failing.lock().unwrap() = None;
    let mut rest = vec![0; usize::try_from(12 * MIB).unwrap() - body.len()];
    client.stream.read_exact(&mut rest).await.unwrap();
    server.check().unwrap();
}

#[tokio::test]
async fn a_body_too_short_and_files_that_are_gone_are_faults() {
    let store = Store::new();
    store.missing.store(1, SeqCst);
    let (server, url) = serve_object(&store, ROOMY, 3 * MIB);
    assert!(breaks_off(&url, "5-").await);
    assert_eq!(
        server.fault().unwrap().to_string(),
        "GetObject failed with BodyTooShort"
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content(0, 10)).unwrap();
    for (path, said) in [
        (file.path(), "LocalUnexpectedEof"),
        ("/nonexistent".as_ref(), "LocalNotFound"),
    ] {
        let server = RangeServer::start(Store::new(), ROOMY).unwrap();
        let piece = Piece::File {
            path: path.into(),
            offset: 0,
            bytes: 11,
        };
        let url = server.add("file", Blob::new(vec![piece]));
        assert!(breaks_off(&url, "0-").await);
        assert!(server.fault().unwrap().to_string().ends_with(said));
    }

    for (offset, bytes) in [(MIB + 3, 1), (MIB - 1, 100), (0, 3 * MIB)] {
        let server = RangeServer::start(Store::new(), ROOMY).unwrap();
        let piece = Piece::Object {
            source: Arc::new(object(MIB + 3)),
            offset,
            bytes,
        };
        let url = server.add("beyond", Blob::new(vec![piece]));
        assert!(breaks_off(&url, "0-").await, "{offset}");
        assert!(!server.fault().unwrap().is_retryable());
    }
}

#[tokio::test]
async fn a_read_that_takes_for_ever_is_a_fault() {
    let store = Store::with_permits(0);
    let server = RangeServer::start_with(Arc::clone(&store) as _, ROOMY, Duration::from_millis(50)).unwrap();
    let url = server.add("source", Blob::object(object(MIB)));
    assert!(breaks_off(&url, "0-").await);
    assert!(server.fault().unwrap().is_retryable());
    assert_eq!(store.under_way(), 0);
}

#[tokio::test]
async fn dropping_the_server_ends_connections_and_reads() {
    let store = Store::with_permits(0);
    let (server, url) = serve_object(&store, ROOMY, 64 * MIB);
    let mut client = Client::new(&url).await;
    client.send("GET", "").await;
    client.head().await.unwrap();
    until("the read begins", || store.under_way() == 1).await;
    let blocks = Arc::downgrade(&server.shared.blocks);
    *store.watched.lock().unwrap() = None;
    drop(server);
    assert!(client.stream.read_u8().await.is_err());
    until("the read ends", || store.under_way() == 0).await;
    until("memory is given back", || blocks.strong_count() == 0).await;
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn connections_are_bounded() {
    let (_server, url) = serve_object(&Store::new(), ROOMY, MIB);
    let mut clients = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut client = Client::new(&url).await;
        assert!(client.range("0-9").await.whole);
        clients.push(client);
    }
    let mut one_more = Client::new(&url).await;
    let waiting = tokio::time::timeout(Duration::from_millis(100), one_more.range("0-9"));
    assert!(waiting.await.is_err());
    drop(clients);
    let (status, _) = one_more.head().await.unwrap();
    assert_eq!(status, 206);
}
