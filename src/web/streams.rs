//! Pictures for whatever cannot run our page: a stream of JPEGs, and one JPEG, both with the
//! outlines burnt in.
//!
//! The stream sends the next frame when the client has taken the last one, so a slow client
//! skips frames and holds no memory. When frames stop coming, the last one stays; the page
//! says why, a picture stream cannot.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;

use super::feed::Slot;
use super::problem::Problem;
use super::shared::{Seat, Shared, stopped};

const BOUNDARY: &str = "reticle-frame";
/// Most streams at a time.
const MOST_STREAMS: usize = 16;

/// The newest frame with its outlines
#[utoipa::path(
    get, path = "/streams/snapshot.jpg", tag = "live",
    responses(
        (status = 200, content_type = "image/jpeg", body = Vec<u8>),
        (status = 503, body = Problem, description = "no frame yet")
    )
)]
pub(super) async fn snapshot(State(shared): State<Arc<Shared>>) -> Response {
    let Some(slot) = shared.live.newest() else {
        return Problem::unavailable(
            "no frame was segmented since the daemon started; try again when the status has a \
             newest frame",
        )
        .into_response();
    };
    match slot.snapshot(shared.encoding).await {
        Some(jpeg) => {
            let id = slot.frame.segmentation.frame.id.to_string();
            ([(header::CONTENT_TYPE, "image/jpeg"), (FRAME_ID, &id)], jpeg).into_response()
        }
        None => Problem::unavailable("the newest frame cannot be drawn; see the daemon's log")
            .into_response(),
    }
}

const FRAME_ID: header::HeaderName = header::HeaderName::from_static("x-reticle-frame");

/// A stream of pictures with outlines
///
/// For browsers, players and dashboards that cannot run the live page.
#[utoipa::path(
    get, path = "/streams/mjpeg", tag = "live",
    responses(
        (status = 200, content_type = "multipart/x-mixed-replace", body = Vec<u8>),
        (status = 503, body = Problem, description = "too many streams")
    )
)]
pub(super) async fn mjpeg(State(shared): State<Arc<Shared>>) -> Response {
    let Some(seat) = shared.streams.take(MOST_STREAMS) else {
        return Problem::unavailable(format!(
            "{MOST_STREAMS} picture streams are open already; close one of them"
        ))
        .into_response();
    };
    let mut frames = shared.live.subscribe();
    frames.mark_changed();
    let stop = shared.stop.clone();
    let viewer = Viewer { shared, frames, stop, begun: false, _seat: seat };
    let body = Body::from_stream(stream::unfold(viewer, |mut viewer| async move {
        let part = viewer.next().await?;
        Some((Ok::<_, Infallible>(part), viewer))
    }));
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

struct Viewer {
    shared: Arc<Shared>,
    frames: watch::Receiver<Option<Arc<Slot>>>,
    stop: watch::Receiver<bool>,
    begun: bool,
    _seat: Seat,
}

impl Viewer {
    /// The next part, when there is a frame that this client has not had. Only asked for
    /// when the connection takes bytes again.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                () = stopped(&mut self.stop) => return None,
                changed = self.frames.changed() => changed.ok()?,
            }
            let newest = self.frames.borrow_and_update().clone();
            let Some(slot) = newest else { continue };
            if let Some(jpeg) = slot.snapshot(self.shared.encoding).await {
                return Some(self.part(&slot, &jpeg));
            }
        }
    }

    /// A part ends with the boundary of the next one: browsers show a picture only when they
    /// have seen that.
    fn part(&mut self, slot: &Slot, jpeg: &[u8]) -> Bytes {
        let opening = if self.begun { String::new() } else { format!("--{BOUNDARY}\r\n") };
        self.begun = true;
        let head = format!(
            "{opening}Content-Type: image/jpeg\r\nContent-Length: {}\r\n{FRAME_ID}: {}\r\n\r\n",
            jpeg.len(),
            slot.frame.segmentation.frame.id,
        );
        [head.as_bytes(), jpeg, format!("\r\n--{BOUNDARY}\r\n").as_bytes()].concat().into()
    }
}
