//! Capture: where a frame enters.
//!
//! A [`Source`] waits for the next frame and says what happened instead when none came. It
//! never retries: [`run`] opens it, opens it again after a loss with capped back-off, and
//! records the gap. Sources give mono frames of 8 or 16 bits, whatever the camera speaks.
//!
//! | specification     | source            | file               |
//! |-------------------|-------------------|--------------------|
//! | `virtual`         | virtual microscope| `virtual_scope.rs` |
//! | `folder:PATH`     | images in a folder| `folder.rs`        |
//! | `v4l:/dev/videoN` | a camera          | `v4l.rs`           |

use std::time::Duration;

use crate::domain::frame::Frame;

/// What a source has to say.
#[derive(Debug)]
pub enum Event {
    /// A frame.
    Frame(Box<Frame>),
    /// Nothing within the time given; ask again.
    Nothing,
    /// One image is unfit and was passed over; the next one may be fine.
    Refused {
        /// Which image.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// There is nothing more to come.
    End,
}

/// Why a source cannot go on. The type says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It may come back: drop it and open it again.
    #[error("{0}")]
    Lost(String),
    /// It will not work as configured: a person is needed.
    #[error("{0}")]
    Unusable(String),
}

/// Something that gives frames.
pub trait Source: Send {
    /// Waits up to `patience` for the next frame.
    ///
    /// # Errors
    /// [`SourceError::Lost`] when the device is gone or hangs, [`SourceError::Unusable`]
    /// when trying again cannot help.
    fn next(&mut self, patience: Duration) -> Result<Event, SourceError>;
}
