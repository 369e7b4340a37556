//! The fault bench: random faults hit a daemon that captures and delivers; a ledger notes every
//! frame that it acknowledged; in the end the ledger, the box's SQLite, the archive (S3) and
//! PostgreSQL must agree exactly. `docs/reliability.md` says what that promises and what not.
//!
//! ```text
//!            ┌── ledger (own thread, own file) ◄── HTTP ──┐
//! bench ─────┤                                            │
//!            ├── faults ──► daemon on a small file system ┼► proxy ─► S3 server ◄─┐
//!            │                                            ├► wire  ─► PostgreSQL   │
//!            │                                            └► broker                │
//!            └── memory (own thread): what each object of the archive ever knew ──┘
//! ```
//!
//! `RETICLE_FAULT_ROUNDS` makes a run longer (`make faults ROUNDS=200`), `RETICLE_FAULT_SEED`
//! draws the same faults again (moments differ: they are real), `RETICLE_FAULT_KINDS` names those
//! that are drawn (`rot,clone`).

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::PathBuf;
use std::process::Command;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

mod agree;
mod bench;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod faults;
mod kills;
mod kind;
mod ledger;
mod memory;
mod places;
mod wire;

use agree::Finding;
use bench::{Bench, PREFIX};
use common::s3_server::{ACCESS_KEY, BUCKET, SECRET_KEY};
use kind::{Deck, Kind};

/// The small file system of the daemon; set in the process that does the work.
const DISK: &str = "RETICLE_FAULT_DISK";

/// Bytes of the small file system: some for the store, and what each round adds.
fn disk_mib(rounds: usize) -> usize {
    128 + rounds
}

/// In the suite each kind comes once.
fn rounds() -> usize {
    let kinds = named_kinds().len();
    number("RETICLE_FAULT_ROUNDS").unwrap_or(if kinds > 0 { kinds } else { Kind::ALL.len() })
}

/// The kinds that a run is limited to; none where it is not.
fn named_kinds() -> Vec<Kind> {
    let words = std::env::var("RETICLE_FAULT_KINDS").unwrap_or_default();
    let kind = |word: &str| {
        let kind = Kind::ALL.iter().find(|kind| kind.word() == word);
        *kind.unwrap_or_else(|| panic!("RETICLE_FAULT_KINDS: {word} is no kind of fault"))
    };
    words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(kind).collect()
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().ok().unwrap_or_else(|| panic!("{variable} is no number: {text}")))
}

#[test]
fn random_faults_lose_nothing_and_double_nothing() {
    if std::env::var_os(DISK).is_some() {
        return;
    }
    // A file system of its own, which needs a mount namespace. Root has to stay who it is,
    // because only root can become the user of PostgreSQL; others stay who they are as well.
    let enter: &[&str] = if rustix::process::geteuid().is_root() {
        &["--mount"]
    } else {
        &["--user", "--map-current-user", "--keep-caps", "--mount"]
    };
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(enter).args(["sh", "-c", script]);
        command
    };
    let may = unshare("mount -t tmpfs tmpfs /mnt").output();
    if !may.is_ok_and(|output| output.status.success()) {
        return run(None);
    }
    let folder = tempfile::tempdir().unwrap();
    let script =
        format!("mount -t tmpfs -o size={}m tmpfs \"$0\" && exec \"$@\"", disk_mib(rounds()));
    let status = unshare(&script)
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "on_a_file_system_of_its_own", "--nocapture"])
        .env(DISK, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "what is wrong stands above");
}

/// The process that does the work. Does nothing when it is not asked to.
#[test]
fn on_a_file_system_of_its_own() {
    if let Some(disk) = std::env::var_os(DISK) {
        run(Some(disk.into()));
    }
}

fn run(disk: Option<PathBuf>) {
    let rounds = rounds();
    let seed = number("RETICLE_FAULT_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("RETICLE_FAULT_SEED={seed} draws the faults of these {rounds} rounds again");
    let left_out = faults::impossible(disk.as_deref());
    for (kind, reason) in &left_out {
        eprintln!("left out: {kind}: {reason}");
        assert!(std::env::var_os("CI").is_none(), "where everything must run, {kind} cannot");
    }
    let named = named_kinds();
    let planned = Kind::ALL.iter().copied();
    let planned: Vec<Kind> = planned
        .filter(|kind| left_out.iter().all(|(out, _)| out != kind))
        .filter(|kind| named.is_empty() || named.contains(kind))
        .collect();

    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(folder.path(), disk, ChaCha8Rng::seed_from_u64(seed));
    let mut deck = Deck::new(planned.clone());
    for round in 1..=rounds {
        bench.ledger.wait_for_more();
        let kind = deck.draw(&mut bench.random);
        eprintln!("round {round} of {rounds}: {kind}; {} frames noted", bench.ledger.noted());
        faults::inject(&mut bench, kind);
    }
    bench.ledger.wait_for_more();

    let fired = std::mem::take(&mut bench.fired);
    let (frames, findings) = finish(bench);
    findings.iter().take(50).for_each(|finding| eprintln!("{finding}"));
    eprintln!(
        "{rounds} rounds, {frames} frames acknowledged, {}; faults: {fired}",
        agree::summary(&findings)
    );
    assert!(findings.is_empty(), "the four do not agree");
    if rounds >= planned.len() {
        assert_eq!(fired.missing(&planned), [], "these never hit");
    }
}

/// All faults are over: lets everything arrive, ends the daemon, and compares. The number of
/// noted frames, and what does not agree.
fn finish(mut bench: Bench) -> (usize, Vec<Finding>) {
    bench.settle();
    bench.end();

    // The program's own words first. The archive is full, and nothing is left to deliver.
    for verb in
        [&["fsck", "--json"][..], &["sync", "drain", "--json"], &["sync", "verify", "--json"]]
    {
        let (success, answer) = bench.report(verb);
        assert!(success, "reticle {}: {answer:#}", verb.join(" "));
    }

    // Then ours, without it.
    let store = places::store(&bench.database()).unwrap();
    let url = bench.postgres.url();
    let password = bench.postgres.password();
    let client = places::client(&bench.s3.endpoint(), ACCESS_KEY, SECRET_KEY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let central = places::central(&url, password, &bench.gone, &store);
    let central = runtime.block_on(central).unwrap();
    let (archive, mut bucket) = runtime.block_on(places::archive(&client, BUCKET, PREFIX)).unwrap();
    bucket.leave_out(bench.gone.iter().filter(|session| !store.sessions.contains(session)));
    let ledger = bench.ledger.close().unwrap();
    assert!(!ledger.is_empty(), "nothing was acknowledged, so nothing was shown");
    let mut findings = agree::disagreements(&ledger, &store, &[&archive, &central], &bucket);
    findings.extend(bench.memory.close());
    (ledger.len(), findings)
}
