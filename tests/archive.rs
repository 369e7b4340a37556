//! The archive against a real S3 server: what is receipted is there, whole and once, whatever
//! happens to the server and on the way to it.

use reticle_base::remedy::Remedy;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reticle_base::clock::Clock;
use reticle_base::durable;
use reticle_object_storage::{
    Found, Keys, Listed, Location, ObjectReceipt, ObjectStorage, Patience, S3Archive, StorageError,
    Throttle, UploadState,
};
use sha2::{Digest, Sha256};

use common::fault_proxy::{Fault, FaultProxy};
use common::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

mod common;

const MIB: usize = 1 << 20;

/// Bytes in a part of an upload.
const PART: u64 = 8 << 20;

/// Opens `s3://<to>` at an endpoint.
struct Opening {
    to: String,
    keys: Keys,
    max_upload_mbit: u32,
    patience: Patience,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            to: format!("s3://{BUCKET}/box-1"),
            keys: Keys { id: ACCESS_KEY.to_owned(), secret: SECRET_KEY.to_owned() },
            max_upload_mbit: 0,
            patience: Patience::default(),
        }
    }
}

impl Opening {
    async fn at(self, endpoint: String) -> ObjectStorage {
        let options = Location {
            to: self.to,
            endpoint: Some(endpoint),
            region: Some("eu-central-1".to_owned()),
            ..Location::default()
        };
        let clock = Clock::system();
        let throttle = Throttle::new(self.max_upload_mbit, clock.clone());
        let archive = S3Archive::open(&options, Some(self.keys), throttle, clock).await;
        ObjectStorage::S3(archive.expect("the options are sound").with_patience(self.patience))
    }
}

async fn archive(endpoint: String) -> ObjectStorage {
    Opening::default().at(endpoint).await
}

/// A file of `bytes` bytes that do not repeat, and its SHA-256.
fn file(folder: &Path, name: &str, bytes: usize) -> (PathBuf, [u8; 32]) {
    let mut contents = Vec::with_capacity(bytes);
    let mut block: [u8; 32] = Sha256::digest(name).into();
    while contents.len() < bytes {
        block = Sha256::digest(block).into();
        contents.extend_from_slice(&block[..block.len().min(bytes - contents.len())]);
    }
    let path = folder.join(name);
    durable::write(&path, &contents).expect("the temporary folder can be written");
    (path, Sha256::digest(&contents).into())
}

/// Puts a file and returns the last state that it was told of.
async fn put(
    archive: &ObjectStorage,
    key: &str,
    (path, sha256): &(PathBuf, [u8; 32]),
    resume: Option<UploadState>,
    mut on_state: impl FnMut(Option<&UploadState>) + Send,
) -> (Result<ObjectReceipt, StorageError>, Option<UploadState>) {
    let mut last = resume.clone();
    let mut remember = |state: Option<&UploadState>| {
        last = state.cloned();
        on_state(state);
    };
    let put = archive.put_file(key, path, *sha256, resume, &mut remember).await;
    (put, last)
}

async fn keys(archive: &ObjectStorage, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let listed = archive.list(prefix, &mut |Listed { key, .. }| keys.push(key)).await;
    listed.expect("the archive can be listed");
    keys.sort();
    keys
}

/// Parts of uploads that were neither completed nor abandoned. `s3s-fs` keeps them beside the
/// buckets.
fn parts_left(server: &S3Server) -> usize {
    let entries = std::fs::read_dir(server.folder()).expect("the server's folder can be listed");
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().contains(".part-")).count()
}

#[tokio::test]
async fn objects_of_all_sizes_arrive_whole_and_are_receipted() {
    let server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    assert_eq!(archive.name(), "s3://lab/box-1");

    let small = archive.put_bytes("s/manifest.json", b"{}".to_vec()).await.unwrap();
    assert_eq!(std::fs::read(server.bucket().join("box-1/s/manifest.json")).unwrap(), b"{}");
    assert_eq!((small.bytes, small.key.as_str()), (2, "s/manifest.json"));
    assert_eq!(small.sha256, <[u8; 32]>::from(Sha256::digest(b"{}")));
    assert!(small.checksum.starts_with("sha256:") && !small.checksum.contains("read back"));
    assert!(!small.etag.is_empty() && !small.etag.contains('"'), "{}", small.etag);

    let empty = archive.put_bytes("s/empty", Vec::new()).await.unwrap();
    assert_eq!(empty.bytes, 0);

    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("one.part", 3 * MIB + 1), ("parts", 20 * MIB + 3)] {
        let sent = file(folder.path(), name, bytes);
        let (receipt, state) = put(&archive, name, &sent, None, |_| {}).await;
        let receipt = receipt.unwrap();
        assert_eq!(receipt.sha256, sent.1);
        assert_eq!(state, None, "nothing is left to resume");
        let found = archive.read_back(name).await.unwrap().unwrap();
        assert_eq!(found, Found { bytes: bytes as u64, sha256: sent.1 });
        let arrived = std::fs::read(server.bucket().join("box-1").join(name)).unwrap();
        assert_eq!(Sha256::digest(arrived)[..], sent.1);
        // s3s-fs gives no checksum of what came in parts: it was read back.
        assert_eq!(receipt.checksum.contains("read back"), name == "parts");
    }
    assert_eq!(keys(&archive, "").await, ["one.part", "parts", "s/empty", "s/manifest.json"]);
    assert_eq!(keys(&archive, "s/").await, ["s/empty", "s/manifest.json"]);
    assert_eq!(archive.read_back("s/none").await.unwrap(), None);
    assert_eq!(parts_left(&server), 0);
}

