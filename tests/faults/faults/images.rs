//! Image files that cost more than they are worth. They meet a daemon of their own, beside the one
//! that captures: a short-lived one that watches a folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use image::GrayImage;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::remove_folder;
use crate::bench::{Bench, has_alarm, write};
use crate::common::{free_port, wait_for};
use crate::kind::one_in;

/// Bytes that the daemon may have: enough for itself and small images, not for [`POISON_EDGE`].
const MEMORY: &str = "--data=400000000";

/// Edge of the image that no memory is left for, in pixels.
const POISON_EDGE: u32 = 6000;

/// Edge of the image at which the process is killed: it takes a while.
const SLOW_EDGE: u32 = 2000;

/// Starts after which all that is good must be saved: two that die, and one that knows better.
const STARTS: u64 = 3;

/// Edge of all other images.
const EDGE: u32 = 128;

/// Images beside the bad one.
const GOOD: [&str; 5] = ["1.png", "2.png", "4.png", "5.png", "6.png"];

/// Pages of the file that has too many.
const PAGES: u32 = 1000;

/// Bytes of frame files that the box keeps in that round: far more than the good images take, far
/// fewer than all these pages.
const FRAME_BYTES: u64 = 2_000_000;

/// One image of a folder ends the process: the others are saved, each once, whatever is done to
/// their names and times.
pub(super) fn poison(bench: &mut Bench) {
    let mut watcher = Watcher::new(bench, "");
    GOOD.iter().for_each(|name| watcher.put(name));
    // One that needs more memory than there is, or one at which somebody always kills the process.
    let too_large = one_in(&mut bench.random, 2);
    let (edge, starter) =
        if too_large { (POISON_EDGE, &["prlimit", MEMORY][..]) } else { (SLOW_EDGE, &[][..]) };
    picture(edge).save(watcher.images().join("3.png")).expect("an image can be written");

    let mut deaths = 0;
    for start in 1..=STARTS {
        watcher.start(starter);
        let lives = wait_for("the images to be saved, or the process to die", || {
            if watcher.is_gone() {
                return Some(false);
            }
            if !too_large && start < STARTS && watcher.begun("3.png") == start {
                watcher.kill();
            }
            (watcher.saved().len() >= GOOD.len()).then_some(true)
        });
        eprintln!("  start {start}: {} saved, {}", watcher.saved().len(), watcher.how());
        if lives {
            break;
        }
        deaths += 1;
    }
    assert!(!watcher.is_gone(), "one image ends the process at each of {STARTS} starts");
    assert!(too_large || deaths == STARTS - 1, "it was killed {deaths} times at the image");
    // Refused because of its size; or, where it was the end of processes, with an alarm.
    wait_for("the file to be named", || {
        let status = watcher.status()?;
        let alarm = deaths == 0 || has_alarm(&status, "image_quarantined");
        (alarm && status.to_string().contains("3.png")).then_some(())
    });
    watcher.must_have_each_once(&GOOD);

    // Another name, another time, another start: the same images.
    watcher.end();
    let images = watcher.images();
    fs::rename(images.join("5.png"), images.join("7.png")).expect("an image can be renamed");
    let touched = File::options().append(true).open(images.join("4.png"));
    let touched = touched.expect("an image can be opened");
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a time can be set");
    watcher.put("8.png");
    watcher.start(starter);
    wait_for("the newest image to be saved", || {
        watcher.saved().contains_key("8.png").then_some(())
    });
    watcher.must_have_each_once(&[&GOOD[..], &["8.png"]].concat());
    watcher.end();
}

/// A small file of very many pages: the frames that were there before keep their pixels, and what
/// comes after it gets its turn.
pub(super) fn page_bomb(bench: &mut Bench) {
    let store = format!("[store.frames]\nmax_bytes = {FRAME_BYTES}\nmin_free_bytes = 0\n");
    let mut watcher = Watcher::new(bench, &store);
    GOOD.iter().for_each(|name| watcher.put(name));
    watcher.start(&[]);
    wait_for("the images to be saved", || (watcher.saved().len() == GOOD.len()).then_some(()));
    let bomb = stack(PAGES);
    eprintln!("  {PAGES} pages in {} bytes", bomb.len());
    watcher.put_bytes("7.tif", &bomb);
    wait_for("the file to be taken or refused", || {
        let named =
            watcher.status()?["last_refusal"].as_str().is_some_and(|it| it.contains("7.tif"));
        (named || watcher.frames_of("7.tif") > 0).then_some(())
    });
    watcher.put("8.png");
    wait_for("the image after it to be saved", || {
        watcher.saved().contains_key("8.png").then_some(())
    });
    let without = watcher.without_pixels();
    assert!(without.is_empty(), "one file has taken the pixels of {without:?}");
    eprintln!("  {} of its pages were taken", watcher.frames_of("7.tif"));
    watcher.end();
}

/// A daemon that watches a folder.
struct Watcher {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Watcher {
    fn new(bench: &Bench, more: &str) -> Self {
        let folder = bench.folder.join("watcher");
        remove_folder(&folder);
        fs::create_dir_all(folder.join("images")).expect("the bench's folder can be written");
        let text = format!(
            "[source]\nspec = \"folder:{}\"\n[store]\nfolder = \"{}\"\n[sync.archive]\nto = \"none\"\n{more}",
            folder.join("images").display(),
            folder.join("data").display(),
        );
        write(&folder.join("reticle.toml"), &text);
        Self { folder, port: free_port(), child: None }
    }

    fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    /// Puts an image there that is like no other.
    fn put(&self, name: &str) {
        let number = name.bytes().map(u32::from).sum::<u32>();
        let image = GrayImage::from_fn(EDGE, EDGE, |x, y| {
            image::Luma([nucleus(x + number * 7, y + number * 3)])
        });
        // Whole at once, as a careful program does.
        let new = self.folder.join("new.png");
        image.save(&new).expect("an image can be written");
        fs::rename(new, self.images().join(name)).expect("the folder can be written");
    }

    fn put_bytes(&self, name: &str, bytes: &[u8]) {
        let new = self.folder.join("new");
        #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
        fs::write(&new, bytes).expect("the bench's folder can be written");
        fs::rename(new, self.images().join(name)).expect("the folder can be written");
    }

    fn start(&mut self, starter: &[&str]) {
        let program = env!("CARGO_BIN_EXE_reticle");
        let words: Vec<&str> = starter.iter().copied().chain([program, "run"]).collect();
        let log = File::options().create(true).append(true).open(self.folder.join("log"));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(self.folder.join("reticle.toml"));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.env_remove("RUST_LOG").env_remove("RETICLE_LOG").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.expect("the bench's folder can be written"));
        self.child = Some(command.spawn().expect("the program under test can be started"));
    }

    fn is_gone(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was started");
        child.try_wait().expect("a child can be asked").is_some()
    }

    /// What became of it.
    fn how(&mut self) -> String {
        let child = self.child.as_mut().expect("it was started");
        let ended = child.try_wait().expect("a child can be asked");
        ended.map_or("it lives".to_owned(), |status| format!("it died: {status}"))
    }

    fn kill(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child can be waited for");
    }

    /// Ends it in order.
    fn end(&mut self) {
        let mut child = self.child.take().expect("it was started");
        let pid = super::process(child.id());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = child.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn status(&self) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/status", self.port);
        ureq::get(url).call().ok()?.body_mut().read_json().ok()
    }

    /// How many results there are of each image, by its name.
    fn saved(&self) -> BTreeMap<String, u64> {
        self.count(
            "SELECT frame.origin, count(*) FROM frame JOIN segmentation
             ON segmentation.frame = frame.pk GROUP BY 1",
        )
    }

    /// Images of which the box has a frame, and no file any more.
    fn without_pixels(&self) -> Vec<String> {
        let lost = "SELECT origin, 1 FROM frame WHERE file IS NULL AND origin LIKE '%.png%'";
        self.count(lost).into_keys().collect()
    }

    fn frames_of(&self, name: &str) -> u64 {
        let frames = self.count("SELECT origin, count(*) FROM frame GROUP BY 1");
        frames.iter().filter(|(origin, _)| origin.starts_with(name)).map(|(_, count)| count).sum()
    }

    /// Processes that have begun to read this file, and were not seen to end with it.
    fn begun(&self, name: &str) -> u64 {
        let begun = "SELECT path, attempts FROM intake WHERE state = 'begun'";
        self.count(begun).get(name).copied().unwrap_or(0)
    }

    /// Where there is a database yet.
    fn count(&self, sql: &str) -> BTreeMap<String, u64> {
        let database = self.folder.join("data/reticle.db");
        let counts = || {
            let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut rows = db.prepare(sql)?;
            let rows = rows.query_map([], |row| {
                let origin: String = row.get(0)?;
                let name = Path::new(&origin).file_name().unwrap_or_default();
                Ok((name.to_string_lossy().into_owned(), row.get::<_, i64>(1)?.unsigned_abs()))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        counts().unwrap_or_default()
    }

    /// One frame and one result of each, and of nothing else.
    fn must_have_each_once(&self, names: &[&str]) {
        let expected: BTreeMap<String, u64> =
            names.iter().map(|name| ((*name).to_owned(), 1)).collect();
        let frames = self
            .count("SELECT origin, count(*) FROM frame WHERE origin NOT LIKE '%3.png%' GROUP BY 1");
        assert_eq!(self.saved(), expected, "results; the log:\n{}", self.log());
        assert_eq!(frames, expected, "frames; the log:\n{}", self.log());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only where it has ended already, which is what is wanted.
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("the log of the daemon that watches a folder:\n{}", self.log());
        }
    }
}

fn picture(edge: u32) -> GrayImage {
    GrayImage::from_fn(edge, edge, |x, y| image::Luma([nucleus(x, y)]))
}

/// A grey value of a field of round nuclei.
#[expect(clippy::disallowed_methods, reason = "pictures of a test are no results")]
fn nucleus(x: u32, y: u32) -> u8 {
    let (x, y) = (f64::from(x % 32) - 16.0, f64::from(y % 32) - 16.0);
    (20.0 + 180.0 * (-(x * x + y * y) / 60.0).exp()) as u8
}

/// A TIFF of so many pages, all of which are the same strip of bytes.
fn stack(pages: u32) -> Vec<u8> {
    let strip: Vec<u8> = (0..EDGE * EDGE).map(|at| nucleus(at % EDGE, at / EDGE)).collect();
    let directory = 8 + u32::try_from(strip.len()).expect("it is small");
    // Width, height, bits, no compression, black is zero, where, one value, rows, bytes.
    let tags = [
        (256, EDGE),
        (257, EDGE),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, EDGE),
        (279, EDGE * EDGE),
    ];
    let length = 2 + 12 * u32::try_from(tags.len()).expect("they are few") + 4;
    let mut bytes = b"II*\0".to_vec();
    bytes.extend(directory.to_le_bytes());
    bytes.extend(strip);
    for page in 1..=pages {
        bytes.extend(u16::try_from(tags.len()).expect("they are few").to_le_bytes());
        for (tag, value) in tags {
            // One number of four bytes each.
            bytes.extend(u16::to_le_bytes(tag));
            bytes.extend(4_u16.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        let next = if page == pages { 0 } else { directory + page * length };
        bytes.extend(next.to_le_bytes());
    }
    bytes
}
