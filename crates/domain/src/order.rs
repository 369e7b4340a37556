//! An order: who wants what done, and why. It is the same from the page, the broker and the command
//! line, and takes the same way: through an [`Executor`], which asks whether its actor may give it.

use std::fmt;

use super::actor::{Action, Actor};
use serde_json::Value;

/// Longest reason, in bytes: a sentence or two.
pub const LONGEST_REASON: usize = 500;

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin a new session, or go on after a pause.
    Start,
    /// Hold capture; the session stays open.
    Pause,
    /// End the session; capture stands still until the next start.
    Stop,
    /// Take one frame out now.
    Snapshot,
    /// Set the exposure of the camera.
    SetExposure {
        /// Microseconds.
        us: u32,
    },
    /// Deliver everything that waits now, without waiting for a part to be full.
    Deliver,
    /// Give another chance to deliveries that were refused or quarantined.
    RetryDeliveries,
    /// The same, and deliver everything again that was taken.
    DeliverAgain,
    /// Give another chance to images of the watched folder that were refused or quarantined.
    RetryImages,
}

impl Command {
    /// Its name, as in paths, topics and records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Stop => "stop",
            Self::Snapshot => "snapshot",
            Self::SetExposure { .. } => "set_exposure",
            Self::Deliver => "deliver",
            Self::RetryDeliveries => "retry_deliveries",
            Self::DeliverAgain => "deliver_again",
            Self::RetryImages => "retry_images",
        }
    }

    /// What somebody must be allowed who gives it.
    pub fn action(self) -> Action {
        match self {
            Self::Start => Action::Start,
            Self::Pause => Action::Pause,
            Self::Stop => Action::Stop,
            Self::Snapshot => Action::Snapshot,
            Self::SetExposure { .. } => Action::SetExposure,
            Self::Deliver | Self::RetryDeliveries | Self::DeliverAgain => Action::Deliver,
            Self::RetryImages => Action::ReadImages,
        }
    }
}

/// Who wants what done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who.
    pub actor: Actor,
    /// What.
    pub command: Command,
    /// Why, in the actor's words.
    pub reason: Option<String>,
}

impl Order {
    /// An order; a reason of blanks is none.
    ///
    /// # Errors
    /// The reason is longer than [`LONGEST_REASON`].
    pub fn new(
        actor: Actor,
        command: Command,
        reason: Option<String>,
    ) -> Result<Self, TooLongAReason> {
        let reason = reason.map(|reason| reason.trim().to_owned()).filter(|r| !r.is_empty());
        if reason.as_ref().is_some_and(|reason| reason.len() > LONGEST_REASON) {
            return Err(TooLongAReason);
        }
        Ok(Self { actor, command, reason })
    }
}

/// A reason that is more than a sentence or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reason has at most {LONGEST_REASON} bytes; say it shorter")]
pub struct TooLongAReason;

/// Called once with what came of an order: something to tell its actor, or why it was not done.
pub type Done = Box<dyn FnOnce(Result<Value, String>) + Send>;

/// Carries out orders.
pub trait Executor: Send + Sync {
    /// Takes an order, and calls `done` when it is carried out, perhaps before this returns. May
    /// block for some seconds. `done` is dropped uncalled when the box stops before.
    ///
    /// # Errors
    /// When it is not taken; then `done` is not called.
    fn submit(&self, order: Order, done: Done) -> Result<(), NotTaken>;
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Its actor may not give it.
    Forbidden,
    /// The box is stopping.
    Stopping,
    /// Nobody takes it now; it will not be carried out later.
    Busy,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "you may not do this on this box",
            Self::Stopping => "the box is stopping",
            Self::Busy => "the daemon has taken no order for 2 s",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_trimmed_and_has_a_bound() {
        let order = |reason: &str| {
            Order::new(Actor::Local, Command::Stop, Some(reason.to_owned())).map(|o| o.reason)
        };
        assert_eq!(order("  the lamp failed\n"), Ok(Some("the lamp failed".to_owned())));
        assert_eq!(order(" "), Ok(None));
        assert_eq!(order(&"x".repeat(LONGEST_REASON + 1)), Err(TooLongAReason));
    }
}
