//! Commands from the network, as a state machine with one owner for each state.
//!
//! ```text
//! init ──► executing ──► successful
//!   │          └───────► failed {reason}
//!   └──────────────────► failed {reason}
//! ```
//! Who asks owns `init`; the box owns all others. A command is known by operation and id: asked
//! again, it gets its answer again and is not done again. One is done at a time, few wait.

use std::collections::VecDeque;

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::options::Op;
use super::payloads::{CommandAnswer, CommandRequest, FailedWord};
use crate::base::clock::Stamp;
use crate::domain::status::Command;

/// Commands whose last answer is remembered.
const REMEMBERED: usize = 256;

/// Commands that wait while one is done.
const WAITING: usize = 8;

/// Longest id of a command, bytes.
const LONGEST_ID: usize = 64;

/// Older commands are not done: whoever asked has looked elsewhere by now.
const STALE_NS: i128 = 60_000_000_000;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start, pause or stop.
    Run(Command),
    /// Take one frame now.
    Snapshot,
    /// Set the exposure of the camera.
    Exposure {
        /// Microseconds.
        us: u32,
    },
}

/// A message that came under the topic of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) op: String,
    pub(super) id: String,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
    pub(super) reply: Reply,
}

/// Where else the answer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) topic: Option<String>,
    pub(super) correlation: Option<Bytes>,
}

/// What the box says about a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) op: String,
    pub(super) id: String,
    pub(super) reply: Reply,
    pub(super) answer: CommandAnswer,
    /// Whether the command came to its end with it, for the logbook.
    pub(super) first_end: bool,
}

struct Waiting {
    op: String,
    id: String,
    order: Order,
    reply: Reply,
}

/// All commands that are known.
pub(super) struct Commands {
    allowed: Vec<Op>,
    ended: VecDeque<(String, String, CommandAnswer)>,
    waiting: VecDeque<Waiting>,
    executing: Option<Waiting>,
}

impl Commands {
    pub(super) fn new(allowed: &[Op]) -> Self {
        Self {
            allowed: allowed.to_vec(),
            ended: VecDeque::new(),
            waiting: VecDeque::new(),
            executing: None,
        }
    }

    /// Takes a message; what is to be said at once, if anything. `trusted` is whether the time
    /// in `now` can be relied on.
    pub(super) fn asked(&mut self, asked: Asked, now: &Stamp, trusted: bool) -> Option<Said> {
        let Asked { op, id, payload, retained, reply } = asked;
        // What the box says under the same topic, or what clears a retained message.
        if payload.is_empty() || is_answer(&payload) {
            return None;
        }
        if let Some((.., answer)) = self.ended.iter().find(|(o, i, _)| *o == op && *i == id) {
            return Some(Said { answer: answer.clone(), op, id, reply, first_end: false });
        }
        let known = self.waiting.iter().chain(&self.executing);
        if known.into_iter().any(|known| known.op == op && known.id == id) {
            let answer = CommandAnswer::Executing {};
            return Some(Said { op, id, reply, answer, first_end: false });
        }
        match self.admit(&op, &id, &payload, retained, now, trusted) {
            Ok(order) => {
                self.waiting.push_back(Waiting { op, id, order, reply });
                None
            }
            Err((reason, detail)) => {
                Some(self.end(op, id, reply, CommandAnswer::Failed { reason, detail }))
            }
        }
    }

