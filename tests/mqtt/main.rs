//! The feeds at a real broker, heard by a client that we did not write. Debian's mosquitto is
//! started and stopped by the tests; where it is not installed they say so and return.

mod commands;
#[path = "../common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use commands::{asked_now, end_of, obeying};
use common::mosquitto::{Listener, Message, Mosquitto, is_installed};
use common::{Daemon, Start, wait_at_most, wait_for};

/// Seconds between two signs of life in these tests: the least there is.
const KEEP_ALIVE_S: u64 = 5;

/// The lab hears of a dead box within one and a half of it.
const WILL: Duration = Duration::from_millis(KEEP_ALIVE_S * 1500);

/// How soon all of the state is back at a broker that lost its memory.
const BACK: Duration = Duration::from_secs(5);

/// What is told later than 10 s is historical.
const LATE: Duration = Duration::from_secs(11);

/// Restarts of the broker in which no event may be lost.
const RESTARTS: usize = 20;

struct Bench {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Bench {
    fn new(broker: &Mosquitto, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let config = folder.path().join("reticle.toml");
        let text = format!(
            "[box]\nsite = \"lab\"\nname = \"box-1\"\n[mqtt]\nurl = \"{}\"\n\
             keep_alive_s = {KEEP_ALIVE_S}\n{more}\n",
            broker.url()
        );
        #[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
        std::fs::write(&config, text).expect("the temporary folder can be written");
        Self { folder, config }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn prepared(&self) -> Start {
        Start::default().source("virtual").config(&self.config).data(self.data())
    }

    fn start(&self) -> Daemon {
        self.prepared().start()
    }
}

fn presence(listener: &Listener) -> Option<String> {
    let last = listener.under("/status").pop()?;
    last.json()["state"].as_str().map(str::to_owned)
}

fn wait_until(listener: &Listener, state: &str) {
    wait_for(&format!("status {state}"), || (presence(listener)? == state).then_some(()));
}

fn alarm_of(daemon: &Daemon, word: &str) -> Option<String> {
    let status = daemon.json("/api/v1/status");
    let alarms = status["alarms"].as_array()?;
    let alarm = alarms.iter().find(|alarm| alarm["kind"] == word)?;
    alarm["reason"].as_str().map(str::to_owned)
}

fn signal(daemon: &Daemon, signal: rustix::process::Signal) {
    let pid = i32::try_from(daemon.pid()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("the kernel gives positive process ids");
    rustix::process::kill_process(pid, signal).expect("a child can be signalled");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn a_box_that_is_killed_or_hangs_is_offline_within_one_and_a_half_keep_alives() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, "");
    let daemon = bench.start();
    wait_until(&listener, "online");
    let killed = Instant::now();
    daemon.kill();
    wait_until(&listener, "offline");
    assert!(killed.elapsed() <= WILL, "killed: {:?}", killed.elapsed());

    let daemon = bench.start();
    wait_until(&listener, "online");
    let hung = Instant::now();
    signal(&daemon, rustix::process::Signal::STOP);
    wait_until(&listener, "offline");
    // mosquitto 2.0 looks only every five seconds who is late (keepalive__check), and a little
    // time goes by until the message is here.
    assert!(hung.elapsed() <= WILL + Duration::from_secs(6), "hung: {:?}", hung.elapsed());
    signal(&daemon, rustix::process::Signal::CONT);
    wait_until(&listener, "online");
    assert!(daemon.stop().success());
    wait_until(&listener, "stopped");
}

#[test]
fn all_of_the_state_is_back_within_5_s_at_a_broker_that_lost_its_memory() {
    if !is_installed() {
        return;
    }
    let mut broker = Mosquitto::plain(false);
    let bench = Bench::new(&broker, "");
    let _daemon = bench.start();
    let complete = |listener: &Listener| {
        let topics: BTreeSet<String> = listener
            .heard()
            .into_iter()
            .filter_map(|heard| {
                heard.topic.strip_prefix("reticle/v1/lab/box-1/").map(str::to_owned)
            })
            .collect();
        let twins = ["session", "sync", "source", "model", "save"];
        let alarms = topics.iter().filter(|topic| topic.starts_with("a/")).count();
        let whole = topics.contains("status")
            && alarms == reticle_domain::alarm::AlarmKind::ALL.len()
            && twins.iter().all(|twin| topics.contains(&format!("twin/{twin}")));
        whole.then_some(())
    };
    let before = broker.listen("reticle/#");
    wait_for("the full state", || complete(&before));
    drop(before);
    for _ in 0..3 {
        broker.kill();
        broker.start();
        let after = broker.listen("reticle/#");
        assert!(
            wait_at_most(BACK, || complete(&after)).is_some(),
            "only {:?}",
            after.heard().into_iter().map(|heard| heard.topic).collect::<Vec<_>>()
        );
    }
}

/// Ids of the events in the store.
fn stored_events(data: &Path) -> BTreeSet<String> {
    let database = rusqlite::Connection::open_with_flags(
        data.join("reticle.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .expect("the store's database can be read");
    let mut asked =
        database.prepare("SELECT id FROM event WHERE id IS NOT NULL").expect("sound SQL");
    let ids = asked.query_map([], |row| row.get::<_, [u8; 16]>(0)).expect("events can be read");
    ids.map(|id| uuid::Uuid::from_bytes(id.expect("an id has 16 bytes")).to_string()).collect()
}

fn told_events(listener: &Listener) -> BTreeMap<String, Message> {
    let events = listener.heard().into_iter().filter(|heard| heard.topic.contains("/e/"));
    let id = |heard: &Message| heard.json()["id"].as_str().map(str::to_owned);
    events.filter_map(|heard| Some((id(&heard)?, heard))).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long ago it was is what is tested")]
fn over_20_restarts_of_the_broker_every_event_is_heard_by_its_id_and_late_ones_are_marked() {
    if !is_installed() {
        return;
    }
    let mut broker = Mosquitto::plain(true);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, "");
    let daemon = bench.start();
    wait_until(&listener, "online");
    let command = |word: &str| {
        let asked = ureq::post(daemon.url(&format!("/api/v1/commands/{word}"))).send_empty();
        asked.expect("the daemon takes commands");
    };
    for _ in 0..RESTARTS {
        command("pause");
        // In order: what mosquitto acknowledged and kept in memory only would be its loss.
        broker.stop();
        command("start");
        broker.start();
        let known = stored_events(&bench.data());
        wait_for("what was stored", || {
            let told = told_events(&listener);
            known.iter().all(|id| told.contains_key(id)).then_some(())
        });
    }
    broker.stop();
    command("pause");
    let away = stored_events(&bench.data()).len();
    assert!(away > RESTARTS, "{away} events are no test");
    let paused = Instant::now();
    wait_for("the event to be late", || (paused.elapsed() > LATE).then_some(()));
    daemon.kill();
    broker.start();
    let daemon = bench.start();
    let stored = wait_for("all events", || {
        let (stored, told) = (stored_events(&bench.data()), told_events(&listener));
        let ids: BTreeSet<String> = told.keys().cloned().collect();
        (stored == ids).then_some(stored)
    });
    let told = told_events(&listener);
    assert_eq!(told.len(), stored.len());
    assert!(told.values().all(|event| !event.retained), "an event is never retained");
    // By the time of the store's ids: the last pause was told late, the last start of all is not.
    let last =
        |topic: &str| told.values().rfind(|event| event.topic.ends_with(topic)).map(Message::json);
    assert_eq!(last("/e/paused").expect("a pause was told")["historical"], true);
    assert_eq!(last("/e/started").expect("a start was told")["historical"], false);
    assert!(daemon.stop().success());
}

/// Whether a value is what a schema of the document says, in the words that ours use.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    let all = |key: &str| schema[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let fits_one = |schema: &Value| fits(document, schema, value);
    let is_a = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    };
    let types = match &schema["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is_a),
        name => is_a(name),
    };
    let refers = schema["$ref"]
        .as_str()
        .is_none_or(|to| document.pointer(to.trim_start_matches('#')).is_some_and(fits_one));
    let choices =
        ["oneOf", "anyOf"].iter().all(|key| all(key).is_empty() || all(key).iter().any(fits_one));
    let words = all("enum").is_empty() || all("enum").contains(value);
    let word = schema.get("const").is_none_or(|word| word == value);
    let complete =
        all("required").iter().all(|key| key.as_str().is_some_and(|key| value.get(key).is_some()));
    let parts = schema["properties"].as_object().is_none_or(|properties| {
        properties
            .iter()
            .all(|(key, schema)| value.get(key).is_none_or(|value| fits(document, schema, value)))
    });
    let items = schema.get("items").is_none_or(|schema| {
        value.as_array().is_none_or(|items| items.iter().all(|item| fits(document, schema, item)))
    });
    let whole = all("allOf").iter().all(fits_one);
    types && refers && choices && words && word && complete && parts && items && whole
}

/// The messages that the document allows under a topic.
fn allowed<'a>(document: &'a Value, topic: &str) -> Vec<&'a Value> {
    let levels: Vec<&str> = topic.split('/').collect();
    let is_of = |channel: &&Value| {
        let address: Vec<&str> =
            channel["address"].as_str().unwrap_or_default().split('/').collect();
        address.len() == levels.len()
            && address.iter().zip(&levels).all(|(a, level)| a.starts_with('{') || a == level)
    };
    let channels = document["channels"].as_object().expect("there are channels");
    let Some(channel) = channels.values().find(is_of) else { return Vec::new() };
    let messages = channel["messages"].as_object().expect("a channel has messages");
    messages
        .values()
        .filter_map(|message| {
            let to = message["$ref"].as_str()?.trim_start_matches('#');
            document.pointer(to)?.get("payload")
        })
        .collect()
}

