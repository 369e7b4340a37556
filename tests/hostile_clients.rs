//! Clients that take what they can, against a real daemon: whatever they do, frames go on being
//! taken, segmented and kept, and memory and log stay within bounds.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

mod common;

use common::{Daemon, Start, wait_at_most, wait_for};

/// Ten frames a second, small enough that two busy cores segment them at that rate.
const CONFIG: &str = "[source]\nwidth = 256\nheight = 256\nfps = 10.0\n";

/// What the box may take more of memory, whatever clients do.
const MORE_MEMORY_KIB: u64 = 50 * 1024;

/// Starts a daemon with a small, fast virtual microscope.
fn microscope(start: Start) -> Daemon {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(CONFIG.as_bytes()).unwrap();
    let daemon = start.config(file.path()).start();
    wait_for("frames that are saved", || (counter(&daemon, "saved") > 10).then_some(()));
    daemon
}

fn counter(daemon: &Daemon, name: &str) -> u64 {
    daemon.json("/api/v1/status")["counters"][name].as_u64().unwrap()
}

/// A connection that never blocks, with `bytes` sent as far as they are taken. `None` where the
/// box or the kernel takes no more connections.
fn connect(daemon: &Daemon, bytes: &[u8]) -> Option<TcpStream> {
    let address = daemon.address().parse().unwrap();
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    socket.set_nonblocking(true).unwrap();
    // As far as the buffers go; that it was cut off meanwhile is the box's right.
    let _sent = socket.write(bytes).ok()?;
    Some(socket)
}

