//! Commands over HTTP. Nothing is decided here: they are handed on to the daemon.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::problem::Problem;
use super::shared::Shared;
use super::wire::{self, CommandReply};
use crate::telemetry::metrics::Refusal;
use reticle_base::queue::Sender;
use reticle_domain::status::Command;

/// How long a command may wait for the daemon to take it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried while the daemon has not even room for one more.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Start, pause or stop
///
/// Idempotent: a command names a state, so the same one again changes nothing. `start` begins
/// a session or goes on after a pause, `pause` holds capture in the open session, `stop` ends
/// the session. The answer comes when the command was taken; the status shows its effect. After sixty
/// at once, one a second is taken. A command that was refused was not and will not be carried out.
#[utoipa::path(
    post, path = "/api/v1/commands/{command}", tag = "live",
    params(
        ("command" = wire::Command, Path, description = "start, pause or stop"),
        (
            "Idempotency-Key" = Option<String>, Header,
            description = "a text of the caller's, another one for each command: sent again, the \
                           command is not carried out again, and is answered as before"
        )
    ),
    responses(
        (status = 202, body = CommandReply),
        (status = 403, body = Problem, description = "from a page of another origin"),
        (status = 404, body = Problem, description = "no such command"),
        (status = 409, body = Problem, description = "the first with this key is being answered"),
        (status = 422, body = Problem, description = "the key is that of another command"),
        (status = 429, body = Problem, description = "too many commands; `Retry-After` says when"),
        (status = 503, body = Problem, description = "the daemon is stopping or busy")
    )
)]
pub(super) async fn command(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<CommandReply>), Problem> {
    let command = match name.as_str() {
        "start" => Command::Start,
        "pause" => Command::Pause,
        "stop" => Command::Stop,
        other => {
            return Err(Problem::not_found(format!(
                "there is no command `{other}`; there are start, pause and stop"
            )));
        }
    };
    if let Err(wait) = shared.command_rate.take(&shared.clock.now()) {
        shared.metrics.refused_client(Refusal::Often);
        return Err(Problem::too_often(format!(
            "more commands come than one a second; `{name}` was not taken"
        ))
        .retry_after(wait));
    }
    let run = shared.status.read().run;
    hand_on(&shared.commands, command).await?;
    tracing::info!(?command, ?run, "a command was taken");
    let reply = CommandReply { command: command.into(), run: run.into() };
    Ok((StatusCode::ACCEPTED, Json(reply)))
}

/// Gives the daemon a command. One that is refused was not taken, and never will be: nothing is
/// left behind that hands it on later, when somebody may have commanded otherwise.
async fn hand_on(commands: &Sender<Command>, command: Command) -> Result<(), Problem> {
    let handed_on = async {
        while commands.offer(command).is_err() {
            if commands.is_closed() {
                return Err(Problem::unavailable(
                    "the daemon is stopping and takes no commands any more",
                ));
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, handed_on).await.unwrap_or_else(|_late| {
        Err(Problem::unavailable(format!(
            "the daemon has taken no command for {} s, so this one was not given to it; look at \
             the status and its log",
            PATIENCE.as_secs()
        )))
    })
}
