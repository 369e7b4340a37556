//! Commands over HTTP: each becomes an order of whoever calls. Whether they may give it, and what it
//! does, is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Shared;
use super::problem::Problem;
use crate::telemetry::metrics::Refusal;
use reticle_domain::actor::Actor;
use reticle_domain::order::{Command, NotTaken, Order};
use reticle_domain::status::RunState;

/// How long a command may wait for the daemon to take it.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// How long a command that the store carries out may take until it is on the disk. A disk that is
/// slower than this hangs, which the status says.
const DONE_WITHIN: Duration = Duration::from_secs(120);

reticle_base::words! {
    /// A command that takes nothing but its name.
    CommandWord {
        /// Begin a session, or go on after a pause.
        Start = "start",
        /// Hold capture in the open session.
        Pause = "pause",
        /// End the session.
        Stop = "stop",
        /// Deliver what waits now.
        Deliver = "deliver",
        /// Give refused and quarantined deliveries another chance.
        RetryDeliveries = "retry_deliveries",
        /// The same, and deliver everything again that was taken.
        DeliverAgain = "deliver_again",
        /// Give refused and quarantined images of the watched folder another chance.
        RetryImages = "retry_images",
    }
}

impl From<CommandWord> for Command {
    fn from(word: CommandWord) -> Self {
        match word {
            CommandWord::Start => Self::Start,
            CommandWord::Pause => Self::Pause,
            CommandWord::Stop => Self::Stop,
            CommandWord::Deliver => Self::Deliver,
            CommandWord::RetryDeliveries => Self::RetryDeliveries,
            CommandWord::DeliverAgain => Self::DeliverAgain,
            CommandWord::RetryImages => Self::RetryImages,
        }
    }
}

impl CommandWord {
    /// Whether the answer waits until the store has it. The others name a state, which the status
    /// shows.
    fn is_awaited(self) -> bool {
        match self {
            Self::Start | Self::Pause | Self::Stop => false,
            Self::Deliver | Self::RetryDeliveries | Self::DeliverAgain | Self::RetryImages => true,
        }
    }
}

/// What may come with a command.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandBody {
    /// Why, for the record: a sentence or two, 500 bytes at most.
    #[serde(default)]
    reason: Option<String>,
}

impl CommandBody {
    /// A body that does not say that it is JSON is nobody's, and is passed over.
    fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if bytes.is_empty() || !kind.is_some_and(|kind| kind.starts_with("application/json")) {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes)
            .map_err(|error| Problem::bad_request(format!("the body is no command's: {error}")))
    }
}

/// A command that was taken.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct CommandReply {
    /// Which.
    command: CommandWord,
    /// The run state when it was taken; the status tells when it has changed.
    run: RunState,
    /// How many deliveries or images get another chance, where the command is about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    retried: Option<u64>,
}

/// Give a command
///
/// Idempotent: `start`, `pause` and `stop` name a state, so the same one again changes nothing.
/// `start` begins a session or goes on after a pause, `pause` holds capture in the open session,
/// `stop` ends the session; they are answered with 202 when they were taken, and the status shows
/// their effect. The others are about what waits to be delivered or read, and are answered with 200
/// when that is on the disk. After sixty at once, one a second is taken. Who gave which command, and
/// why, is recorded.
#[utoipa::path(
    post, path = "/api/v1/commands/{command}", tag = "live",
    params(("command" = CommandWord, Path, description = "What to do")),
    request_body(content = Option<CommandBody>, content_type = "application/json"),
    responses(
        (status = 200, body = CommandReply, description = "it is done"),
        (status = 202, body = CommandReply, description = "it was taken"),
        (status = 400, body = Problem, description = "the body or the reason in it"),
        (status = 403, body = Problem, description = "not allowed, or from a page of another origin"),
        (status = 404, body = Problem, description = "no such command"),
        (status = 429, body = Problem, description = "too many commands; `Retry-After` says when"),
        (status = 503, body = Problem, description = "the daemon is stopping or busy")
    )
)]
pub(super) async fn command(
    State(shared): State<Arc<Shared>>,
    Extension(actor): Extension<Actor>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<CommandReply>), Problem> {
    let command = CommandWord::of_word(&name).ok_or_else(|| {
        let words = CommandWord::ALL.map(CommandWord::word).join(", ");
        Problem::not_found(format!("there is no command `{name}`; there are {words}"))
    })?;
    let order = Order::new(actor, command.into(), CommandBody::read(&headers, &body)?.reason)
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    if let Err(wait) = shared.command_rate.take(&shared.clock.now()) {
        shared.metrics.refused_client(Refusal::Often);
        return Err(Problem::too_often(format!(
            "more commands come than one a second; `{name}` was not taken"
        ))
        .retry_after(wait));
    }
    let run = shared.status.read().run;
    let (reply, result) = oneshot::channel();
    let done = Box::new(move |result| {
        // Who asked may have left.
        reply.send(result).ok();
    });
    let executor = Arc::clone(&shared.executor);
    let submitted = tokio::task::spawn_blocking(move || executor.submit(order, done));
    match tokio::time::timeout(TAKEN_WITHIN, submitted).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(not_taken @ NotTaken::Forbidden))) => {
            return Err(Problem::forbidden(format!("{not_taken}: `{name}`")));
        }
        Ok(Ok(Err(NotTaken::Stopping)) | Err(_)) => return Err(stopping()),
        Err(_) => {
            return Err(Problem::unavailable(format!(
                "the daemon has not taken `{name}` for {} s; look at the status and its log",
                TAKEN_WITHIN.as_secs()
            )));
        }
    }
    if !command.is_awaited() {
        return Ok((StatusCode::ACCEPTED, Json(CommandReply { command, run, retried: None })));
    }
    match tokio::time::timeout(DONE_WITHIN, result).await {
        Ok(Ok(Ok(result))) => {
            let retried = result["retried"].as_u64();
            Ok((StatusCode::OK, Json(CommandReply { command, run, retried })))
        }
        Ok(Ok(Err(why))) => Err(Problem::store(why)),
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(Problem::unavailable(format!(
            "the store has not done `{name}` for {} s; it does when it goes on, unless the daemon is \
             stopped before",
            DONE_WITHIN.as_secs()
        ))),
    }
}

fn stopping() -> Problem {
    Problem::unavailable("the daemon is stopping and takes no commands any more")
}
