//! Where the daemon leaves what people want to see: its status and its newest frame.
//!
//! Both hold one value; a new one replaces the old one, and writing never waits for a reader.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::domain::segmentation::Segmentation;
use crate::domain::status::Status;

/// The daemon's status: one writer (`app`), many readers. Cheap to clone.
#[derive(Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Status>>);

impl StatusBoard {
    /// A board with the default status.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the status; readers see all of the change or none of it.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The status as it is now.
    pub fn read(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A frame with its segmentation, as the live view shows it.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    /// The answer; it holds its frame.
    pub segmentation: Segmentation,
    /// AP at IoU 0.5 against the truth, where the source knows it.
    pub ap50: Option<f64>,
    /// Objects in the truth, where the source knows it.
    pub true_objects: Option<u32>,
}

/// The newest frame for the live view. Cheap to clone.
#[derive(Clone)]
pub struct LiveFeed(watch::Sender<Option<Arc<LiveFrame>>>);

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
        self.0.send_replace(Some(frame));
    }
}
