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
//! [`run`] has four parts: everything is opened, then wired, then supervised until it is to end, then
//! drained.
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

use anyhow::Context;

use crate::capture::run::Gate;
use crate::capture::{Exposure, Opener, SourceSpec};
use crate::config::Settings;
use crate::publish::{self, Publishing};
use crate::sync::{self, Syncing};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp;
use crate::web::{self, LiveFeed};
use reticle_base::address;
use reticle_base::clock::Clock;
use reticle_base::progress::Progress;
use reticle_base::queue::{self, Gauge, Receiver, WhenFull};
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::{Roster, Watched};
use reticle_base::thread::Thread;
use reticle_domain::actor::Access;
use reticle_domain::order::Executor;
use reticle_domain::status::StatusBoard;
use reticle_segment::{Segmenter, golden};
use reticle_store::{Job, Outcome, Reader, Store};

mod alarms;
mod control;
mod current_session;
mod ending;
mod granting;
mod guarded;
mod intake;
mod monitor;
mod open;
mod orders;
mod preflight;
mod service;
mod threads;
mod watchdog;

pub use preflight::refusals;

use control::{Control, End};
use current_session::CurrentSession;
use ending::Ending;
use guarded::Guarded;
use intake::Intake;
use monitor::Monitor;
use open::Opened;
use orders::{Orders, Submitted};
use service::Service;
use threads::{Capture, segment_frames};
use watchdog::Watchdog;

pub use ending::STOP_WITHIN;
pub use watchdog::WRITER_LIMIT;

/// Jobs that wait for the disk: some 16 MB of frames at 1024² and 16 bits.
const STORE_QUEUE: usize = 8;

/// Orders that wait for the control loop, which looks after them at once.
const ORDER_QUEUE: usize = 16;

/// Runs the appliance until it is asked to stop.
///
/// # Errors
/// When it cannot start: port in use, model or data folder unusable. Once it runs, what fails
/// is reported in the status and the log, and it goes on; but for the death of a thread without
/// which nothing goes on, and a store that is no longer where its names lead.
pub fn run(settings: &Settings, clock: &Clock, shutdown: &Shutdown) -> anyhow::Result<()> {
    // Whatever can be refused is refused before anything runs, so that a wrong setting costs nothing.
    let opened = Opened::open(settings, clock)?;
    // Each thread is started after those that it gives to, so nothing is sent that nobody takes. The
    // page comes last: whoever sees it sees a box that works.
    let mut running = Running::wire(opened, settings, clock, shutdown)?;
    // This thread is the control loop: it obeys orders, looks after the others, and ends when it is
    // asked to, or when a thread has died without which nothing goes on.
    let end = running.supervise(shutdown);
    // From left to right, so that each stage gives what it has to the next one before that ends.
    let left = running.drain(shutdown);
    conclude(end, &left)
}

/// What the threads share. Each part is cheap to clone, and all clones are one.
struct Shared {
    board: StatusBoard,
    live: LiveFeed,
    metrics: Metrics,
    monitor: Monitor,
    viewers: web::Seats,
    gate: Gate,
    exposure: Exposure,
    session: CurrentSession,
    intake: Intake,
}

impl Shared {
    fn new(settings: &Settings, clock: &Clock, reader: &Reader) -> Self {
        let (board, metrics) = (StatusBoard::new(), Metrics::new());
        let monitor = Monitor::new(board.clone(), clock.clone(), metrics.clone(), &settings.store);
        Self {
            intake: Intake::new(settings, reader.clone(), monitor.clone()),
            board,
            live: LiveFeed::new(),
            metrics,
            monitor,
            viewers: web::Seats::default(),
            gate: Gate::new(false),
            exposure: Exposure::default(),
            session: CurrentSession::default(),
        }
    }

