//! What the daemon knows of itself: turns what stages report into the status and the logbook.
//!
//! A state that lasts is logged when it begins and when it ends, not for every frame.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::alarms::{self, Keeper, Limits};
use crate::capture::run::Notice;
use crate::publish::{PublishBoard, PublishState};
use crate::telemetry;
use crate::telemetry::host::Host;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::{Export, Way};
use crate::web::LiveFrame;
use reticle_base::clock::{Clock, Stamp};
use reticle_base::ids::{EventId, FrameId, SessionId};
use reticle_base::quantile::Recent;
use reticle_domain::alarm::AlarmKind;
use reticle_domain::event::{Event, What};
use reticle_domain::frame::Frame;
use reticle_domain::health::Health;
use reticle_domain::segmentation::{Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_domain::status::{Newest, RunState, SaveState, SourceState, StatusBoard, SyncState};
use reticle_store::{Delivery, Outcome};

/// Frames over which capture-to-saved times are told.
const SAVE_TIMES: usize = 200;

/// Samples over which rates are told: at four a second, the last 5 seconds.
const RATE_SAMPLES: usize = 20;

/// Frames whose commit is awaited; more than the store's queue can hold.
const AWAITED: usize = 256;

/// Events that wait for the next tick at most; a folder of broken images gives some at once.
const EVENTS: usize = 4096;

/// How often the box itself is measured: often enough for an alarm within ten seconds, and twenty
/// small files each time are no load.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Monitor {
    board: StatusBoard,
    clock: Clock,
    metrics: Metrics,
    inner: Arc<Mutex<Inner>>,
    /// Apart from the rest: who reports a frame does not wait for a file of `/sys`.
    watch: Arc<Mutex<Watch>>,
}

/// What is looked at by the clock.
struct Watch {
    host: Host,
    measured: Option<Stamp>,
    keeper: Keeper,
    limits: Limits,
}

/// What is known of a frame while its result is on its way to the disk.
struct Awaited {
    sequence: u64,
    objects: u32,
    captured: Stamp,
    segmented: Stamp,
    timings: Timings,
    handed_on: Stamp,
}

#[derive(Default)]
struct Inner {
    /// Frames whose result is on its way to the disk.
    awaited: HashMap<FrameId, Awaited>,
    /// What sends the ways of frames to a collector, where there is one.
    export: Option<Export>,
    /// Capture to committed, in milliseconds.
    save_ms: Recent<SAVE_TIMES>,
    /// Time, frames captured, frames segmented.
    rates: VecDeque<(Stamp, u64, u64)>,
    source_ended: bool,
    /// The names of the store lead elsewhere.
    unlinked: Option<String>,
    /// How far the broker is, where there is one.
    broker: Option<PublishBoard>,
    /// What happened, on its way into the store.
    events: VecDeque<Event>,
}

impl Awaited {
    fn way(self, frame: FrameId, saved: Stamp) -> Way {
        let Self { sequence, objects, captured, segmented, timings, handed_on } = self;
        Way { frame, sequence, objects, captured, segmented, timings, handed_on, saved }
    }
}

impl Monitor {
    pub(super) fn new(
        board: StatusBoard,
        clock: Clock,
        metrics: Metrics,
        store: &reticle_store::Options,
    ) -> Self {
        let watch = Watch {
            host: Host::new(store.folder.clone(), clock.clone()),
            measured: None,
            keeper: Keeper::default(),
            limits: Limits { min_free_bytes: store.frames.min_free_bytes },
        };
        Self { board, clock, metrics, inner: Arc::default(), watch: Arc::new(Mutex::new(watch)) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The daemon starts with this source and model.
    pub(super) fn starts(&self, source: &str, model: &str, after_crash: bool) {
        tracing::info!(source, model, "starting");
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.happened(What::Started { version, after_crash });
        self.board.update(|status| {
            status.source_name = source.to_owned();
            status.model = model.to_owned();
        });
    }

    /// This box segments the golden frame of its model otherwise than it should.
    pub(super) fn model_differs(&self, reason: String) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.keeper.stands(AlarmKind::ModelDiffers, reason);
    }

    /// The page listens beyond this machine, and there are no accounts yet.
    pub(super) fn open_network(&self, reason: String) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.keeper.stands(AlarmKind::OpenNetwork, reason);
    }

