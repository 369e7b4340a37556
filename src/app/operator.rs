//! What the network may ask of this box, done as if somebody had pressed the button.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::capture::Exposure;
use crate::publish;
use crate::web::LiveFeed;
use reticle_base::queue::{Sender, Sent};
use reticle_base::shutdown::Shutdown;
use reticle_domain::status::{Command, RunState, StatusBoard};

/// How long a start, pause or stop may take until the status shows it. The last frames are
/// drained meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(20);

/// Longer edge of a snapshot in pixels: some 200 kB, which every broker takes.
const SNAPSHOT_PX: u32 = 1024;

/// Hands orders on, and waits for what came of them.
pub(super) struct Operator {
    pub(super) commands: Sender<Command>,
    pub(super) board: StatusBoard,
    pub(super) live: LiveFeed,
    pub(super) exposure: Exposure,
    pub(super) shutdown: Shutdown,
}

impl publish::Operator for Operator {
    fn obey(&self, order: publish::Order) -> Result<Value, String> {
        match order {
            publish::Order::Run(command) => self.run(command),
            publish::Order::Snapshot => self.snapshot(),
            publish::Order::Exposure { us } => {
                self.exposure.set(us).map(|us| json!({ "exposure_us": us }))
            }
        }
    }
}

impl Operator {
    /// Done when the status says so.
    fn run(&self, command: Command) -> Result<Value, String> {
        let wanted = match command {
            Command::Start => RunState::Running,
            Command::Pause => RunState::Paused,
            Command::Stop => RunState::Stopped,
        };
        if command == Command::Pause && self.board.read().run == RunState::Stopped {
            return Err("no session is open, so there is nothing to pause; start one".to_owned());
        }
        if let Sent::Closed(_) = self.commands.send(command) {
            return Err("the box is stopping".to_owned());
        }
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            let status = self.board.read();
            if status.run == wanted {
                return Ok(json!({ "run": status.run, "session": status.session }));
            }
            if self.shutdown.wait(LOOK) {
                break;
            }
        }
        Err(format!("the box did not do it within {} s; look at its page", PATIENCE.as_secs()))
    }

    fn snapshot(&self) -> Result<Value, String> {
        let snapshot = self.live.snapshot(SNAPSHOT_PX).ok_or("there is no frame to show yet")?;
        let segmentation = &snapshot.frame.segmentation;
        Ok(json!({
            "frame": segmentation.frame.id,
            "captured": segmentation.frame.captured.rfc3339(),
            "objects": segmentation.labels.count(),
            "content_type": "image/jpeg",
            "data": STANDARD.encode(&snapshot.jpeg),
        }))
    }
}