#[tokio::test]
async fn a_replayed_put_leaves_one_object_and_gives_the_same_receipt() {
    let server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    let folder = tempfile::tempdir().unwrap();
    let sent = file(folder.path(), "parts", 17 * MIB);
    let small = archive.put_bytes("small", vec![7; 100]).await.unwrap();
    let (large, _) = put(&archive, "large", &sent, None, |_| {}).await;
    let large = large.unwrap();
    for _ in 0..2 {
        assert_eq!(archive.put_bytes("small", vec![7; 100]).await.unwrap(), small);
        let (again, _) = put(&archive, "large", &sent, None, |_| {}).await;
        assert_eq!(again.unwrap(), large);
    }
    assert_eq!(keys(&archive, "").await, ["large", "small"]);
}

#[tokio::test]
async fn a_listing_goes_over_pages() {
    let server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    // A page has 1,000 keys. What the server lists are files, so that files will do.
    let folder = server.bucket().join("box-1/many");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..1_003 {
        std::fs::File::create(folder.join(format!("{number:04}"))).unwrap();
    }
    let keys = keys(&archive, "many/").await;
    assert_eq!(keys.len(), 1_003);
    assert_eq!(keys.last().map(String::as_str), Some("many/1002"));
}

#[tokio::test]
async fn after_a_kill_in_the_middle_only_the_rest_is_sent() {
    let mut server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let archive = archive(proxy.endpoint()).await;
    let folder = tempfile::tempdir().unwrap();
    let bytes = 36 * MIB + 11;
    let sent = file(folder.path(), "parts", bytes);
    let (cut, state) = put(&archive, "k", &sent, None, |state| {
        if state.is_some_and(|state| state.parts.len() == 2) {
            server.kill();
        }
    })
    .await;
    let error = cut.unwrap_err();
    assert_eq!(error.remedy, Remedy::Retry, "{error}");
    let state = state.expect("there is something to resume");
    assert_eq!(state.parts.len(), 2);
    // As it is kept from one run of the program to the next.
    let kept = serde_json::to_string(&state).unwrap();
    let state: UploadState = serde_json::from_str(&kept).unwrap();

    server.restart();
    let before = proxy.body_bytes();
    let (receipt, state) = put(&archive, "k", &sent, Some(state), |_| {}).await;
    assert_eq!(receipt.unwrap().sha256, sent.1);
    assert_eq!(state, None);
    // And the list of parts that completes the upload, which is small.
    let rest = bytes as u64 - 2 * PART;
    let sent_now = proxy.body_bytes() - before;
    assert!((rest..rest + 10_000).contains(&sent_now), "{sent_now} instead of {rest}");
    assert_eq!(parts_left(&server), 0);
}

#[tokio::test]
async fn an_upload_that_the_server_does_not_know_is_started_over() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let archive = archive(proxy.endpoint()).await;
    let folder = tempfile::tempdir().unwrap();
    let sent = file(folder.path(), "parts", 17 * MIB);
    proxy.set("partNumber=2", Fault::Status { code: 500, retry_after: None });
    let (cut, state) = put(&archive, "k", &sent, None, |_| {}).await;
    assert_eq!(cut.unwrap_err().remedy, Remedy::Retry);
    proxy.clear();

    let mut unknown = state.expect("there is something to resume");
    assert_eq!(unknown.parts.len(), 1);
    unknown.upload_id = "00000000-0000-4000-8000-000000000000".to_owned();
    let mut ids = Vec::new();
    let (receipt, _) = put(&archive, "k", &sent, Some(unknown.clone()), |state| {
        ids.extend(state.map(|state| state.upload_id.clone()));
    })
    .await;
    assert_eq!(receipt.unwrap().sha256, sent.1);
    assert!(!ids.is_empty() && !ids.contains(&unknown.upload_id), "{ids:?}");
}

