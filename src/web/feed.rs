//! Where the daemon leaves its newest frame for people to see.
//!
//! A new one replaces the old one, and writing never waits for a reader.
//! A frame is encoded when the first viewer asks for it, once for all viewers.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OnceCell, watch};

use super::frame_message::{self, MessageError};
use super::live_frame::{Encoding, LiveFrame};

/// The newest frame for the live view. Cheap to clone.
#[derive(Clone)]
pub struct LiveFeed(watch::Sender<Option<Arc<Slot>>>);

impl Default for LiveFeed {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl LiveFeed {
    /// A feed without a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows `frame` to whoever watches; replaces the one before, never waits.
    pub fn publish(&self, frame: Arc<LiveFrame>) {
        self.0.send_replace(Some(Arc::new(Slot::new(frame))));
    }

    /// The newest frame as a JPEG with its outlines burnt in, at most `longest` pixels along its
    /// longer edge. `None` before the first frame, or for one that cannot be shown.
    pub fn snapshot(&self, longest: u32) -> Option<Snapshot> {
        let (frame, jpeg) = self.encoded(longest, frame_message::snapshot)?;
        Some(Snapshot { frame, jpeg })
    }

    /// The newest frame as the message that the live page gets, its picture at most `longest`
    /// pixels along its longer edge. `None` as for [`LiveFeed::snapshot`].
    pub fn message(&self, longest: u32) -> Option<Vec<u8>> {
        Some(self.encoded(longest, frame_message::message)?.1)
    }

    fn encoded(
        &self,
        longest: u32,
        encode: impl FnOnce(&LiveFrame, Encoding) -> Result<Vec<u8>, MessageError>,
    ) -> Option<(Arc<LiveFrame>, Vec<u8>)> {
        let frame = Arc::clone(&self.newest()?.frame);
        let encoding = Encoding { longest, quality: SNAPSHOT_QUALITY };
        let bytes = encode(&frame, encoding)
            .inspect_err(|error| tracing::error!(%error, "a frame cannot be shown"))
            .ok()?;
        Some((frame, bytes))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<Slot>>> {
        self.0.subscribe()
    }

    pub(crate) fn newest(&self) -> Option<Arc<Slot>> {
        self.0.borrow().clone()
    }
}

/// A picture of the newest frame.
pub struct Snapshot {
    /// What is on it.
    pub frame: Arc<LiveFrame>,
    /// The picture.
    pub jpeg: Vec<u8>,
}

/// JPEG quality of a snapshot: that of the live image, unless configured.
const SNAPSHOT_QUALITY: u8 = 85;

/// A published frame and what it was encoded to so far.
pub(crate) struct Slot {
    pub(crate) frame: Arc<LiveFrame>,
    message: OnceCell<Option<Bytes>>,
    snapshot: OnceCell<Option<Bytes>>,
}

impl Slot {
    fn new(frame: Arc<LiveFrame>) -> Self {
        Self { frame, message: OnceCell::new(), snapshot: OnceCell::new() }
    }

    /// The message of the live channel. `None` if the frame cannot be shown, which is logged.
    pub(crate) async fn message(&self, encoding: Encoding) -> Option<Bytes> {
        self.once(&self.message, move |frame| frame_message::message(frame, encoding)).await
    }

    /// A JPEG with the outlines burnt in. `None` as for [`Slot::message`].
    pub(crate) async fn snapshot(&self, encoding: Encoding) -> Option<Bytes> {
        self.once(&self.snapshot, move |frame| frame_message::snapshot(frame, encoding)).await
    }

    async fn once(
        &self,
        cell: &OnceCell<Option<Bytes>>,
        encode: impl FnOnce(&LiveFrame) -> Result<Vec<u8>, MessageError> + Send + 'static,
    ) -> Option<Bytes> {
        let made = cell.get_or_init(|| async {
            let frame = Arc::clone(&self.frame);
            let id = frame.segmentation.frame.id;
            match tokio::task::spawn_blocking(move || encode(&frame)).await {
                Ok(Ok(bytes)) => Some(Bytes::from(bytes)),
                Ok(Err(error)) => {
                    tracing::error!(frame = %id, %error, "a frame cannot be shown; it is stored as ever");
                    None
                }
                Err(error) => {
                    tracing::error!(frame = %id, %error, "encoding a frame for the page broke off");
                    None
                }
            }
        });
        made.await.clone()
    }
}
