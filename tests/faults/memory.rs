//! What the archive ever knew: an object that once knew more than it does now was overwritten.
//!
//! A thread of its own looks at every file of the archive's folder again and again, past the
//! proxy and past the program, and remembers of each object the most that it ever said: which
//! positions of a shard are taken and by which bytes, which rows a table has, which entries a
//! manifest, how long an array is. What is there is replaced in one step (both the server and the
//! folder archive rename), so a look finds one version or the other. One version that was replaced
//! between two looks is not seen; it was not there for anybody for long either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::agree::{Fault, Finding};
use crate::places::facts;

/// Least time between two looks. A look at many objects is followed by a longer one.
const PAUSE: Duration = Duration::from_millis(200);

/// What an object says: each fact with a number that must not fall.
pub(crate) type Facts = BTreeMap<String, u64>;

/// Watches a folder until it is closed.
pub(crate) struct Memory {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    seen: Mutex<Seen>,
    done: AtomicBool,
}

/// Everything that was seen of a folder.
struct Seen {
    root: PathBuf,
    objects: BTreeMap<String, Object>,
    /// By key: what it did not know any more when it was first found to know less.
    overwritten: BTreeMap<String, String>,
}

#[derive(Default)]
struct Object {
    /// Time of change, inode and size when it was read last.
    version: Option<(i64, i64, u64, u64)>,
    /// The most that each fact ever said.
    most: Facts,
}

impl Memory {
    /// Begins to watch the folder that holds the archive's objects.
    pub(crate) fn begin(root: &Path) -> Self {
        let shared =
            Arc::new(Shared { seen: Mutex::new(Seen::of(root)), done: AtomicBool::new(false) });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || watch(&shared)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Looks now, and says what was ever overwritten, by key.
    pub(crate) fn overwritten(&self) -> BTreeMap<String, String> {
        let mut seen = self.shared.seen();
        seen.look();
        seen.overwritten.clone()
    }

    /// Looks for the last time. One finding for each object that ever knew more.
    pub(crate) fn close(self) -> Vec<Finding> {
        let overwritten = self.overwritten();
        let findings = overwritten.into_iter().map(|(key, what)| Finding {
            fault: Fault::Overwritten,
            what: format!("{key}: {what}"),
        });
        findings.collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::SeqCst);
        // It panics only where the folder cannot be read, and has said so then.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's pace is real time")]
fn watch(shared: &Shared) {
    while !shared.done.load(Ordering::SeqCst) {
        let began = Instant::now();
        shared.seen().look();
        thread::sleep(PAUSE.max(began.elapsed() * 5));
    }
}

impl Seen {
    fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), objects: BTreeMap::new(), overwritten: BTreeMap::new() }
    }

    /// Reads what has changed since the last time.
    fn look(&mut self) {
        let keys = keys(&self.root);
        for key in &keys {
            self.read(key);
        }
        let gone: Vec<String> =
            self.objects.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        // A listing beside a rename may have passed one by: asked for by its name, it is there.
        for key in gone.into_iter().filter(|key| !self.root.join(key).exists()) {
            self.overwritten.entry(key).or_insert_with(|| "it is gone".to_owned());
        }
    }

    fn read(&mut self, key: &str) {
        let path = self.root.join(key);
        let Ok(metadata) = fs::metadata(&path) else { return };
        let version = (metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len());
        let object = self.objects.entry(key.to_owned()).or_default();
        if object.version == Some(version) {
            return;
        }
        let Ok(bytes) = fs::read(&path) else { return };
        object.version = Some(version);
        let now = facts::of(key, bytes.into()).unwrap_or_else(|error| {
            // Not readable: it says nothing any more.
            eprintln!("{key} cannot be read: {error:#}");
            Facts::new()
        });
        if let Some(what) = forgotten(&object.most, &now) {
            eprintln!("overwritten: {key}: {what}");
            self.overwritten.entry(key.to_owned()).or_insert(what);
        }
        for (fact, number) in now {
            let most = object.most.entry(fact).or_default();
            *most = number.max(*most);
        }
    }
}

/// What `most` knew and `now` does not.
fn forgotten(most: &Facts, now: &Facts) -> Option<String> {
    let mut less = most.iter().filter(|(fact, number)| now.get(*fact) < Some(*number)).peekable();
    let (fact, number) = less.peek().copied()?;
    let now = now.get(fact).map_or("is gone".to_owned(), |now| format!("is {now} now"));
    Some(format!("{fact}, which was {number}, {now}; with it {} facts less", less.count()))
}