#[test]
fn what_is_said_is_what_the_published_document_describes() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, &obeying(&["pause"]));
    let daemon = bench.start();
    wait_until(&listener, "online");
    wait_for("measurements", || {
        let heard = listener.under("/m/frame").len() > 3 && !listener.under("/m/well").is_empty();
        heard.then_some(())
    });
    wait_for("health", || (!listener.under("/health").is_empty()).then_some(()));
    broker.say("reticle/v1/lab/box-1/cmd/pause/1", &asked_now());
    wait_for("the command's event", || (!listener.under("/e/commanded").is_empty()).then_some(()));
    assert!(daemon.stop().success());
    wait_until(&listener, "stopped");
    let document = reticle::publish::asyncapi();
    for heard in listener.heard() {
        let schemas = allowed(&document, &heard.topic);
        let value = heard.json();
        assert!(
            schemas.iter().any(|schema| fits(&document, schema, &value)),
            "the document does not describe {heard:?}"
        );
    }
}

#[test]
fn with_tls_password_and_acl_a_command_without_rights_is_refused_with_a_reason() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::secure(
        "user box\ntopic readwrite reticle/v1/lab/box-1/#\nuser lab\ntopic readwrite reticle/#\n",
    );
    let listener = broker.listen("reticle/#");
    let more = format!(
        "username = \"box\"\nca_file = \"{}\"\n{}",
        broker.ca().display(),
        obeying(&["pause", "start"])
    );
    let bench = Bench::new(&broker, &more);
    let daemon = bench.prepared().env("RETICLE_MQTT_PASSWORD", "pw-box").start();
    wait_until(&listener, "online");
    let ask = |op: &str, id: &str| {
        broker.say(&format!("reticle/v1/lab/box-1/cmd/{op}/{id}"), &asked_now());
        end_of(&listener, op, id)
    };
    let refused = ask("stop", "1");
    assert_eq!(refused["status"], "failed");
    assert_eq!(refused["reason"], "not_allowed");
    assert_eq!(ask("format", "2")["reason"], "unknown_operation");
    assert_eq!(ask("pause", "3")["status"], "successful");
    wait_for("the pause", || (daemon.json("/api/v1/status")["run"] == "paused").then_some(()));
    wait_for("commands in the logbook", || {
        (listener.under("/e/commanded").len() == 3).then_some(())
    });
    assert!(daemon.stop().success());
    wait_until(&listener, "stopped");
}

