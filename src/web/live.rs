//! The live channel: a WebSocket that brings frames as fast as this client draws them.
//!
//! ```text
//! box → page   binary: a frame with its segmentation (see [`super::frame_message`])
//!              text:   {"type":"status", …}, at least every 500 ms
//! page → box   text:   {"shown":"<frame id>"}   it is on the screen; the next one may come
//!                      {"failed":"<frame id>"}  it could not be drawn; the next one may come
//!                      {"hidden":true|false}    nobody looks at the page; somebody does again
//! ```
//!
//! At most one frame is on its way to a client. When its answer comes, the frame that is then
//! the newest goes out; those in between were never this client's. So a slow client has a
//! lower rate but never an older picture than its own speed makes, and holds nothing here. One
//! that never answers is closed after a minute; the page comes again by itself.
//!
//! Capture to screen is measured with the box's clock alone: from the frame's stamp to the
//! moment its `shown` arrives. It includes the way back of that answer, so it is an upper
//! bound. The first frame after connecting or after `hidden` may be old and is not counted.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::feed::Slot;
use super::latency::Latency;
use super::problem::Problem;
use super::shared::{Shared, stopped};
use super::status;
use super::wire::StatusMessage;
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;

/// How often the status goes out. The page calls the box lost after 1.3 s of silence.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// How long a client may refuse to take bytes before it is dropped.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client that is looked at may leave a frame unanswered before it is dropped. The
/// kernel's buffers hold many minutes of statuses, so one that died without a word would keep its
/// seat for as long. A frame of 8192² takes half of it at 1 MB/s.
const SILENCE: Duration = Duration::from_secs(60);
/// Most bytes that a client may say at once; what it has to say fits in 100.
const LONGEST_WORD: usize = 1024;
/// Most clients at a time.
const MOST_CLIENTS: usize = 64;

/// What a client says.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Word {
    Shown(FrameId),
    Failed(FrameId),
    Hidden(bool),
}

/// The live channel, a WebSocket
///
/// Frames with their outlines as binary messages, the status as text; docs/design/live.md says how
/// they are read.
#[utoipa::path(
    get, path = "/api/v1/live", tag = "live",
    responses(
        (status = 101, body = StatusMessage, description = "the text messages from here on"),
        (status = 400, body = Problem, description = "no WebSocket"),
        (status = 503, body = Problem, description = "too many live views")
    )
)]
pub(super) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            return Problem::bad_request(format!(
                "this address speaks WebSocket only ({rejection}); for a plain picture stream \
                 use /streams/mjpeg"
            ))
            .into_response();
        }
    };
    let Some(seat) = shared.viewers.take(MOST_CLIENTS) else {
        return Problem::unavailable(format!(
            "{MOST_CLIENTS} live views are open already; close one of them"
        ))
        .into_response();
    };
    // Of both: a frame is read whole before the message is looked at.
    let upgrade = upgrade.max_frame_size(LONGEST_WORD).max_message_size(LONGEST_WORD);
    upgrade.on_upgrade(move |socket| async move {
        let mut client = Client::new(socket, shared);
        let end = client.serve().await;
        tracing::debug!(?end, "a live view ended");
        drop(seat);
    })
}

/// Why a client's channel ended.
#[derive(Debug)]
enum End {
    /// The client left or its connection broke.
    Gone,
    /// It took no bytes for [`PATIENCE`].
    Stuck,
    /// It said nothing of a frame for [`SILENCE`].
    Mute,
    /// It said something that is no [`Word`].
    Nonsense,
    /// The daemon stops.
    Shutdown,
}

/// A frame on its way.
struct Pending {
    id: FrameId,
    captured: Stamp,
    /// When it was sent, or somebody looked at the page again.
    waited_for_since: Stamp,
    /// Whether the time to the screen counts.
    counts: bool,
}

struct Client {
    socket: WebSocket,
    shared: Arc<Shared>,
    frames: watch::Receiver<Option<Arc<Slot>>>,
    pending: Option<Pending>,
    /// Whether somebody looks at the page.
    watching: bool,
    /// Whether the next frame is known to be new, not one that lay there before.
    fresh: bool,
    latency: Latency,
}

impl Client {
    fn new(socket: WebSocket, shared: Arc<Shared>) -> Self {
        let mut frames = shared.live.subscribe();
        // The frame that is there already is this client's first.
        frames.mark_changed();
        Self {
            socket,
            shared,
            frames,
            pending: None,
            watching: true,
            fresh: false,
            latency: Latency::default(),
        }
    }

