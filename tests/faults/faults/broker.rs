//! Commands of the broker that were obeyed already, that are late, or that somebody left there.

use std::process::Command;

use reticle_base::clock::Clock;
use reticle_base::ids::EventId;
use serde_json::json;

use crate::bench::{Bench, port_of};
use crate::common::mosquitto::Listener;
use crate::common::wait_for;

/// Where the box takes commands.
const COMMANDS: &str = "reticle/v1/bench/box-1/cmd";

/// A used `stop` comes again after a restart; so do a late one, one without a time, one of the
/// year 2099 and a retained one: capture goes on.
pub(super) fn replay(bench: &mut Bench) {
    let commands = Commands::new(bench);
    let used = commands.ask("stop", &json!({ "status": "init", "at": at(0) }), &[]);
    wait_for("the box to obey", || commands.succeeded(&used).then_some(()));
    wait_for("capture to end", || run(bench, "stopped"));
    let start = commands.ask("start", &json!({ "status": "init", "at": at(0) }), &[]);
    wait_for("the box to obey again", || commands.succeeded(&start).then_some(()));
    wait_for("capture to go on", || run(bench, "running"));
    bench.ledger.wait_for_more();

    bench.end_or_kill();
    // The broker keeps these for the box that is away.
    commands.repeat("stop", &used, &json!({ "status": "init", "at": at(0) }), &[]);
    commands.ask("stop", &json!({ "status": "init" }), &[]);
    commands.ask("stop", &json!({ "status": "init", "at": at(-600) }), &[]);
    commands.ask("stop", &json!({ "status": "init", "at": "2099-01-01T00:00:00Z" }), &[]);
    let kept = commands.ask("stop", &json!({ "status": "init", "at": at(0) }), &["-r"]);
    bench.go();
    let session = wait_for("a session, which none of these commands ends", || session(bench));
    // And once more when it is there. The last one is refused, after all that came before.
    commands.repeat("stop", &used, &json!({ "status": "init", "at": at(0) }), &[]);
    let last = commands.ask("snapshot", &json!({ "status": "init", "at": at(0) }), &[]);
    wait_for("the box to answer the last of them", || commands.failed(&last).then_some(()));
    bench.ledger.wait_for_more();
    let status = wait_for("a status", || bench.status());
    assert_eq!(status["run"], "running", "a command that is not to be obeyed stopped the box");
    assert_eq!(status["session"].as_str(), Some(&*session), "the session was ended by it");
    // What is retained stays at the broker otherwise, and comes at each start.
    commands.forget(&kept);
}

/// RFC 3339, so many seconds from now.
fn at(seconds: i64) -> String {
    let now = Clock::system().now().wall_ns / 1_000_000_000 + seconds;
    let time = time::OffsetDateTime::from_unix_timestamp(now).expect("a time of this century");
    time.format(&time::format_description::well_known::Rfc3339).expect("it can be written")
}

fn run(bench: &Bench, state: &str) -> Option<()> {
    bench.status().filter(|status| status["run"] == state).map(drop)
}

fn session(bench: &Bench) -> Option<String> {
    bench.status()?["session"].as_str().map(str::to_owned)
}

/// The one who asks, and what is answered.
struct Commands {
    port: u16,
    listener: Listener,
}

impl Commands {
    fn new(bench: &Bench) -> Self {
        let broker = bench.broker.as_ref().expect("the plan leaves this out elsewhere");
        let listener = broker.listen(&format!("{COMMANDS}/#"));
        Self { port: port_of(&format!("{}/", broker.url())), listener }
    }

    /// Asks under a new id.
    fn ask(&self, operation: &str, payload: &serde_json::Value, more: &[&str]) -> String {
        let id = EventId::new().to_string();
        self.repeat(operation, &id, payload, more);
        id
    }

    fn repeat(&self, operation: &str, id: &str, payload: &serde_json::Value, more: &[&str]) {
        self.say(
            &["-t", &format!("{COMMANDS}/{operation}/{id}"), "-m", &payload.to_string()],
            more,
        );
    }

    /// Takes a retained stop away.
    fn forget(&self, id: &str) {
        self.say(&["-t", &format!("{COMMANDS}/stop/{id}"), "-n"], &["-r"]);
    }

    fn say(&self, arguments: &[&str], more: &[&str]) {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "localhost", "-V", "mqttv5", "-q", "1", "-p", &self.port.to_string()]);
        let said = command.args(arguments).args(more).output();
        let said = said.expect("mosquitto_pub can be started");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    fn succeeded(&self, id: &str) -> bool {
        self.answered(id, "successful")
    }

    fn failed(&self, id: &str) -> bool {
        self.answered(id, "failed")
    }

    fn answered(&self, id: &str, status: &str) -> bool {
        let answers = self.listener.under(&format!("/{id}"));
        answers.iter().any(|answer| {
            let answer: Option<serde_json::Value> = serde_json::from_str(&answer.payload).ok();
            answer.is_some_and(|answer| answer["status"] == status)
        })
    }
}
