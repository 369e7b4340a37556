//! Sparkplug B at a real broker, heard by a client that we did not write and read with a schema
//! of the tests' own. Debian's mosquitto is started and stopped by the tests; where it is not
//! installed they say so and return.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod common;

use std::path::PathBuf;

use prost::Message as _;

use common::mosquitto::{Listener, Message, Mosquitto, is_installed};
use common::{Daemon, Start, wait_for};

/// Written from Eclipse Tahu's `sparkplug_b.proto`, not from what the box uses.
mod tahu {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Payload {
        #[prost(uint64, optional, tag = "1")]
        pub(crate) timestamp: Option<u64>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) metrics: Vec<Metric>,
        #[prost(uint64, optional, tag = "3")]
        pub(crate) seq: Option<u64>,
        #[prost(string, optional, tag = "4")]
        pub(crate) uuid: Option<String>,
        #[prost(bytes = "vec", optional, tag = "5")]
        pub(crate) body: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Metric {
        #[prost(string, optional, tag = "1")]
        pub(crate) name: Option<String>,
        #[prost(uint64, optional, tag = "2")]
        pub(crate) alias: Option<u64>,
        #[prost(uint64, optional, tag = "3")]
        pub(crate) timestamp: Option<u64>,
        #[prost(uint32, optional, tag = "4")]
        pub(crate) datatype: Option<u32>,
        #[prost(bool, optional, tag = "5")]
        pub(crate) is_historical: Option<bool>,
        #[prost(bool, optional, tag = "6")]
        pub(crate) is_transient: Option<bool>,
        #[prost(bool, optional, tag = "7")]
        pub(crate) is_null: Option<bool>,
        #[prost(uint32, optional, tag = "10")]
        pub(crate) int_value: Option<u32>,
        #[prost(uint64, optional, tag = "11")]
        pub(crate) long_value: Option<u64>,
        #[prost(float, optional, tag = "12")]
        pub(crate) float_value: Option<f32>,
        #[prost(double, optional, tag = "13")]
        pub(crate) double_value: Option<f64>,
        #[prost(bool, optional, tag = "14")]
        pub(crate) boolean_value: Option<bool>,
        #[prost(string, optional, tag = "15")]
        pub(crate) string_value: Option<String>,
    }

    impl Payload {
        pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
            self.metrics.iter().find(|metric| metric.name.as_deref() == Some(name))
        }

        pub(crate) fn bd_seq(&self) -> Option<u64> {
            self.metric("bdSeq")?.long_value
        }
    }
}

use tahu::{Metric, Payload};

const BIRTH: &str = "spBv1.0/lab/NBIRTH/box-1";
const DATA: &str = "spBv1.0/lab/NDATA/box-1";
const DEATH: &str = "spBv1.0/lab/NDEATH/box-1";
const COMMAND: &str = "spBv1.0/lab/NCMD/box-1";

struct Bench {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Bench {
    fn new(broker: &Mosquitto, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("reticle.toml");
        let text = format!(
            "[box]\nsite = \"lab\"\nname = \"box-1\"\n[mqtt]\nurl = \"{}\"\nkeep_alive_s = 5\n\
             {more}\n",
            broker.url()
        );
        #[expect(clippy::disallowed_methods, reason = "a test's file need not last")]
        std::fs::write(&config, text).unwrap();
        Self { folder, config }
    }