    /// What sends to the collector, where there is one: the numbers of `/metrics`.
    fn export(
        &self,
        settings: &Settings,
        clock: &Clock,
        roster: &Roster,
    ) -> anyhow::Result<Option<otlp::Export>> {
        let Some(endpoint) = &settings.log.otlp_endpoint else { return Ok(None) };
        let target = otlp::Target {
            endpoint: endpoint.clone(),
            trace_every: settings.log.otlp_trace_every,
            sender: settings.r#box.name(),
        };
        let (metrics, board) = (self.metrics.clone(), self.board.clone());
        let (viewers, now) = (self.viewers.clone(), clock.clone());
        let render = move || metrics.render(&board.read(), viewers.taken(), &now.now());
        let watched = roster.watch(Thread::Otlp);
        let export = otlp::Export::start(&target, Box::new(render), clock.clone(), watched)?;
        tracing::info!(endpoint = address::shown(endpoint), "sending traces and metrics by OTLP");
        Ok(Some(export))
    }

    /// The thread `store-writer`, and who hears what became of each job.
    fn write(
        &self,
        store: Store,
        jobs: Receiver<Job>,
        roster: &Roster,
    ) -> anyhow::Result<JoinHandle<()>> {
        let (monitor, session) = (self.monitor.clone(), self.session.clone());
        let intake = self.intake.clone();
        spawn(roster, Thread::StoreWriter, move || {
            store.write(&jobs, |outcome| {
                intake.outcome(&outcome);
                match outcome {
                    Outcome::Held { .. } => session.hold(true),
                    Outcome::Resumed => session.hold(false),
                    _ => {}
                }
                monitor.outcome(&outcome);
            });
        })
    }
}

/// The daemon at work: its threads, and what this one holds of it.
struct Running<'a> {
    clock: &'a Clock,
    monitor: Monitor,
    watchdog: Watchdog,
    roster: Roster,
    control: Control<'a>,
    /// This thread among those that are watched.
    ours: Watched,
    orders: Receiver<Submitted>,
    signalled: Arc<std::sync::atomic::AtomicBool>,
    capturing: JoinHandle<()>,
    segmenting: JoinHandle<()>,
    publishing: Option<Publishing>,
    syncing: Syncing,
    writer: JoinHandle<()>,
    /// What the writer is at, and what waits for it.
    writing: Progress,
    store_queue: Gauge<Job>,
    serving: JoinHandle<()>,
    /// The page goes last: it can say that the rest is draining.
    page_shutdown: Shutdown,
    export: Option<otlp::Export>,
}

