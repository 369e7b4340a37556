//! Bounds on what one request may make this process hold: the body that it sends, and the answer
//! that it gets and does not read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::Problem;
use super::shared::{ANSWERS_KIB, Shared};
use crate::telemetry::metrics::Refusal;

/// Most bytes of a request's body; no request needs one today.
pub(super) const LONGEST_BODY: usize = 16 * 1024;

/// Answers up to this size are not counted: at most 4 MB over all connections.
const SMALL: u64 = 16 * 1024;

/// Marks an answer whose bytes are part of the program, so that it takes no memory.
#[derive(Clone, Copy)]
pub(super) struct OfTheProgram;

/// Reads a request's body before anything is done with it, or refuses it.
pub(super) async fn body(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(shared.times.header, read(body)).await;
    match read.unwrap_or_else(|_| Err(too_slow(shared.times.header))) {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(problem) => {
            shared.metrics.refused_client(Refusal::Body);
            problem.into_response()
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::too_large(format!(
            "the body of a request has at most {LONGEST_BODY} bytes; no request of this API needs \
             more"
        ))
    };
    // What a Content-Length announces is believed: nothing of it is read.
    if body.size_hint().lower() > LONGEST_BODY as u64 {
        return Err(too_large());
    }
    let mut whole = Vec::new();
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            Problem::bad_request(format!("the body of the request broke off: {error}"))
        })?;
        if whole.len() + part.len() > LONGEST_BODY {
            return Err(too_large());
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.into())
}

fn too_slow(limit: Duration) -> Problem {
    Problem::slow(format!(
        "the body of the request did not come within {} s; send it again",
        limit.as_secs_f32()
    ))
}

/// Counts an answer while any of it is in memory, however slowly the client takes it. Those that
/// find no room are refused instead of being held.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    // A stream says no size; it makes its next part when the last one was taken.
    let Some(size) = response.body().size_hint().exact() else { return response };
    if size <= SMALL || response.extensions().get::<OfTheProgram>().is_some() {
        return response;
    }
    let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX).min(ANSWERS_KIB);
    let Ok(room) = Arc::clone(&shared.answers).try_acquire_many_owned(kib) else {
        shared.metrics.refused_client(Refusal::Crowded);
        let detail = "too many large answers wait for clients that take them slowly; ask again";
        return Problem::unavailable(detail).retry_after(Duration::from_secs(2)).into_response();
    };
    let (parts, body) = response.into_parts();
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            let counted = Bytes::from_owner(Counted { bytes, _room: room });
            Response::from_parts(parts, Body::from(counted))
        }
        Err(error) => Problem::store(format!("the answer broke off: {error}")).into_response(),
    }
}

/// Bytes that give their room back when the last reference to them is gone.
struct Counted {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
