//! Commands at a real broker: done once, of now, and answered only where they may be.

use serde_json::Value;

use super::common::mosquitto::{Listener, Mosquitto, is_installed};
use super::common::{Daemon, wait_for};
use super::{Bench, wait_until};

/// Settings with which these are done, whatever the clock of the machine that tests.
pub(crate) fn obeying(commands: &[&str]) -> String {
    format!("commands = {commands:?}\ntrust_clock = true")
}

/// The time of whoever asks.
#[expect(clippy::disallowed_methods, reason = "the box and whoever asks have a clock each")]
fn now() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc()
}

/// The payload of a command that was asked so many seconds ago.
fn asked_ago(seconds: i64) -> String {
    let at = now() - time::Duration::seconds(seconds);
    let at = at.format(&time::format_description::well_known::Rfc3339).expect("a time of now");
    format!(r#"{{"status":"init","at":"{at}"}}"#)
}

pub(crate) fn asked_now() -> String {
    asked_ago(0)
}

/// The last word about a command, once it is said.
pub(crate) fn end_of(listener: &Listener, op: &str, id: &str) -> Value {
    let topic = format!("/cmd/{op}/{id}");
    wait_for(&format!("the end of {op} {id}"), || {
        let answer = listener.under(&topic).pop()?.json();
        matches!(answer["status"].as_str(), Some("successful" | "failed")).then_some(answer)
    })
}

fn run_of(daemon: &Daemon) -> String {
    daemon.json("/api/v1/status")["run"].as_str().unwrap_or_default().to_owned()
}

/// The broker delivers again, somebody sends again what was recorded, the box is killed in between:
/// a stop that was obeyed does not stop the box that somebody has started since.
#[test]
fn a_used_id_is_not_done_again_after_kill_9_and_gets_its_first_answer() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, &obeying(&["start", "stop"]));
    let daemon = bench.start();
    wait_until(&listener, "online");
    let (topic, payload) = ("reticle/v1/lab/box-1/cmd/stop/7", asked_now());
    broker.say(topic, &payload);
    let first = end_of(&listener, "stop", "7");
    assert_eq!((&first["status"], &first["repeated"]), (&"successful".into(), &Value::Null));
    wait_for("the stop", || (run_of(&daemon) == "stopped").then_some(()));
    // Told when it is committed, and the answer beside the id was committed before it.
    wait_for("the logbook", || (!listener.under("/e/commanded").is_empty()).then_some(()));
    daemon.kill();
    wait_until(&listener, "offline");

    // A box that starts runs. The same message comes again, well within its minute.
    let daemon = bench.start();
    wait_until(&listener, "online");
    wait_for("the session", || (run_of(&daemon) == "running").then_some(()));
    broker.say(topic, &payload);
    let again = wait_for("the answer again", || {
        let answer = listener.under("/cmd/stop/7").pop()?.json();
        (answer["repeated"] == true).then_some(answer)
    });
    assert_eq!((&again["status"], &again["result"]), (&first["status"], &first["result"]));
    // What was asked after it is done after it, so it is not on its way any more.
    broker.say("reticle/v1/lab/box-1/cmd/start/8", &asked_now());
    assert_eq!(end_of(&listener, "start", "8")["status"], "successful");
    assert_eq!(run_of(&daemon), "running");
    assert!(daemon.stop().success());
}

