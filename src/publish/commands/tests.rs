//! The state machine, alone: time and the store's answers are given.

use super::*;
use crate::publish::Options;
use crate::publish::topics::Topics;
use reticle_base::clock::Clock;
use reticle_domain::facts::BoxName;

/// 2026-10-10T00:00:00Z.
const START_NS: i64 = 1_791_590_400_000_000_000;
const INIT: &str = r#"{"status":"init","at":"2026-10-10T00:00:00Z"}"#;

fn commands(allowed: &[Op]) -> Commands {
    let name = BoxName { site: "lab".to_owned(), name: "box-1".to_owned() };
    let topics = Topics::of(&name).unwrap();
    let access = Access::new(allowed.iter().map(|op| op.action()));
    Commands::new(access, Replies::of(&Options::default(), &topics).unwrap())
}

fn clock() -> Clock {
    let clock = Clock::manual(START_NS);
    assert_eq!(clock.now().rfc3339(), "2026-10-10T00:00:00Z");
    clock
}

fn at(clock: &Clock) -> Time {
    Time { now: clock.now(), trusted: clock.is_trusted() }
}

fn asked(op: &str, id: &str, payload: &str) -> Asked {
    Asked {
        op: op.to_owned(),
        id: id.to_owned(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        retained: false,
        expiry_s: None,
        reply: Reply::default(),
    }
}

fn refused(commands: &mut Commands, asked: Asked, time: Time) -> (FailedWord, String) {
    let said = commands.asked(asked, time);
    match said.expect("it is answered at once").answer {
        CommandAnswer::Failed { reason, detail, .. } => (reason, detail),
        other => panic!("{other:?}"),
    }
}

fn refusal(commands: &mut Commands, asked: Asked) -> FailedWord {
    refused(commands, asked, at(&clock())).0
}

/// The next one is noted as new, and being done.
fn begin(commands: &mut Commands) -> Option<(Order, Said)> {
    let Next::Note(..) = commands.next(&clock().now())? else { panic!("too late") };
    match commands.noted(Ok(Noted::First))? {
        Begun::Do(order, said) => Some((order, said)),
        Begun::Not(said) => panic!("{said:?}"),
    }
}

#[test]
fn nothing_is_allowed_by_default_and_every_refusal_has_its_word() {
    let mut none = commands(&[]);
    assert_eq!(refusal(&mut none, asked("start", "1", INIT)), FailedWord::NotAllowed);
    let mut all = commands(&Op::ALL);
    let with = |more: &str| INIT.replace('}', more);
    let cases = [
        (asked("format", "1", INIT), FailedWord::UnknownOperation),
        (asked("start", "2", "go"), FailedWord::BadRequest),
        (asked("start", "3", &with(r#","us":3}"#)), FailedWord::BadRequest),
        (asked("start", &"x".repeat(65), INIT), FailedWord::BadRequest),
        (asked("start", "a b", INIT), FailedWord::BadRequest),
        (asked("set_exposure", "4", INIT), FailedWord::BadRequest),
        (asked("start", "5", &with(r#","force":true}"#)), FailedWord::BadRequest),
        (Asked { retained: true, ..asked("start", "6", INIT) }, FailedWord::BadRequest),
        (Asked { expiry_s: Some(0), ..asked("start", "7", INIT) }, FailedWord::Stale),
    ];
    for (asked, reason) in cases {
        assert_eq!(refusal(&mut all, asked.clone()), reason, "{asked:?}");
    }
    assert!(all.next(&clock().now()).is_none());
}

#[test]
fn a_command_is_executing_then_successful_and_asked_again_not_done_again() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    let payload = INIT.replace('}', r#","us":2000}"#);
    let exposure = || asked("set_exposure", "7", &payload);
    assert_eq!(commands.asked(exposure(), at(&clock)), None);
    let (order, said) = begin(&mut commands).unwrap();
    assert_eq!(order.command, Command::SetExposure { us: 2000 });
    assert_eq!(said.answer, CommandAnswer::Executing {});
    let meanwhile = commands.asked(exposure(), at(&clock)).unwrap();
    assert_eq!(meanwhile.answer, CommandAnswer::Executing {});
    let end = commands.done(Ok(serde_json::json!({"us": 2000}))).unwrap();
    assert!(end.first_end);
    assert_eq!(end.kept.unwrap(), r#"{"status":"successful","result":{"us":2000}}"#);
    // Also when its time is over: the asker may have missed the answer.
    clock.advance(FRESH * 2);
    let again = commands.asked(exposure(), at(&clock)).unwrap();
    assert_eq!(again.answer, end.answer.repeated());
    assert!(!again.first_end);
    assert!(commands.next(&clock.now()).is_none());
}

#[test]
fn one_is_done_at_a_time_and_the_ninth_that_waits_is_told_that_the_box_is_busy() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    assert_eq!(commands.asked(asked("start", "first", INIT), at(&clock)), None);
    assert!(begin(&mut commands).is_some());
    for n in 0..WAITING {
        assert_eq!(commands.asked(asked("pause", &n.to_string(), INIT), at(&clock)), None);
    }
    assert!(commands.next(&clock.now()).is_none());
    assert_eq!(refusal(&mut commands, asked("stop", "late", INIT)), FailedWord::Busy);
    assert!(commands.done(Err("the source is lost".to_owned())).is_some());
    assert!(begin(&mut commands).is_some());
    assert_eq!(commands.asked(asked("stop", "late", INIT), at(&clock)), None, "asked again");
}

#[test]
fn a_command_is_of_now_or_is_refused_with_the_time_of_the_box() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    clock.advance(Duration::from_secs(3600));
    let cases = [
        (r#"{"status":"init"}"#, FailedWord::Undated),
        (r#"{"status":"init","at":null}"#, FailedWord::Undated),
        (r#"{"status":"init","at":"yesterday"}"#, FailedWord::Undated),
        (r#"{"status":"init","at":"2026-10-10T00:58:59Z"}"#, FailedWord::Stale),
        (r#"{"status":"init","at":"1970-01-01T00:00:00Z"}"#, FailedWord::Stale),
        (r#"{"status":"init","at":"2026-10-10T01:01:01Z"}"#, FailedWord::Future),
        (r#"{"status":"init","at":"2099-01-01T00:00:00Z"}"#, FailedWord::Future),
    ];
    for (payload, word) in cases {
        let (reason, detail) = refused(&mut commands, asked("stop", "1", payload), at(&clock));
        assert_eq!(reason, word, "{payload}");
        assert!(detail.contains("2026-10-10T01:00:00Z"), "{detail}");
    }
    assert!(commands.next(&clock.now()).is_none(), "none of them is done");
    for (id, asked_at) in [("2", "2026-10-10T00:59:00Z"), ("3", "2026-10-10T01:01:00Z")] {
        let payload = format!(r#"{{"status":"init","at":"{asked_at}"}}"#);
        assert_eq!(commands.asked(asked("stop", id, &payload), at(&clock)), None);
    }
}

#[test]
fn a_box_that_does_not_know_the_time_takes_no_command() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    clock.set_trusted(false);
    let (reason, detail) = refused(&mut commands, asked("stop", "1", INIT), at(&clock));
    assert_eq!(reason, FailedWord::ClockUntrusted);
    assert!(detail.contains("2026-10-10T00:00:00Z"), "{detail}");
    clock.set_trusted(true);
    assert_eq!(commands.asked(asked("stop", "1", INIT), at(&clock)), None, "no id is used up");
}

#[test]
fn what_waits_until_its_time_is_over_is_not_done() {
    for (expiry_s, wait_s) in [(None, 61), (Some(5), 6)] {
        let (mut commands, clock) = (commands(&Op::ALL), clock());
        assert_eq!(commands.asked(asked("start", "slow", INIT), at(&clock)), None);
        assert!(begin(&mut commands).is_some());
        let late = Asked { expiry_s, ..asked("stop", "late", INIT) };
        assert_eq!(commands.asked(late, at(&clock)), None);
        clock.advance(Duration::from_secs(wait_s));
        assert!(commands.done(Ok(Value::Null)).is_some());
        let Some(Next::TooLate(said)) = commands.next(&clock.now()) else { panic!("done") };
        let CommandAnswer::Failed { reason, .. } = said.answer else { panic!("{said:?}") };
        assert_eq!((reason, said.id.as_str()), (FailedWord::Stale, "late"));
    }
}

#[test]
fn an_id_that_the_store_knows_is_not_done_and_gets_its_first_answer() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    let first = r#"{"status":"successful","result":{"run":"stopped"}}"#;
    for (id, answer) in [("1", Some(first.to_owned())), ("2", None)] {
        assert_eq!(commands.asked(asked("stop", id, INIT), at(&clock)), None);
        let Some(Next::Note(noting)) = commands.next(&clock.now()) else { panic!("not noted") };
        assert_eq!((noting.operation.as_str(), noting.id.as_str()), ("stop", id));
        assert_eq!(noting.actor, "mqtt");
        let at = "2026-10-09T23:59:59Z".to_owned();
        let begun = commands.noted(Ok(Noted::Before { at, answer: answer.clone() }));
        let Some(Begun::Not(said)) = begun else { panic!("done twice: {begun:?}") };
        assert!(!said.first_end);
        let text = serde_json::to_value(&said.answer).unwrap();
        assert_eq!(text["repeated"], true);
        if answer.is_some() {
            assert_eq!(text["result"]["run"], "stopped");
        } else {
            assert_eq!(text["reason"], "done_already");
            assert!(text["detail"].as_str().unwrap().contains("23:59:59"), "{text}");
        }
        // From here on without asking the store.
        assert!(commands.asked(asked("stop", id, INIT), self::at(&clock)).is_some());
    }
}

#[test]
fn what_cannot_be_noted_is_not_done_and_may_be_asked_again() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    assert_eq!(commands.asked(asked("stop", "1", INIT), at(&clock)), None);
    assert!(matches!(commands.next(&clock.now()), Some(Next::Note(..))));
    let begun = commands.noted(Err("the disk is full".to_owned()));
    let Some(Begun::Not(said)) = begun else { panic!("{begun:?}") };
    let CommandAnswer::Failed { reason, detail, .. } = said.answer else { panic!() };
    assert_eq!(reason, FailedWord::NotNoted);
    assert!(detail.contains("the disk is full"), "{detail}");
    assert_eq!(commands.asked(asked("stop", "1", INIT), at(&clock)), None);
    assert!(begin(&mut commands).is_some());
}

#[test]
fn an_answer_goes_nowhere_where_the_box_may_not_be_sent() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    let to = |id: &str, topic: &str| Asked {
        reply: Reply { topic: Some(topic.to_owned()), correlation: None },
        ..asked("pause", id, INIT)
    };
    for foreign in ["spBv1.0/lab/NCMD/other", "$SYS/broker", "lab/door/open", "a/#"] {
        let said = commands.asked(to("1", foreign), at(&clock)).unwrap();
        assert_eq!(said.reply.topic, None, "{foreign}");
        let CommandAnswer::Failed { reason, .. } = said.answer else { panic!("{foreign}") };
        assert_eq!(reason, FailedWord::ReplyNotAllowed);
    }
    let correlation = Some(Bytes::from(vec![b'x'; LONGEST_CORRELATION + 1]));
    let reply = Reply { topic: None, correlation };
    let long = Asked { reply, ..asked("pause", "1", INIT) };
    let said = commands.asked(long, at(&clock)).unwrap();
    assert_eq!(said.reply, Reply::default());
    assert!(matches!(said.answer, CommandAnswer::Failed { .. }));
    let own = "reticle/v1/lab/box-1/reply/me";
    assert_eq!(commands.asked(to("1", own), at(&clock)), None);
    let (_, said) = begin(&mut commands).unwrap();
    assert_eq!(said.reply.topic.as_deref(), Some(own));
    commands.done(Ok(Value::Null)).unwrap();
    // Nor by asking again for an answer that is there.
    let said = commands.asked(to("1", "lab/door/open"), at(&clock)).unwrap();
    assert_eq!(said.reply.topic, None);
    let again = commands.asked(to("1", own), at(&clock)).unwrap();
    assert!(matches!(again.answer, CommandAnswer::Successful { repeated: true, .. }));
}

#[test]
fn long_answers_are_not_remembered_whole() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    assert_eq!(commands.asked(asked("snapshot", "1", INIT), at(&clock)), None);
    begin(&mut commands).unwrap();
    let image = "x".repeat(LONGEST_KEPT);
    let end = commands.done(Ok(serde_json::json!({ "data": image }))).unwrap();
    assert!(matches!(&end.answer, CommandAnswer::Successful { result, .. } if !result.is_null()));
    let again = commands.asked(asked("snapshot", "1", INIT), at(&clock)).unwrap();
    let nothing = CommandAnswer::Successful { result: Value::Null, repeated: true };
    assert_eq!(again.answer, nothing);
}

#[test]
fn the_boxs_own_words_are_no_commands() {
    let (mut commands, clock) = (commands(&Op::ALL), clock());
    for payload in ["", r#"{"status":"executing"}"#, r#"{"status":"successful","result":1}"#] {
        assert_eq!(commands.asked(asked("start", "1", payload), at(&clock)), None);
    }
    assert!(commands.next(&clock.now()).is_none());
}