    /// Images of the watched folder that are left alone now, by name.
    pub(super) fn images_in_quarantine(&self, names: &[String]) {
        let reason = match names {
            [] => None,
            [one] => Some(format!(
                "{one} was being read when the daemon ended, twice; see `reticle intake list`"
            )),
            [first, rest @ ..] => Some(format!(
                "{first} and {} more were being read when the daemon ended, twice each; see \
                 `reticle intake list`",
                rest.len()
            )),
        };
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.keeper.stands_now(AlarmKind::ImageQuarantined, reason);
    }

    pub(super) fn run_state(&self, state: RunState) {
        let before = self.board.read().run;
        self.board.update(|status| status.run = state);
        match (before, state) {
            (RunState::Running, RunState::Paused) => self.happened(What::Paused { paused: true }),
            (RunState::Paused, RunState::Running) => self.happened(What::Paused { paused: false }),
            _ => {}
        }
    }

    /// Notes what happened, in the open session. The thread that owns the store's queue takes it
    /// from here: whoever reports must not wait, least of all the store's own writer.
    pub(super) fn happened(&self, what: What) {
        self.happened_in(self.board.read().session, what);
    }

    fn happened_in(&self, session: Option<SessionId>, what: What) {
        let event = Event { id: EventId::new(), at: self.clock.now(), session, what };
        let noted = self.with(|inner| {
            let room = inner.events.len() < EVENTS;
            if room {
                inner.events.push_back(event.clone());
            }
            room
        });
        if !noted {
            tracing::error!(?event, "more happens than can be noted; this stands in the log only");
        }
    }

    /// The oldest of what happened that is not in the store yet.
    pub(super) fn next_event(&self) -> Option<Event> {
        self.with(|inner| inner.events.pop_front())
    }

    /// One that the store had no room for; it is the next again.
    pub(super) fn put_back(&self, event: Event) {
        self.with(|inner| inner.events.push_front(event));
    }

    /// Which session is open; it may be empty.
    pub(super) fn session(&self, session: Option<&Session>) {
        self.board.update(|status| {
            status.session = session.map(|session| session.id);
            status.session_name = session.map(|session| session.name.clone());
        });
    }

    /// The open session.
    pub(super) fn session_id(&self) -> Option<SessionId> {
        self.board.read().session
    }

    /// What people call the open session.
    pub(super) fn session_name(&self) -> Option<String> {
        self.board.read().session_name
    }

    /// The begin of a session is with the store.
    pub(super) fn session_began(&self, session: &Session) {
        let name = session.name.clone();
        self.happened_in(Some(session.id), What::SessionOpened { name });
    }

    /// And its end.
    pub(super) fn session_ended(&self, session: SessionId, name: String) {
        self.happened_in(Some(session), What::SessionClosed { name });
    }

