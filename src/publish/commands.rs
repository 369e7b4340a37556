//! Commands from the network, as a state machine with one owner for each state.
//!
//! ```text
//! init ──► noted ──► executing ──► successful
//!   │        │           └───────► failed {reason}
//!   └────────┴───────────────────► failed {reason}
//! ```
//! Who asks owns `init`; the box owns all others. One is done at a time, few wait.
//!
//! A command is known by operation and id. Its id is noted in the store before it is begun, and
//! from then on it is never done again: asked again, it gets its first answer again, marked as
//! repeated. An id that was refused before it was begun is not used up.
//!
//! A command is for now: its `at` must be within [`FRESH`] of this box's clock, which must be one
//! that can be believed, and what waits for longer is not done any more. So nothing that a
//! broker kept, or that somebody recorded and sends again, moves a box that comes back.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::options::Op;
use super::payloads::{CommandAnswer, CommandRequest, FailedWord};
use super::reply::Replies;
use reticle_base::clock::Stamp;
use reticle_domain::actor::{Access, Actor};
use reticle_domain::order::{Command, Order};
use reticle_store::{Noted, Noting};

/// Commands whose last answer is remembered without asking the store.
const REMEMBERED: usize = 256;

/// Commands that wait while one is done.
const WAITING: usize = 8;

/// Longest id of a command, bytes.
const LONGEST_ID: usize = 64;

/// Longest correlation data, bytes: it goes with each answer.
const LONGEST_CORRELATION: usize = 1024;

/// How far from this box's time the `at` of a command may be, both ways.
const FRESH: Duration = Duration::from_secs(60);

/// Longest answer that is remembered, bytes: a snapshot has some 300 kB.
const LONGEST_KEPT: usize = 4096;

/// A message that came under the topic of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) op: String,
    pub(super) id: String,
    pub(super) payload: Bytes,
    pub(super) retained: bool,
    /// What is left of the time that the asker gave it, seconds.
    pub(super) expiry_s: Option<u32>,
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
    /// What the store is to remember as its answer.
    pub(super) kept: Option<String>,
    /// Why it was asked, at its end.
    pub(super) why: Option<String>,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Note this, and say what came of it ([`Commands::noted`]).
    Note(Noting),
    /// It waited for too long.
    TooLate(Said),
}

/// What follows from noting.
#[derive(Debug, PartialEq)]
pub(super) enum Begun {
    /// Say that it is executing, and do it.
    Do(Order, Said),
    /// It is not done.
    Not(Said),
}

/// What the clock of this box says, and whether it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) now: Stamp,
    /// Whether wall time can be believed, or its owner says that it can.
    pub(super) trusted: bool,
}

struct Waiting {
    op: String,
    id: String,
    order: Order,
    reply: Reply,
    came: Stamp,
    /// How long after it came it may still be begun.
    fresh_for: Duration,
}

struct Ended {
    op: String,
    id: String,
    answer: CommandAnswer,
    /// Whether its id is used up.
    begun: bool,
}

/// All commands that are known.
pub(super) struct Commands {
    access: Access,
    replies: Replies,
    ended: VecDeque<Ended>,
    waiting: VecDeque<Waiting>,
    /// Being noted or done.
    executing: Option<Waiting>,
}

impl Commands {
    pub(super) fn new(access: Access, replies: Replies) -> Self {
        Self { access, replies, ended: VecDeque::new(), waiting: VecDeque::new(), executing: None }
    }

    /// Takes a message; what is to be said at once, if anything.
    pub(super) fn asked(&mut self, asked: Asked, time: Time) -> Option<Said> {
        let Asked { op, id, payload, retained, expiry_s, mut reply } = asked;
        // What the box says under the same topic, or what clears a retained message.
        if payload.is_empty() || is_answer(&payload) {
            return None;
        }
        // Before all else: whatever is answered must not go where it may not.
        if let Some(topic) = reply.topic.take_if(|topic| !self.replies.allow(topic)) {
            return Some(self.refuse(op, id, reply, self.no_reply(&topic)));
        }
        if reply.correlation.take_if(|data| data.len() > LONGEST_CORRELATION).is_some() {
            let detail = format!("correlation data has at most {LONGEST_CORRELATION} bytes");
            return Some(self.refuse(op, id, reply, (FailedWord::BadRequest, detail)));
        }
        let ended = self.ended.iter().find(|ended| ended.begun && ended.op == op && ended.id == id);
        if let Some(ended) = ended {
            let answer = ended.answer.clone().repeated();
            return Some(Said { op, id, reply, answer, first_end: false, kept: None, why: None });
        }
        let known = self.waiting.iter().chain(&self.executing);
        if known.into_iter().any(|known| known.op == op && known.id == id) {
            let answer = CommandAnswer::Executing {};
            return Some(Said { op, id, reply, answer, first_end: false, kept: None, why: None });
        }
        let expiry = expiry_s.map(|s| Duration::from_secs(s.into()));
        match self.admit(&op, &id, &payload, retained, time, expiry) {
            Ok((order, fresh_for)) => {
                let came = time.now;
                self.waiting.push_back(Waiting { op, id, order, reply, came, fresh_for });
                None
            }
            Err(why) => Some(self.refuse(op, id, reply, why)),
        }
    }