    fn admit(
        &self,
        op: &str,
        id: &str,
        payload: &[u8],
        retained: bool,
        now: &Stamp,
        trusted: bool,
    ) -> Result<Order, (FailedWord, String)> {
        let bad = |detail: String| (FailedWord::BadRequest, detail);
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(is_plain) {
            return Err(bad("an id is 1 to 64 letters, digits, '-', '_', '.' or ':'".to_owned()));
        }
        let Some(op) = Op::of(op) else {
            let words: Vec<&str> = Op::ALL.iter().map(|op| op.word()).collect();
            let detail = format!("there is no such operation; there are {}", words.join(", "));
            return Err((FailedWord::UnknownOperation, detail));
        };
        if !self.allowed.contains(&op) {
            let detail = format!("{} is not in mqtt.commands of this box", op.word());
            return Err((FailedWord::NotAllowed, detail));
        }
        if retained {
            return Err(bad("a command is not retained; send it without".to_owned()));
        }
        let request: CommandRequest =
            serde_json::from_slice(payload).map_err(|error| bad(error.to_string()))?;
        if let Some(at) = &request.at {
            let at = OffsetDateTime::parse(at, &Rfc3339)
                .map_err(|error| bad(format!("`at` is no RFC 3339 time: {error}")))?;
            if trusted && i128::from(now.wall_ns) - at.unix_timestamp_nanos() > STALE_NS {
                let detail = "it was asked more than 60 s ago; ask again".to_owned();
                return Err((FailedWord::Stale, detail));
            }
        }
        let order = match (op, request.us) {
            (Op::SetExposure, Some(us)) if us > 0 => Order::Exposure { us },
            (Op::SetExposure, _) => {
                return Err(bad("`us`, the exposure in microseconds, is missing".to_owned()));
            }
            (_, Some(_)) => return Err(bad(format!("{} takes no `us`", op.word()))),
            (Op::Start, None) => Order::Run(Command::Start),
            (Op::Pause, None) => Order::Run(Command::Pause),
            (Op::Stop, None) => Order::Run(Command::Stop),
            (Op::Snapshot, None) => Order::Snapshot,
        };
        if self.waiting.len() >= WAITING {
            let detail = format!("{WAITING} commands wait already; ask again later");
            return Err((FailedWord::Busy, detail));
        }
        Ok(order)
    }

    /// The next one to be done, where none is being done; what to say goes before it.
    pub(super) fn begin(&mut self) -> Option<(Order, Said)> {
        if self.executing.is_some() {
            return None;
        }
        let next = self.waiting.pop_front()?;
        let said = Said {
            op: next.op.clone(),
            id: next.id.clone(),
            reply: next.reply.clone(),
            answer: CommandAnswer::Executing {},
            first_end: false,
        };
        let order = next.order;
        self.executing = Some(next);
        Some((order, said))
    }

    /// The one that was being done came to its end.
    pub(super) fn done(&mut self, result: Result<serde_json::Value, String>) -> Option<Said> {
        let Waiting { op, id, reply, .. } = self.executing.take()?;
        let answer = match result {
            Ok(result) => CommandAnswer::Successful { result },
            Err(detail) => CommandAnswer::Failed { reason: FailedWord::Refused, detail },
        };
        Some(self.end(op, id, reply, answer))
    }