    async fn serve(&mut self) -> End {
        let mut tick = interval(STATUS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.shared.stop.clone();
        loop {
            let ready = self.pending.is_none() && self.watching;
            let step = tokio::select! {
                () = stopped(&mut stop) => {
                    self.say_goodbye(close_code::AWAY, "the box is stopping").await;
                    return End::Shutdown;
                }
                heard = self.socket.recv() => match heard {
                    Some(Ok(Message::Text(text))) => self.hear(text.as_str()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Binary(_))) => Err(End::Nonsense),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
                },
                _ = tick.tick() => match self.is_mute() {
                    true => Err(End::Mute),
                    false => self.send_status().await,
                },
                changed = self.frames.changed(), if ready => match changed {
                    Ok(()) => self.send_newest().await,
                    Err(_) => Err(End::Shutdown),
                },
            };
            if let Err(end) = step {
                let reason = match end {
                    End::Nonsense => {
                        Some("expected {\"shown\":id}, {\"failed\":id} or {\"hidden\":bool}")
                    }
                    End::Mute => Some("nothing was said of a frame for a minute; come again"),
                    End::Gone | End::Stuck | End::Shutdown => None,
                };
                if let Some(reason) = reason {
                    self.say_goodbye(close_code::POLICY, reason).await;
                }
                return end;
            }
        }
    }

    fn is_mute(&self) -> bool {
        let now = self.shared.clock.now();
        let pending = self.pending.as_ref().filter(|_| self.watching);
        pending.is_some_and(|pending| now.since(&pending.waited_for_since) > SILENCE)
    }

    fn hear(&mut self, text: &str) -> Result<(), End> {
        match serde_json::from_str(text) {
            Ok(Word::Shown(id)) => {
                if let Some(pending) = self.pending.take_if(|pending| pending.id == id) {
                    let took = self.shared.clock.now().since(&pending.captured);
                    tracing::trace!(frame = %id, ms = took.as_millis(), "shown");
                    if pending.counts {
                        self.latency.add(took);
                        self.shared.note_shown(took);
                    }
                }
                Ok(())
            }
            Ok(Word::Failed(id)) => {
                if self.pending.take_if(|pending| pending.id == id).is_some() {
                    tracing::warn!(frame = %id, "a browser could not draw a frame");
                }
                Ok(())
            }
            Ok(Word::Hidden(hidden)) => {
                self.watching = !hidden;
                self.fresh = false;
                if let Some(pending) = &mut self.pending {
                    pending.counts = false;
                    pending.waited_for_since = self.shared.clock.now();
                }
                Ok(())
            }
            Err(_) => Err(End::Nonsense),
        }
    }

    async fn send_status(&mut self) -> Result<(), End> {
        let message = StatusMessage::from(status::now(&self.shared, self.latency.summary()));
        let text = serde_json::to_string(&message).expect("a status has string keys only");
        self.send(Message::Text(text.into())).await
    }

    async fn send_newest(&mut self) -> Result<(), End> {
        let newest = self.frames.borrow_and_update().clone();
        let Some(slot) = newest else { return Ok(()) };
        let Some(bytes) = slot.message(self.shared.encoding).await else { return Ok(()) };
        let frame = &slot.frame.segmentation.frame;
        let counts = std::mem::replace(&mut self.fresh, true);
        let waited_for_since = self.shared.clock.now();
        let (id, captured) = (frame.id, frame.captured);
        self.pending = Some(Pending { id, captured, waited_for_since, counts });
        self.send(Message::Binary(bytes)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(PATIENCE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Stuck),
        }
    }

    async fn say_goodbye(&mut self, code: u16, reason: &'static str) {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // Whoever does not listen any more misses nothing.
        timeout(Duration::from_millis(200), self.socket.send(close)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_three_words() {
        let id = FrameId::new();
        let shown = serde_json::from_str(&format!("{{\"shown\":\"{id}\"}}"));
        assert_eq!(shown.ok(), Some(Word::Shown(id)));
        let hidden = serde_json::from_str("{\"hidden\":true}");
        assert_eq!(hidden.ok(), Some(Word::Hidden(true)));
        assert!(serde_json::from_str::<Word>("{\"start\":true}").is_err());
    }
}
