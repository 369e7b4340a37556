//! The tools with which people bring images into a watched folder, against the real daemon: each page
//! is taken once, and none torn. Pages are told apart by the SHA-256 of their pixels, which the store
//! writes down of each frame; `folders/tools.py` brings them in and says what they are.
//!
//! `make prove-folders` runs all tools (RETICLE_FOLDER_TOOLS names the rounds, see
//! `scripts/prove-folders`); here a few of them run.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Daemon, Start, wait_at_most};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

/// A folder that is looked at for so long is listed again, and what was doubted is settled.
const LISTED_AGAIN: Duration = Duration::from_secs(15);

struct Bench {
    folder: tempfile::TempDir,
    outside: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        // Another file system than /tmp, where there is one.
        let shm = Path::new("/dev/shm");
        let outside = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let bench = Self { folder: tempfile::tempdir().unwrap(), outside: outside.unwrap() };
        fs::create_dir(bench.drop()).unwrap();
        let config = "[store.frames]\nmin_free_bytes = 0\nkeep = \"none\"\n";
        fs::write(bench.folder.path().join("reticle.toml"), config).unwrap();
        bench
    }

    fn drop(&self) -> PathBuf {
        self.folder.path().join("drop")
    }

    fn start(&self) -> Daemon {
        Start::default()
            .data(self.folder.path().join("data"))
            .config(self.folder.path().join("reticle.toml"))
            .source(format!("folder:{}", self.drop().display()))
            .start()
    }

    /// How often each page was taken, by the SHA-256 of its pixels.
    fn taken(&self) -> BTreeMap<String, u32> {
        let path = self.folder.path().join("data/reticle.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut counted = database
            .prepare("SELECT lower(hex(sha256)), count(*) FROM frame WHERE segmented GROUP BY 1")
            .unwrap();
        let rows = counted.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// What is not as it should be: pages that are missing, came twice, or are none.
    fn wrong(&self, expected: &BTreeMap<String, String>) -> Vec<String> {
        let taken = self.taken();
        let missing = expected.iter().filter(|(sha256, _)| !taken.contains_key(*sha256));
        let missing = missing.map(|(_, name)| format!("a page of {name} is missing"));
        let others = taken.iter().filter_map(|(sha256, times)| match expected.get(sha256) {
            None => Some(format!("{} is no page that was ever whole: torn?", self.origin(sha256))),
            Some(name) if *times > 1 => Some(format!("a page of {name} came {times} times")),
            Some(_) => None,
        });
        missing.chain(others).collect()
    }

    fn origin(&self, sha256: &str) -> String {
        let path = self.folder.path().join("data/reticle.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        database
            .query_row("SELECT origin FROM frame WHERE lower(hex(sha256)) = ?1", [sha256], |row| {
                row.get(0)
            })
            .unwrap()
    }

    fn wait_until_right(&self, daemon: &Daemon, expected: &BTreeMap<String, String>, what: &str) {
        let patience = common::PATIENCE + Duration::from_millis(50) * expected.len() as u32;
        let right = wait_at_most(patience, || {
            (self.taken().len() >= expected.len() && self.wrong(expected).is_empty()).then_some(())
        });
        if right.is_none() {
            panic!("{what}:\n{}\nthe log:\n{}", self.wrong(expected).join("\n"), daemon.log());
        }
    }

    /// Brings images in, kind after kind; each page has to come once. Gives all pages.
    fn round(&self, round: &Round<'_>, patient: bool) {
        let mut daemon = self.start();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/folders/tools.py");
        let mut tools = Command::new("python3")
            .arg(script)
            .args([&self.drop(), self.outside.path()])
            .args([round.pace, round.count, round.edge, round.tools, round.kinds])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut go_on = tools.stdin.take().unwrap();
        let mut expected = BTreeMap::new();
        for line in BufReader::new(tools.stdout.take().unwrap()).lines() {
            let said: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let Value::Object(pages) = &said["taken"] else { panic!("{said}") };
            let name = |name: &Value| name.as_str().unwrap().to_owned();
            expected = pages.iter().map(|(sha256, of)| (sha256.clone(), name(of))).collect();
            self.wait_until_right(&daemon, &expected, &format!("{round:?}, {}", said["kind"]));
            eprintln!(
                "{} files a tool, {}, {}: {} tools brought in {} pages so far, each once; {} s",
                round.count,
                round.pace,
                said["kind"],
                said["tools"],
                expected.len(),
                said["brought_in_s"]
            );
            writeln!(go_on).unwrap();
        }
        assert!(tools.wait().unwrap().success(), "{round:?}");
        assert!(!expected.is_empty());
        if patient {
            let wrong = wait_at_most(LISTED_AGAIN, || {
                let wrong = self.wrong(&expected);
                (!wrong.is_empty()).then_some(wrong)
            });
            assert_eq!(wrong, None, "{round:?}; the log:\n{}", daemon.log());
        }
        // The next process takes nothing of it again; the last image comes behind whatever it lists.
        assert!(daemon.is_running());
        assert!(daemon.stop().success());
        let daemon = self.start();
        let pixels = [7; 64 * 64];
        fs::write(self.drop().join("zz_last.tif"), plain_tiff(64, &pixels)).unwrap();
        expected.insert(sha256_of(&pixels), "zz_last.tif".to_owned());
        self.wait_until_right(&daemon, &expected, "after a restart");
        assert!(daemon.stop().success());
    }
}

/// A square grey image of so many pixels an edge.
fn plain_tiff(edge: u32, pixels: &[u8]) -> Vec<u8> {
    let tags: [(u16, u16, u32); 9] = [
        (256, 4, edge),
        (257, 4, edge),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 122),
        (277, 3, 1),
        (278, 4, edge),
        (279, 4, edge * edge),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x09\0".to_vec();
    for (tag, kind, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(pixels);
    bytes
}

fn sha256_of(pixels: &[u8]) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(pixels))
}

/// What is brought in, and how.
#[derive(Debug)]
struct Round<'a> {
    pace: &'a str,
    count: &'a str,
    edge: &'a str,
    tools: &'a str,
    kinds: &'a str,
}