    fn end(&mut self, op: String, id: String, reply: Reply, answer: CommandAnswer) -> Said {
        // Busy is no last word: the same command may be asked again.
        let again = matches!(answer, CommandAnswer::Failed { reason: FailedWord::Busy, .. });
        if !again {
            if self.ended.len() == REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back((op.clone(), id.clone(), answer.clone()));
        }
        Said { op, id, reply, answer, first_end: true }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
}

fn is_answer(payload: &[u8]) -> bool {
    serde_json::from_slice::<CommandAnswer>(payload).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    fn asked(op: &str, id: &str, payload: &str) -> Asked {
        Asked {
            op: op.to_owned(),
            id: id.to_owned(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retained: false,
            reply: Reply::default(),
        }
    }

    const INIT: &str = r#"{"status":"init"}"#;

    fn refusal(commands: &mut Commands, asked: Asked) -> FailedWord {
        let said = commands.asked(asked, &Clock::manual(0).now(), true);
        match said.expect("it is answered at once").answer {
            CommandAnswer::Failed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_allowed_by_default_and_every_refusal_has_its_word() {
        let mut none = Commands::new(&[]);
        assert_eq!(refusal(&mut none, asked("start", "1", INIT)), FailedWord::NotAllowed);
        let mut all = Commands::new(&Op::ALL);
        let cases = [
            (asked("format", "1", INIT), FailedWord::UnknownOperation),
            (asked("start", "2", "go"), FailedWord::BadRequest),
            (asked("start", "3", r#"{"status":"init","us":3}"#), FailedWord::BadRequest),
            (asked("start", &"x".repeat(65), INIT), FailedWord::BadRequest),
            (asked("start", "a b", INIT), FailedWord::BadRequest),
            (asked("set_exposure", "4", INIT), FailedWord::BadRequest),
            (asked("start", "5", r#"{"status":"init","force":true}"#), FailedWord::BadRequest),
            (Asked { retained: true, ..asked("start", "6", INIT) }, FailedWord::BadRequest),
        ];
        for (asked, reason) in cases {
            assert_eq!(refusal(&mut all, asked.clone()), reason, "{asked:?}");
        }
        assert!(all.begin().is_none());
    }

    #[test]
    fn a_command_is_executing_then_successful_and_asked_again_not_done_again() {
        let (mut commands, now) = (Commands::new(&Op::ALL), Clock::manual(0).now());
        let exposure = || asked("set_exposure", "7", r#"{"status":"init","us":2000}"#);
        assert_eq!(commands.asked(exposure(), &now, true), None);
        let (order, said) = commands.begin().unwrap();
        assert_eq!(order, Order::Exposure { us: 2000 });
        assert_eq!(said.answer, CommandAnswer::Executing {});
        let meanwhile = commands.asked(exposure(), &now, true).unwrap();
        assert_eq!(meanwhile.answer, CommandAnswer::Executing {});
        let end = commands.done(Ok(serde_json::json!({"us": 2000}))).unwrap();
        assert!(end.first_end);
        let again = commands.asked(exposure(), &now, true).unwrap();
        assert_eq!(again.answer, end.answer);
        assert!(!again.first_end);
        assert!(commands.begin().is_none());
    }

    #[test]
    fn one_is_done_at_a_time_and_the_ninth_that_waits_is_told_that_the_box_is_busy() {
        let (mut commands, now) = (Commands::new(&Op::ALL), Clock::manual(0).now());
        assert_eq!(commands.asked(asked("start", "first", INIT), &now, true), None);
        assert!(commands.begin().is_some());
        for n in 0..WAITING {
            assert_eq!(commands.asked(asked("pause", &n.to_string(), INIT), &now, true), None);
        }
        assert!(commands.begin().is_none());
        assert_eq!(refusal(&mut commands, asked("stop", "late", INIT)), FailedWord::Busy);
        assert!(commands.done(Err("the source is lost".to_owned())).is_some());
        assert!(commands.begin().is_some());
        assert_eq!(commands.asked(asked("stop", "late", INIT), &now, true), None, "asked again");
    }

    #[test]
    fn an_old_command_is_stale_where_the_clock_can_be_trusted() {
        let clock = Clock::manual(0);
        clock.advance(std::time::Duration::from_secs(61));
        let old = |id| asked("start", id, r#"{"status":"init","at":"1970-01-01T00:00:00Z"}"#);
        let mut commands = Commands::new(&Op::ALL);
        let said = commands.asked(old("1"), &clock.now(), true).unwrap();
        assert!(
            matches!(said.answer, CommandAnswer::Failed { reason: FailedWord::Stale, .. }),
            "{said:?}"
        );
        assert_eq!(commands.asked(old("2"), &clock.now(), false), None);
    }

    #[test]
    fn the_boxs_own_words_are_no_commands() {
        let mut commands = Commands::new(&Op::ALL);
        let now = Clock::manual(0).now();
        for payload in ["", r#"{"status":"executing"}"#, r#"{"status":"successful","result":1}"#] {
            assert_eq!(commands.asked(asked("start", "1", payload), &now, true), None);
        }
        assert!(commands.begin().is_none());
    }
}
