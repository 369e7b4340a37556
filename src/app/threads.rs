//! The threads `capture` and `segment`: what happens to a frame until it is with the store.

use std::sync::Arc;
use std::time::Duration;

use super::control;
use super::current_session::{Claim, CurrentSession};
use super::guarded::Guarded;
use super::intake::Intake;
use super::monitor::Monitor;
use crate::capture::run::{Gate, Notice};
use crate::capture::{self, Exposure, Opener};
use crate::web::{LiveFeed, LiveFrame};
use reticle_base::clock::Clock;
use reticle_base::queue::{Receiver, Sender, Sent};
use reticle_base::shutdown::Shutdown;
use reticle_domain::frame::Frame;
use reticle_segment::scoring::Comparison;
use reticle_segment::session::SessionScales;
use reticle_store::Job;

/// How often a source that can wait looks whether there is room again.
const ROOM_POLL: Duration = Duration::from_millis(200);

/// The thread `capture`.
pub(super) struct Capture {
    pub(super) opener: Opener,
    /// What the configuration calls the plate, which goes before what the source says.
    pub(super) plate: Option<String>,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) gate: Gate,
    pub(super) exposure: Exposure,
    pub(super) session: CurrentSession,
    pub(super) intake: Intake,
    pub(super) monitor: Monitor,
    /// Whether the source can wait for room.
    pub(super) waits: bool,
}

impl Capture {
    /// Runs the source again for every start, until shutdown.
    pub(super) fn run(self, to_segment: &Sender<Arc<Frame>>, to_store: &Sender<Job>) {
        while self.gate.wait_until_open(&self.shutdown) {
            let exposure = self.exposure.clone();
            capture::run::run(
                &self.opener,
                self.shutdown.clone(),
                self.gate.clone(),
                exposure,
                |notice| self.hand_on(notice, to_segment, to_store),
            );
            self.gate.close();
        }
    }

    fn hand_on(&self, notice: Notice, to_segment: &Sender<Arc<Frame>>, to_store: &Sender<Job>) {
        self.monitor.notice(&notice);
        match notice {
            Notice::Frame(mut frame) => {
                if let Some(plate) = &self.plate {
                    frame.place.plate = Some(plate.clone());
                }
                let frame = Arc::new(*frame);
                let mut claim = self.session.claim(&frame);
                // Files can wait until there is room; a camera cannot.
                while claim == Claim::NoRoom
                    && self.waits
                    && !self.shutdown.wait(ROOM_POLL)
                    && self.gate.is_open()
                {
                    claim = self.session.claim(&frame);
                }
                match claim {
                    Claim::Session(session) => {
                        self.session.begin(to_store, &self.monitor);
                        to_store.send(Job::Keep { session, frame: Arc::clone(&frame) });
                    }
                    // The live view goes on.
                    Claim::NoRoom => self.monitor.unrecorded(&frame),
                    Claim::Closed => return self.intake.dropped(frame.id),
                }
                if let Sent::Displaced(skipped) = to_segment.send(frame) {
                    self.monitor.skipped(&skipped);
                }
            }
            Notice::Back { gap } => {
                if let Some(session) = self.session.enter() {
                    self.session.begin(to_store, &self.monitor);
                    to_store.send(Job::Gap(control::source_gap(session, &gap)));
                }
            }
            Notice::Missed { count } => {
                if let Some(session) = self.session.enter() {
                    self.session.begin(to_store, &self.monitor);
                    to_store.send(Job::Gap(control::missed(session, count, self.clock.now())));
                }
            }
            _ => {}
        }
    }
}

/// The thread `segment`.
pub(super) fn segment_frames(
    mut segmenter: Guarded,
    frames: &Receiver<Arc<Frame>>,
    (session, intake): &(CurrentSession, Intake),
    to_store: &Sender<Job>,
    live: &LiveFeed,
    monitor: &Monitor,
) {
    let mut scales = SessionScales::default();
    while let Some(frame) = frames.recv() {
        let owner = session.of(&frame);
        let segmentation = match segmenter.segment(&frame, scales.of(owner, &frame)) {
            Ok(segmentation) => segmentation,
            Err(error) => {
                monitor.refused(&control::name_of(&frame), &error);
                intake.refused(frame.id);
                continue;
            }
        };
        let segmented = monitor.now();
        scales.seen(owner, &segmentation);
        let agreement = frame
            .truth
            .as_deref()
            .and_then(|truth| Comparison::of(truth, &segmentation.labels).ok());
        let shown = LiveFrame {
            segmentation: segmentation.clone(),
            ap50: agreement.as_ref().map(|comparison| comparison.at_half().ap()),
            true_objects: frame.truth.as_ref().map(|truth| truth.count()),
        };
        monitor.segmented(&shown);
        // Shown before it is handed on: a slow disk must not hold the live view.
        live.publish(Arc::new(shown));
        if let Some(session) = session.of(&frame) {
            monitor.awaits_save(&segmentation, segmented);
            to_store.send(Job::Commit { session, segmentation });
        } else {
            intake.dropped(frame.id);
        }
    }
}
