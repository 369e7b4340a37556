//! The web side as a client of it sees it: over real sockets, with a real store.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use super::connection::Times;
use super::{LiveFeed, Options, Ports, WebError, bind, serve_within, testing};
use crate::telemetry::metrics::Metrics;
use reticle_base::clock::Clock;
use reticle_base::ids::FrameId;
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::Watched;
use reticle_base::thread::Thread;
use reticle_domain::order::{Done, Executor, NotTaken, Order};
use reticle_domain::status::{SaveState, SourceState, StatusBoard};
use reticle_store::Store;

mod commands;
mod limits;
mod surface;

/// Orders that are taken before somebody asks for them.
const ROOM: usize = 4;

/// Whoever carries out orders, as a list of what was ordered. What is awaited is done at once.
#[derive(Default)]
struct Taken {
    orders: Mutex<Vec<Order>>,
    is_stopping: AtomicBool,
}

impl Taken {
    /// What was ordered since this was last asked.
    fn take(&self) -> Vec<Order> {
        std::mem::take(&mut self.orders.lock().unwrap())
    }
}

impl Executor for Taken {
    fn submit(&self, order: Order, done: Done) -> Result<(), NotTaken> {
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(NotTaken::Stopping);
        }
        if order.reason.as_deref() == Some("forbid me") {
            return Err(NotTaken::Forbidden);
        }
        let mut orders = self.orders.lock().unwrap();
        if orders.len() >= ROOM {
            return Err(NotTaken::Busy);
        }
        orders.push(order);
        done(Ok(serde_json::json!({ "retried": 3 })));
        Ok(())
    }
}

struct Server {
    address: SocketAddr,
    clock: Clock,
    status: StatusBoard,
    live: LiveFeed,
    metrics: Metrics,
    orders: Arc<Taken>,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
    data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::start_with(Options::default(), Times::default())
    }

    fn start_with(options: Options, times: Times) -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = testing::clock();
        let folder =
            reticle_store::Options { folder: data.path().join("data"), ..Default::default() };
        let (store, _) = Store::open(&folder, clock.clone()).unwrap();
        let (status, live) = (StatusBoard::new(), LiveFeed::new());
        let metrics = Metrics::new();
        let orders = Arc::new(Taken::default());
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), ..options };
        let listener = bind(&options).unwrap();
        let address = listener.local_addr().unwrap();
        let ports = Ports {
            status: status.clone(),
            live: live.clone(),
            executor: orders.clone(),
            local: Some(super::local::bind(data.path()).unwrap()),
            reader: store.reader(),
            metrics: metrics.clone(),
            asyncapi: "{}".to_owned(),
            viewers: super::Seats::default(),
            clock: clock.clone(),
        };
        let shutdown = Shutdown::new();
        let life = (shutdown.clone(), Watched::alone(Thread::Web));
        let thread = serve_within(times, listener, &options, ports, life).unwrap();
        let thread = Some(thread);
        store.close();
        Self { address, clock, status, live, metrics, orders, shutdown, thread, data }
    }

    /// Saves one frame with its result and returns its id.
    fn save_one(&self) -> FrameId {
        let live = testing::live_frame(3, &self.clock);
        let saved = testing::save(&self.data.path().join("data"), &self.clock, [live]);
        saved[0].frame()
    }

    fn publish(&self, sequence: u64) -> FrameId {
        let live = testing::live_frame(sequence, &self.clock);
        let id = live.segmentation.frame.id;
        self.live.publish(Arc::new(live));
        id
    }

    fn watch(&self) -> Viewer {
        let url = format!("ws://{}/api/v1/live", self.address);
        Viewer(tungstenite::connect(url).unwrap().0)
    }

    /// Status, headers and body of one request.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(method, path, headers, "")
    }

    /// The same with a body.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let host = self.address.to_string();
        let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Connection: close".into()];
        if !headers.iter().any(|(name, _)| *name == "Host") {
            lines.push(format!("Host: {host}"));
        }
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        socket.write_all(format!("{}\r\n\r\n{body}", lines.join("\r\n")).as_bytes()).unwrap();
        read_answer(&mut socket)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn read_answer(socket: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: bytes[split + 4..].to_vec() }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What a problem says; asserts that it is one.
    fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:reticle:problem:"));
        problem["detail"].as_str().unwrap().to_owned()
    }
}