/// Names of all objects below `root`: `.reticle/` and unfinished files are none.
fn keys(root: &Path) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that is not there yet has nothing in it.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name == ".reticle" || name.ends_with(".tmp") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(key) = path.strip_prefix(root) {
                keys.insert(key.to_string_lossy().into_owned());
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::write;
    use crate::places::facts::testing::shard;

    const MANIFEST: &str = "sessions/1/manifest.json";
    const ARRAY: &str = "sessions/1/series-0.ome.zarr/0/zarr.json";
    const SHARD: &str = "sessions/1/series-0.ome.zarr/0/c/0/0/0";

    struct Folder {
        temp: tempfile::TempDir,
        seen: Seen,
    }

    impl Folder {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let seen = Seen::of(temp.path());
            let mut folder = Self { temp, seen };
            folder.manifest(&[("a", 64), ("b", 3)]);
            folder.array(67);
            folder.shard(&[Some(b"one"), None, Some(b"three")]);
            folder.look(&[]);
            folder
        }

        fn put(&mut self, key: &str, bytes: &[u8]) {
            let path = self.temp.path().join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Another file in its place, as the server does.
            let new = path.with_extension("tmp");
            fs::File::create(&new).unwrap();
            std::io::Write::write_all(&mut fs::File::create(&new).unwrap(), bytes).unwrap();
            fs::rename(&new, &path).unwrap();
        }

        fn manifest(&mut self, entries: &[(&str, u64)]) {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, rows)| serde_json::json!({ "key": key, "rows": rows }))
                .collect();
            let manifest = serde_json::json!({
                "session": { "frames": 67, "segmentations": 60 },
                "series": [{ "number": 0, "shape": [67, 8, 8] }],
                "objects": entries,
            });
            self.put(MANIFEST, manifest.to_string().as_bytes());
        }

        fn array(&mut self, frames: u64) {
            let text = serde_json::json!({ "node_type": "array", "shape": [frames, 8, 8] });
            self.put(ARRAY, text.to_string().as_bytes());
        }

        fn shard(&mut self, chunks: &[Option<&[u8]>]) {
            self.put(SHARD, &shard(chunks));
        }

        #[track_caller]
        fn look(&mut self, overwritten: &[&str]) {
            self.seen.look();
            let found: Vec<&str> = self.seen.overwritten.keys().map(String::as_str).collect();
            assert_eq!(found, overwritten, "{:?}", self.seen.overwritten);
        }
    }

    #[test]
    fn what_grows_is_not_overwritten() {
        let mut folder = Folder::new();
        folder.shard(&[Some(b"one"), Some(b"two"), Some(b"three")]);
        folder.manifest(&[("a", 64), ("b", 4), ("c", 1)]);
        folder.array(68);
        write(&folder.temp.path().join("sessions/1/another.json"), "{}");
        folder.look(&[]);
    }

    #[test]
    fn a_shard_that_has_fewer_frames_or_another_in_a_place_is_found() {
        let mut folder = Folder::new();
        folder.shard(&[Some(b"one"), None, None]);
        folder.look(&[SHARD]);
        assert!(
            folder.seen.overwritten[SHARD].contains("position 2"),
            "{:?}",
            folder.seen.overwritten
        );
        let mut folder = Folder::new();
        folder.shard(&[Some(b"one"), Some(b"two"), Some(b"other")]);
        folder.look(&[SHARD]);
        // It stays found when it is put right: for a while nobody could have read it.
        folder.shard(&[Some(b"one"), Some(b"two"), Some(b"three")]);
        folder.look(&[SHARD]);
    }

    #[test]
    fn a_manifest_or_an_array_that_forgot_a_part_is_found() {
        let mut folder = Folder::new();
        folder.manifest(&[("a", 64)]);
        folder.look(&[MANIFEST]);
        let mut folder = Folder::new();
        folder.manifest(&[("a", 63), ("b", 3)]);
        folder.look(&[MANIFEST]);
        let mut folder = Folder::new();
        folder.array(66);
        folder.look(&[ARRAY]);
    }

    #[test]
    fn what_is_gone_or_cannot_be_read_is_found() {
        let mut folder = Folder::new();
        fs::remove_file(folder.temp.path().join(SHARD)).unwrap();
        folder.put(MANIFEST, b"{");
        folder.look(&[MANIFEST, SHARD]);
    }

    #[test]
    fn a_document_of_the_stores_may_say_what_it_likes() {
        let mut folder = Folder::new();
        folder.put(".reticle/stores/1.json", b"{\"high_water\": 5}");
        folder.look(&[]);
        folder.put(".reticle/stores/1.json", b"{}");
        folder.look(&[]);
    }
}