#[test]
fn a_command_without_a_time_of_now_moves_nothing_and_is_told_the_time_of_the_box() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(true);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, &obeying(&["stop"]));
    let daemon = bench.start();
    wait_until(&listener, "online");
    let ask = |id: &str, payload: &str| {
        broker.say(&format!("reticle/v1/lab/box-1/cmd/stop/{id}"), payload);
    };
    let refused = |id: &str, reason: &str| {
        let answer = end_of(&listener, "stop", id);
        assert_eq!(answer["reason"], reason, "{answer}");
        let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
        let dated = detail.contains(&format!(" {}-", now().year()));
        assert!(reason == "bad_request" || dated, "no time of the box: {detail}");
    };
    ask("undated", r#"{"status":"init"}"#);
    refused("undated", "undated");
    ask("future", r#"{"status":"init","at":"2099-01-01T00:00:00Z"}"#);
    refused("future", "future");
    ask("old", &asked_ago(65));
    refused("old", "stale");
    broker.say_with("reticle/v1/lab/box-1/cmd/stop/kept", &asked_now(), &["-r"]);
    refused("kept", "bad_request");
    assert_eq!(run_of(&daemon), "running");
    daemon.kill();
    wait_until(&listener, "offline");

    // What waits at the broker for a box that is away: none of it stops the box that comes back. The
    // one that is of now all the same ends the session, so that the others were surely heard.
    ask("waits-undated", r#"{"status":"init"}"#);
    ask("waits-old", &asked_ago(65));
    let expired = "reticle/v1/lab/box-1/cmd/stop/waits-expired";
    let expiry = ["-D", "publish", "message-expiry-interval", "1"];
    let expires = now() + time::Duration::seconds(2);
    broker.say_with(expired, &asked_now(), &expiry);
    wait_for("the expiry", || (now() > expires).then_some(()));
    ask("waits-young", &asked_now());
    let daemon = bench.start();
    wait_until(&listener, "online");
    refused("waits-undated", "undated");
    refused("waits-old", "stale");
    assert_eq!(end_of(&listener, "stop", "waits-young")["status"], "successful");
    let said = listener.under("/cmd/stop/waits-expired");
    assert!(said.iter().all(|heard| heard.json()["status"] == "init"), "{said:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_box_whose_clock_nobody_keeps_in_step_does_no_command_unless_its_owner_says_so() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("reticle/#");
    let bench = Bench::new(&broker, "commands = [\"pause\"]");
    let daemon = bench.start();
    wait_until(&listener, "online");
    let trusted = wait_for("health", || {
        let health = listener.under("/health").pop()?.json();
        health["clock_trusted"].as_bool()
    });
    broker.say("reticle/v1/lab/box-1/cmd/pause/1", &asked_now());
    let answer = end_of(&listener, "pause", "1");
    if trusted {
        assert_eq!(answer["status"], "successful", "{answer}");
    } else {
        assert_eq!(answer["reason"], "clock_untrusted", "{answer}");
        assert_eq!(run_of(&daemon), "running");
    }
    assert!(daemon.stop().success());
}

#[test]
fn an_answer_goes_below_the_boxs_reply_and_listed_prefixes_and_nowhere_else() {
    if !is_installed() {
        return;
    }
    let broker = Mosquitto::plain(false);
    let listener = broker.listen("#");
    let more = format!("{}\nreply_prefixes = [\"answers/lab\"]", obeying(&["pause", "start"]));
    let bench = Bench::new(&broker, &more);
    let daemon = bench.start();
    wait_until(&listener, "online");
    let ask = |op: &str, id: &str, to: &str| {
        let topic = format!("reticle/v1/lab/box-1/cmd/{op}/{id}");
        broker.say_with(&topic, &asked_now(), &["-D", "publish", "response-topic", to]);
        end_of(&listener, op, id)
    };
    let foreign = [
        "lab/door/open",
        "answers/laboratory",
        "reticle/v1/lab/box-2/cmd/stop/1",
        "reticle/v1/lab/box-1/status",
        "spBv1.0/lab/NCMD/box-2",
        "homeassistant/switch/door/set",
    ];
    for (n, to) in foreign.iter().enumerate() {
        let answer = ask("pause", &format!("foreign-{n}"), to);
        assert_eq!(answer["reason"], "reply_not_allowed", "{to}: {answer}");
        assert_eq!(run_of(&daemon), "running", "{to}");
    }
    for (op, to) in [("pause", "reticle/v1/lab/box-1/reply/me"), ("start", "answers/lab/17")] {
        assert_eq!(ask(op, "allowed", to)["status"], "successful");
        wait_for(to, || {
            let said = listener.heard().into_iter().filter(|heard| heard.topic == to);
            let said: Vec<Value> = said.map(|heard| heard.json()["status"].clone()).collect();
            (said == ["executing", "successful"]).then_some(())
        });
    }
    // The answers above came after whatever would have been said there.
    for heard in listener.heard() {
        let is_answer = heard.payload.contains("reply_not_allowed");
        let own = heard.topic.starts_with("reticle/v1/lab/box-1/");
        assert!(!foreign.contains(&heard.topic.as_str()) || own, "{heard:?}");
        assert!(!is_answer || heard.topic.contains("/box-1/cmd/") || heard.topic.contains("/e/"));
    }
    assert!(daemon.stop().success());
}
