//! A box whose state the test decides: the real web side and the real store, with frames of
//! the virtual microscope and its truth in place of a segmentation.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use reticle::capture::{self, Event};
use reticle::telemetry::metrics::Metrics;
use reticle::web::{self, LiveFeed, LiveFrame, Ports};
use reticle_base::clock::{self, Clock};
use reticle_base::ids::SessionId;
use reticle_base::queue::{self, Received, WhenFull};
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::Watched;
use reticle_base::thread::Thread;
use reticle_domain::frame::Frame;
use reticle_domain::health::{Health, StageHealth};
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::Look;
use reticle_domain::object::Object;
use reticle_domain::order::{Command, Done, Executor, NotTaken, Order};
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_domain::session::Session;
use reticle_domain::status::{RunState, SaveState, SourceState, StatusBoard, SyncState};
use reticle_store::{Job, Store};

const FPS: f64 = 10.0;

pub(crate) struct FakeBox {
    pub(crate) status: StatusBoard,
    address: SocketAddr,
    controls: Arc<Controls>,
    commands: queue::Receiver<Command>,
    shutdown: Shutdown,
    threads: Vec<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

/// Takes orders, and tells the test what was ordered.
struct HandsOn(queue::Sender<Command>);

impl Executor for HandsOn {
    fn submit(&self, order: Order, done: Done) -> Result<(), NotTaken> {
        self.0.send(order.command);
        done(Ok(serde_json::json!({})));
        Ok(())
    }
}

/// What the test can change while frames run.
struct Controls {
    flowing: AtomicBool,
    /// Focus score that frames are given, as bits of an `f32`.
    focus: AtomicU32,
    look: Mutex<Look>,
    last: Mutex<Option<Arc<LiveFrame>>>,
}

impl FakeBox {
    /// A box that listens and has no frame yet.
    pub(crate) fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    /// The same at an address where another one was.
    pub(crate) fn start_at(listen: SocketAddr) -> Self {
        let clock = Clock::system();
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        let options =
            reticle_store::Options { folder: data.path().join("data"), ..Default::default() };
        let (store, _) = Store::open(&options, clock.clone()).expect("an empty folder is a store");
        let reader = store.reader();
        let (jobs, inbox) = queue::bounded("jobs", 8, WhenFull::Wait);
        let writer = store.spawn_writer(inbox, |_| {}).expect("a thread can be started");

        let options = web::Options { listen, ..Default::default() };
        let listener = web::bind(&options).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (status, live) = (StatusBoard::new(), LiveFeed::new());
        let (sender, commands) = queue::bounded("commands", 8, WhenFull::Wait);
        let ports = Ports {
            status: status.clone(),
            live: live.clone(),
            executor: Arc::new(HandsOn(sender)),
            local: None,
            reader,
            metrics: Metrics::new(),
            asyncapi: "{}".to_owned(),
            viewers: web::Seats::default(),
            clock: clock.clone(),
        };
        let shutdown = Shutdown::new();
        let server =
            web::serve(listener, &options, ports, shutdown.clone(), Watched::alone(Thread::Web))
                .expect("it serves");
        let controls = Arc::new(Controls {
            flowing: AtomicBool::new(false),
            focus: AtomicU32::new(0.92_f32.to_bits()),
            look: Mutex::new(Look::PLAIN),
            last: Mutex::new(None),
        });
        let pump = Pump {
            clock,
            status: status.clone(),
            live,
            jobs,
            controls: Arc::clone(&controls),
            shutdown: shutdown.clone(),
        };
        let pump = thread::spawn(move || pump.run());
        status.update(|status| {
            status.source_name = "virtual".into();
            status.source = SourceState::Ready;
            status.model = "nuclei".into();
        });
        let threads = vec![pump, writer, server];
        Self { status, address, controls, commands, shutdown, threads, _data: data }
    }

    /// Lets frames flow, with the status of a healthy box.
    pub(crate) fn run(&self) {
        self.status.update(|status| {
            status.run = RunState::Running;
            status.source = SourceState::Ready;
            status.save = SaveState::Saved;
            status.session_name = Some("2026-11-22 plate 1".into());
            status.capture_fps = FPS as f32;
            status.segment_fps = FPS as f32;
        });
        self.set_focus(0.92);
        self.controls.flowing.store(true, Ordering::SeqCst);
    }

    /// How the pictures from now on were looked at.
    pub(crate) fn set_look(&self, look: Look) {
        *self.controls.look.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }

    /// No frame comes any more; the status stays as it is.
    pub(crate) fn hold(&self) {
        self.controls.flowing.store(false, Ordering::SeqCst);
    }

    pub(crate) fn set_focus(&self, focus: f32) {
        self.controls.focus.store(focus.to_bits(), Ordering::SeqCst);
    }