impl<'a> Running<'a> {
    /// Lays the queues and starts the threads of the table above, from right to left.
    fn wire(
        opened: Opened,
        settings: &'a Settings,
        clock: &'a Clock,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let Opened { stages, roster, listener, address, mut segmenter, store, reader, .. } = opened;
        let shared = Shared::new(settings, clock, &reader);
        let Shared { board, live, monitor, gate, session, intake, .. } = &shared;
        let export = shared.export(settings, clock, &roster)?;
        monitor.exports(export.clone());
        let source = settings.source.spec.to_string();
        monitor.starts(&source, &segmenter.model().name, opened.recovery.unclean);
        if let Some(reason) = web::open_to_network(address) {
            monitor.open_network(reason);
        }
        prove(&mut segmenter, clock, monitor);

        let waits = segment_policy(settings);
        let (to_store, jobs) = queue::bounded("store", STORE_QUEUE, WhenFull::Wait);
        let (to_segment, frames) = queue::bounded("segment", 1, waits);
        let (to_control, orders) = queue::bounded("orders", ORDER_QUEUE, WhenFull::Wait);
        let store_queue = to_store.gauge();

        let writer = shared.write(store, jobs, &roster)?;
        let syncing =
            sync::spawn(opened.destinations, reader.clone(), to_store.clone(), &roster, {
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
            exposure: shared.exposure.clone(),
            session: session.clone(),
            intake: intake.clone(),
            monitor: monitor.clone(),
            waits: waits == WhenFull::Wait,
        };
        let capturing = spawn(&roster, Thread::Capture, {
            let to_store = to_store.clone();
            move || capture.run(&to_segment, &to_store)
        })?;

        // From here on the box can be given orders: over the broker, over HTTP, by the command line.
        let access = Access::new(settings.mqtt.commands.iter().map(|op| op.action()));
        let executor: Arc<dyn Executor> = Arc::new(Orders {
            access: access.clone(),
            to_control,
            live: live.clone(),
            exposure: shared.exposure.clone(),
            intake: intake.clone(),
        });
        let publishing = opened
            .broker
            .map(|broker| {
                let ports = publish::Ports {
                    status: board.clone(),
                    reader: reader.clone(),
                    jobs: to_store.clone(),
                    executor: Arc::clone(&executor),
                    access,
                    clock: clock.clone(),
                };
                publish::spawn(broker, ports, roster.watch(Thread::Publish))
            })
            .transpose()
            .context("cannot start the thread publish")?;
        monitor.publishes(publishing.as_ref().map(Publishing::board));
        let writing = stages.writer.clone();
        let service = Service::from_environment();
        let watchdog = Watchdog::new(stages, roster.clone(), service, board.clone(), clock.clone());
        let local = web::local::bind(&settings.store.folder)
            .inspect_err(|error| {
                tracing::warn!(%error, "no socket in the data folder for the command line's orders");
            })
            .ok();
        let ports = web::Ports {
            status: board.clone(),
            live: live.clone(),
            executor,
            local,
            reader,
            metrics: shared.metrics.clone(),
            asyncapi: publish::asyncapi().to_string(),
            viewers: shared.viewers.clone(),
            clock: clock.clone(),
        };
        let signalled = control::signals();
        let page_shutdown = Shutdown::new();
        let web = roster.watch(Thread::Web);
        let serving = web::serve(listener, &settings.web, ports, page_shutdown.clone(), web)
            .context("cannot start the page")?;
        tracing::info!("listening on http://{address}");
        watchdog.ready();

        let ours = roster.watch(Thread::Control);
        let (gate, session, monitor) = (gate.clone(), session.clone(), monitor.clone());
        let control = Control::new(
            settings,
            clock,
            gate,
            session,
            to_store,
            monitor.clone(),
            syncing.handle(),
        );
        Ok(Self {
            clock,
            monitor,
            watchdog,
            roster,
            control,
            ours,
            orders,
            signalled,
            capturing,
            segmenting,
            publishing,
            syncing,
            writer,
            writing,
            store_queue,
            serving,
            page_shutdown,
            export,
        })
    }

    /// Obeys and looks after everything, until it is to end.
    fn supervise(&mut self, shutdown: &Shutdown) -> End {
        let Self { control, orders, signalled, watchdog, roster, ours, .. } = self;
        let looked_after = (&*roster, &*ours);
        ours.once(|| control.run(orders, shutdown, signalled, watchdog, looked_after))
            .unwrap_or(End::Died(Thread::Control))
    }

    /// Ends everything in its order, and says who was not waited for to the end.
    fn drain(mut self, shutdown: &Shutdown) -> Vec<&'static str> {
        let mut ending = Ending::new(self.clock, &self.monitor, &mut self.watchdog);
        if !shutdown.is_requested() {
            ending.last_words();
            shutdown.request();
        }
        // Nobody takes orders any more: those that wait end without having been carried out.
        drop(self.orders);
        self.control.finish();
        ending.hand_over(&mut self.control, &self.writer);
        ending.end_orders(&mut self.control, &self.writer);
        drop(self.control);
        ending.join(self.capturing, Thread::Capture);
        ending.join(self.segmenting, Thread::Segment);
        // Both give to the store's queue, which closes behind its last sender.
        if let Some(publishing) = self.publishing {
            ending.join(publishing.stop(), Thread::Publish);
        }
        ending.join(self.syncing.stop(), Thread::Sync);
        let (queue, writing) = (&self.store_queue, &self.writing);
        let has_nothing_to_do = || queue.depth() == 0 && writing.busy_for().is_none();
        ending.settle(|| writing.is_stuck() || has_nothing_to_do());
        ending.join(self.writer, Thread::StoreWriter);
        self.page_shutdown.request();
        ending.join_page(self.serving);
        if let Some(export) = self.export {
            export.stop();
        }
        ending.left().to_vec()
    }
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