#[tokio::test]
async fn an_upload_of_other_contents_is_abandoned() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let archive = archive(proxy.endpoint()).await;
    let folder = tempfile::tempdir().unwrap();
    let old = file(folder.path(), "old", 17 * MIB);
    proxy.set("partNumber=2", Fault::Status { code: 500, retry_after: None });
    let (cut, state) = put(&archive, "k", &old, None, |_| {}).await;
    assert_eq!(cut.unwrap_err().remedy, Remedy::Retry);
    assert_eq!(parts_left(&server), 1);
    proxy.clear();

    let new = file(folder.path(), "new", 18 * MIB);
    let (receipt, _) = put(&archive, "k", &new, state, |_| {}).await;
    assert_eq!(receipt.unwrap().sha256, new.1);
    assert_eq!(parts_left(&server), 0, "the parts of the old contents are gone");
    assert_eq!(archive.read_back("k").await.unwrap().unwrap().sha256, new.1);
}

#[tokio::test]
async fn an_upload_whose_completion_was_not_heard_of_is_not_sent_again() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let archive = archive(proxy.endpoint()).await;
    let folder = tempfile::tempdir().unwrap();
    let sent = file(folder.path(), "parts", 17 * MIB);
    let (lost, state) = put(&archive, "k", &sent, None, |state| {
        if state.is_some_and(|state| state.parts.len() == 3) {
            proxy.set("POST ", Fault::LoseAnswer);
        }
    })
    .await;
    assert_eq!(lost.unwrap_err().remedy, Remedy::Retry);
    assert_eq!(proxy.fired(Fault::LoseAnswer), 1);
    assert!(state.is_some());
    proxy.clear();

    let before = proxy.body_bytes();
    let (receipt, state) = put(&archive, "k", &sent, state, |_| {}).await;
    assert_eq!(receipt.unwrap().sha256, sent.1);
    assert_eq!(state, None);
    assert!(proxy.body_bytes() - before < 10_000, "nothing was sent again");
}

#[tokio::test]
async fn a_file_that_is_no_longer_what_it_was_is_given_up() {
    let server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = file(folder.path(), "f", 1_000);
    for sent in [(path, [7; 32]), (folder.path().join("gone"), [7; 32])] {
        let (put, _) = put(&archive, "k", &sent, None, |_| {}).await;
        let error = put.unwrap_err();
        assert_eq!(error.remedy, Remedy::GiveUp, "{error}");
    }
    assert!(keys(&archive, "").await.is_empty());
}

fn stops(error: StorageError, advice: &str, archive: &str) {
    assert_eq!(error.remedy, Remedy::Stop, "{error}");
    let text = error.to_string();
    assert!(text.contains(advice) && text.contains(archive), "{text}");
}

