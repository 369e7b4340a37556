//! Carries out orders, whoever gives them: asks whether the actor may, and hands each to whoever does
//! it. The control loop does most; what needs neither it nor the store is done on the spot.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::intake::Intake;
use crate::capture::Exposure;
use crate::web::LiveFeed;
use reticle_base::queue::Sender;
use reticle_domain::actor::Access;
use reticle_domain::order::{Command, Done, Executor, NotTaken, Order};
use reticle_store::{Ask, Change};

/// How long an order may wait for the control loop to take it.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(10);

/// Longer edge of a snapshot in pixels: some 200 kB, which every broker takes.
const SNAPSHOT_PX: u32 = 1024;

/// An order on its way to the control loop.
pub(super) struct Submitted {
    pub(super) order: Order,
    pub(super) work: Work,
    pub(super) done: Done,
}

/// What the control loop does for an order.
pub(super) enum Work {
    /// Changes whether frames are taken.
    Run(Run),
    /// Asks the store for these.
    Store(Vec<Ask>),
}

/// Whether frames are to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Start,
    Pause,
    Stop,
}

/// Carries out orders. Cheap to clone.
#[derive(Clone)]
pub(super) struct Orders {
    pub(super) access: Access,
    pub(super) to_control: Sender<Submitted>,
    pub(super) live: LiveFeed,
    pub(super) exposure: Exposure,
    pub(super) intake: Intake,
}

impl Executor for Orders {
    fn submit(&self, order: Order, done: Done) -> Result<(), NotTaken> {
        let command = order.command;
        if !self.access.may(&order.actor, command.action()) {
            tracing::warn!(actor = %order.actor, command = command.word(), "not allowed, not done");
            return Err(NotTaken::Forbidden);
        }
        let (work, done) = match command {
            Command::Start => (Work::Run(Run::Start), done),
            Command::Pause => (Work::Run(Run::Pause), done),
            Command::Stop => (Work::Run(Run::Stop), done),
            Command::Deliver => (Work::Store(vec![Ask::DeliverNow]), done),
            Command::RetryDeliveries => (Work::Store(vec![Ask::Retry, Ask::DeliverNow]), done),
            Command::DeliverAgain => (Work::Store(vec![Ask::Again, Ask::DeliverNow]), done),
            Command::RetryImages => match self.intake.retrying(done) {
                Ok(done) => (Work::Store(vec![Ask::Intake(Change::Retry)]), done),
                Err((done, error)) => {
                    done(Err(error.to_string()));
                    return Ok(());
                }
            },
            // The broker alone orders these, and `publish` has noted them.
            Command::Snapshot => {
                done(self.snapshot());
                return Ok(());
            }
            Command::SetExposure { us } => {
                done(self.exposure.set(us).map(|us| json!({ "exposure_us": us })));
                return Ok(());
            }
        };
        self.hand_on(Submitted { order, work, done })
    }
}

impl Orders {
    /// Hands an order to the control loop. One that is not taken in time never will be: nothing is
    /// left behind that hands it on later, when somebody may have ordered otherwise.
    fn hand_on(&self, mut submitted: Submitted) -> Result<(), NotTaken> {
        for _ in 0..TAKEN_WITHIN.as_millis() / LOOK.as_millis() {
            match self.to_control.offer(submitted) {
                Ok(()) => return Ok(()),
                Err(_) if self.to_control.is_closed() => return Err(NotTaken::Stopping),
                Err(back) => submitted = back,
            }
            std::thread::sleep(LOOK);
        }
        Err(NotTaken::Busy)
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
