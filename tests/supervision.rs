//! A stage that hangs or panics, a thread that dies: found out, named, and got over, by the daemon
//! itself or by whoever watches it. Nothing that the daemon has to say waits for a disk that hangs.
//! The faults are injected (`RETICLE_INJECT`), the service manager is a socket of
//! the test's own. Each test prints the times that it measured.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

mod common;

use common::{Daemon, Start, mosquitto, reticle, wait_for};

/// A small, fast virtual microscope.
const CONFIG: &str = "[source]\nwidth = 256\nheight = 256\nfps = 25.0\n";

/// What counts as stuck here, instead of the limits of real work.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// A folder for data, a configuration, and a service manager that only listens.
struct Bench {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
        std::fs::write(folder.path().join("reticle.toml"), CONFIG).unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_nonblocking(true).unwrap();
        Self { folder, manager }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the daemon with these faults; none where the text is empty.
    fn start(&self, faults: &str) -> Daemon {
        Start::default()
            .config(self.folder.path().join("reticle.toml"))
            .data(self.data())
            .env("NOTIFY_SOCKET", self.folder.path().join("notify").to_str().unwrap())
            .env("RETICLE_INJECT", faults)
            .start()
    }

    /// What the manager was told since this was last asked.
    fn told(&self) -> Vec<String> {
        let mut buffer = [0; 1024];
        let mut told = Vec::new();
        while let Ok(length) = self.manager.recv(&mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap());
            told.push(text.trim_end().to_owned());
        }
        told
    }

    fn wait_until_told(&self, what: &str) {
        wait_for(what, || self.told().iter().any(|told| told == what).then_some(()));
    }

    /// Whether the manager was told nothing but that `stage` is stuck, five times in a row: for
    /// some five seconds.
    fn wait_for_silence(&self, stage: &str) {
        let stuck = format!("; {stage} is stuck");
        let mut in_a_row = 0;
        wait_for("the watchdog to starve", || {
            for told in self.told() {
                let silent = told.starts_with("STATUS=") && told.ends_with(&stuck);
                in_a_row = if silent { in_a_row + 1 } else { 0 };
            }
            (in_a_row >= 5).then_some(())
        });
    }

    fn fsck(&self) {
        let output =
            reticle().args(["fsck", "--json", "--data"]).arg(self.data()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "fsck found something:\n{text}");
    }
}

/// The stage as the status tells it.
fn stage(daemon: &Daemon, name: &str) -> Option<Value> {
    let status = daemon.json("/api/v1/status");
    let stages = status["health"]["stages"].as_array()?;
    stages.iter().find(|stage| stage["name"] == name).cloned()
}

fn wait_until_stuck(daemon: &Daemon, name: &str) {
    wait_for("the stage to be called stuck", || {
        stage(daemon, name).is_some_and(|stage| stage["stuck"] == true).then_some(())
    });
}

fn counter(daemon: &Daemon, name: &str) -> u64 {
    daemon.json("/api/v1/status")["counters"][name].as_u64().unwrap()
}

