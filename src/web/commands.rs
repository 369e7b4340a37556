//! Commands over HTTP: each becomes an order of whoever calls. Whether they may give it, and what it
//! does, is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use tokio::sync::oneshot;

use super::problem::Problem;
use super::shared::Shared;
use super::wire::{Command, CommandBody, CommandReply};
use crate::telemetry::metrics::Refusal;
use reticle_domain::actor::Actor;
use reticle_domain::order::{NotTaken, Order};

/// How long a command that the store carries out may take until it is on the disk. A disk that is
/// slower than this hangs, which the status says.
const DONE_WITHIN: Duration = Duration::from_secs(120);

/// Give a command
///
/// Idempotent: `start`, `pause` and `stop` name a state, so the same one again changes nothing.
/// `start` begins a session or goes on after a pause, `pause` holds capture in the open session,
/// `stop` ends the session; they are answered with 202 when they were taken, and the status shows
/// their effect. The others are about what waits to be delivered or read, and are answered with 200
/// when that is on the disk, or with 202 when it was taken and the store, which stands still, has not
/// done it within two minutes. After sixty at once, one a second is taken. A command that was not taken
/// (503) will not be carried out. Who gave which command, and why, is recorded.
#[utoipa::path(
    post, path = "/api/v1/commands/{command}", tag = "live",
    params(
        ("command" = Command, Path, description = "what to do"),
        (
            "Idempotency-Key" = Option<String>, Header,
            description = "a text of the caller's, another one for each command: sent again, the \
                           command is not carried out again, and is answered as before"
        )
    ),
    request_body(content = Option<CommandBody>, content_type = "application/json"),
    responses(
        (status = 200, body = CommandReply, description = "it is done"),
        (status = 202, body = CommandReply, description = "it was taken"),
        (status = 400, body = Problem, description = "the body, the reason in it, or the key"),
        (status = 403, body = Problem, description = "not allowed, or from a page of another origin"),
        (status = 404, body = Problem, description = "no such command"),
        (status = 409, body = Problem, description = "the first with this key is being answered"),
        (status = 422, body = Problem, description = "the key is that of another command"),
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
    let command = Command::of_word(&name).ok_or_else(|| {
        let words = Command::ALL.map(|command| command.order().word()).join(", ");
        Problem::not_found(format!("there is no command `{name}`; there are {words}"))
    })?;
    let order = Order::new(actor, command.order(), read(&headers, &body)?.reason)
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    if let Err(wait) = shared.command_rate.take(&shared.clock.now()) {
        shared.metrics.refused_client(Refusal::Often);
        return Err(Problem::too_often(format!(
            "more commands come than one a second; `{name}` was not taken"
        ))
        .retry_after(wait));
    }
    let run = shared.status.read().run.into();
    let (reply, result) = oneshot::channel();
    let done = Box::new(move |result| {
        // Who asked may have left.
        reply.send(result).ok();
    });
    let executor = Arc::clone(&shared.executor);
    match tokio::task::spawn_blocking(move || executor.submit(order, done)).await {
        Ok(Ok(())) => {}
        Ok(Err(NotTaken::Forbidden)) => {
            return Err(Problem::forbidden(format!("{}: `{name}`", NotTaken::Forbidden)));
        }
        Ok(Err(NotTaken::Stopping)) | Err(_) => return Err(stopping()),
        Ok(Err(NotTaken::Busy)) => {
            return Err(Problem::unavailable(format!(
                "{}, so `{name}` was not given to it; look at the status and its log",
                NotTaken::Busy
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
        // It was taken and is still to be done: not the answer to something that was not.
        Err(_) => Ok((StatusCode::ACCEPTED, Json(CommandReply { command, run, retried: None }))),
    }
}

/// A body that does not say that it is JSON is nobody's, and is passed over.
fn read(headers: &HeaderMap, bytes: &[u8]) -> Result<CommandBody, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if bytes.is_empty() || !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return Ok(CommandBody::default());
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::bad_request(format!("the body is no command's: {error}")))
}

fn stopping() -> Problem {
    Problem::unavailable("the daemon is stopping and takes no commands any more")
}
