//! A command that is sent again is carried out once.
//!
//! A client that hears no answer cannot know whether its command was taken. If it puts a text of
//! its own into `Idempotency-Key`, it may send the same POST again: the box answers as it did the
//! first time, with `Idempotency-Replayed: true`, and does nothing. While the first is still being
//! answered the second is refused with 409, and a key that comes with another request with 422.
//!
//! - Only what was taken (2xx) is remembered. Whatever was refused may be tried again under its key.
//! - The last [`MOST`] keys are remembered for [`KEPT`], in memory: a daemon that starts again knows
//!   none. Commands name a state, so the same one again does no harm then.
//! - A key is its caller's: two who use the same text do not hear each other's answers.
//! - A client that breaks off is answered all the same, and hears it when it asks again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use reticle_base::clock::{Clock, Stamp};
use reticle_domain::actor::Actor;

/// Keys that are remembered. One command a second is taken, so at the very least those of the last
/// 17 minutes.
const MOST: usize = 1024;

/// How long a key is remembered: a program that was away for a night may ask in the morning.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Longest key, in bytes.
const LONGEST_KEY: usize = 255;

/// Most bytes of an answer that is remembered; that of a command has some 50.
const LONGEST_ANSWER: usize = 4 * 1024;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Answers to requests that came with a key.
pub(super) struct Answers {
    clock: Clock,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    by_key: HashMap<String, Entry>,
    /// All keys, the oldest first.
    order: VecDeque<String>,
}

struct Entry {
    /// Which request it is the key of.
    request: [u8; 32],
    since: Stamp,
    /// `None` while the request is being answered.
    answer: Option<Answer>,
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        if let Some(content_type) = self.content_type {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// What is known of a request that comes with a key.
enum Known {
    /// Nothing: it is this one's to answer.
    New(Open),
    Answered(Answer),
    BeingAnswered,
    AnotherRequest,
}

/// A key whose request is being answered. Dropped without an answer, it is as if the request had
/// never come.
struct Open {
    answers: Arc<Answers>,
    key: String,
}

impl Answers {
    /// None yet.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, remembered: Mutex::default() }
    }

    fn begin(self: &Arc<Self>, key: &str, request: [u8; 32]) -> Known {
        let now = self.clock.now();
        let mut known = self.lock();
        known.forget(&now);
        if let Some(entry) = known.by_key.get(key) {
            return match &entry.answer {
                _ if entry.request != request => Known::AnotherRequest,
                Some(answer) => Known::Answered(answer.clone()),
                None => Known::BeingAnswered,
            };
        }
        known.by_key.insert(key.to_owned(), Entry { request, since: now, answer: None });
        known.order.push_back(key.to_owned());
        Known::New(Open { answers: Arc::clone(self), key: key.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// Lets keys go that are too old or too many. One that is being answered is never let go.
    fn forget(&mut self, now: &Stamp) {
        while let Some(oldest) = self.order.front() {
            let entry = self.by_key.get(oldest);
            let over = self.order.len() >= MOST
                || entry.is_none_or(|entry| now.since(&entry.since) > KEPT);
            if !over || entry.is_some_and(|entry| entry.answer.is_none()) {
                break;
            }
            if let Some(key) = self.order.pop_front() {
                self.by_key.remove(&key);
            }
        }
    }
}

impl Open {
    fn answered(self, answer: Answer) {
        if let Some(entry) = self.answers.lock().by_key.get_mut(&self.key) {
            entry.answer = Some(answer);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut known = self.answers.lock();
        if known.by_key.get(&self.key).is_some_and(|entry| entry.answer.is_none()) {
            known.by_key.remove(&self.key);
            known.order.retain(|key| *key != self.key);
        }
    }
}

/// Answers a POST with a key once, and after that as it was answered.
pub(super) async fn answer_once(
    State(answers): State<Arc<Answers>>,
    request: Request,
    next: Next,
) -> Response {
    if *request.method() != Method::POST {
        return next.run(request).await;
    }
    match key(request.headers()) {
        Ok(None) => next.run(request).await,
        Ok(Some(key)) => {
            let caller = request.extensions().get::<Actor>().map(ToString::to_string);
            let key = format!("{} {key}", caller.unwrap_or_default());
            // By itself, so that a client that goes away does not take the answer along.
            #[expect(
                clippy::disallowed_methods,
                reason = "its end is awaited here, its panic seen"
            )]
            let answering = tokio::spawn(once(answers, key, request, next));
            match answering.await {
                Ok(answer) => answer.unwrap_or_else(IntoResponse::into_response),
                Err(_) => Problem::store("the request ended without an answer").into_response(),
            }
        }
        Err(problem) => problem.into_response(),
    }
}

/// The key of a request, where it has one.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad_request(format!(
            "`Idempotency-Key` is one text of 1 to {LONGEST_KEY} ASCII characters, another one for \
             each command"
        ))),
    }
}

async fn once(
    answers: Arc<Answers>,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = read(body).await?;
    let mut which = Sha256::new();
    which.update(parts.uri.to_string());
    which.update([0]);
    which.update(&body);
    let shown = key.split_once(' ').map_or("", |(_, key)| key);
    let open = match answers.begin(&key, which.finalize().into()) {
        Known::New(open) => open,
        Known::Answered(answer) => return Ok(answer.into_response()),
        Known::BeingAnswered => {
            return Err(Problem::being_answered(format!(
                "the first request with `Idempotency-Key: {shown}` is still being answered; ask again"
            ))
            .retry_after(Duration::ZERO));
        }
        Known::AnotherRequest => {
            return Err(Problem::key_reused(format!(
                "`Idempotency-Key: {shown}` came with another request before; give each command a \
                 key of its own"
            )));
        }
    };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = read(body).await?;
    if body.len() <= LONGEST_ANSWER {
        let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
        open.answered(Answer { status: parts.status, content_type, body: body.clone() });
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A body that is in memory already: [`super::bounded`] has read it, or a handler made it.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let read = axum::body::to_bytes(body, usize::MAX).await;
    read.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Arc<Answers> {
        Arc::new(Answers::new(Clock::manual(1_700_000_000_000_000_000)))
    }

    fn answer() -> Answer {
        Answer { status: StatusCode::ACCEPTED, content_type: None, body: Bytes::new() }
    }

    #[test]
    fn a_key_is_remembered_for_a_day_and_only_as_many_as_there_is_room_for() {
        let answers = answers();
        let begin = |key: &str| answers.begin(key, [0; 32]);
        let take = |key: &str| match begin(key) {
            Known::New(open) => open.answered(answer()),
            _ => panic!("{key} is known"),
        };
        take("first");
        assert!(matches!(begin("first"), Known::Answered(_)));
        answers.clock.advance(KEPT + Duration::from_secs(1));
        take("first");
        for key in 0..MOST {
            take(&key.to_string());
        }
        assert_eq!(answers.lock().by_key.len(), MOST);
        assert!(matches!(begin("first"), Known::New(_)), "the oldest makes room");
    }

    #[test]
    fn a_request_that_breaks_off_leaves_no_key_and_one_at_work_keeps_it() {
        let answers = answers();
        let Known::New(open) = answers.begin("key", [0; 32]) else { panic!() };
        assert!(matches!(answers.begin("key", [0; 32]), Known::BeingAnswered));
        assert!(matches!(answers.begin("key", [1; 32]), Known::AnotherRequest));
        drop(open);
        let again = answers.begin("key", [1; 32]);
        assert!(matches!(again, Known::New(_)), "nothing was done under it");
    }
}
