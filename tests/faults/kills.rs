//! `make prove-kills`: SIGKILL at random moments of a daemon that captures, segments and delivers,
//! very many times, and nothing else in the way. The rounds of the bench kill a few times in
//! company of other faults; this is for the moments that come once in a thousand.
//!
//! The archive is a folder, the frames are small and come fast, so that at any moment something is
//! being written, committed, delivered or evicted. A part of the kills comes while the daemon is
//! still starting on what the one before left.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::agree;
use crate::bench::write;
use crate::common::{Start, free_port, reticle, wait_at_most, wait_for};
use crate::kind::one_in;
use crate::ledger::Ledger;
use crate::memory::Memory;
use crate::{number, places};

/// How long all that waits may take to arrive at the end.
const DEADLINE: Duration = Duration::from_secs(600);

/// Longest time that a daemon lives after it has acknowledged something, in milliseconds.
const LONGEST_LIFE_MS: u64 = 500;

/// The same of one that is not waited for: it dies while it starts, or soon after.
const LONGEST_START_MS: u64 = 120;

/// Kills between two lines that say how far it is.
const SAID_EVERY: usize = 100;

#[test]
fn kills_at_random_moments_lose_nothing() {
    // Without the variable it is asked for by nobody: the bench kills as well.
    if let Some(kills) = number("RETICLE_KILLS") {
        prove(kills);
    }
}

/// The daemon's folders.
struct Installed {
    folder: tempfile::TempDir,
    port: u16,
}

impl Installed {
    fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap(), port: free_port() };
        fs::create_dir(made.archive()).unwrap();
        write(
            &made.config(),
            &format!(
                r#"[box]
site = "bench"
name = "box-1"

[source]
width = 64
height = 64
fps = 60.0

[store]
folder = "{}"

[store.frames]
keep = "every 4"
max_bytes = 4_000_000
min_free_bytes = 0

[sync.archive]
to = "file:{}"
pixels = "every 8"
max_delay_s = 1
"#,
                made.data().display(),
                made.archive().display(),
            ),
        );
        made
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("reticle.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// Starts the daemon, and waits for nothing.
    fn go(&self) -> Child {
        let mut command = reticle();
        command.args(["run", "--listen", &format!("127.0.0.1:{}", self.port), "--config"]);
        command.arg(self.config()).env("RETICLE_LOG", "warn");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program under test can be started")
    }

    /// What a verb answers in JSON, and whether it ended well.
    fn report(&self, verb: &[&str]) -> (bool, Value) {
        let output = reticle().args(verb).arg("--config").arg(self.config()).output();
        let output = output.expect("the program can be started");
        let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let words = String::from_utf8_lossy(&output.stderr);
            panic!("reticle {}: no JSON ({error}); {words}", verb.join(" "))
        });
        (output.status.success(), answer)
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it took is told")]
fn prove(kills: usize) {
    let began = Instant::now();
    let seed = number("RETICLE_FAULT_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("RETICLE_FAULT_SEED={seed} draws the lives of these {kills} daemons again");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let this = Installed::new();
    let ledger = Ledger::begin(&this.folder.path().join("ledger")).unwrap();
    let memory = Memory::begin(&this.archive());
    ledger.ask(Some(format!("http://127.0.0.1:{}", this.port)));

    let (mut in_the_start, mut at_work) = (0, 0);
    for kill in 1..=kills {
        let before = ledger.noted();
        let mut daemon = this.go();
        let longest = if one_in(&mut random, 4) {
            LONGEST_START_MS
        } else {
            wait_for("the daemon to acknowledge a frame", || {
                let ended = daemon.try_wait().expect("a child can be asked");
                assert!(ended.is_none(), "it ended by itself after kill {}: {ended:?}", kill - 1);
                (ledger.noted() > before).then_some(())
            });
            LONGEST_LIFE_MS
        };
        // To the microsecond: between two commits is little time.
        let life = Duration::from_micros(random.random_range(0..longest * 1000));
        std::thread::sleep(life);
        let there = SocketAddr::from((Ipv4Addr::LOCALHOST, this.port));
        let listens = TcpStream::connect_timeout(&there, Duration::from_millis(100)).is_ok();
        *(if listens { &mut at_work } else { &mut in_the_start }) += 1;
        let ended = daemon.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "it ended by itself before kill {kill}: {ended:?}");
        daemon.kill().expect("a child can be killed");
        daemon.wait().expect("a killed child can be waited for");
        if kill % SAID_EVERY == 0 {
            eprintln!("{kill} kills, {} frames noted, {:.0?}", ledger.noted(), began.elapsed());
        }
    }

    let (frames, findings) = finish(&this, ledger, memory);
    findings.iter().take(50).for_each(|finding| eprintln!("{finding}"));
    eprintln!(
        "{kills} kills ({at_work} at work, {in_the_start} while starting), {frames} frames \
         acknowledged, {}, fsck clean; {:.0?}",
        agree::summary(&findings),
        began.elapsed()
    );
    assert!(findings.is_empty(), "the ledger, the store and the archive do not agree");
}

/// Lets everything arrive, ends the last daemon in order, and compares.
fn finish(this: &Installed, ledger: Ledger, memory: Memory) -> (usize, Vec<agree::Finding>) {
    let daemon = Start::default().config(this.config()).data(this.data()).start();
    ledger.ask(Some(daemon.url("")));
    ledger.wait_for_more();
    let stop = ureq::post(daemon.url("/api/v1/commands/stop")).send_empty();
    stop.expect("the daemon takes commands");
    wait_for("capture to end", || {
        (daemon.json("/api/v1/status")["run"] == "stopped").then_some(())
    });
    let waits = |status: &Value| -> u64 {
        let destinations = status["destinations"].as_array().expect("a list of destinations");
        destinations.iter().map(|one| one["waiting"].as_u64().expect("a count")).sum()
    };
    let arrived = wait_at_most(DEADLINE, || {
        (waits(&this.report(&["sync", "status", "--json"]).1) == 0).then_some(())
    });
    assert!(arrived.is_some(), "not everything arrives in {DEADLINE:?}:\n{}", daemon.log());
    wait_for("the ledger to be told of all results", || {
        let totals = daemon.json("/api/v1/totals");
        (totals["segmentations"].as_u64() == Some(ledger.noted())).then_some(())
    });
    assert!(daemon.stop().success(), "the daemon does not end in order");
    for verb in
        [&["fsck", "--json"][..], &["sync", "drain", "--json"], &["sync", "verify", "--json"]]
    {
        let (success, answer) = this.report(verb);
        assert!(success, "reticle {}: {answer:#}", verb.join(" "));
    }
    let store = places::store(&this.data().join("reticle.db")).unwrap();
    let (archive, bucket) = places::folder(&this.archive()).unwrap();
    let ledger = ledger.close().unwrap();
    assert!(!ledger.is_empty(), "nothing was acknowledged, so nothing was shown");
    let mut findings = agree::disagreements(&ledger, &store, &[&archive], &bucket);
    findings.extend(memory.close());
    (ledger.len(), findings)
}
