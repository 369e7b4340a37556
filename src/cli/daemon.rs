//! The daemon that has a data folder, called over the socket in it: what a verb asks of it, it orders
//! as the user who runs the verb, on the same routes as the page.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::Body;
use axum::http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::web::local;
use reticle_base::shutdown::Shutdown;

/// How long a daemon that starts may take until it answers: it looks through its store first.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Between two calls while it does not answer.
const LOOK: Duration = Duration::from_millis(200);

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Gives the daemon of a data folder a command, and returns its answer when it is done.
///
/// # Errors
/// When no daemon answers, or it does not do it; the message says why.
pub(super) fn order(folder: &Path, command: &str, reason: Option<&str>) -> anyhow::Result<Value> {
    let socket = call(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot call the daemon")?;
    runtime
        .block_on(post(
            socket,
            &format!("/api/v1/commands/{command}"),
            &json!({ "reason": reason }),
        ))
        .with_context(|| format!("the daemon that has {} did not do it", folder.display()))
}

/// A connection to the daemon, which may be starting.
fn call(folder: &Path) -> anyhow::Result<std::os::unix::net::UnixStream> {
    let mut looks = STARTS_WITHIN.as_millis() / LOOK.as_millis();
    loop {
        let error = match local::connect(folder) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        let may_come =
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        if !may_come || looks == 0 {
            return Err(error).with_context(|| {
                format!(
                    "another process has the folder {}, and does not answer at its socket \
                     reticle.sock; if it is no daemon, wait for its end, else run this as its user",
                    folder.display()
                )
            });
        }
        looks -= 1;
        // Nobody asks to stop: a signal ends this process.
        Shutdown::new().wait(LOOK);
    }
}

async fn post(
    socket: std::os::unix::net::UnixStream,
    path: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    socket.set_nonblocking(true)?;
    let socket = TokioIo::new(tokio::net::UnixStream::from_std(socket)?);
    let (mut sender, connection) = http1::handshake(socket).await?;
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))?;
    // The connection does the work beside this; where it breaks, the answer is an error.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = axum::body::to_bytes(Body::new(response.into_body()), LONGEST_ANSWER).await?;
    let answer: Value = serde_json::from_slice(&bytes).context("its answer is no JSON")?;
    if !status.is_success() {
        bail!("{}", answer["detail"].as_str().unwrap_or(status.as_str()));
    }
    Ok(answer)
}
