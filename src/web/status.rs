//! The status of the box, over HTTP and over the live channel.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::shared::Shared;
use super::wire::{ScreenTime, StatusReply};

/// The status as it is now, with what `capture_to_screen` is to say.
pub(super) fn now(shared: &Shared, capture_to_screen: Option<ScreenTime>) -> StatusReply {
    let now = shared.clock.now();
    let newest = shared.live.newest();
    StatusReply {
        now: now.rfc3339(),
        version: env!("CARGO_PKG_VERSION"),
        newest_age_ms: newest
            .map(|slot| now.since(&slot.frame.segmentation.frame.captured).as_secs_f64() * 1_000.0),
        capture_to_screen,
        viewers: shared.viewers.taken(),
        status: shared.status.read().into(),
    }
}

/// Status of the box
///
/// Run state, source, newest frame, counters, and whether results are saved.
#[utoipa::path(
    get, path = "/api/v1/status", tag = "live",
    responses((status = 200, body = StatusReply))
)]
pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Json<StatusReply> {
    Json(now(&shared, shared.screen_time()))
}