    fn no_reply(&self, topic: &str) -> Refusal {
        let detail = format!(
            "no answer is sent to {}; response topics lie below {}; the owner of the box can allow \
             others (mqtt.reply_prefixes)",
            topic.chars().take(80).collect::<String>().escape_debug(),
            self.replies.text()
        );
        (FailedWord::ReplyNotAllowed, detail)
    }

    fn admit(
        &self,
        op: &str,
        id: &str,
        payload: &[u8],
        retained: bool,
        time: Time,
        expiry: Option<Duration>,
    ) -> Result<(Order, Duration), Refusal> {
        let bad = |detail: String| (FailedWord::BadRequest, detail);
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(is_plain) {
            return Err(bad("an id is 1 to 64 letters, digits, '-', '_', '.' or ':'".to_owned()));
        }
        let Some(op) = Op::of(op) else {
            let words: Vec<&str> = Op::ALL.iter().map(|op| op.word()).collect();
            let detail = format!("there is no such operation; there are {}", words.join(", "));
            return Err((FailedWord::UnknownOperation, detail));
        };
        if !self.access.may(&Actor::Mqtt, op.action()) {
            let detail = format!("{} is not in mqtt.commands of this box", op.word());
            return Err((FailedWord::NotAllowed, detail));
        }
        if retained {
            return Err(bad("a command is not retained; send it without".to_owned()));
        }
        let request: CommandRequest =
            serde_json::from_slice(payload).map_err(|error| bad(error.to_string()))?;
        let mut fresh_for = fresh_for(request.at.as_deref(), time)?;
        if let Some(left) = expiry {
            if left.is_zero() {
                return Err((
                    FailedWord::Stale,
                    "its message expiry is over; ask again".to_owned(),
                ));
            }
            fresh_for = fresh_for.min(left);
        }
        let command = match (op, request.us) {
            (Op::SetExposure, Some(us)) if us > 0 => Command::SetExposure { us },
            (Op::SetExposure, _) => {
                return Err(bad("`us`, the exposure in microseconds, is missing".to_owned()));
            }
            (_, Some(_)) => return Err(bad(format!("{} takes no `us`", op.word()))),
            (Op::Start, None) => Command::Start,
            (Op::Pause, None) => Command::Pause,
            (Op::Stop, None) => Command::Stop,
            (Op::Snapshot, None) => Command::Snapshot,
        };
        let order = Order::new(Actor::Mqtt, command, request.reason)
            .map_err(|error| bad(error.to_string()))?;
        if self.waiting.len() >= WAITING {
            let detail = format!("{WAITING} commands wait already; ask again later");
            return Err((FailedWord::Busy, detail));
        }
        Ok((order, fresh_for))
    }

    /// The next one to be begun, where none is.
    pub(super) fn next(&mut self, now: &Stamp) -> Option<Next> {
        if self.executing.is_some() {
            return None;
        }
        let next = self.waiting.pop_front()?;
        if now.since(&next.came) > next.fresh_for {
            let Waiting { op, id, reply, .. } = next;
            let detail = "others were done before it, and meanwhile its time was over; ask again";
            let why = (FailedWord::Stale, detail.to_owned());
            return Some(Next::TooLate(self.refuse(op, id, reply, why)));
        }
        let note = Next::Note(Noting {
            operation: next.op.clone(),
            id: next.id.clone(),
            actor: next.order.actor.to_string(),
            reason: next.order.reason.clone(),
        });
        self.executing = Some(next);
        Some(note)
    }

    /// Nothing more is begun: what waits is let go, and was not noted.
    pub(super) fn close(&mut self) {
        self.waiting.clear();
    }

    /// What the store said to the id of the one that is to be begun.
    pub(super) fn noted(&mut self, noted: Result<Noted, String>) -> Option<Begun> {
        if noted == Ok(Noted::First) {
            let Waiting { op, id, reply, order, .. } = self.executing.as_ref()?;
            let said = Said {
                op: op.clone(),
                id: id.clone(),
                reply: reply.clone(),
                answer: CommandAnswer::Executing {},
                first_end: false,
                kept: None,
                why: None,
            };
            return Some(Begun::Do(order.clone(), said));
        }
        let Waiting { op, id, reply, .. } = self.executing.take()?;
        Some(Begun::Not(match noted {
            Ok(Noted::First) => return None,
            Ok(Noted::Before { at, answer }) => {
                let answer = answer.and_then(|answer| serde_json::from_str(&answer).ok());
                let answer = answer.unwrap_or_else(|| CommandAnswer::Failed {
                    reason: FailedWord::DoneAlready,
                    detail: format!(
                        "this id was used at {at}, and the box ended before it knew what came of \
                         it; look at its state, and take a new id to ask again"
                    ),
                    repeated: true,
                });
                let answer = self.end(&op, &id, answer).repeated();
                Said { op, id, reply, answer, first_end: false, kept: None, why: None }
            }
            Err(why) => {
                let detail = format!(
                    "the box cannot note that it was asked ({why}), and what is not noted could be \
                     done twice; use the box's page, or ask again with a new id"
                );
                self.refuse(op, id, reply, (FailedWord::NotNoted, detail))
            }
        }))
    }