struct Viewer(WebSocket<MaybeTlsStream<TcpStream>>);

impl Viewer {
    /// The header of the next frame; statuses on the way are passed over.
    fn frame(&mut self) -> Value {
        loop {
            if let Message::Binary(bytes) = self.0.read().unwrap() {
                let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
                return serde_json::from_slice(&bytes[4..4 + length]).unwrap();
            }
        }
    }

    /// The next status; panics if a frame comes first.
    fn status(&mut self) -> Value {
        match self.0.read().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a status, got {} bytes", other.len()),
        }
    }

    fn say(&mut self, text: String) {
        self.0.send(Message::Text(text.into())).unwrap();
    }

    fn shown(&mut self, id: FrameId) {
        self.say(format!("{{\"shown\":\"{id}\"}}"));
    }
}

#[test]
fn a_viewer_gets_the_next_frame_only_when_it_has_shown_the_last_and_then_the_newest() {
    let server = Server::start();
    let first = server.publish(0);
    let mut viewer = server.watch();
    assert_eq!(viewer.frame()["sequence"], 0);
    for sequence in 1..=5 {
        server.publish(sequence);
    }
    // Nothing but statuses, however long it takes: the first was not shown yet.
    for _ in 0..3 {
        viewer.status();
    }
    viewer.shown(first);
    assert_eq!(viewer.frame()["sequence"], 5);
}