/// Frames whose result the daemon calls saved.
fn saved(daemon: &Daemon) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut after = String::new();
    loop {
        let page = daemon.json(&format!("/api/v1/frames?limit=500{after}"));
        let frames = page["frames"].as_array().unwrap();
        if frames.is_empty() {
            return all;
        }
        all.extend(frames.iter().map(|frame| frame["id"].as_str().unwrap().to_owned()));
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn a_panic_costs_its_frame_and_no_more() {
    let bench = Bench::new();
    let daemon = bench.start("segment-panic:10");
    daemon.wait_for_log("FAULT INJECTION is on");
    wait_for("the panic to be counted", || (counter(&daemon, "refused") == 1).then_some(()));
    let panicked = now();
    let before = counter(&daemon, "segmented");
    wait_for("frames to go on", || (counter(&daemon, "segmented") > before + 5).then_some(()));
    eprintln!("a panic: five more frames {:?} after it was counted", panicked.elapsed());
    let refusal = daemon.json("/api/v1/status")["last_refusal"].as_str().unwrap().to_owned();
    assert!(refusal.contains("its segmentation panicked (injected fault:"), "{refusal}");
    daemon.wait_for_log("the segmentation of a frame panicked");
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn three_panics_in_a_row_end_the_daemon_and_a_fresh_one_has_everything() {
    let bench = Bench::new();
    let mut daemon = bench.start("segment-panic:150:3");
    let promised = wait_for("some frames to be saved", || {
        let saved = saved(&daemon);
        (saved.len() > 2).then_some(saved)
    });
    daemon.wait_for_log("the segmentation of a frame panicked");
    let ended = now();
    wait_for("the daemon to end", || (!daemon.is_running()).then_some(()));
    daemon.wait_for_log("the thread segment died");
    drop(daemon);
    bench.fsck();
    let daemon = bench.start("");
    bench.wait_until_told("READY=1");
    eprintln!("three panics: ended and ready again {:?} later", ended.elapsed());
    assert!(promised.is_subset(&saved(&daemon)));
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn a_writer_that_stalls_and_goes_on_is_called_stuck_meanwhile() {
    let bench = Bench::new();
    let daemon = bench.start("writer-stall:40:8,stuck-after:2");
    bench.wait_until_told("WATCHDOG=1");
    daemon.wait_for_log("injected fault: the stage stands still");
    let stalled = now();
    wait_until_stuck(&daemon, "store-writer");
    eprintln!("writer: called stuck after {:?}, limit {STUCK_AFTER:?}", stalled.elapsed());
    daemon.wait_for_log("the stage that was stuck goes on");
    // What was told before is of no interest, and a full socket takes nothing.
    drop(bench.told());
    bench.wait_until_told("WATCHDOG=1");
    let before = counter(&daemon, "saved");
    wait_for("frames to be saved again", || (counter(&daemon, "saved") > before).then_some(()));
    eprintln!("writer: a stall of 8 s, frames saved again after {:?}", stalled.elapsed());
    let log = daemon.log();
    let called = |line: &&str| line.contains("a stage is stuck") && line.contains("store-writer");
    assert_eq!(log.lines().filter(called).count(), 1, "once, and not at every look:\n{log}");
    drop(bench.told());
    assert!(daemon.stop().success());
    bench.wait_until_told("STOPPING=1");
    bench.fsck();
}

#[test]
fn a_camera_that_hangs_starves_the_watchdog_and_nothing_is_lost() {
    starves("capture-hang:20:600", "capture");
}

#[test]
fn a_segmentation_that_hangs_starves_the_watchdog_and_nothing_is_lost() {
    starves("segment-stall:10:600", "segment");
}

#[test]
fn a_disk_that_hangs_starves_the_watchdog_and_nothing_is_lost() {
    starves("writer-stall:40:600", "store-writer");
}

/// The stage hangs for ever: the manager hears nothing, kills the process and starts another.
fn starves(fault: &str, name: &str) {
    let bench = Bench::new();
    let daemon = bench.start(&format!("{fault},stuck-after:{}", STUCK_AFTER.as_secs()));
    bench.wait_until_told("READY=1");
    bench.wait_until_told("WATCHDOG=1");
    daemon.wait_for_log("injected fault: the stage stands still");
    let hung = now();
    wait_until_stuck(&daemon, name);
    eprintln!("{name}: called stuck after {:?}, limit {STUCK_AFTER:?}", hung.elapsed());
    daemon.wait_for_log("a stage is stuck");
    bench.wait_for_silence(name);
    let promised = saved(&daemon);
    assert!(!promised.is_empty(), "nothing was saved before the fault");

    // What systemd does with WatchdogSignal=SIGKILL.
    let killed = now();
    daemon.kill();
    bench.fsck();
    let daemon = bench.start("");
    bench.wait_until_told("READY=1");
    let ready = killed.elapsed();
    let before = counter(&daemon, "saved");
    wait_for("frames to be saved again", || (counter(&daemon, "saved") > before).then_some(()));
    eprintln!("{name}: ready {ready:?} after the kill, frames saved {:?} after", killed.elapsed());
    assert!(promised.is_subset(&saved(&daemon)), "what was called saved is gone");
    assert!(daemon.stop().success());
    bench.fsck();
}

// ---- Threads that die -----------------------------------------------------------------------------

/// Within which the death of any thread is in status, log and alarm.
const NOTICED: Duration = Duration::from_secs(5);

/// Waits until the thread has died of its fault, and for all that must be told of it.
fn wait_until_told_of_death(daemon: &Daemon, name: &str, policy: &str) {
    daemon.wait_for_log("panics here");
    let died = now();
    let health = wait_for("the death to be in the status and an alarm", || {
        let status = daemon.try_json("/api/v1/status").ok()?;
        let threads = status["health"]["threads"].as_array()?;
        let thread = threads.iter().find(|thread| thread["name"] == name)?;
        let mut alarms = status["alarms"].as_array()?.iter();
        let alarm = alarms.find(|alarm| alarm["kind"] == "thread_died")?;
        let reason = alarm["reason"].as_str()?;
        assert!(reason.starts_with(&format!("{name} died (1 times so far)")), "{reason}");
        (thread["deaths"] == 1).then(|| thread.clone())
    });
    let took = died.elapsed();
    eprintln!("{name}: in the status and an alarm {took:?} after its death");
    assert!(took < NOTICED, "{took:?}");
    assert_eq!(health["policy"], policy);
    assert!(health["reason"].as_str().unwrap().contains("panics here"), "{health}");
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("a thread died")).expect(&log);
    assert!(line.contains(name) && line.contains(policy), "{line}");
}

/// The thread dies of the fault; the process ends, and a fresh one has all that was saved.
fn ends_the_process(fault: &str, name: &str) {
    let bench = Bench::new();
    let mut daemon = bench.start(fault);
    wait_until_told_of_death(&daemon, name, "end_the_process");
    let promised = daemon.try_json("/api/v1/frames?limit=500").map(|page| ids(&page));
    wait_for("the daemon to end", || (!daemon.is_running()).then_some(()));
    daemon.wait_for_log(&format!("the thread {name} died"));
    assert!(!daemon.end().success());
    bench.fsck();
    let daemon = bench.start("");
    bench.wait_until_told("READY=1");
    assert!(promised.unwrap_or_default().is_subset(&saved(&daemon)));
    assert!(daemon.stop().success());
}

fn ids(page: &Value) -> BTreeSet<String> {
    let frames = page["frames"].as_array().unwrap().iter();
    frames.map(|frame| frame["id"].as_str().unwrap().to_owned()).collect()
}

/// The thread dies of the fault and works again; frames were saved all the while.
fn begins_again(bench: &Bench, fault: &str, name: &str) -> Daemon {
    let daemon = bench.start(fault);
    wait_until_told_of_death(&daemon, name, "restart");
    wait_for("the thread to work again", || {
        let threads = daemon.try_json("/api/v1/status").ok()?["health"]["threads"].clone();
        let thread = threads.as_array()?.iter().find(|thread| thread["name"] == name)?;
        (thread["state"] == "works").then_some(())
    });
    let text = String::from_utf8(daemon.bytes("/metrics")).unwrap();
    let series = format!("reticle_thread_deaths_total{{thread=\"{name}\"}} 1");
    assert!(text.contains(&series), "{text}");
    let before = counter(&daemon, "saved");
    wait_for("frames to be saved", || (counter(&daemon, "saved") > before).then_some(()));
    daemon
}

#[test]
fn the_process_ends_of_a_control_loop_that_dies() {
    ends_the_process("control-panic:12", "control");
}

#[test]
fn the_process_ends_of_a_capture_that_dies() {
    ends_the_process("capture-panic:50", "capture");
}

#[test]
fn the_process_ends_of_a_segmentation_that_dies() {
    ends_the_process("segment-panic:20:3", "segment");
}

#[test]
fn the_process_ends_of_a_writer_that_dies() {
    ends_the_process("writer-panic:40", "store-writer");
}

#[test]
fn a_sync_that_dies_tells_again_how_far_the_destinations_are() {
    let bench = Bench::new();
    // At its first look: nothing is told but in its next life.
    let daemon = begins_again(&bench, "sync-panic:1", "sync");
    wait_for("the archive to be told of", || {
        let status = daemon.json("/api/v1/status");
        (status["sync"][0]["destination"] == "archive").then_some(())
    });
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn a_delivery_loop_that_dies_delivers_again() {
    let bench = Bench::new();
    let daemon = begins_again(&bench, "sync-archive-panic:2", "sync-archive");
    post(&daemon, "deliver");
    wait_for("a table to be delivered", || {
        has_a_table(&bench.data().join("archive")).then_some(())
    });
    assert!(daemon.stop().success());
    bench.fsck();
}

/// Whether there is one somewhere below.
fn has_a_table(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        path.extension().is_some_and(|ending| ending == "parquet") || has_a_table(&path)
    })
}

#[test]
fn a_page_that_dies_is_served_again_at_the_same_address() {
    let bench = Bench::new();
    // Both the answers of `begins_again` and the stop come from its second life.
    let daemon = begins_again(&bench, "web-panic:3", "web");
    assert_eq!(daemon.json("/api/v1/status")["run"], "running");
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn a_feed_that_dies_connects_again_and_tells_of_its_death() {
    if !mosquitto::is_installed() {
        eprintln!("skipped: mosquitto is not installed");
        assert!(std::env::var_os("CI").is_none(), "where everything must run, it is missing");
        return;
    }
    let bench = Bench::new();
    let broker = mosquitto::Mosquitto::plain(false);
    let listener = broker.listen("#");
    let mqtt = format!("[mqtt]\nurl = \"{}\"\n", broker.url());
    #[expect(clippy::disallowed_methods, reason = "a test's file need not survive")]
    std::fs::write(bench.folder.path().join("reticle.toml"), format!("{CONFIG}{mqtt}")).unwrap();
    let daemon = begins_again(&bench, "publish-panic:8", "publish");
    wait_for("the broker to be told of the death", || {
        let alarms = listener.under("/a/thread_died");
        alarms.iter().any(|alarm| alarm.json().to_string().contains("publish died")).then_some(())
    });
    assert!(daemon.stop().success());
    bench.fsck();
}

// ---- A disk that hangs ----------------------------------------------------------------------------

fn post(daemon: &Daemon, command: &str) {
    let answer = ureq::post(daemon.url(&format!("/api/v1/commands/{command}"))).send_empty();
    assert!(answer.is_ok(), "{command}: {answer:?}");
}

fn wait_until_run(daemon: &Daemon, state: &str) {
    wait_for(&format!("the box to be {state}"), || {
        (daemon.json("/api/v1/status")["run"] == state).then_some(())
    });
}

/// That the control loop goes on: the manager hears from it.
fn wait_for_a_sign(bench: &Bench) {
    drop(bench.told());
    wait_for("a sign of life", || {
        bench.told().iter().any(|told| told.starts_with("STATUS=")).then_some(())
    });
}

#[test]
fn commands_given_while_the_disk_hangs_are_done_when_it_goes_on() {
    let bench = Bench::new();
    let daemon = bench.start("writer-stall:40:20,stuck-after:2");
    wait_until_stuck(&daemon, "store-writer");
    let first = daemon.json("/api/v1/status")["session"].clone();
    for _ in 0..3 {
        post(&daemon, "stop");
        post(&daemon, "start");
    }
    post(&daemon, "stop");
    wait_until_run(&daemon, "stopped");
    post(&daemon, "start");
    wait_for_a_sign(&bench);
    assert_eq!(stage(&daemon, "store-writer").unwrap()["stuck"], true, "the stall was too short");
    wait_until_run(&daemon, "running");
    daemon.wait_for_log("the stage that was stuck goes on");
    let second = daemon.json("/api/v1/status")["session"].clone();
    assert_ne!(first, second);
    let before = counter(&daemon, "saved");
    wait_for("frames to be saved again", || (counter(&daemon, "saved") > before).then_some(()));
    let sessions = daemon.json("/api/v1/sessions")["sessions"].clone();
    let sessions = sessions.as_array().unwrap().clone();
    assert!(sessions.iter().any(|session| session["id"] == second), "{sessions:?}");
    let ended = sessions.iter().find(|session| session["id"] == first).unwrap();
    assert!(ended["ended"].is_string(), "{ended}");
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn a_daemon_whose_disk_hangs_ends_when_it_is_asked_to_and_says_without_whom() {
    let bench = Bench::new();
    let daemon = bench.start("writer-stall:40:600,stuck-after:2");
    wait_until_stuck(&daemon, "store-writer");
    let promised = saved(&daemon);
    let asked = now();
    let log = daemon.log_to_read();
    let ended = daemon.stop();
    eprintln!("a writer that hangs: ended {:?} after it was asked", asked.elapsed());
    assert!(!ended.success(), "it did not close the store");
    let said = wait_for("what it says at its end", || {
        log().lines().find(|line| line.contains("ended without")).map(str::to_owned)
    });
    assert!(said.contains("store-writer") && !said.contains("web"), "{said}");
    bench.fsck();
    let daemon = bench.start("");
    assert!(promised.is_subset(&saved(&daemon)));
    assert!(daemon.stop().success());
}

#[test]
fn an_order_of_the_command_line_is_carried_out_once_however_long_that_takes() {
    let bench = Bench::new();
    let daemon = bench.start("writer-stall:40:600,stuck-after:2");
    wait_until_stuck(&daemon, "store-writer");
    let mut retry = reticle();
    retry.args(["sync", "retry", "--everything", "--data"]).arg(bench.data());
    let mut asking = retry.stderr(std::process::Stdio::null()).spawn().unwrap();
    daemon.wait_for_log("an order was taken");
    wait_for_a_sign(&bench);
    daemon.kill();
    assert!(!asking.wait().unwrap().success(), "the command line is told that it was not done");
    let daemon = bench.start("");
    wait_for("frames to be saved", || (counter(&daemon, "saved") > 0).then_some(()));
    assert!(!daemon.log().contains("an order was taken"), "{}", daemon.log());
    assert!(daemon.stop().success());
    bench.fsck();
}

#[test]
fn a_fault_that_is_none_is_refused_at_the_start() {
    let bench = Bench::new();
    let config = bench.folder.path().join("reticle.toml");
    let output = run_once(&config, &bench.data());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(
            "`camera-hang:1:2` is no fault that can be injected; write THREAD-panic:NUMBER"
        ),
        "{said}"
    );
}

fn run_once(config: &Path, data: &Path) -> std::process::Output {
    let mut command = reticle();
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(config);
    command.arg("--data").arg(data).env("RETICLE_INJECT", "camera-hang:1:2").output().unwrap()
}