/// Lets this process have the thousands of sockets that it needs.
fn many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Sends one request over a connection of its own, and reads all that comes.
fn ask(daemon: &Daemon, request: &str) -> String {
    let Ok(mut socket) = TcpStream::connect(daemon.address()) else { return String::new() };
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = Vec::new();
    if socket.write_all(request.as_bytes()).is_ok() {
        socket.read_to_end(&mut answer).ok();
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(daemon: &Daemon, path: &str, host: &str) -> String {
    ask(daemon, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

/// One value of `/metrics`.
fn metric(daemon: &Daemon, series: &str) -> u64 {
    let text = String::from_utf8(daemon.bytes("/metrics")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} is not told")).parse().unwrap()
}

/// Everything at once, as one machine can do it.
struct Crowd {
    headers: Vec<TcpStream>,
    dripping: Vec<TcpStream>,
    readers: Vec<TcpStream>,
    idle: Vec<TcpStream>,
}

impl Crowd {
    fn gather(daemon: &Daemon, id: &str) -> Self {
        let host = daemon.address();
        let header = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Filler: {}", "a".repeat(390_000));
        let drip = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: ");
        let picture = format!("GET /api/v1/frames/{id}/image.png HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let times = |count: usize, text: &str| -> Vec<TcpStream> {
            (0..count).filter_map(|_| connect(daemon, text.as_bytes())).collect()
        };
        Self {
            headers: times(1000, &header),
            dripping: times(100, &drip),
            readers: times(100, &picture.repeat(100)),
            idle: times(1000, ""),
        }
    }

    /// Goes on as slow clients do: one byte more of a header. Whoever was cut off comes again.
    fn goes_on(&mut self, daemon: &Daemon) {
        let again = format!("GET / HTTP/1.1\r\nHost: {}\r\nX-Slow: ", daemon.address());
        for socket in &mut self.dripping {
            let is_cut = match socket.write(b"a") {
                Ok(_) => false,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if is_cut && let Some(new) = connect(daemon, again.as_bytes()) {
                *socket = new;
            }
        }
        // Nothing of the others is ever read.
        assert!(!self.headers.is_empty() && !self.readers.is_empty() && !self.idle.is_empty());
    }
}

/// The live view of somebody who was there before.
struct Viewer {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    shown: u32,
}

impl Viewer {
    fn connect(daemon: &Daemon) -> Self {
        let url = format!("ws://{}/api/v1/live", daemon.address());
        Self { socket: tungstenite::connect(url).unwrap().0, shown: 0 }
    }

    /// Shows what comes until the next status.
    fn look(&mut self) {
        while let Message::Binary(bytes) = self.socket.read().unwrap() {
            let length = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            let head: Value = serde_json::from_slice(bytes.get(4..4 + length).unwrap()).unwrap();
            let word = serde_json::json!({ "shown": head["frame"] }).to_string();
            self.socket.send(Message::Text(word.into())).unwrap();
            self.shown += 1;
        }
    }
}

/// Frames a second that were segmented, by the daemon's own counter, over `time`; `meanwhile` is
/// done about ten times a second. And the most memory that was seen.
#[expect(clippy::disallowed_methods, reason = "a rate needs real time")]
fn rate(daemon: &Daemon, time: Duration, mut meanwhile: impl FnMut()) -> (f64, u64) {
    let status = || wait_for("an answer of the API", || daemon.try_json("/api/v1/status").ok());
    let segmented = |status: Value| status["counters"]["segmented"].as_u64().unwrap();
    let (began, before) = (Instant::now(), segmented(status()));
    let mut memory_kib = daemon.resident_kib();
    while began.elapsed() < time {
        meanwhile();
        thread::sleep(Duration::from_millis(100));
        memory_kib = memory_kib.max(daemon.resident_kib());
    }
    let after = segmented(status());
    ((after - before) as f64 / began.elapsed().as_secs_f64(), memory_kib)
}

#[test]
fn live_goes_on_and_memory_stays_while_two_thousand_clients_take_what_they_can() {
    many_descriptors();
    let daemon = microscope(Start::default());
    let mut viewer = Viewer::connect(&daemon);
    // Whoever looks and reads pictures is no attack, and takes memory too.
    let frames = daemon.json("/api/v1/frames?limit=1");
    let id = frames["frames"][0]["id"].as_str().unwrap().to_owned();
    daemon.bytes(&format!("/api/v1/frames/{id}/image.png"));
    let (usual, before_kib) = rate(&daemon, Duration::from_secs(3), || viewer.look());
    let mut crowd = Crowd::gather(&daemon, &id);
    let shown = viewer.shown;
    let (rate, memory_kib) = rate(&daemon, Duration::from_secs(8), || {
        crowd.goes_on(&daemon);
        viewer.look();
    });
    let shown = viewer.shown - shown;
    println!(
        "{usual:.1} frames/s and {before_kib} KiB before, {rate:.1} frames/s and at most \
         {memory_kib} KiB meanwhile, {shown} shown"
    );
    assert!(rate > 0.8 * usual, "{rate} frames/s instead of {usual}");
    assert!(shown > 20, "the live view showed {shown} frames only");
    assert!(memory_kib < before_kib + MORE_MEMORY_KIB, "{before_kib} KiB became {memory_kib}");
    assert_eq!(counter(&daemon, "not_saved") + counter(&daemon, "not_kept"), 0);
    drop(crowd);
    let once_kib = kib_when_they_are_gone(&daemon);
    // What the first crowd left (buffers of threads, pages of the database) serves the next one.
    let mut crowd = Crowd::gather(&daemon, &id);
    self::rate(&daemon, Duration::from_secs(3), || crowd.goes_on(&daemon));
    drop(crowd);
    let twice_kib = kib_when_they_are_gone(&daemon);
    println!("{once_kib} KiB after them, {twice_kib} KiB after as many again");
    assert!(once_kib < before_kib + MORE_MEMORY_KIB, "{before_kib} KiB stay {once_kib}");
    assert!(twice_kib < once_kib + MORE_MEMORY_KIB / 5, "{once_kib} KiB became {twice_kib}");
}

/// Resident memory once all connections were given back.
fn kib_when_they_are_gone(daemon: &Daemon) -> u64 {
    wait_for("connections that are closed to be given back", || {
        (metric(daemon, "reticle_http_connections") < 10).then_some(())
    });
    daemon.resident_kib()
}

#[test]
fn with_few_descriptors_frames_keep_their_pixels_and_the_box_answers() {
    many_descriptors();
    let daemon = microscope(Start::default().descriptors(64));
    let host = daemon.address().to_owned();
    let stream = format!("GET /streams/mjpeg HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let _streams: Vec<_> = (0..20).map(|_| connect(&daemon, stream.as_bytes())).collect();
    let _idle: Vec<_> = (0..300).map(|_| connect(&daemon, b"")).collect();
    let answers = |path: &str| {
        wait_for("an answer", || Some(get(&daemon, path, &host)).filter(|text| !text.is_empty()))
    };
    assert!(answers("/healthz").starts_with("HTTP/1.1 200"));
    let captured = |text: &str| -> Option<(u64, u64, u64)> {
        let body = text.split_once("\r\n\r\n")?.1;
        let counters = &serde_json::from_str::<Value>(body).ok()?["counters"];
        let [captured, kept, not_kept] =
            ["captured", "kept", "not_kept"].map(|name| counters[name].as_u64());
        Some((captured?, kept?, not_kept.unwrap_or(0)))
    };
    let (before, ..) = wait_for("the status", || captured(&answers("/api/v1/status")));
    let (_, kept, not_kept) = wait_for("40 more frames", || {
        let _more: Vec<_> = (0..20).map(|_| connect(&daemon, stream.as_bytes())).collect();
        captured(&answers("/api/v1/status")).filter(|(captured, ..)| *captured >= before + 40)
    });
    assert_eq!(not_kept, 0, "{}", daemon.log());
    assert!(kept >= before + 38, "{kept} kept of more than {}", before + 40);
    assert!(!daemon.log().contains("Too many open files"), "{}", daemon.log());
    assert!(daemon.log().contains("few file descriptors are left"), "{}", daemon.log());
}

#[test]
fn three_thousand_refused_requests_are_a_few_lines_of_the_log_and_all_counted() {
    let daemon = microscope(Start::default());
    let before = daemon.log().len();
    let request = "GET /api/v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    for _ in 0..30 {
        let mut socket = TcpStream::connect(daemon.address()).unwrap();
        let mut reader = socket.try_clone().unwrap();
        let reading = thread::spawn(move || {
            let mut answers = Vec::new();
            reader.read_to_end(&mut answers).ok();
            answers
        });
        let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        socket.write_all((request.repeat(99) + &last).as_bytes()).unwrap();
        reading.join().unwrap();
    }
    let lines = daemon.log().matches("refused a request that is not from here").count();
    assert!(lines >= 1, "nothing is in the log:\n{}", daemon.log());
    let grown = daemon.log().len() - before;
    assert!(grown < 40_000, "3,000 refused requests made {grown} bytes of log");
    let refused = metric(&daemon, "reticle_http_refused_total{reason=\"foreign\"}");
    assert_eq!(refused, 3_000, "all of them are counted");
}

#[test]
fn starts_and_stops_without_a_frame_leave_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let camera = format!("v4l:{}", folder.path().join("no-camera").display());
    let daemon = Start::default().source(camera).start();
    let (mut taken, mut refused) = (0, 0);
    for turn in 0..600 {
        let command = if turn % 2 == 0 { "stop" } else { "start" };
        let answer = ask(
            &daemon,
            &format!(
                "POST /api/v1/commands/{command} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n",
                daemon.address()
            ),
        );
        if answer.starts_with("HTTP/1.1 202") {
            taken += 1;
        } else {
            assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
            assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
            refused += 1;
        }
    }
    println!("{taken} commands taken, {refused} refused");
    assert_eq!(daemon.json("/api/v1/sessions")["sessions"].as_array().unwrap().len(), 0);
    assert!(taken >= 60 && refused > 300, "{taken} commands taken, {refused} refused");
}

#[test]
fn a_session_that_runs_is_shown_at_once_and_recorded_with_its_first_frame() {
    let daemon = microscope(Start::default());
    let session = daemon.json("/api/v1/status")["session"].as_str().unwrap().to_owned();
    let sessions = daemon.json("/api/v1/sessions");
    assert_eq!(sessions["sessions"][0]["id"], session);
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_no_http_1_and_no_name_of_the_box_is_refused() {
    let daemon = microscope(Start::default());
    let preface = ask(&daemon, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(preface.is_empty() || preface.starts_with("HTTP/1.1 4"), "{preface:?}");
    let foreign = get(&daemon, "/api/v1/status", "evil.example");
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let two = format!("{}\r\nHost: evil.example", daemon.address());
    let two = get(&daemon, "/api/v1/status", &two);
    assert!(two.starts_with("HTTP/1.1 400"), "{two}");
    let ready = wait_at_most(Duration::from_secs(10), || {
        Some(get(&daemon, "/readyz", "evil.example")).filter(|text| text.contains(" 200 "))
    });
    assert!(ready.is_some(), "a probe may call by any name");
}