#[test]
fn a_viewer_that_says_nothing_of_a_frame_gives_up_its_seat_unless_nobody_looks_at_it() {
    let server = Server::start();
    server.publish(0);
    let (mut mute, mut hidden) = (server.watch(), server.watch());
    for viewer in [&mut mute, &mut hidden] {
        viewer.frame();
    }
    // It comes on the same thread as the answer to a ping: heard before the clock goes on.
    hidden.say(r#"{"hidden":true}"#.to_owned());
    hidden.0.send(Message::Ping(Vec::new().into())).unwrap();
    while !matches!(hidden.0.read().unwrap(), Message::Pong(_)) {}
    server.clock.advance(Duration::from_secs(61));
    let last = loop {
        if let Message::Close(close) = mute.0.read().unwrap() {
            break close;
        }
    };
    assert!(last.unwrap().reason.contains("come again"));
    for _ in 0..3 {
        hidden.status();
    }
}

#[test]
fn a_viewer_that_reads_nothing_holds_nobody_back() {
    let server = Server::start();
    let _silent = server.watch();
    let mut viewer = server.watch();
    for sequence in 0..20 {
        let id = server.publish(sequence);
        assert_eq!(viewer.frame()["sequence"], sequence);
        viewer.shown(id);
    }
}

#[test]
fn latency_is_capture_to_shown_by_the_boxs_clock_and_old_frames_do_not_count() {
    let server = Server::start();
    let old = server.publish(0);
    server.clock.advance(Duration::from_secs(3600));
    let mut viewer = server.watch();
    viewer.frame();
    viewer.shown(old);
    let id = server.publish(1);
    viewer.frame();
    server.clock.advance(Duration::from_millis(40));
    viewer.shown(id);
    let screen = loop {
        let status = viewer.status();
        if !status["capture_to_screen"].is_null() {
            break status["capture_to_screen"].clone();
        }
    };
    assert_eq!(screen["frames"], 1);
    assert_eq!(screen["p50_ms"], 40.0);
}

#[test]
fn nothing_is_sent_while_the_page_is_hidden() {
    let server = Server::start();
    let mut viewer = server.watch();
    viewer.say("{\"hidden\":true}".into());
    // The answer to a later word shows that the one before was heard.
    viewer.status();
    viewer.status();
    server.publish(0);
    viewer.status();
    viewer.say("{\"hidden\":false}".into());
    assert_eq!(viewer.frame()["sequence"], 0);
}

#[test]
fn a_client_that_talks_nonsense_is_sent_away_with_a_reason() {
    let server = Server::start();
    let mut viewer = server.watch();
    viewer.say("{\"start\":true}".into());
    let reason = loop {
        if let Message::Close(close) = viewer.0.read().unwrap() {
            break close.unwrap().reason.to_string();
        }
    };
    assert!(reason.contains("shown"), "{reason}");
}

#[test]
fn foreign_pages_and_names_are_refused_with_what_to_do() {
    let server = Server::start();
    let foreign = [("Origin", "https://evil.example"), ("Content-Length", "0")];
    let answer = server.ask("POST", "/api/v1/commands/stop", &foreign);
    assert_eq!(answer.status, 403);
    assert!(answer.problem().contains("another origin"));
    let rebound = server.ask("GET", "/api/v1/status", &[("Host", "evil.example")]);
    assert_eq!(rebound.status, 403);
    assert!(rebound.problem().contains("`hosts` in [web]"));
    let upgrade = [
        ("Origin", "https://evil.example"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    assert_eq!(server.ask("GET", "/api/v1/live", &upgrade).status, 403);
    let scraped = server.ask("GET", "/metrics", &[("Host", "evil.example")]);
    assert_eq!(scraped.status, 403, "how much the lab does is not for a foreign page");
    let probe = server.ask("GET", "/healthz", &[("Host", "10.1.2.3")]);
    assert_eq!(probe.status, 200, "probes may come by any name");
}

#[test]
fn metrics_are_told_in_the_text_format_of_prometheus() {
    let server = Server::start();
    server.status.update(|status| status.counters.captured = 3);
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("\nreticle_frames_captured_total 3\n"), "{text}");
}

#[test]
fn what_is_saved_can_be_read_back() {
    let server = Server::start();
    let id = server.save_one();
    let list = server.get("/api/v1/frames?limit=10").json();
    assert_eq!(list["frames"][0]["id"], id.to_string());
    let next = list["next"].as_str().unwrap();
    let rest = server.get(&format!("/api/v1/frames?after={next}")).json();
    assert_eq!((rest["frames"].as_array().unwrap().len(), &rest["next"]), (0, &next.into()));
    let old = next.replace(|c: char| c.is_ascii_hexdigit() && c != '1', "0");
    let old = server.get(&format!("/api/v1/frames?after={old}"));
    assert_eq!(old.status, 409);
    assert_eq!(old.json()["type"], "urn:reticle:problem:old-cursor");
    assert_eq!(server.get("/api/v1/frames?after=1").status, 400);
    let frame = server.get(&format!("/api/v1/frames/{id}")).json();
    assert_eq!((&frame["sequence"], &frame["width"]), (&3.into(), &128.into()));
    assert!(server.get(&format!("/api/v1/frames/{id}/objects")).json().is_array());

    let expected = testing::live_frame(3, &server.clock).segmentation;
    let png = server.get(&format!("/api/v1/frames/{id}/labels.png"));
    assert!(png.head.contains("content-type: image/png"));
    let labels = image::load_from_memory(&png.body).unwrap().into_luma16().into_raw();
    assert!(labels.iter().map(|&l| u32::from(l)).eq(expected.labels.labels().iter().copied()));
    let png = server.get(&format!("/api/v1/frames/{id}/image.png"));
    let pixels = image::load_from_memory(&png.body).unwrap().into_luma16().into_raw();
    assert_eq!(reticle_domain::frame::Pixels::U16(pixels), expected.frame.pixels);

    assert_eq!(server.get("/api/v1/sessions").json()["sessions"][0]["name"], "plate 7");
    assert_eq!(server.get("/api/v1/totals").json()["segmentations"], 1);
}

#[test]
fn wrong_questions_are_answered_with_what_is_wrong() {
    let server = Server::start();
    for (path, status, says) in [
        ("/api/v1/frames/123", 400, "not the id of a frame"),
        ("/api/v1/frames/0192f0c4-7b1e-7000-8000-0123456789ab", 404, "no result of frame"),
        ("/api/v1/frames?limit=0", 400, "1 to 1000"),
        ("/api/v1/frames?limit=many", 400, "limit"),
        ("/api/v1/frames?before=3", 400, "before"),
        ("/api/v1/nothing", 404, "/api/v1/nothing"),
        ("/api/v1/live", 400, "WebSocket"),
        ("/streams/snapshot.jpg", 503, "no frame"),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, status, "{path}");
        let problem = answer.problem();
        assert!(problem.contains(says), "{path}: {problem}");
    }
}

#[test]
fn ready_means_that_frames_come_and_results_are_saved() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 503, "still opening");
    server.status.update(|status| status.source = SourceState::Ready);
    assert_eq!(server.get("/readyz").status, 200);
    server.status.update(|status| {
        let reason = "no room".to_owned();
        status.save = SaveState::Failing { reason, since: "2026-01-01T00:00:00Z".into() };
    });
    assert!(server.get("/readyz").problem().contains("no room"));
    server.status.update(|status| {
        status.save = SaveState::Saved;
        status.recording_paused = Some("nothing may be deleted in /data".into());
    });
    let held = server.get("/readyz");
    assert_eq!(held.status, 503, "frames are not recorded");
    assert!(held.problem().contains("/data"));
    let foreign = server.ask("GET", "/readyz", &[("Host", "evil.example")]);
    assert_eq!(foreign.status, 503);
    assert!(!foreign.problem().contains("/data"), "a foreign name is told no path");
    server.status.update(|status| status.recording_paused = None);
    assert_eq!(server.ask("GET", "/readyz", &[("Host", "evil.example")]).status, 200);
}

