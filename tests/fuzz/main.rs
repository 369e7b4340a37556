//! Whatever bytes come: a reader answers or refuses. It does not panic, hang, or take more memory
//! than the pixels that it may read.
//!
//! Each execution draws a reader, makes bytes for it (sound files of our own making with lies in
//! them, and golden files changed at random), and has them read. All of it follows from a seed and
//! the execution's number, so that what fails can be done again:
//!
//! ```text
//! RETICLE_FUZZ_SEED=7 RETICLE_FUZZ_FROM=1234 RETICLE_FUZZ_RUNS=1 cargo nextest run --release --test fuzz
//! ```
//!
//! `make fuzz` runs it for longer, in several processes (`scripts/fuzz`). What it found is in
//! `docs/reliability.md`.

#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use reticle_base::clock::{Clock, thread_cpu};

mod mutate;
mod targets;
mod tiff;
mod watch;

use targets::{Answer, Inputs, Target};

#[global_allocator]
static ALLOCATOR: watch::Counting = watch::Counting;

/// CPU time after which an execution counts as one that hangs. Not the clock on the wall, which
/// goes on while other processes have the processor.
const HANGS: Duration = Duration::from_secs(2);

/// Time on the wall after which it is ended: one that never comes back.
const LOST: Duration = Duration::from_secs(120);

/// Executions of a test run: some seconds.
const RUNS: u64 = 30_000;

/// What is run.
struct Plan {
    seed: u64,
    from: u64,
    runs: u64,
}

impl Plan {
    fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            seed: number("RETICLE_FUZZ_SEED").unwrap_or(1),
            from: number("RETICLE_FUZZ_FROM").unwrap_or(0),
            runs: number("RETICLE_FUZZ_RUNS").unwrap_or(RUNS),
        }
    }
}

/// What came of all executions of a reader.
#[derive(Default)]
struct Tally {
    read: u64,
    refused: u64,
    most_bytes: usize,
    longest: Duration,
}

#[test]
fn no_bytes_make_a_reader_panic_or_hang_or_take_memory() {
    let plan = Plan::of_environment();
    let folder = tempfile::Builder::new().prefix("reticle-fuzz-").tempdir_in(scratch_root());
    let folder = folder.expect("there is room for scratch files");
    let inputs = Inputs::new(folder.path());
    watch::count_panics(plan.runs == 1);
    let current = watch_over(&plan);
    let mut tallies: BTreeMap<Target, Tally> = BTreeMap::new();
    let mut faults = Vec::new();
    for number in plan.from..plan.from + plan.runs {
        current.store(number, Ordering::Relaxed);
        let mut rng = Rng::with_seed(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let target = Target::draw(&mut rng);
        let bytes = inputs.draw(target, &mut rng);
        let memory = watch::Memory::begin();
        let began = thread_cpu();
        let ended = catch_unwind(AssertUnwindSafe(|| inputs.run(target, &bytes, &mut rng)));
        let took = thread_cpu().saturating_sub(began);
        let tally = tallies.entry(target).or_default();
        tally.longest = tally.longest.max(took);
        tally.most_bytes = tally.most_bytes.max(memory.most());
        match ended {
            Ok(Answer::Read) => tally.read += 1,
            Ok(Answer::Refused) => tally.refused += 1,
            Err(_) => faults.push(format!("{target:?} {number}: panicked")),
        }
        if took > HANGS {
            faults.push(format!("{target:?} {number}: took {took:?}"));
        }
        if memory.most() as u64 > target.bound() {
            let (most, bound) = (memory.most(), target.bound());
            faults.push(format!("{target:?} {number}: took {most} bytes, {bound} are the most"));
        }
        if faults.len() > 20 {
            break;
        }
    }
    current.store(u64::MAX, Ordering::Relaxed);
    drop(std::panic::take_hook());
    let panics = watch::panics();
    report(&plan, &tallies, &panics, &faults);
    let ours: Vec<&String> = panics.keys().filter(|place| watch::is_ours(place)).collect();
    assert!(faults.is_empty(), "seed {}: {faults:#?}", plan.seed);
    assert!(ours.is_empty(), "seed {}: our own code panicked at {ours:?}", plan.seed);
    if plan.runs >= RUNS {
        // A corpus that is refused at the door tries no decoder.
        for (target, Tally { read, refused, .. }) in &tallies {
            assert!(*read * 50 > *refused, "{target:?}: {read} read, {refused} refused");
        }
    }
}

/// Memory for files, where the system has such a folder.
fn scratch_root() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// Ends the process when an execution never comes back, and says which one it is.
fn watch_over(plan: &Plan) -> Arc<AtomicU64> {
    let current = Arc::new(AtomicU64::new(plan.from));
    let (seen, seed) = (Arc::clone(&current), plan.seed);
    let clock = Clock::system();
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, clock.now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = seen.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now != last {
                (last, since) = (now, clock.now());
            } else if clock.now().since(&since) > LOST {
                eprintln!("execution {now} of seed {seed} does not come back");
                std::process::abort();
            }
        }
    });
    current
}

/// One document on standard error, for `scripts/fuzz`.
fn report(
    plan: &Plan,
    tallies: &BTreeMap<Target, Tally>,
    panics: &BTreeMap<String, u64>,
    faults: &[String],
) {
    let targets: serde_json::Map<String, serde_json::Value> = tallies
        .iter()
        .map(|(target, tally)| {
            let of_bound = tally.most_bytes as f64 / target.bound() as f64;
            let tally = serde_json::json!({
                "read": tally.read,
                "refused": tally.refused,
                "most_bytes": tally.most_bytes,
                "of_bound": of_bound,
                "longest_ms": tally.longest.as_secs_f64() * 1e3,
            });
            (format!("{target:?}"), tally)
        })
        .collect();
    let executions: u64 = tallies.values().map(|tally| tally.read + tally.refused).sum();
    let document = serde_json::json!({
        "seed": plan.seed,
        "from": plan.from,
        "executions": executions,
        "targets": targets,
        "caught_panics": panics,
        "faults": faults,
    });
    eprintln!("fuzz: {document}");
}
