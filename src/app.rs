//! The wiring of the daemon, and nothing else.
//!
//! ```text
//! thread        takes from                gives to
//! capture       the source                store queue (every frame, the ledger), segment queue
//! segment       segment queue             store queue (result), live feed
//! store-writer  store queue               monitor (saved, failed)
//! sync          store reader              store queue (claims, receipts), destinations
//! publish       status board,             broker, store queue (what was told, commands),
//!               store reader              command queue
//! otlp          status board, metrics     the collector, where one is configured
//! web           status board, live feed,  command queue
//!               store reader
//! control (main) command queue, signals   gate, store queue (sessions, events), monitor, watchdog
//! ```
//!
//! Queues: `segment` holds one frame; from a camera the newest wins and what it displaces is
//! kept but not segmented, from a folder the sender waits so that every image is segmented.
//! `store` holds [`STORE_QUEUE`] jobs and the sender waits: nothing is ever dropped there.
//!
//! Each thread is watched, and has a written policy for its death ([`supervise`]).
//!
//! Shutdown runs from left to right: capture stops, each queue closes behind its last
//! sender, each stage finishes what it has and is joined. What is on its way to a destination
//! is broken off: it waits in the outbox, on the disk. Nobody is waited for for ever ([`ending`]).
//!
//! [`supervise`]: reticle_base::supervise

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;

use crate::capture::run::{Gate, Notice};
use crate::capture::{self, Exposure, Opener, SourceSpec};
use crate::config::Settings;
use crate::learn::evaluate::Comparison;
use crate::publish::{self, Broker, Publishing};
use crate::sync;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp;
use crate::web::{self, LiveFeed, LiveFrame};
use reticle_base::address;
use reticle_base::clock::Clock;
use reticle_base::descriptors;
use reticle_base::drill::Drills;
use reticle_base::queue::{self, Receiver, Sender, Sent, WhenFull};
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::{Roster, Thread};
use reticle_domain::frame::Frame;
use reticle_domain::status::StatusBoard;
use reticle_segment::session::SessionScales;
use reticle_segment::{Segmenter, golden};
use reticle_store::{Job, Outcome, Store};

mod alarms;
mod control;
mod current_session;
mod ending;
mod guarded;
mod intake;
mod monitor;
mod operator;
mod preflight;
mod service;
mod watchdog;

pub use preflight::refusals;

use control::{Control, End};
use current_session::{Claim, CurrentSession};
use ending::Ending;
use guarded::Guarded;
use intake::Intake;
use monitor::Monitor;
use operator::Operator;
use service::Service;
use watchdog::{Stages, Watchdog};

pub use ending::STOP_WITHIN;
pub use watchdog::WRITER_LIMIT;

/// Jobs that wait for the disk: some 16 MB of frames at 1024² and 16 bits.
const STORE_QUEUE: usize = 8;

/// How often a source that can wait looks whether there is room again.
const ROOM_POLL: Duration = Duration::from_millis(200);

