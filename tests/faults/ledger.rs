//! The ledger: every frame that the daemon acknowledged, written down by somebody else.
//!
//! A thread of its own reads `/api/v1/frames` behind its cursor and appends what it is told to
//! a file of its own, with an fsync, outside the daemon's folder and file system. What the
//! daemon committed and never told is not in it until it is told. The cursor lives as long as
//! the bench: a daemon that forgets a result after a crash cannot make the ledger forget it.
//!
//! A store that was put back begins another epoch, and refuses the old cursor (409). The ledger
//! then reads from the beginning: what it has it must be told again with the same words, and what
//! was acknowledged meanwhile is new.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::agree::Noted;
use crate::common::wait_for;

/// Longest wait for an answer: a daemon that was stopped in the middle of one does not go on
/// with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two questions when there was nothing new, or nobody there.
const PAUSE: Duration = Duration::from_millis(30);

pub(crate) struct Ledger {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    /// `http://127.0.0.1:PORT` of the daemon that runs now.
    base: Mutex<Option<String>>,
    noted: AtomicU64,
    done: AtomicBool,
}

impl Ledger {
    /// Begins a ledger in a file that is not there yet.
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || keep(&shared, file)
        });
        Ok(Self { path: path.to_owned(), shared, thread: Some(thread) })
    }

    /// Whom to ask from now on.
    pub(crate) fn ask(&self, base: Option<String>) {
        *self.shared.base.lock().unwrap_or_else(PoisonError::into_inner) = base;
    }

    /// Frames noted so far; each is on the disk.
    pub(crate) fn noted(&self) -> u64 {
        self.shared.noted.load(Ordering::SeqCst)
    }

    /// Waits until some more are noted.
    pub(crate) fn wait_for_more(&self) {
        let before = self.noted();
        wait_for("the daemon to acknowledge new frames", || {
            let thread = self.thread.as_ref();
            assert!(thread.is_some_and(|thread| !thread.is_finished()), "the ledger ended");
            (self.noted() > before + 3).then_some(())
        });
    }

    /// Ends it, and reads the file: only what stands there counts.
    pub(crate) fn close(mut self) -> io::Result<Vec<Noted>> {
        self.end()?;
        let lines = BufReader::new(File::open(&self.path)?).lines();
        lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::from)).collect()
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.done.store(true, Ordering::SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the ledger's thread panicked")),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Already reported where it is wanted: by `close`.
        self.end().ok();
    }
}

/// What an answer has behind the cursor.
enum Page {
    /// Frames, and the next cursor.
    Frames(Vec<Value>, String),
    /// The cursor is of an epoch that is over.
    OtherEpoch,
    /// Nobody answers.
    Nobody,
}

/// What was noted so far.
#[derive(Default)]
struct Known {
    frames: HashMap<String, Noted>,
    /// Those that this epoch has told.
    told: HashSet<String>,
}

impl Known {
    /// Whether it is to be written down: all but what an epoch before this one told alike.
    fn is_news(&mut self, noted: &Noted) -> bool {
        let again = !self.told.insert(noted.frame.clone());
        let before = self.frames.insert(noted.frame.clone(), noted.clone());
        again || before.as_ref() != Some(noted)
    }
}

/// The thread: fails only when the ledger itself cannot be written, or is told nonsense.
fn keep(shared: &Shared, mut file: File) -> io::Result<()> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let mut after = None;
    let mut known = Known::default();
    while !shared.done.load(Ordering::SeqCst) {
        let base = shared.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let page = base.map_or(Page::Nobody, |base| page(&agent, &base, after.as_deref()));
        let (frames, next) = match page {
            Page::Frames(frames, next) if !frames.is_empty() => (frames, next),
            Page::OtherEpoch => {
                known.told.clear();
                after = None;
                continue;
            }
            Page::Frames(..) | Page::Nobody => {
                thread::sleep(PAUSE);
                continue;
            }
        };
        let mut lines = Vec::new();
        let mut news = 0;
        for frame in &frames {
            let noted = noted(frame).ok_or_else(|| io::Error::other(format!("told {frame}")))?;
            if known.is_news(&noted) {
                serde_json::to_writer(&mut lines, &noted)?;
                lines.push(b'\n');
                news += 1;
            }
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        after = Some(next);
        shared.noted.fetch_add(news, Ordering::SeqCst);
    }
    Ok(())
}

/// What was committed behind the cursor.
fn page(agent: &ureq::Agent, base: &str, after: Option<&str>) -> Page {
    let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
    let url = format!("{base}/api/v1/frames?limit=1000{after}");
    let answer: Value = match agent.get(url).call().map(|mut answer| answer.body_mut().read_json())
    {
        Ok(Ok(answer)) => answer,
        Err(ureq::Error::StatusCode(409)) => return Page::OtherEpoch,
        _ => return Page::Nobody,
    };
    // Whatever a cursor looks like.
    let next = match &answer["next"] {
        Value::String(next) => next.clone(),
        Value::Number(next) => next.to_string(),
        _ => return Page::Nobody,
    };
    match answer["frames"].as_array() {
        Some(frames) => Page::Frames(frames.clone(), next),
        None => Page::Nobody,
    }
}

fn noted(frame: &Value) -> Option<Noted> {
    let text = |key: &str| frame[key].as_str().map(str::to_owned);
    Some(Noted {
        frame: text("id")?,
        session: text("session")?,
        sha256: text("sha256")?,
        labels_sha256: text("labels_sha256")?,
        objects: frame["objects"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_epoch_may_tell_a_frame_again_and_only_with_the_same_words() {
        let told = |labels: &str| Noted {
            frame: "frame-1".to_owned(),
            session: "session-1".to_owned(),
            sha256: "pixels".to_owned(),
            labels_sha256: labels.to_owned(),
            objects: 1,
        };
        let mut known = Known::default();
        assert!(known.is_news(&told("labels")));
        assert!(known.is_news(&told("labels")), "twice in one epoch");
        known.told.clear();
        assert!(!known.is_news(&told("labels")));
        known.told.clear();
        assert!(known.is_news(&told("other")));
    }
}