#[tokio::test]
async fn wrong_credentials_and_a_bucket_that_is_not_there_stop_and_say_so() {
    let server = S3Server::start();
    let keys = |id: &str, secret: &str| Keys { id: id.to_owned(), secret: secret.to_owned() };
    let wrong = [
        (Opening { keys: keys("nobody", SECRET_KEY), ..Opening::default() }, "credentials"),
        (Opening { keys: keys(ACCESS_KEY, "guess"), ..Opening::default() }, "secret key"),
    ];
    for (opening, advice) in wrong {
        let archive = opening.at(server.endpoint()).await;
        let put = archive.put_bytes("k", vec![1]).await;
        stops(put.unwrap_err(), advice, "s3://lab/box-1");
        stops(archive.check().await.unwrap_err(), advice, "s3://lab/box-1");
    }
    // Not by a put: s3s-fs makes a bucket that is put into.
    let opening = Opening { to: "s3://none/box-1".to_owned(), ..Opening::default() };
    let archive = opening.at(server.endpoint()).await;
    stops(archive.check().await.unwrap_err(), "sync.archive.to", "s3://none/box-1");
    assert!(!server.folder().join("none").exists());
    assert_eq!(std::fs::read_dir(server.bucket()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_check_writes_and_reads_and_can_be_repeated() {
    let server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    archive.check().await.unwrap();
    archive.check().await.unwrap();
    let keys = keys(&archive, ".reticle/").await;
    assert_eq!(keys.len(), 1);
    assert!(keys[0].starts_with(".reticle/probe-"), "{keys:?}");
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for() {
    let mut server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    archive.put_bytes("k", vec![1]).await.unwrap();
    server.kill();
    let error = archive.put_bytes("k", vec![1]).await.unwrap_err();
    assert_eq!(error.remedy, Remedy::Retry, "{error}");
    assert!(error.to_string().contains("s3://lab/box-1"), "{error}");
    assert_eq!(archive.read_back("k").await.unwrap_err().remedy, Remedy::Retry);
    server.restart();
    archive.put_bytes("k", vec![1]).await.unwrap();
}

/// Each fault, done to each request that a put needs.
#[tokio::test]
async fn no_fault_makes_a_receipt_or_costs_the_object() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let short = Duration::from_secs(2);
    let hasty =
        Opening { patience: Patience { progress: short, answer: short }, ..Opening::default() };
    let (hasty, calm) = (hasty.at(proxy.endpoint()).await, archive(proxy.endpoint()).await);
    let faults = [
        Fault::Status { code: 500, retry_after: None },
        Fault::Status { code: 503, retry_after: Some(7) },
        Fault::Hang,
        Fault::CloseMidBody { after: 70_000 },
        Fault::LoseAnswer,
        Fault::Refuse,
        Fault::CorruptChecksum,
    ];
    for fault in faults {
        for request in ["PUT ", "HEAD "] {
            // An answer to HEAD has no body, and one to PUT says nothing that is compared.
            let harmless = match fault {
                Fault::CloseMidBody { .. } => request == "HEAD ",
                Fault::CorruptChecksum => request == "PUT ",
                _ => false,
            };
            if harmless {
                continue;
            }
            let before = proxy.fired(fault);
            proxy.set(request, fault);
            let archive = if fault == Fault::Hang { &hasty } else { &calm };
            let put = archive.put_bytes("k", vec![3; 100_000]).await;
            let error = put.expect_err("a fault makes no receipt");
            assert_eq!(error.remedy, Remedy::Retry, "{fault:?} of {request}: {error}");
            assert_eq!(proxy.fired(fault) - before, 1, "{fault:?} of {request}");
            if let Fault::Status { retry_after, .. } = fault {
                let after = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
                assert_eq!(error.after, after);
            }
            proxy.clear();
            calm.put_bytes("k", vec![3; 100_000]).await.unwrap();
        }
    }
    assert_eq!(keys(&calm, "").await, ["k"]);
}

#[tokio::test]
async fn a_reading_that_is_cut_or_changed_is_no_finding() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let archive = archive(proxy.endpoint()).await;
    archive.put_bytes("k", vec![3; 100_000]).await.unwrap();
    for fault in [Fault::CloseMidBody { after: 70_000 }, Fault::CorruptBody] {
        proxy.set("GET ", fault);
        let error = archive.read_back("k").await.unwrap_err();
        assert_eq!(error.remedy, Remedy::Retry, "{fault:?}: {error}");
        proxy.clear();
    }
    let found = archive.read_back("k").await.unwrap().unwrap();
    assert_eq!(found.bytes, 100_000);
}

#[tokio::test]
async fn what_is_twice_read_alike_is_given_out_whatever_the_archive_says_of_it() {
    let server = S3Server::start();
    let archive = archive(server.endpoint()).await;
    archive.put_bytes("k", vec![3; 1000]).await.unwrap();
    let to = server.folder().join("copy");
    let copied = archive.fetch("k", &to).await.unwrap().unwrap();
    assert!(copied.is_vouched_for, "{copied:?}");
    // As a server does that is killed between the bytes of an object and their checksum.
    durable::write(&server.bucket().join("box-1/k"), &[4; 999]).unwrap();
    let copied = archive.fetch("k", &to).await.unwrap().unwrap();
    assert!(!copied.is_vouched_for, "{copied:?}");
    assert_eq!(std::fs::read(&to).unwrap(), vec![4; 999]);
    assert_eq!(archive.read_back("k").await.unwrap(), Some(copied.found));
    assert_eq!(archive.get_bytes("k", 1000).await.unwrap(), Some(vec![4; 999]));
    assert!(archive.get_bytes("k", 998).await.is_err());
}

#[tokio::test]
async fn a_slow_server_is_not_taken_for_a_dead_one() {
    let server = S3Server::start();
    let proxy = FaultProxy::start(server.port());
    let opening = Opening {
        patience: Patience { progress: Duration::from_secs(1), answer: Duration::from_secs(60) },
        ..Opening::default()
    };
    let archive = opening.at(proxy.endpoint()).await;
    proxy.set("PUT ", Fault::Slow { bytes_per_s: 1_000_000 });
    let clock = Clock::system();
    let start = clock.now();
    archive.put_bytes("k", vec![3; 2_000_000]).await.unwrap();
    assert!(clock.now().since(&start) > Duration::from_secs(1), "it was not slow");
}

#[tokio::test]
async fn an_upload_keeps_to_the_configured_rate() {
    let server = S3Server::start();
    let opening = Opening { max_upload_mbit: 8, ..Opening::default() };
    let archive = opening.at(server.endpoint()).await;
    let clock = Clock::system();
    let start = clock.now();
    archive.put_bytes("k", vec![3; 1_500_000]).await.unwrap();
    // A megabyte a second, less the last chunk and what may be caught up on.
    let took = clock.now().since(&start);
    assert!(took > Duration::from_millis(1_300), "{took:?}");
}
