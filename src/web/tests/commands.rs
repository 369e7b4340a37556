//! Commands, as a client sends them.

use std::io::Write as _;
use std::sync::atomic::Ordering;

use super::{ROOM, Server, read_answer};
use reticle_domain::actor::Actor;
use reticle_domain::order::Command;

/// Sends a command, with a key or without.
fn send(server: &Server, command: &str, key: Option<&str>) -> super::Answer {
    let key = key.map(|key| ("Idempotency-Key", key));
    let headers: Vec<_> = [("Content-Length", "0")].into_iter().chain(key).collect();
    server.ask("POST", &format!("/api/v1/commands/{command}"), &headers)
}

/// What has reached the daemon.
fn taken(server: &Server) -> Vec<Command> {
    server.orders.take().into_iter().map(|order| order.command).collect()
}

#[test]
fn a_command_reaches_the_daemon_and_a_wrong_one_is_told_what_there_is() {
    let server = Server::start();
    let answer = server.ask("POST", "/api/v1/commands/pause", &[("Content-Length", "0")]);
    assert_eq!((answer.status, &answer.json()["command"]), (202, &"pause".into()));
    let order = server.orders.take().remove(0);
    assert_eq!((order.actor, order.command), (Actor::Local, Command::Pause));
    let unknown = server.ask("POST", "/api/v1/commands/fly", &[("Content-Length", "0")]);
    assert_eq!(unknown.status, 404);
    assert!(unknown.problem().contains("there are start, pause, stop, deliver"));
    let wrong = server.get("/api/v1/commands/pause");
    assert_eq!(wrong.status, 405);
    wrong.problem();
}

#[test]
fn a_command_says_why_it_is_given_and_whoever_may_not_is_told_so() {
    let server = Server::start();
    let post = |body: &str| {
        let length = body.len().to_string();
        let headers = [("Content-Length", &*length), ("Content-Type", "application/json")];
        server.send("POST", "/api/v1/commands/stop", &headers, body)
    };
    assert_eq!(post(r#"{"reason":" the lamp failed "}"#).status, 202);
    let order = server.orders.take().remove(0);
    assert_eq!(order.reason.as_deref(), Some("the lamp failed"));
    assert_eq!(post(r#"{"reason":"forbid me"}"#).status, 403);
    assert_eq!(post(r#"{"because":"of it"}"#).status, 400);
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(501));
    assert!(post(&long).problem().contains("500 bytes"));
}

#[test]
fn the_command_line_calls_over_the_socket_under_any_name_and_is_the_user_that_the_kernel_names() {
    let server = Server::start();
    let mut socket = crate::web::local::connect(server.data.path()).unwrap();
    let request = "POST /api/v1/commands/retry_deliveries HTTP/1.1\r\nHost: whatever.example\r\n\
                   Connection: close\r\nContent-Length: 0\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let answer = read_answer(&mut socket);
    assert_eq!((answer.status, &answer.json()["retried"]), (200, &3.into()));
    let order = server.orders.take().remove(0);
    let uid = rustix::process::getuid().as_raw();
    assert_eq!((order.actor, order.command), (Actor::User { uid }, Command::RetryDeliveries));
}

#[test]
fn a_daemon_that_is_stopping_says_so_to_a_command() {
    let server = Server::start();
    server.orders.is_stopping.store(true, Ordering::SeqCst);
    let answer = server.ask("POST", "/api/v1/commands/stop", &[("Content-Length", "0")]);
    assert_eq!(answer.status, 503);
    assert!(answer.problem().contains("stopping"));
}

#[test]
fn a_command_that_is_sent_again_under_its_key_is_carried_out_once() {
    let server = Server::start();
    let first = send(&server, "start", Some("a key"));
    let again = send(&server, "start", Some("a key"));
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.body, again.body);
    assert!(!first.head.contains("idempotency-replayed"), "{}", first.head);
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    assert!(again.head.contains("content-type: application/json"), "{}", again.head);
    assert_eq!(taken(&server), [Command::Start]);
    send(&server, "start", Some("another key"));
    send(&server, "start", None);
    assert_eq!(taken(&server), [Command::Start, Command::Start]);
}

#[test]
fn two_callers_with_the_same_key_do_not_hear_each_others_answers() {
    let server = Server::start();
    send(&server, "stop", Some("1"));
    let mut socket = crate::web::local::connect(server.data.path()).unwrap();
    let request = "POST /api/v1/commands/stop HTTP/1.1\r\nHost: box\r\nIdempotency-Key: 1\r\n\
                   Connection: close\r\nContent-Length: 0\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let answer = read_answer(&mut socket);
    assert!(!answer.head.contains("idempotency-replayed"), "{}", answer.head);
    assert_eq!(taken(&server), [Command::Stop, Command::Stop]);
}

#[test]
fn a_key_is_of_one_command_and_has_a_form() {
    let server = Server::start();
    assert_eq!(send(&server, "start", Some("a key")).status, 202);
    let other = send(&server, "stop", Some("a key"));
    assert_eq!(other.status, 422);
    assert!(other.problem().contains("a key of its own"));
    assert_eq!(taken(&server), [Command::Start]);
    for wrong in ["", &"k".repeat(256)] {
        let answer = send(&server, "stop", Some(wrong));
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.problem().contains("Idempotency-Key"));
    }
}

#[test]
fn a_command_that_was_refused_is_never_carried_out_and_may_be_tried_again_under_its_key() {
    let server = Server::start();
    // As many as there is room for; the daemon takes none.
    for _ in 0..ROOM {
        assert_eq!(send(&server, "start", None).status, 202);
    }
    let refused = send(&server, "stop", Some("a key"));
    assert_eq!(refused.status, 503);
    assert!(refused.problem().contains("was not given to it"));
    assert_eq!(taken(&server), [Command::Start; ROOM]);
    assert_eq!(taken(&server), [], "nothing hands it on later");
    assert_eq!(send(&server, "stop", Some("a key")).status, 202);
    assert_eq!(taken(&server), [Command::Stop]);
}