    /// What capture reported.
    pub(super) fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Frame(_) => self.board.update(|status| {
                status.counters.captured += 1;
                status.source = SourceState::Ready;
            }),
            Notice::Opening => self.source(SourceState::Opening),
            Notice::Ready => {
                tracing::info!("the source is open");
                self.source(SourceState::Ready);
            }
            Notice::Lost { reason, since } => {
                tracing::warn!(reason, "the source is lost; trying to open it again");
                if !matches!(self.board.read().source, SourceState::Lost { .. }) {
                    self.happened(What::SourceLost { reason: reason.clone() });
                }
                self.source(SourceState::Lost { reason: reason.clone(), since: since.rfc3339() });
            }
            Notice::Back { gap } => {
                let seconds = gap.to.since(&gap.from).as_secs_f64();
                tracing::info!(seconds, missed = gap.missed, "the source is back");
                self.happened(What::SourceBack { seconds, missed: gap.missed });
                self.board.update(|status| {
                    status.source = SourceState::Ready;
                    status.counters.gaps += 1;
                    status.counters.missed += gap.missed.unwrap_or(0);
                });
            }
            Notice::Missed { count } => {
                tracing::debug!(count, "the source skipped frames");
                self.board.update(|status| status.counters.missed += count);
            }
            Notice::Refused { what, why } => self.refused(what, why),
            Notice::Ended => {
                tracing::info!("the source came to its end");
                self.source(SourceState::Ended);
                self.with(|inner| inner.source_ended = true);
            }
            Notice::Unusable(reason) => {
                tracing::error!(
                    reason,
                    "the source does not work as configured; a person is needed"
                );
                let since = self.clock.now().rfc3339();
                self.source(SourceState::Lost { reason: reason.clone(), since });
                self.with(|inner| inner.source_ended = true);
            }
        }
    }

    fn source(&self, state: SourceState) {
        self.board.update(|status| status.source = state);
    }

    /// Whether the source ended since this was last asked.
    pub(super) fn take_source_ended(&self) -> bool {
        self.with(|inner| std::mem::take(&mut inner.source_ended))
    }

    /// An image or a frame that was passed over, and why.
    pub(super) fn refused(&self, what: &str, why: &str) {
        tracing::warn!(what, why, "refused an image");
        self.happened(What::Refused { subject: what.to_owned(), reason: why.to_owned() });
        self.board.update(|status| {
            status.counters.refused += 1;
            // File errors name the file themselves.
            status.last_refusal =
                Some(if why.contains(what) { why.to_owned() } else { format!("{what}: {why}") });
        });
    }

    /// A frame that the live path passed over for a newer one.
    pub(super) fn skipped(&self, frame: &Frame) {
        tracing::trace!(frame = %frame.id, "skipped by the live path");
        self.board.update(|status| status.counters.skipped += 1);
    }

    /// A frame that is only shown: there is no room to record it.
    pub(super) fn unrecorded(&self, frame: &Frame) {
        tracing::trace!(frame = %frame.id, "not recorded: no room");
        self.board.update(|status| status.counters.unrecorded += 1);
    }

    /// The broker is one of the destinations.
    pub(super) fn publishes(&self, broker: Option<PublishBoard>) {
        self.with(|inner| inner.broker = broker);
    }

    /// How far the destinations are.
    pub(super) fn deliveries(&self, deliveries: &[Delivery]) {
        let broker = self.with(|inner| inner.broker.as_ref().map(PublishBoard::read));
        let broker = broker.iter().map(PublishState::as_destination);
        let sync = deliveries.iter().map(sync_state).chain(broker).collect();
        self.board.update(|status| status.sync = sync);
    }

    /// The ways of frames are sent to a collector.
    pub(super) fn exports(&self, export: Option<Export>) {
        self.with(|inner| inner.export = export);
    }

    /// What time it is for those who report.
    pub(super) fn now(&self) -> Stamp {
        self.clock.now()
    }

    /// A frame's result, which was there at `segmented`, goes to the store now.
    pub(super) fn awaits_save(&self, result: &Segmentation, segmented: Stamp) {
        let awaited = Awaited {
            sequence: result.frame.sequence,
            objects: result.labels.count(),
            captured: result.frame.captured,
            segmented,
            timings: result.timings,
            handed_on: self.clock.now(),
        };
        self.with(|inner| {
            if inner.awaited.len() >= AWAITED {
                inner.awaited.clear();
            }
            inner.awaited.insert(result.frame.id, awaited);
        });
    }

    /// A frame that was segmented and is about to be shown.
    pub(super) fn segmented(&self, shown: &LiveFrame) {
        let segmentation = &shown.segmentation;
        let frame = &segmentation.frame;
        self.metrics.segmented(&segmentation.timings, segmentation.labels.count());
        let newest = Newest {
            frame: frame.id,
            sequence: frame.sequence,
            captured: frame.captured.rfc3339(),
            place: frame.place.clone(),
            objects: segmentation.labels.count(),
            focus: segmentation.focus,
            ap50: shown.ap50,
            true_objects: shown.true_objects,
        };
        self.board.update(|status| {
            status.counters.segmented += 1;
            status.newest = Some(newest);
        });
    }

    /// What the store reported.
    pub(super) fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Kept { .. } => {
                let failed = self.board.read().frame_files_failing.is_some();
                self.board.update(|status| {
                    status.counters.kept += 1;
                    status.frame_files_failing = None;
                });
                if failed {
                    tracing::info!("pixels of frames are kept again");
                }
            }
            // Nothing is said of the frame's result: that is its own outcome.
            Outcome::KeepFailed { frame, error } => {
                if self.board.read().frame_files_failing.is_none() {
                    tracing::error!(%frame, %error, "pixels of frames cannot be kept");
                }
                self.board.update(|status| {
                    status.counters.not_kept += 1;
                    // Without room it is not one file that fails; what is held says why.
                    if status.recording_paused.is_none() {
                        status.frame_files_failing = Some(error.to_string());
                    }
                });
            }
            Outcome::NotKept { frame, reason } => {
                tracing::debug!(%frame, reason = reason.word(), "pixels not kept");
            }
            Outcome::Saved(record) | Outcome::AlreadySaved { record, .. } => {
                if matches!(outcome, Outcome::AlreadySaved { same: false, .. }) {
                    let frame = record.frame();
                    tracing::warn!(%frame, "this model gave the frame other labels before; those stay");
                }
                let now = self.clock.now();
                let times = self.with(|inner| {
                    let awaited = inner.awaited.remove(&record.frame());
                    if let Some(awaited) = awaited {
                        let took = now.since(&awaited.captured);
                        inner.save_ms.add(took.as_secs_f32() * 1e3);
                        self.metrics.saved(took);
                        if let Some(export) = &inner.export {
                            export.frame(&awaited.way(record.frame(), now));
                        }
                    }
                    inner.save_ms.percentiles([50, 95])
                });
                let recovered = self.board.read().save;
                self.board.update(|status| {
                    status.save = SaveState::Saved;
                    status.last_saved = Some(record.frame());
                    status.counters.saved += 1;
                    status.save_ms = times;
                });
                if matches!(recovered, SaveState::Failing { .. }) {
                    tracing::info!("results are saved again");
                }
            }
            Outcome::Failed { frame, error } => {
                let already = matches!(self.board.read().save, SaveState::Failing { .. });
                if !already {
                    tracing::error!(%error, "results cannot be saved");
                }
                let since = self.clock.now().rfc3339();
                self.board.update(|status| {
                    if frame.is_some() {
                        status.counters.not_saved += 1;
                    }
                    let reason = error.to_string();
                    match &mut status.save {
                        SaveState::Failing { reason: old, .. } => *old = reason,
                        other => *other = SaveState::Failing { reason, since },
                    }
                });
            }
            Outcome::Evicted { frames, bytes, reason } => {
                tracing::info!(frames, bytes, reason = reason.word(), "evicted frame files");
                let (frames, bytes) = (*frames, *bytes);
                self.happened(What::Evicted { frames, bytes, reason: reason.word().to_owned() });
                self.board.update(|status| status.counters.evicted += frames);
            }
            Outcome::Held { reason } => {
                self.board.update(|status| {
                    status.recording_paused = Some(reason.clone());
                    status.frame_files_failing = None;
                });
            }
            Outcome::Resumed => self.board.update(|status| status.recording_paused = None),
            Outcome::Unlinked { reason } => {
                let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
                watch.keeper.stands(AlarmKind::StoreUnlinked, reason.clone());
                drop(watch);
                self.with(|inner| inner.unlinked = Some(reason.clone()));
            }
        }
    }

    /// Why nothing is saved any more in this process, once that is so.
    pub(super) fn unlinked(&self) -> Option<String> {
        self.with(|inner| inner.unlinked.clone())
    }

    /// Called four times a second: rates, the box itself, alarms.
    pub(super) fn tick(&self) {
        self.metrics.upkeep();
        let now = self.clock.now();
        let counters = self.board.read().counters;
        let [capture_fps, segment_fps] = self.with(|inner| {
            if inner.rates.len() == RATE_SAMPLES {
                inner.rates.pop_front();
            }
            inner.rates.push_back((now, counters.captured, counters.segmented));
            let &(first, captured, segmented) = inner.rates.front().expect("one was just added");
            let seconds = now.since(&first).as_secs_f32().max(0.25);
            [counters.captured - captured, counters.segmented - segmented]
                .map(|frames| frames as f32 / seconds)
        });
        let resident_bytes = telemetry::resident_bytes();
        self.board.update(|status| {
            status.capture_fps = capture_fps;
            status.segment_fps = segment_fps;
            status.resident_bytes = resident_bytes;
        });
        for what in self.watch(now) {
            self.happened(what);
        }
    }

    /// Measures the box now and then, and keeps the alarms.
    fn watch(&self, now: Stamp) -> Vec<What> {
        let broker = self.with(|inner| inner.broker.as_ref().map(PublishBoard::read));
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = &mut *watch;
        if watch.measured.is_none_or(|last| now.since(&last) >= MEASURE_EVERY) {
            watch.measured = Some(now);
            let measured = watch.host.measure();
            self.board.update(|status| {
                let Health { stages, threads, .. } = std::mem::take(&mut status.health);
                status.health = Health { stages, threads, ..measured };
            });
        }
        let mut seen = alarms::holding(&self.board.read(), watch.limits);
        if let Some(broker) = broker {
            self.board.update(|status| status.counters.name_taken = broker.taken_over);
            seen.extend(broker.name_taken.map(|reason| (AlarmKind::NameTaken, reason)));
        }
        let changes = watch.keeper.keep(seen, now);
        alarms::log(&changes);
        let alarms = watch.keeper.alarms();
        self.board.update(|status| status.alarms = alarms);
        changes
    }
}

