//! What is read for the answers: once, ahead, no more than there is memory for, and not for nobody.

use super::{
    super::{
        blocks::BLOCK_BYTES,
        reading::{MAX_RUN_BLOCKS, READ_AHEAD_AFTER_BYTES},
    },
    *,
};

#[tokio::test]
async fn two_who_want_the_same_block_cause_one_read() {
    let store = Store::with_permits(0);
    let (server, url) = serve_object(&store, ROOMY, BLOCK_BYTES);
    let both = tokio::spawn({
        let url = url.clone();
        async move { tokio::join!(get(&url, "0-9999"), get(&url, "9000-19999")) }
    });
    until("the read begins", || store.under_way() == 1).await;
    settle(&store).await;
    store.permits.add_permits(10);
    let (one, other) = both.await.unwrap();
    assert!(one.body == content(0, 10_000) && other.body == content(9_000, 20_000));
    // Nor does whoever comes later.
    assert!(get(&url, "-7").await.whole);
    assert_eq!(store.reads().len(), 1);
    assert_eq!((server.requests(), server.bytes_read()), (1, BLOCK_BYTES));
}

#[tokio::test]
async fn whoever_leaves_does_not_take_the_read_along() {
    let store = Store::with_permits(0);
    let (_server, url) = serve_object(&store, ROOMY, BLOCK_BYTES);
    let mut leaves = Client::new(&url).await;
    leaves.send("GET", "").await;
    until("the read begins", || store.under_way() == 1).await;
    let stays = tokio::spawn({
        let url = url.clone();
        async move { get(&url, "0-").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(leaves);
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.permits.add_permits(10);
    assert!(stays.await.unwrap().whole);
    assert_eq!(store.reads().len(), 1);
}

#[tokio::test]
async fn a_client_that_reads_on_is_read_ahead_of() {
    let store = Store::new();
    let (server, url) = serve_object(&store, ROOMY, 64 * MIB);
    assert!(get(&url, "0-").await.body == content(0, 64 * MIB));
    let reads = store.reads();
    // 1,024 blocks.
    assert!(reads.len() <= 128, "{}", reads.len());
    assert_eq!(reads[0], 0..BLOCK_BYTES);
    let largest_bytes = reads.iter().map(|read| read.end - read.start).max();
    assert_eq!(largest_bytes, Some(MAX_RUN_BLOCKS * BLOCK_BYTES));
    assert_eq!(server.bytes_read(), 64 * MIB);
    assert!(store.most_under_way.load(SeqCst) >= 2);
    // All of it fits: nothing is read twice.
    assert!(get(&url, "0-").await.whole);
    assert_eq!(store.reads().len(), reads.len());
}

#[tokio::test]
async fn a_client_that_seeks_costs_a_block_each_time() {
    let store = Store::new();
    let (server, url) = serve_object(&store, ROOMY, 64 * MIB);
    let mut blocks = 0;
    for at in [0, 63 * MIB + 5, 31 * MIB - 4, 9 * MIB] {
        let mut client = Client::new(&url).await;
        client.send("GET", &format!("Range: bytes={at}-\r\n")).await;
        let mut start = [0; 8];
        client.head().await.unwrap();
        client.stream.read_exact(&mut start).await.unwrap();
        assert_eq!(start[..], content(at, at + 8));
        // What it wanted may be on both sides of a border.
        blocks += (at + 7) / BLOCK_BYTES - at / BLOCK_BYTES + 1;
    }
    settle(&store).await;
    // On a busy machine each of them may be found to have left too late for one more.
    let most = blocks + 4;
    assert!(
        (blocks..=most).contains(&server.requests()),
        "{blocks}: {:?}",
        store.reads()
    );
}

#[tokio::test]
async fn a_range_is_not_read_beyond() {
    let store = Store::new();
    let (server, url) = serve_object(&store, ROOMY, 64 * MIB);
    assert!(get(&url, &format!("0-{}", 9 * MIB - 1)).await.whole);
    settle(&store).await;
    assert_eq!(server.bytes_read(), 9 * MIB);
}

#[tokio::test]
async fn who_does_not_read_is_not_read_for() {
    let store = Store::new();
    let (server, url) = serve_object(&store, ROOMY, 512 * MIB);
    let mut client = Client::new(&url).await;
    client.send("GET", "").await;
    let mut some = vec![0; usize::try_from(8 * MIB).unwrap()];
    client.head().await.unwrap();
    client.stream.read_exact(&mut some).await.unwrap();
    settle(&store).await;
    // Up to three quarters ahead, of what the socket holds as well.
    let read = server.bytes_read();
    assert!(read <= 20 * MIB, "{read}");
    // And goes on where it stopped.
    client.stream.read_exact(&mut some).await.unwrap();
    assert!(some == content(8 * MIB, 16 * MIB));
}

#[tokio::test]
async fn memory_is_bounded_whatever_is_read() {
    let store = Store::new();
    let budget = Budget {
        cache_bytes: 6 * MIB,
        ..ROOMY
    };
    let (server, url) = serve_object(&store, budget, 40 * MIB);
    let answers = futures_util::future::join_all((0..4_u64).map(|n| {
        let url = url.clone();
        async move { (n, get(&url, &format!("{}-", n * 9_999_999)).await) }
    }));
    for (n, answer) in answers.await {
        assert!(answer.body == content(n * 9_999_999, 40 * MIB), "{n}");
    }
    let most = *store.most_resident.lock().unwrap();
    assert!(most <= 6 * MIB + 2 * 4 * BLOCK_BYTES, "{most}");
    let kept = server.shared.blocks.resident_bytes();
    assert!(kept <= 6 * MIB, "{kept}");
}

#[tokio::test]
async fn reads_stop_when_the_client_has_gone() {
    // As many reads of a block each as it takes until others are begun ahead.
    let blocks = READ_AHEAD_AFTER_BYTES / BLOCK_BYTES;
    let store = Store::with_permits(usize::try_from(blocks).unwrap());
    let (server, url) = serve_object(&store, ROOMY, 64 * MIB);
    let mut client = Client::new(&url).await;
    client.send("GET", "").await;
    let mut some = vec![0; usize::try_from(READ_AHEAD_AFTER_BYTES).unwrap()];
    client.head().await.unwrap();
    client.stream.read_exact(&mut some).await.unwrap();
    until("reads are under way", || store.under_way() > 0).await;
    drop(client);
    until("they stop", || store.under_way() == 0).await;
    // What was read is kept; of what was under way nothing is.
    until("memory is given back", || {
        server.shared.blocks.resident_bytes() == READ_AHEAD_AFTER_BYTES
    })
    .await;
    // Their blocks can be read anew.
    store.permits.add_permits(100);
    assert!(get(&url, &format!("{READ_AHEAD_AFTER_BYTES}-5000000")).await.whole);
    server.check().unwrap();
}