#[test]
fn each_page_is_taken_once_whatever_brings_it_in() {
    let tools = "cp,cp_times,mv_same,mv_other,rsync,rsync_inplace,tar,shutil_move,touch_late,syncthing,\
                 onedrive,hard_link,hard_link_image,held_open,fallocating,appending,away_and_back";
    let kinds = "new,appended,renamed,replaced,preallocated";
    Bench::new().round(&Round { pace: "fast", count: "3", edge: "64", tools, kinds }, false);
}

#[test]
fn a_tool_that_stalls_in_the_middle_gives_each_page_once_and_whole() {
    let tools = "rsync_inplace,held_open,fallocating,appending,touch_late";
    let kinds = "new,replaced";
    Bench::new().round(&Round { pace: "slow", count: "1", edge: "512", tools, kinds }, false);
}

#[test]
fn a_file_that_is_rewritten_in_place_without_a_pause_gives_no_torn_page() {
    const EDGE: u32 = 1536;
    let bench = Bench::new();
    let daemon = bench.start();
    let version = |of: u8| vec![of + 1; (EDGE * EDGE) as usize];
    let path = bench.drop().join("a.tif");
    for of in 0..40 {
        let bytes = plain_tiff(EDGE, &version(of));
        let mut file =
            File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        bytes.chunks(1 << 16).for_each(|piece| file.write_all(piece).unwrap());
    }
    let whole: BTreeMap<String, u8> = (0..40).map(|of| (sha256_of(&version(of)), of)).collect();
    let last = sha256_of(&version(39));
    let taken = wait_at_most(common::PATIENCE, || {
        let taken = bench.taken();
        taken.contains_key(&last).then_some(taken)
    });
    let taken = taken.unwrap_or_else(|| panic!("the last one is missing:\n{}", daemon.log()));
    let torn = taken.keys().filter(|sha256| !whole.contains_key(*sha256)).count();
    assert_eq!(torn, 0, "of {}", taken.len());
}

#[test]
fn all_tools_at_every_pace() {
    let Some(rounds) = std::env::var_os("RETICLE_FOLDER_TOOLS") else {
        eprintln!("skipped: `make prove-folders` runs it");
        return;
    };
    for round in rounds.to_str().unwrap().split_whitespace() {
        let words: Vec<&str> = round.split(':').collect();
        let [pace, count, edge, tools, kinds] = words[..] else { panic!("{round}") };
        Bench::new().round(&Round { pace, count, edge, tools, kinds }, true);
    }
}
