//! A watched folder across restarts: nothing is taken twice, nothing is lost, and one file neither
//! stops nor flushes the box.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Daemon, Start, reticle, wait_at_most, wait_for};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// A watched folder and a data folder that outlive their daemons.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.drop("")).unwrap();
        lab.configure("[store.frames]\nmin_free_bytes = 0\n");
        lab
    }

    fn configure(&self, config: &str) {
        fs::write(self.folder.path().join("reticle.toml"), config).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn drop(&self, name: &str) -> PathBuf {
        self.folder.path().join("drop").join(name)
    }

    /// A whole image under its name at once.
    fn put(&self, name: &str, bytes: &[u8]) {
        let hidden = self.drop(&format!(".{name}"));
        fs::write(&hidden, bytes).unwrap();
        fs::rename(hidden, self.drop(name)).unwrap();
    }

    fn daemon(&self) -> Start {
        Start::default()
            .data(self.data())
            .config(self.folder.path().join("reticle.toml"))
            .source(format!("folder:{}", self.drop("").display()))
    }

    fn start(&self) -> Daemon {
        self.daemon().start()
    }

    fn intake(&self, verb: &str) -> Value {
        let mut command = reticle();
        command.args(["intake", verb, "--json", "--data"]).arg(self.data());
        command.arg("--config").arg(self.folder.path().join("reticle.toml"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// How many images the ledger says were taken.
    fn taken(&self) -> u64 {
        self.intake("list")["counts"]["taken"].as_u64().unwrap_or(0)
    }

    fn fsck(&self) {
        let output = reticle().arg("fsck").arg("--data").arg(self.data()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
}

/// A grey PNG with noise of its own.
fn png(edge: u32, seed: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let pixels: Vec<u8> = (0..edge * edge).map(|_| random.random::<u8>() / 4).collect();
    encode(edge, &pixels)
}

fn encode(edge: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(pixels, edge, edge, ExtendedColorType::L8).unwrap();
    bytes
}

/// All that is saved, by the file it came from: how often.
fn saved(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let answer = daemon.json("/api/v1/frames?limit=1000");
    for frame in answer["frames"].as_array().unwrap() {
        *found.entry(frame["origin"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    found
}

fn each_once(names: &[&str]) -> BTreeMap<String, usize> {
    names.iter().map(|name| ((*name).to_owned(), 1)).collect()
}

/// Waits until exactly these are saved, once each.
fn wait_for_saved(daemon: &Daemon, names: &[&str]) {
    let wanted = each_once(names);
    let all = wait_at_most(common::PATIENCE, || {
        let found = daemon.try_json("/api/v1/frames?limit=1000").ok()?;
        (found["frames"].as_array()?.len() >= names.len()).then_some(())
    });
    assert_eq!(saved(daemon), wanted, "{all:?}; the log:\n{}", daemon.log());
}

/// A frame of the watched folder is through: one that comes after all others.
fn wait_for_another(lab: &Lab, daemon: &Daemon, name: &str, seed: u64) {
    lab.put(name, &png(64, seed));
    wait_for("the last image to be saved", || saved(daemon).contains_key(name).then_some(()));
}

#[test]
fn restarts_take_no_image_again_however_the_daemon_ended() {
    let lab = Lab::new();
    let names = ["t1.png", "t2.png", "t3.png", "t4.png", "t5.png"];
    for (seed, name) in (0..).zip(names) {
        lab.put(name, &png(64, seed));
    }
    let daemon = lab.start();
    wait_for_saved(&daemon, &names);
    wait_for("the ledger", || (lab.taken() == 5).then_some(()));
    daemon.kill();
    for (round, marker) in (100..).zip(["u1.png", "u2.png", "u3.png"]) {
        let daemon = lab.start();
        // It comes behind whatever the first listing takes.
        wait_for_another(&lab, &daemon, marker, round);
        wait_for("the ledger", || (lab.taken() == 5 + round - 99).then_some(()));
        assert_eq!(daemon.json("/api/v1/status")["counters"]["captured"], 1, "{}", daemon.log());
        if round == 101 { assert!(daemon.stop().success()) } else { daemon.kill() }
    }
    let daemon = lab.start();
    let all = [&names[..], &["u1.png", "u2.png", "u3.png"]].concat();
    wait_for_saved(&daemon, &all);
    lab.fsck();
}

#[test]
fn a_touch_and_a_rename_are_the_same_image_and_a_copy_or_a_change_is_another() {
    let lab = Lab::new();
    for (seed, name) in (0..).zip(["a.png", "b.png", "c.png", "d.png", "e.png"]) {
        lab.put(name, &png(64, seed));
    }
    let daemon = lab.start();
    wait_for_saved(&daemon, &["a.png", "b.png", "c.png", "d.png", "e.png"]);
    let now = || std::time::SystemTime::now() + Duration::from_secs(60);
    // While the daemon watches, and while it does not.
    File::options().write(true).open(lab.drop("a.png")).unwrap().set_modified(now()).unwrap();
    fs::rename(lab.drop("b.png"), lab.drop("b2.png")).unwrap();
    wait_for_another(&lab, &daemon, "x.png", 50);
    wait_for("the ledger", || (lab.taken() == 6).then_some(()));
    assert!(daemon.stop().success());
    File::options().write(true).open(lab.drop("c.png")).unwrap().set_modified(now()).unwrap();
    fs::rename(lab.drop("a.png"), lab.drop("a2.png")).unwrap();
    // Two that change places, and one that is copied and then removed: a file of its own.
    fs::rename(lab.drop("d.png"), lab.drop("hold")).unwrap();
    fs::rename(lab.drop("e.png"), lab.drop("d.png")).unwrap();
    fs::rename(lab.drop("hold"), lab.drop("e.png")).unwrap();
    fs::copy(lab.drop("b2.png"), lab.drop("b3.png")).unwrap();
    fs::remove_file(lab.drop("b2.png")).unwrap();
    // A copy beside its original is an image of its own: blank wells are equal. So is what is
    // written over another.
    fs::copy(lab.drop("x.png"), lab.drop("x-copy.png")).unwrap();
    lab.put("c.png", &png(64, 60));
    let daemon = lab.start();
    let all =
        ["a.png", "b.png", "b3.png", "c.png", "d.png", "e.png", "x.png", "x-copy.png", "y.png"];
    let mut wanted = each_once(&all);
    wanted.insert("c.png".to_owned(), 2);
    wait_for_another(&lab, &daemon, "y.png", 70);
    let found = wait_at_most(Duration::from_secs(20), || (saved(&daemon) == wanted).then_some(()));
    assert_eq!(saved(&daemon), wanted, "{found:?}; the log:\n{}", daemon.log());
    assert_eq!(daemon.json("/api/v1/status")["counters"]["captured"], 4);
}

#[test]
fn kills_at_random_moments_lose_no_page_and_double_none() {
    let lab = Lab::new();
    let stack = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/ome_stack.ome.tif");
    let names = ["t1.png", "t2.png", "t4.png", "t5.png"];
    for (seed, name) in (0..).zip(names) {
        lab.put(name, &png(96, seed));
    }
    lab.put("t3.ome.tif", &fs::read(stack).unwrap());
    let pages = ["t3.ome.tif#0", "t3.ome.tif#1", "t3.ome.tif#2"];
    let all = [&names[..], &pages].concat();
    let mut random = ChaCha8Rng::seed_from_u64(13);
    for _ in 0..12 {
        let daemon = lab.start();
        let moment = Duration::from_millis(random.random_range(0..120));
        assert_eq!(wait_at_most(moment, || None::<()>), None);
        daemon.kill();
    }
    // Two deaths in a row during one file leave it to a person, who has it tried again.
    let daemon = lab.start();
    wait_for("every page", || {
        let done = saved(&daemon).len() >= all.len();
        if !done && lab.intake("list")["counts"]["quarantined"].is_u64() {
            lab.intake("retry");
        }
        done.then_some(())
    });
    assert_eq!(saved(&daemon), each_once(&all));
    // The second death may have come when the page was saved and the file not yet done with.
    wait_for("the ledger", || {
        if lab.intake("list")["counts"]["quarantined"].is_u64() {
            lab.intake("retry");
        }
        (lab.taken() == 5).then_some(())
    });
    assert!(daemon.stop().success());
    lab.fsck();
}

#[test]
fn an_image_that_ends_the_daemon_twice_is_left_alone_and_those_behind_it_are_segmented() {
    let lab = Lab::new();
    lab.put("a.png", &png(64, 1));
    // How much memory a daemon needs that segments small images, and a little more.
    let daemon = lab.start();
    wait_for_saved(&daemon, &["a.png"]);
    let limit = daemon.data_kib() + 12 * 1024;
    assert!(daemon.stop().success());
    // Its maps alone need more than is left; below the size from which on memory is asked for.
    lab.put("b.png", &png(1280, 2));
    lab.put("c.png", &png(64, 3));
    lab.put("d.png", &png(64, 4));
    let start = || lab.daemon().ulimit("-d", limit).spawned();
    for _ in 0..2 {
        let mut daemon = start();
        let ended = daemon.ends();
        assert!(!ended.success(), "an allocation that fails ends the process: {ended}");
    }
    let daemon = lab.daemon().ulimit("-d", limit).start();
    wait_for_saved(&daemon, &["a.png", "c.png", "d.png"]);
    let status = wait_for("the alarm", || {
        let status = daemon.json("/api/v1/status");
        let alarms = status["alarms"].as_array()?.clone();
        alarms.iter().any(|alarm| alarm["kind"] == "image_quarantined").then_some(status)
    });
    assert!(status.to_string().contains("b.png was being read when the daemon ended, twice"));
    let passed_over = lab.intake("list")["passed_over"].clone();
    assert_eq!(passed_over.as_array().unwrap().len(), 1, "{passed_over}");
    assert_eq!(
        (&passed_over[0]["path"], &passed_over[0]["state"]),
        (&Value::from("b.png"), &Value::from("quarantined"),)
    );
    assert_eq!(passed_over[0]["attempts"], 2);
    assert!(daemon.stop().success());
    // With the memory for it a person has it tried again, while a daemon runs.
    let daemon = lab.start();
    wait_for_another(&lab, &daemon, "e.png", 5);
    assert_eq!(lab.intake("retry")["retried"], 1);
    wait_for_saved(&daemon, &["a.png", "b.png", "c.png", "d.png", "e.png"]);
    wait_for("the end of the alarm", || {
        let status = daemon.json("/api/v1/status");
        (!status["alarms"].to_string().contains("image_quarantined")).then_some(())
    });
    lab.fsck();
}

#[test]
fn an_image_for_which_there_is_no_memory_is_refused_and_those_behind_it_are_segmented() {
    let lab = Lab::new();
    lab.put("a.png", &encode(8192, &vec![7; 8192 * 8192]));
    lab.put("b.png", &png(64, 1));
    for markers in 0..2 {
        let daemon = lab.daemon().ulimit("-v", 1_300_000).start();
        wait_for_saved(&daemon, &["b.png"]);
        let status = wait_for("the refusal", || {
            let status = daemon.json("/api/v1/status");
            (status["counters"]["refused"] == 1).then_some(status)
        });
        let why = status["last_refusal"].as_str().unwrap();
        assert!(why.contains("a.png: has 8192×8192 pixels, which take 2685 MB"), "{why}");
        assert!(why.contains("MB can be had within the limit of its address space"), "{why}");
        // It is asked for again at the next start: then there may be more memory.
        wait_for(&format!("the ledger of start {markers}"), || {
            (lab.intake("list")["counts"]["too_large"] == 1).then_some(())
        });
        assert!(daemon.stop().success());
    }
}

/// A TIFF of `pages` pages of black pixels, all of them the same strip.
fn bomb(pages: u32, edge: u32) -> Vec<u8> {
    let mut strip = deflated(&vec![0; (edge * edge) as usize]);
    if strip.len() % 2 == 1 {
        strip.push(0);
    }
    let mut bytes = b"II*\0".to_vec();
    bytes.extend((8 + strip.len() as u32).to_le_bytes());
    bytes.extend(&strip);
    for page in 0..pages {
        let tags: [(u16, u16, u32); 9] = [
            (256, 4, edge),
            (257, 4, edge),
            (258, 3, 8),
            (259, 3, 8),
            (262, 3, 1),
            (273, 4, 8),
            (277, 3, 1),
            (278, 4, edge),
            (279, 4, strip.len() as u32),
        ];
        bytes.extend((tags.len() as u16).to_le_bytes());
        for (tag, kind, value) in tags {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        let next = if page + 1 < pages { bytes.len() as u32 + 4 } else { 0 };
        bytes.extend(next.to_le_bytes());
    }
    bytes
}

/// A zlib stream, out of a PNG of one row, whose filter byte is one more black pixel.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&bytes[1..], bytes.len() as u32 - 1, 1, ExtendedColorType::L8)
        .unwrap();
    let mut stream = Vec::new();
    let mut at = 8;
    while at < png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        if &png[at + 4..at + 8] == b"IDAT" {
            stream.extend(&png[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    stream
}

#[test]
fn a_small_file_of_a_thousand_pages_pushes_no_frame_file_out() {
    let lab = Lab::new();
    lab.configure("[store.frames]\nmin_free_bytes = 0\nmax_bytes = 20000000\n");
    let names = ["a.png", "b.png", "c.png"];
    for (seed, name) in (0..).zip(names) {
        lab.put(name, &png(256, seed));
    }
    let daemon = lab.start();
    wait_for_saved(&daemon, &names);
    let bytes = bomb(1000, 512);
    assert!(bytes.len() < 140_000, "{}", bytes.len());
    lab.put("m.tif", &bytes);
    let status = wait_for("the refusal", || {
        let status = daemon.json("/api/v1/status");
        (status["counters"]["refused"] == 1).then_some(status)
    });
    let why = status["last_refusal"].as_str().unwrap();
    assert!(why.contains("m.tif: says it has"), "{why}");
    assert!(why.contains("because its pages share them"), "{why}");
    wait_for_another(&lab, &daemon, "n.png", 9);
    let status = daemon.json("/api/v1/status");
    assert_eq!(status["counters"]["evicted"], 0);
    assert_eq!(status["counters"]["captured"], 4);
    let frames = daemon.json("/api/v1/frames?limit=100");
    for frame in frames["frames"].as_array().unwrap() {
        assert!(lab.data().join(frame["file"].as_str().unwrap()).is_file(), "{frame}");
    }
}