    /// The one that was being done came to its end.
    pub(super) fn done(&mut self, result: Result<Value, String>) -> Option<Said> {
        let Waiting { op, id, reply, order, .. } = self.executing.take()?;
        let answer = match result {
            Ok(result) => CommandAnswer::Successful { result, repeated: false },
            Err(detail) => {
                CommandAnswer::Failed { reason: FailedWord::Refused, detail, repeated: false }
            }
        };
        let kept = self.end(&op, &id, answer.clone());
        let kept = serde_json::to_string(&kept).ok();
        Some(Said { op, id, reply, answer, first_end: true, kept, why: order.reason })
    }

    /// It is not begun, and may be asked again under the same id.
    fn refuse(&mut self, op: String, id: String, reply: Reply, why: Refusal) -> Said {
        let (reason, detail) = why;
        let answer = CommandAnswer::Failed { reason, detail, repeated: false };
        let known = self.ended.iter().position(|ended| ended.op == op && ended.id == id);
        let first_end = known.is_none();
        // What was begun stays known as that.
        if known.is_none_or(|at| !self.ended[at].begun) {
            if let Some(at) = known {
                self.ended.remove(at);
            }
            self.remember(&op, &id, answer.clone(), false);
        }
        Said { op, id, reply, answer, first_end, kept: None, why: None }
    }

    /// Its id is used up; the answer as it is remembered.
    fn end(&mut self, op: &str, id: &str, answer: CommandAnswer) -> CommandAnswer {
        let answer = shortened(answer);
        self.ended.retain(|ended| ended.op != op || ended.id != id);
        self.remember(op, id, answer.clone(), true);
        answer
    }

    fn remember(&mut self, op: &str, id: &str, answer: CommandAnswer, begun: bool) {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { op: op.to_owned(), id: id.to_owned(), answer, begun });
    }
}

/// Why a command is not done, for machines and for people.
type Refusal = (FailedWord, String);

/// How long a command with this `at` may still be begun.
fn fresh_for(at: Option<&str>, time: Time) -> Result<Duration, Refusal> {
    let here = time.now.rfc3339();
    let Some(at) = at else {
        let detail = format!(
            "`at`, the time at which it is asked, is missing; the time of this box is {here}"
        );
        return Err((FailedWord::Undated, detail));
    };
    let at = OffsetDateTime::parse(at, &Rfc3339).map_err(|error| {
        let detail = format!("`at` is no RFC 3339 time ({error}); the time of this box is {here}");
        (FailedWord::Undated, detail)
    })?;
    if !time.trusted {
        let detail = format!(
            "nobody keeps the clock of this box in step, so it cannot tell a command of now from an \
             old one (its time is {here}); mend its clock, or let its owner set mqtt.trust_clock"
        );
        return Err((FailedWord::ClockUntrusted, detail));
    }
    let age_ns = i128::from(time.now.wall_ns) - at.unix_timestamp_nanos();
    let (window_s, window_ns) = (FRESH.as_secs(), FRESH.as_nanos().cast_signed());
    let off_s = age_ns.unsigned_abs() / 1_000_000_000;
    if age_ns > window_ns {
        let detail = format!(
            "it was asked {off_s} s ago by the clock of this box, which says {here}, and is done \
             within {window_s} s only; ask again with a new `at`"
        );
        return Err((FailedWord::Stale, detail));
    }
    if age_ns < -window_ns {
        let detail = format!(
            "its `at` is {off_s} s ahead of the clock of this box, which says {here}; more than \
             {window_s} s are not taken: put the clock right that is wrong"
        );
        return Err((FailedWord::Future, detail));
    }
    let left_ns = window_ns - age_ns.max(0);
    Ok(Duration::from_nanos(u64::try_from(left_ns).unwrap_or(0)))
}

/// Without what is too long to be remembered.
fn shortened(answer: CommandAnswer) -> CommandAnswer {
    match answer {
        CommandAnswer::Successful { result, repeated }
            if result.to_string().len() > LONGEST_KEPT =>
        {
            drop(result);
            CommandAnswer::Successful { result: Value::Null, repeated }
        }
        CommandAnswer::Failed { reason, detail, repeated } => CommandAnswer::Failed {
            reason,
            detail: detail.chars().take(LONGEST_KEPT / 4).collect(),
            repeated,
        },
        other => other,
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
}

fn is_answer(payload: &[u8]) -> bool {
    serde_json::from_slice::<CommandAnswer>(payload).is_ok()
}

#[cfg(test)]
mod tests;