/// Runs the appliance until it is asked to stop.
///
/// # Errors
/// When it cannot start: port in use, model or data folder unusable. Once it runs, what fails
/// is reported in the status and the log, and it goes on; but for the death of a thread without
/// which nothing goes on, and a store that is no longer where its names lead.
pub fn run(settings: &Settings, clock: &Clock, shutdown: &Shutdown) -> anyhow::Result<()> {
    let mut drills = Drills::from_environment()?;
    let stages = Stages::new(&mut drills, clock);
    let roster = Roster::new(drills, clock.clone());
    descriptors::raise_limit();
    let listener = web::bind(&settings.web)?;
    let address = listener.local_addr().context("cannot tell the port")?;
    let mut segmenter = Segmenter::new(&settings.segment, clock.clone())?;
    let (mut store, recovery) = Store::open(&settings.store, clock.clone())?;
    let reader = store.reader();
    let destinations = sync::Destinations::open(
        &settings.sync,
        &settings.r#box.name(),
        &settings.store,
        clock.clone(),
    )?;
    store.deliver_to(destinations.deliveries())?;
    let broker = Broker::open(&settings.mqtt, &settings.r#box.name())?;
    let published_all = broker.as_ref().filter(|broker| broker.tells_all());
    store.publish_to(published_all.map(Broker::place).as_deref())?;
    let store = store.report_to(stages.writer.clone());

    let board = StatusBoard::new();
    let live = LiveFeed::new();
    let metrics = Metrics::new();
    let monitor = Monitor::new(board.clone(), clock.clone(), metrics.clone(), &settings.store);
    let viewers = web::Seats::default();
    let export = {
        let (metrics, board) = (metrics.clone(), board.clone());
        let (viewers, now) = (viewers.clone(), clock.clone());
        let render = move || metrics.render(&board.read(), viewers.taken(), &now.now());
        export(settings, clock, &roster, render)?
    };
    monitor.exports(export.clone());
    let source = settings.source.spec.to_string();
    monitor.starts(&source, &segmenter.model().name, recovery.unclean);
    if let Some(reason) = web::open_to_network(address) {
        monitor.open_network(reason);
    }
    prove(&mut segmenter, clock, &monitor);
    let gate = Gate::new(false);
    let exposure = Exposure::default();
    let session = CurrentSession::default();
    let (to_store, jobs) = queue::bounded("store", STORE_QUEUE, WhenFull::Wait);
    let (to_segment, frames) = queue::bounded("segment", 1, segment_policy(settings));
    let (to_control, commands) = queue::bounded("commands", 16, WhenFull::Wait);

    let intake = Intake::new(settings, reader.clone(), monitor.clone());
    let outcomes = (monitor.clone(), session.clone(), intake.clone());
    let store_queue = to_store.gauge();
    let writer = spawn(&roster, Thread::StoreWriter, move || {
        store.write(&jobs, |outcome| {
            let (monitor, session, intake) = &outcomes;
            intake.outcome(&outcome);
            match outcome {
                Outcome::Held { .. } => session.hold(true),
                Outcome::Resumed => session.hold(false),
                _ => {}
            }
            monitor.outcome(&outcome);
        });
    })?;
    let syncing = sync::spawn(destinations, reader.clone(), to_store.clone(), &roster, {
        let monitor = monitor.clone();
        move |deliveries| monitor.deliveries(deliveries)
    })
    .context("cannot start the thread sync")?;
    let again = {
        let (options, clock) = (settings.segment.clone(), clock.clone());
        move || Segmenter::new(&options, clock.clone())
    };
    let segmenter = Guarded::new(segmenter, again, stages.segment.clone());
    let segmenting = spawn(&roster, Thread::Segment, {
        let (to_store, live, monitor) = (to_store.clone(), live.clone(), monitor.clone());
        let ends = (session.clone(), intake.clone());
        move || segment_frames(segmenter, &frames, &ends, &to_store, &live, &monitor)
    })?;
    let capturing = spawn(&roster, Thread::Capture, {
        let capture = Capture {
            opener: Opener::new(
                settings.source.clone(),
                // What would not be segmented is not read either.
                settings.segment.limits(),
                clock.clone(),
            )
            .report_to(stages.capture.clone())
            .with_ledger(intake.ledger(to_store.clone())),
            plate: settings.session.plate.clone(),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            gate: gate.clone(),
            exposure: exposure.clone(),
            session: session.clone(),
            intake,
            monitor: monitor.clone(),
            waits: segment_policy(settings) == WhenFull::Wait,
        };
        let to_store = to_store.clone();
        move || capture.run(&to_segment, &to_store)
    })?;
    let operator = Operator {
        commands: to_control.clone(),
        board: board.clone(),
        live: live.clone(),
        exposure,
        shutdown: shutdown.clone(),
    };
    let publishing = broker
        .map(|broker| {
            let ports = publish::Ports {
                status: board.clone(),
                reader: reader.clone(),
                jobs: to_store.clone(),
                operator: Arc::new(operator),
                clock: clock.clone(),
            };
            publish::spawn(broker, ports, roster.watch(Thread::Publish))
        })
        .transpose()
        .context("cannot start the thread publish")?;
    monitor.publishes(publishing.as_ref().map(Publishing::board));
    let writing = stages.writer.clone();
    let mut watchdog = {
        let (board, roster) = (board.clone(), roster.clone());
        Watchdog::new(stages, roster, Service::from_environment(), board, clock.clone())
    };
    let ports = web::Ports {
        status: board,
        live,
        commands: to_control,
        reader,
        metrics,
        asyncapi: publish::asyncapi().to_string(),
        viewers,
        clock: clock.clone(),
    };
    let signalled = control::signals();
    // The page goes last: it can say that the rest is draining.
    let page_shutdown = Shutdown::new();
    let web = roster.watch(Thread::Web);
    let serving = web::serve(listener, &settings.web, ports, page_shutdown.clone(), web)
        .context("cannot start the page")?;
    tracing::info!("listening on http://{address}");
    watchdog.ready();

    let (ours, handle) = (roster.watch(Thread::Control), syncing.handle());
    let mut control =
        Control::new(settings, clock, gate, session, to_store, monitor.clone(), handle);
    let end = ours
        .once(|| control.run(&commands, shutdown, &signalled, &mut watchdog, (&roster, &ours)))
        .unwrap_or(End::Died(Thread::Control));

    let mut ending = Ending::new(clock, &monitor, &mut watchdog);
    if !shutdown.is_requested() {
        ending.last_words();
        shutdown.request();
    }
    control.finish();
    ending.hand_over(&mut control, &writer);
    drop(control);
    ending.join(capturing, Thread::Capture);
    ending.join(segmenting, Thread::Segment);
    // Both give to the store's queue, which closes behind its last sender.
    if let Some(publishing) = publishing {
        ending.join(publishing.stop(), Thread::Publish);
    }
    ending.join(syncing.stop(), Thread::Sync);
    let has_nothing_to_do = || store_queue.depth() == 0 && writing.busy_for().is_none();
    ending.settle(|| writing.is_stuck() || has_nothing_to_do());
    ending.join(writer, Thread::StoreWriter);
    page_shutdown.request();
    ending.join_page(serving);
    if let Some(export) = export {
        export.stop();
    }
    conclude(end, ending.left())
}

/// How the daemon ended. After anything but an orderly end a fresh process is better.
fn conclude(end: End, left: &[&str]) -> anyhow::Result<()> {
    match end {
        End::Died(thread) => anyhow::bail!(
            "the thread {} died, which is a fault in Reticle; start it again",
            thread.name()
        ),
        End::Unlinked(reason) => anyhow::bail!(reason),
        End::Asked if !left.is_empty() => anyhow::bail!(
            "ended without {}, which did not come to an end; what was called saved is on the disk",
            left.join(", ")
        ),
        End::Asked => {
            tracing::info!("stopped; everything captured is on disk");
            Ok(())
        }
    }
}

/// What sends to the collector, where there is one. `render` gives the numbers of `/metrics`.
fn export(
    settings: &Settings,
    clock: &Clock,
    roster: &Roster,
    render: impl Fn() -> String + Send + 'static,
) -> anyhow::Result<Option<otlp::Export>> {
    let Some(endpoint) = &settings.log.otlp_endpoint else { return Ok(None) };
    let target = otlp::Target {
        endpoint: endpoint.clone(),
        trace_every: settings.log.otlp_trace_every,
        sender: settings.r#box.name(),
    };
    let export =
        otlp::Export::start(&target, Box::new(render), clock.clone(), roster.watch(Thread::Otlp))?;
    tracing::info!(endpoint = address::shown(endpoint), "sending traces and metrics by OTLP");
    Ok(Some(export))
}

/// Shows on the package's golden frame that this box segments as it should.
fn prove(segmenter: &mut Segmenter, clock: &Clock, monitor: &Monitor) {
    match golden::check(segmenter, clock) {
        Ok(report) if report.is_good() => {
            tracing::info!(
                identical = report.identical,
                "the golden frame is segmented as it should be"
            );
        }
        Ok(report) => monitor.model_differs(format!(
            "this box segments the golden frame of its model differently (foreground IoU {:.3}, {} \
             objects instead of {}); do not trust its numbers",
            report.foreground_iou, report.found_objects, report.expected_objects
        )),
        Err(error) => tracing::warn!(%error, "the model has no usable golden frame to check with"),
    }
}

/// A camera does not wait, so its newest frame wins. Files do, so all of them are segmented.
fn segment_policy(settings: &Settings) -> WhenFull {
    match settings.source.spec {
        SourceSpec::Folder(_) if settings.source.fps.is_none() => WhenFull::Wait,
        _ => WhenFull::NewestWins,
    }
}

/// The thread `capture`.
struct Capture {
    opener: Opener,
    /// What the configuration calls the plate, which goes before what the source says.
    plate: Option<String>,
    clock: Clock,
    shutdown: Shutdown,
    gate: Gate,
    exposure: Exposure,
    session: CurrentSession,
    intake: Intake,
    monitor: Monitor,
    /// Whether the source can wait for room.
    waits: bool,
}

impl Capture {
    /// Runs the source again for every start, until shutdown.
    fn run(self, to_segment: &Sender<Arc<Frame>>, to_store: &Sender<Job>) {
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
fn segment_frames(
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

fn spawn(
    roster: &Roster,
    which: Thread,
    work: impl FnOnce() + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let watched = roster.watch(which);
    thread::Builder::new()
        .name(which.name().to_owned())
        .spawn(move || {
            watched.once(work);
        })
        .with_context(|| format!("cannot start the thread {}", which.name()))
}