#[test]
fn a_picture_stream_shows_each_frame_as_it_comes() {
    let server = Server::start();
    let first = server.publish(0);
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!("GET /streams/mjpeg HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    socket.write_all(request.as_bytes()).unwrap();
    let mut seen = Vec::new();
    read_until(&mut socket, &mut seen, &first.to_string());
    let second = server.publish(1);
    read_until(&mut socket, &mut seen, &second.to_string());
    let snapshot = server.get("/streams/snapshot.jpg");
    assert!(snapshot.head.contains(&format!("x-reticle-frame: {second}")));
    assert!(snapshot.body.starts_with(&[0xFF, 0xD8]));
}

fn read_until(socket: &mut TcpStream, seen: &mut Vec<u8>, text: &str) {
    let mut buffer = [0; 4096];
    while !seen.windows(text.len()).any(|window| window == text.as_bytes()) {
        let read = socket.read(&mut buffer).unwrap();
        assert!(read > 0, "the stream ended before {text}");
        seen.extend(&buffer[..read]);
    }
}

#[test]
fn a_stop_ends_every_connection_and_says_goodbye() {
    let mut server = Server::start();
    let mut viewer = server.watch();
    viewer.status();
    let _stream = TcpStream::connect(server.address).unwrap();
    server.shutdown.request();
    server.thread.take().unwrap().join().unwrap();
    let goodbye = loop {
        if let Message::Close(close) = viewer.0.read().unwrap() {
            break close.unwrap().reason.to_string();
        }
    };
    assert!(goodbye.contains("stopping"), "{goodbye}");
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let options = Options { listen: taken.local_addr().unwrap(), ..Default::default() };
    let error = bind(&options).unwrap_err();
    assert!(matches!(error, WebError::PortInUse(_)));
    let (text, port) = (error.to_string(), options.listen.port().to_string());
    assert!(text.contains(&port) && text.contains("--listen"), "{text}");
}