/// Whoever connects under the box's name throws it out, and ends its session: what was on its
/// way is forgotten by the broker and by the client library alike.
#[test]
fn a_session_that_is_lost_again_and_again_costs_no_event() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, "");
    let daemon = bench.start();
    wait_until(&listener, "online");
    let command = |word: &str| {
        let asked = ureq::post(daemon.url(&format!("/api/v1/commands/{word}"))).send_empty();
        asked.expect("the daemon takes commands");
    };
    for _ in 0..RESTARTS {
        command("pause");
        broker.take_over("reticle-lab-box-1");
        command("start");
    }
    assert!(daemon.stop().success());
    // What was not acknowledged before the end is told by the next life.
    let daemon = bench.start();
    wait_for("all events", || {
        let (stored, told) = (stored_events(&bench.data()), told_events(&listener));
        (stored.len() > RESTARTS && stored.iter().all(|id| told.contains_key(id))).then_some(())
    });
    let lost = daemon.json("/api/v1/status")["sync"].as_array().map_or(0, |places| {
        places.iter().filter(|place| place["quarantined"].as_u64() != Some(0)).count()
    });
    assert_eq!(lost, 0, "nothing is given up");
    assert!(daemon.stop().success());
}

#[test]
fn a_client_of_others_sees_the_state_and_has_its_request_answered() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, &obeying(&["pause"]));
    let daemon = bench.start();
    wait_until(&listener, "online");
    wait_for("the session", || {
        let session = listener.under("/twin/session").pop()?.json();
        (session["run"] == "running").then_some(())
    });
    let port = broker.url().rsplit(':').next().map(str::to_owned).expect("a url ends in a port");
    let output = std::process::Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/mqtt_client.py"))
        .args([port.as_str(), "reticle/v1/lab/box-1"])
        .output()
        .expect("python3 can be started; `scripts/setup test` installs it");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complained}");
    let heard: Value = serde_json::from_slice(&output.stdout).expect("it says JSON");
    assert_eq!(heard["retained"]["status"]["state"], "online", "{heard}");
    assert_eq!(heard["retained"]["a/source_lost"]["state"], "cleared", "{heard}");
    let answers = heard["answers"].as_array().expect("a list");
    let said: Vec<&Value> = answers.iter().map(|answer| &answer["status"]).collect();
    assert_eq!(said, ["executing", "successful"]);
    assert!(answers.iter().all(|answer| answer["correlation"] == "plate 7"), "{heard}");
    assert!(heard["retained"].as_object().is_some_and(|retained| {
        retained.keys().all(|topic| !topic.starts_with("e/") && !topic.starts_with("cmd/"))
    }));
    assert!(daemon.stop().success());
}