    fn start(&self) -> Daemon {
        let data = self.folder.path().join("data");
        Start::default().source("virtual").config(&self.config).data(data).start()
    }
}

const SPARKPLUG: &str = "mode = \"sparkplug\"";

/// Told by the tests themselves, to know that somebody listens: nothing is retained, so what is
/// said before is not heard.
const LISTENING: &str = "listening";

fn listen(broker: &Mosquitto) -> Listener {
    let listener = broker.listen_in_hex("#");
    wait_for("somebody who listens", || {
        broker.say(LISTENING, "?");
        (!listener.under(LISTENING).is_empty()).then_some(())
    });
    listener
}

/// Everything that others said.
fn said(listener: &Listener) -> Vec<Message> {
    listener.heard().into_iter().filter(|heard| heard.topic != LISTENING).collect()
}

/// What was heard under a topic, read.
fn under(listener: &Listener, topic: &str) -> Vec<Payload> {
    let heard = listener.heard().into_iter().filter(|heard| heard.topic == topic);
    heard.map(|heard| read(&heard.payload)).collect()
}

fn read(payload: &str) -> Payload {
    Payload::decode(hex::decode(payload).unwrap().as_slice()).unwrap()
}

/// The `count`th message under a topic, counted from 1.
fn nth(listener: &Listener, topic: &str, count: usize) -> Payload {
    wait_for(&format!("message {count} under {topic}"), || {
        under(listener, topic).into_iter().nth(count - 1)
    })
}

fn post(daemon: &Daemon, word: &str) {
    ureq::post(daemon.url(&format!("/api/v1/commands/{word}"))).send_empty().unwrap();
}

fn command(name: &str) -> Vec<u8> {
    let metric = Metric {
        name: Some(name.to_owned()),
        timestamp: Some(1),
        datatype: Some(11),
        boolean_value: Some(true),
        ..Metric::default()
    };
    Payload { timestamp: Some(1), metrics: vec![metric], ..Payload::default() }.encode_to_vec()
}

#[test]
fn birth_data_and_death_agree_over_kill_restart_of_the_broker_and_a_stop_in_order() {
    if !is_installed() {
        return;
    }
    let mut broker = Mosquitto::plain(true);
    let listener = listen(&broker);
    let bench = Bench::new(&broker, SPARKPLUG);

    let daemon = bench.start();
    let birth = nth(&listener, BIRTH, 1);
    assert_eq!(birth.seq, Some(0));
    assert_eq!(birth.bd_seq(), Some(0), "every start of the daemon begins at 0");
    let frames = wait_for("frames told", || {
        let data = under(&listener, DATA);
        let segmented = |data: &Payload| data.metric("Frame/Objects")?.long_value;
        data.iter().find_map(segmented)
    });
    assert!(frames > 0, "the virtual microscope shows cells");
    daemon.kill();
    assert_eq!(nth(&listener, DEATH, 1).bd_seq(), birth.bd_seq(), "killed: the broker says it");
    assert_eq!(nth(&listener, DEATH, 1).seq, None);

    let daemon = bench.start();
    let birth = nth(&listener, BIRTH, 2);
    assert_eq!((birth.seq, birth.bd_seq()), (Some(0), Some(0)));
    broker.stop();
    broker.start();
    let birth = nth(&listener, BIRTH, 3);
    assert_eq!(birth.seq, Some(0));
    assert!(birth.bd_seq() > Some(0), "one more with every CONNECT: {:?}", birth.bd_seq());
    let of_this_life =
        || under(&listener, DEATH).into_iter().find(|death| death.bd_seq() == birth.bd_seq());
    assert_eq!(of_this_life(), None, "it lives");
    assert!(daemon.stop().success());
    let death = wait_for("the death that a box says itself", of_this_life);
    assert_eq!((death.metrics.len(), death.seq), (1, None));
}

#[test]
fn state_is_told_with_seq_without_holes_and_a_rebirth_says_all_of_it_again() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = listen(&broker);
    let bench = Bench::new(&broker, SPARKPLUG);
    let daemon = bench.start();
    let birth = nth(&listener, BIRTH, 1);
    for metric in &birth.metrics {
        assert!(metric.name.is_some() && metric.timestamp.is_some(), "{metric:?}");
        assert!(metric.datatype.is_some(), "{metric:?}");
    }
    let control = birth.metric("Node Control/Rebirth").unwrap();
    assert_eq!(control.boolean_value, Some(false));
    for kind in reticle_domain::alarm::AlarmKind::ALL {
        let alarm = birth.metric(&format!("Alarms/{}", kind.word())).unwrap();
        assert!(alarm.boolean_value.is_some(), "{alarm:?}");
    }

