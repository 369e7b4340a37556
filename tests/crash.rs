//! kill -9 at random moments: what the API called saved is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::time::Duration;

mod common;

use common::{Daemon, Start, reticle, wait_for};

/// Rounds in the suite; `RETICLE_CRASH_ROUNDS=50` for the long run of docs/design/storage.md.
const ROUNDS: u32 = 5;

/// A small, fast virtual microscope: many commits a second, so that a kill hits one.
const CONFIG: &str = "[source]\nwidth = 256\nheight = 256\nfps = 25.0\n";

/// Every saved frame by id → (pixel hash, label hash, objects), page by page.
fn saved(daemon: &Daemon) -> BTreeMap<String, (String, String, u64)> {
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = daemon.json(&format!("/api/v1/frames?limit=500{after}"));
        let frames = page["frames"].as_array().expect("a list of frames");
        if frames.is_empty() {
            return all;
        }
        for frame in frames {
            let text = |key: &str| frame[key].as_str().expect("a text").to_owned();
            let objects = frame["objects"].as_u64().expect("a count");
            all.insert(text("id"), (text("sha256"), text("labels_sha256"), objects));
        }
        after = format!("&after={}", page["next"].as_str().expect("a cursor"));
    }
}

fn fsck(data: &std::path::Path) -> Value {
    let output = reticle().args(["fsck", "--json", "--data"]).arg(data).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "fsck found something:\n{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_was_called_saved_survives_kill_9_at_random_moments() {
    let rounds = std::env::var("RETICLE_CRASH_ROUNDS")
        .ok()
        .map_or(ROUNDS, |text| text.parse().expect("RETICLE_CRASH_ROUNDS is a number"));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("reticle.toml");
    #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
    std::fs::write(&config, CONFIG).unwrap();
    let data = folder.path().join("data");
    let seed = rand::rng().random();
    eprintln!("seed {seed}, {rounds} rounds");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut promised = BTreeMap::new();
    for round in 0..rounds {
        let daemon = Start::default().config(&config).data(&data).start();
        let at_start = daemon.json("/api/v1/status")["counters"]["saved"].as_u64();
        wait_for("new frames to be saved", || {
            let status = daemon.json("/api/v1/status");
            (status["counters"]["saved"].as_u64() > at_start.map(|count| count + 3)).then_some(())
        });
        // Anything from right now to in the middle of a later frame's commit.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        promised.extend(saved(&daemon));
        daemon.kill();

        fsck(&data);
        let daemon = Start::default().config(&config).data(&data).start();
        let now = saved(&daemon);
        for (id, promise) in &promised {
            assert_eq!(now.get(id), Some(promise), "round {round}: frame {id} was called saved");
        }
        assert!(daemon.stop().success());
        fsck(&data);
    }
    eprintln!("{} frames were called saved, all are there", promised.len());
    assert!(promised.len() >= 4 * rounds as usize);
}