/// A copied configuration, a cloned card. Without an end to it the two take each other over some
/// four times a second.
#[test]
fn two_boxes_of_one_name_notice_say_so_and_do_not_fight() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let (one, other) = (Bench::new(&broker, ""), Bench::new(&broker, ""));
    let one = one.start();
    wait_until(&listener, "online");
    let other_daemon = other.start();
    for daemon in [&one, &other_daemon] {
        let reason = wait_for("the alarm", || alarm_of(daemon, "name_taken"));
        for part in ["\"reticle-lab-box-1\"", &broker.url(), "[box]"] {
            assert!(reason.contains(part), "{reason}");
        }
    }
    let lives = || {
        let said = listener.under("/status").into_iter().map(|heard| heard.json());
        let online = said.filter(|said| said["state"] == "online");
        online.map(|said| said["instance"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    // Both are there for a part of the time.
    let before = lives().len();
    let turns = |turns: usize| {
        wait_for("a change of turns", || (lives().len() >= before + turns).then_some(()));
    };
    #[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
    let began = Instant::now();
    turns(2);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1), "they fight: two turns in {took:?}");
    let said = lives();
    assert!(said.len() < 24, "they took each other over {} times", said.len());
    for daemon in [&one, &other_daemon] {
        assert!(alarm_of(daemon, "name_taken").is_some(), "it flutters");
        let counted = daemon.json("/api/v1/status")["counters"]["name_taken"].as_u64();
        assert!(counted.is_some_and(|times| (2..12).contains(&times)), "{counted:?}");
    }
    let cleared = listener.under("/e/alarm_cleared");
    assert!(cleared.iter().all(|heard| heard.json()["alarm"] != "name_taken"), "{cleared:?}");
    assert!(one.stop().success());
    assert!(other_daemon.stop().success());
}