fn sync_state(delivery: &Delivery) -> SyncState {
    SyncState {
        destination: delivery.destination.word().to_owned(),
        location: delivery.location.clone(),
        waiting: delivery.waiting_rows,
        quarantined: delivery.quarantined + delivery.refused,
        oldest: delivery.oldest.clone(),
        reason: delivery.reason.clone(),
        conflict: delivery.conflict.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testing;
    use reticle_store::StoreError;

    #[test]
    fn frames_without_pixels_and_results_that_are_lost_are_counted_apart() {
        let (board, clock) = (StatusBoard::new(), Clock::manual(0));
        let options = reticle_store::Options::default();
        let monitor = Monitor::new(board.clone(), clock, Metrics::new(), &options);
        let (frame, session) = (FrameId::new(), SessionId::new());
        let error = StoreError::UnknownSession { session };
        let folder = tempfile::tempdir().unwrap();
        let clock = testing::clock();
        let results = (0..180).map(|sequence| testing::live_frame(sequence, &clock));
        for record in testing::save(folder.path(), &clock, results) {
            monitor.outcome(&Outcome::KeepFailed { frame, error: error.clone() });
            monitor.outcome(&Outcome::Saved(record));
        }
        let status = board.read();
        let counters = status.counters;
        assert_eq!((counters.not_saved, counters.not_kept, counters.saved), (0, 180, 180));
        assert_eq!(status.save, SaveState::Saved, "results are saved, and that is what it says");
        let seen = alarms::holding(&status, Limits { min_free_bytes: 0 });
        assert!(matches!(&seen[..], [(AlarmKind::SavingFails, why)] if why.contains("pixels")));

        monitor.outcome(&Outcome::Kept { frame });
        assert_eq!(board.read().frame_files_failing, None);
        monitor.outcome(&Outcome::Failed { frame: Some(frame), error });
        assert_eq!(board.read().counters.not_saved, 1);
    }
}