    /// What a calm machine tells, measured so long ago, and a broker that has everything.
    pub(crate) fn measure(&self, ago: Duration) {
        const GIB: u64 = 1 << 30;
        let ago_ns = i64::try_from(ago.as_nanos()).expect("it is hours at most");
        let at = clock::rfc3339(Clock::system().now().wall_ns - ago_ns);
        let stage = |name: &str| StageHealth { name: name.into(), busy_s: None, stuck: false };
        let health = Health {
            at,
            uptime_s: 7500,
            cpu_percent: 41.6,
            resident_bytes: GIB / 2,
            memory_total_bytes: 8 * GIB,
            memory_available_bytes: 6 * GIB,
            storage_total_bytes: 100 * GIB,
            storage_free_bytes: 25 * GIB,
            temperature_c: Some(62.4),
            temperature_limit_c: Some(85.0),
            throttled: None,
            clock_trusted: true,
            stages: ["capture", "segment", "store-writer"].map(stage).into(),
            threads: Vec::new(),
        };
        let broker = SyncState {
            destination: "broker".into(),
            location: "mqtt://lab:1883".into(),
            waiting: 0,
            quarantined: 0,
            oldest: None,
            reason: None,
            conflict: None,
        };
        self.status.update(|status| {
            status.health = health;
            status.sync = vec![broker];
        });
    }

    /// The last frame that was published.
    pub(crate) fn last(&self) -> Option<Arc<LiveFrame>> {
        self.controls.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next command, if one comes within `timeout`.
    pub(crate) fn command(&self, timeout: Duration) -> Option<Command> {
        match self.commands.recv_timeout(timeout) {
            Received::Item(command) => Some(command),
            Received::Timeout | Received::Closed => None,
        }
    }

    /// Takes the box down; its address is free again.
    pub(crate) fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        self.shutdown.request();
        for thread in self.threads.drain(..) {
            thread.join().expect("no thread panics");
        }
    }
}

impl Drop for FakeBox {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

/// The thread that stands for capture, segmentation and store.
struct Pump {
    clock: Clock,
    status: StatusBoard,
    live: LiveFeed,
    jobs: queue::Sender<Job>,
    controls: Arc<Controls>,
    shutdown: Shutdown,
}

impl Pump {
    fn run(self) {
        let options = capture::Options { fps: Some(FPS), ..Default::default() };
        let session = Session {
            id: SessionId::new(),
            name: "test".into(),
            source: "virtual".into(),
            channel: None,
            operator: None,
            pixel_size_um: None,
            started: self.clock.now(),
        };
        let id = session.id;
        self.jobs.send(Job::Open(session));
        let model = Arc::new(ModelRef {
            name: "truth".into(),
            sha256: "5e".repeat(32),
            parameters: "{}".into(),
            software: "test".into(),
        });
        let mut source = None;
        while !self.shutdown.is_requested() {
            if !self.controls.flowing.load(Ordering::SeqCst) {
                // Opened anew afterwards, so that nothing of the pause has to be caught up.
                source = None;
                self.shutdown.wait(Duration::from_millis(20));
                continue;
            }
            let open = || capture::open(&options, &self.clock).expect("it is virtual");
            match source.get_or_insert_with(open).next(Duration::from_millis(200)) {
                Ok(Event::Frame(frame)) => self.publish(id, &model, *frame),
                Ok(_) => {}
                Err(error) => panic!("the virtual microscope failed: {error}"),
            }
        }
        self.jobs.send(Job::Close { session: id, at: self.clock.now() });
    }

    fn publish(&self, session: SessionId, model: &Arc<ModelRef>, frame: Frame) {
        let frame = Arc::new(frame);
        let labels = frame.truth.clone().expect("the virtual microscope knows the truth");
        let objects = objects(&labels);
        let count = labels.count();
        let segmentation = Segmentation {
            frame: Arc::clone(&frame),
            model: Arc::clone(model),
            labels,
            objects: Arc::new(objects),
            focus: f32::from_bits(self.controls.focus.load(Ordering::SeqCst)),
            look: *self.controls.look.lock().unwrap_or_else(PoisonError::into_inner),
            timings: Timings::default(),
        };
        let live = Arc::new(LiveFrame {
            segmentation: segmentation.clone(),
            ap50: Some(0.93),
            true_objects: Some(count + 2),
        });
        *self.controls.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::clone(&live));
        self.live.publish(live);
        self.jobs.send(Job::Keep { session, frame: Arc::clone(&frame) });
        self.jobs.send(Job::Commit { session, segmentation });
        self.status.update(|status| {
            status.counters.captured += 1;
            status.counters.segmented += 1;
            status.counters.saved += 1;
            status.last_saved = Some(frame.id);
        });
    }
}

/// Labels and areas; what else is measured does not matter here.
fn objects(labels: &LabelImage) -> Vec<Object> {
    let mut areas = vec![0_u32; labels.count() as usize + 1];
    for &label in labels.labels() {
        areas[label as usize] += 1;
    }
    let object = |(label, &area): (usize, &u32)| Object {
        label: label as u32,
        area,
        centroid_0: 0.0,
        centroid_1: 0.0,
        bbox_0: 0,
        bbox_1: 0,
        bbox_2: labels.height(),
        bbox_3: labels.width(),
        perimeter: 3.5 * f64::from(area).sqrt(),
        eccentricity: 0.5,
        solidity: 0.95,
        major_axis_length: 1.2 * f64::from(area).sqrt(),
        minor_axis_length: f64::from(area).sqrt(),
        orientation: 0.0,
        intensity_mean: 1000.0,
        intensity_max: 2000.0,
        intensity_min: 500.0,
        touches_border: false,
    };
    areas.iter().enumerate().skip(1).map(object).collect()
}