    // Neither is obeyed: else a birth would say that it is paused, and not data.
    broker.say_bytes(COMMAND, &command("Node Control/Reboot"));
    broker.say_bytes(COMMAND, b"no message of Sparkplug");
    post(&daemon, "pause");
    wait_for("the pause", || {
        under(&listener, DATA).iter().find(|data| {
            let run = data.metric("Acquisition/State").and_then(|run| run.string_value.clone());
            run.as_deref() == Some("paused")
        })?;
        Some(())
    });
    assert_eq!(under(&listener, BIRTH).len(), 1);
    wait_for("health", || {
        let free = |data: &Payload| data.metric("Storage/Free Bytes")?.long_value;
        under(&listener, BIRTH).iter().chain(&under(&listener, DATA)).find_map(free)
    });
    broker.say_bytes(COMMAND, &command("Node Control/Rebirth"));
    let again = nth(&listener, BIRTH, 2);
    assert_eq!((again.seq, again.bd_seq()), (Some(0), birth.bd_seq()), "the same life");
    let names = |payload: &Payload| -> Vec<Option<String>> {
        payload.metrics.iter().map(|metric| metric.name.clone()).collect()
    };
    assert_eq!(names(&again), names(&birth));
    let run = again.metric("Acquisition/State").unwrap();
    assert_eq!(run.string_value.as_deref(), Some("paused"));
    post(&daemon, "start");
    wait_for("frames after the rebirth", || {
        let heard = listener.heard();
        let last = heard.iter().rposition(|heard| heard.topic == BIRTH)?;
        (heard.iter().skip(last).filter(|heard| heard.topic == DATA).count() > 2).then_some(())
    });
    assert!(daemon.stop().success());
    nth(&listener, DEATH, 1);

    let mut next = 0;
    let mut known = names(&birth);
    known.sort();
    for heard in said(&listener) {
        assert!(!heard.retained, "{heard:?}");
        match heard.topic.as_str() {
            BIRTH => next = 0,
            DATA => {}
            DEATH => {
                assert_eq!(heard.qos, "1", "{heard:?}");
                continue;
            }
            COMMAND => continue,
            _ => panic!("{} is no topic of an edge node", heard.topic),
        }
        assert_eq!(heard.qos, "0", "{heard:?}");
        let payload = read(&heard.payload);
        assert!(names(&payload).iter().all(|name| known.binary_search(name).is_ok()));
        assert_eq!(payload.seq, Some(next), "{}", heard.topic);
        next = (next + 1) % 256;
    }
}

#[test]
fn the_two_ways_of_speaking_never_mix() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = listen(&broker);
    let ours = Bench::new(&broker, "");
    let daemon = ours.start();
    wait_for("a frame", || (!listener.under("/m/frame").is_empty()).then_some(()));
    assert!(daemon.stop().success());
    let heard = said(&listener);
    assert!(heard.iter().all(|heard| heard.topic.starts_with("reticle/v1/")), "{heard:?}");

    let broker = Mosquitto::plain(false);
    let listener = listen(&broker);
    let theirs = Bench::new(&broker, SPARKPLUG);
    let daemon = theirs.start();
    nth(&listener, DATA, 2);
    let destination = wait_for("the broker among the destinations", || {
        let status = daemon.json("/api/v1/status");
        let sync = status["sync"].as_array()?;
        sync.iter().find(|sync| sync["destination"] == "broker").cloned()
    });
    assert_eq!(destination["waiting"], 0, "nothing waits for a broker that is not told all");
    assert!(daemon.stop().success());
    nth(&listener, DEATH, 1);
    let heard = said(&listener);
    assert!(heard.iter().all(|heard| heard.topic.starts_with("spBv1.0/lab/")), "{heard:?}");
}

/// Nothing is retained, and rumqttc does not read mosquitto's reason: being let in and thrown out
/// again and again is the sign.
#[test]
fn two_edge_nodes_of_one_name_notice_and_take_turns() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = listen(&broker);
    let benches = [Bench::new(&broker, SPARKPLUG), Bench::new(&broker, SPARKPLUG)];
    let daemons = benches.each_ref().map(Bench::start);
    for daemon in &daemons {
        let reason = wait_for("the alarm", || {
            let status = daemon.json("/api/v1/status");
            let alarms = status["alarms"].as_array()?;
            let alarm = alarms.iter().find(|alarm| alarm["kind"] == "name_taken")?;
            alarm["reason"].as_str().map(str::to_owned)
        });
        assert!(reason.contains("\"reticle-lab-box-1\""), "{reason}");
    }
    let births = under(&listener, BIRTH).len();
    assert!(births < 40, "they took each other over {births} times");
    for daemon in daemons {
        assert!(daemon.stop().success());
    }
}
