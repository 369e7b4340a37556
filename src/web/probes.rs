//! For whoever watches over the box: probes of an orchestrator, and metrics.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::IntoResponse;

use super::access::Caller;
use super::problem::Problem;
use super::shared::Shared;
use crate::telemetry::metrics::CONTENT_TYPE;
use reticle_domain::status::{SaveState, SourceState, Status};

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = str)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether frames can be taken and results saved
///
/// Under a name that is not the box's own it says yes or no, and not why: reasons name folders and
/// machines.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, body = str), (status = 503, body = Problem))
)]
pub(super) async fn readyz(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<&'static str, Problem> {
    match (not_ready(&shared.status.read()), caller) {
        (None, _) => Ok("ready\n"),
        (Some(reason), Caller::Known) => Err(Problem::unavailable(reason)),
        (Some(_), Caller::Unknown) => Err(Problem::unavailable(
            "the box is not ready; it says why to whoever calls it by its address or by a name in \
             `hosts` of [web]",
        )),
    }
}

/// Why frames cannot be taken or results not be saved.
fn not_ready(status: &Status) -> Option<String> {
    if let SaveState::Failing { reason, since } = &status.save {
        return Some(format!("results are not saved since {since}: {reason}"));
    }
    if let Some(reason) = &status.frame_files_failing {
        return Some(format!("the pixels of frames cannot be written: {reason}"));
    }
    if let Some(reason) = &status.recording_paused {
        return Some(format!("frames are shown and not recorded: {reason}"));
    }
    match &status.source {
        SourceState::Opening => Some(format!("{} is being opened", status.source_name)),
        SourceState::Lost { reason, since } => {
            Some(format!("{} is lost since {since}: {reason}", status.source_name))
        }
        SourceState::Ready | SourceState::Ended => None,
    }
}

/// Metrics for Prometheus
///
/// In its text format; `docs/monitoring` has the names, alert rules and a dashboard. Guarded like
/// every other read and unlike the probes: how much a lab does, and with which version, is not
/// for a foreign page. Whoever scrapes calls the box by its address or by a name in `[web] hosts`.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, content_type = "text/plain", body = str))
)]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let (status, viewers) = (shared.status.read(), shared.viewers.taken());
    let text = shared.metrics.render(&status, viewers, &shared.clock.now());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}
