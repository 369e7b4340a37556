//! What clients can take, over real sockets: each test does what a hostile or broken client does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{Answer, Server};
use crate::web::Options;
use crate::web::connection::Times;

const GET: &str = "GET /api/v1/status HTTP/1.1\r\n";

impl Server {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    /// All that comes back for `bytes` until the box closes.
    fn say(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect();
        // The box may close before it has read all of it.
        socket.write_all(bytes).ok();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn host(&self) -> String {
        format!("Host: {}\r\n", self.address)
    }

    /// How often clients were refused for this reason.
    fn refused(&self, reason: &str) -> u64 {
        let text = self.metrics.render(&self.status.read(), 0, &self.clock.now());
        let series = format!("reticle_http_refused_total{{reason=\"{reason}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse().unwrap()
    }

    fn wait_for(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if fact(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("waited in vain for {what}");
    }

    /// A stream that is answered, for ever, as nothing is published.
    fn stream(&self) -> TcpStream {
        let mut socket = self.connect();
        let request = format!("GET /streams/mjpeg HTTP/1.1\r\n{}\r\n", self.host());
        socket.write_all(request.as_bytes()).unwrap();
        let mut begin = [0; 12];
        socket.read_exact(&mut begin).unwrap();
        assert_eq!(begin.as_slice(), b"HTTP/1.1 200");
        socket
    }
}

fn milliseconds([header, idle, stall]: [u64; 3]) -> Times {
    let [header, idle, stall] = [header, idle, stall].map(Duration::from_millis);
    Times { header, idle, stall }
}

/// Until the box has closed the connection; panics after the socket's patience.
fn closes(mut socket: TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = socket.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn a_header_that_never_ends_is_cut_and_a_keep_alive_connection_is_not() {
    let server = Server::start_with(Options::default(), milliseconds([400, 30_000, 400]));
    let mut kept = server.connect();
    kept.write_all(format!("{GET}{}\r\n", server.host()).as_bytes()).unwrap();
    let mut begin = [0; 12];
    kept.read_exact(&mut begin).unwrap();

    let silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(GET.as_bytes()).unwrap();
    closes(slow);
    closes(silent);
    assert_eq!(server.refused("slow"), 2);

    // A byte of the next request begins its time.
    kept.write_all(b"G").unwrap();
    closes(kept);
    assert_eq!(server.refused("slow"), 3);
}

#[test]
fn a_connection_without_requests_is_closed_after_a_while() {
    let server = Server::start_with(Options::default(), milliseconds([60_000, 300, 60_000]));
    let mut socket = server.connect();
    socket.write_all(format!("{GET}{}\r\n", server.host()).as_bytes()).unwrap();
    closes(socket);
    assert_eq!(server.refused("slow"), 0, "nobody was refused");
}

#[test]
fn a_header_of_more_than_16_kb_is_refused() {
    let server = Server::start();
    let long = |bytes: usize| {
        let filler = "a".repeat(bytes);
        let close = "Connection: close\r\n";
        server.say(format!("{GET}{}{close}X-Filler: {filler}\r\n\r\n", server.host()).as_bytes())
    };
    assert!(long(15_000).starts_with("HTTP/1.1 200"));
    let answer = long(400_000);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    server.wait_for("the refusal to be counted", |server| server.refused("header") == 1);
}

#[test]
fn only_http_1_is_spoken() {
    let server = Server::start();
    let answer = server.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
}

#[test]
fn a_request_without_exactly_one_host_is_refused() {
    let server = Server::start();
    let close = "Connection: close\r\n\r\n";
    let host = server.host();
    for hosts in [String::new(), format!("{host}{host}"), format!("{host}Host: evil.example\r\n")] {
        let answer = server.say(format!("{GET}{hosts}{close}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{hosts:?}: {answer}");
        assert!(answer.contains("exactly one Host"), "{answer}");
    }
}

#[test]
fn a_body_that_no_request_needs_is_refused_whole_or_slow() {
    let server = Server::start_with(Options::default(), milliseconds([500, 30_000, 30_000]));
    let post = "POST /api/v1/commands/pause HTTP/1.1\r\nConnection: close\r\n";
    let post = format!("{post}{}", server.host());
    let announced = server.say(format!("{post}Content-Length: 16385\r\n\r\n").as_bytes());
    assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
    assert!(announced.contains("urn:reticle:problem:too-large"), "{announced}");
    let chunk = format!("4000\r\n{}\r\n", "a".repeat(0x4000));
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    let chunked = server.say(chunked.as_bytes());
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    let slow = server.say(format!("{post}Content-Length: 10\r\n\r\nabc").as_bytes());
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    assert!(slow.contains("urn:reticle:problem:slow"), "{slow}");
    assert_eq!(server.refused("body"), 3);
    let fine = server.say(format!("{post}Content-Length: 3\r\n\r\nabc").as_bytes());
    assert!(fine.starts_with("HTTP/1.1 202"), "{fine}");
}

#[test]
fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let server = Server::start_with(Options::default(), milliseconds([30_000, 30_000, 400]));
    let mut socket = server.connect();
    let request = format!("GET /api/v1/openapi.json HTTP/1.1\r\n{}\r\n", server.host());
    // More answers than the kernel's buffers hold. The box stops reading when it cannot answer.
    let many = request.repeat(400);
    let mut writer = socket.try_clone().unwrap();
    let asking = std::thread::spawn(move || writer.write_all(many.as_bytes()).ok());
    server.wait_for("the client to be cut off", |server| server.refused("slow") == 1);
    asking.join().unwrap();
    let mut taken = Vec::new();
    socket.read_to_end(&mut taken).ok();
    assert!(!taken.is_empty());
}

#[test]
fn a_stream_that_nobody_reads_gives_its_seat_back() {
    let server = Server::start_with(Options::default(), milliseconds([30_000, 30_000, 300]));
    let stuck = server.stream();
    for sequence in 0.. {
        if server.refused("slow") == 1 {
            break;
        }
        assert!(sequence < 20_000, "the stream is not cut off");
        server.publish(sequence);
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(stuck);
}

#[test]
fn idle_connections_keep_nobody_out() {
    let options = Options { max_connections: 8, ..Options::default() };
    let server = Server::start_with(options, Times::default());
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut socket = server.connect();
        socket.write_all(GET.as_bytes()).unwrap();
        idle.push(socket);
        assert_eq!(server.get("/api/v1/status").status, 200);
    }
    assert!(server.refused("displaced") >= 40);
}

#[test]
fn when_every_connection_is_at_work_a_new_one_is_told_and_the_probes_answer() {
    let options = Options { max_connections: 8, ..Options::default() };
    let server = Server::start_with(options, Times::default());
    server.status.update(|status| status.source = super::SourceState::Ready);
    let mut streams: Vec<_> = (0..7).map(|_| server.stream()).collect();
    let mut viewer = server.watch();
    viewer.status();
    let refused = server.get("/api/v1/status");
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert!(refused.head.contains("connection: close"), "{}", refused.head);
    assert!(refused.problem().contains("max_connections"));
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    viewer.status();
    streams.clear();
    server.wait_for("room again", |server| server.get("/api/v1/status").status == 200);
}

#[test]
fn pictures_on_a_foreign_page_take_no_seats() {
    let server = Server::start();
    let foreign = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Dest", "image")];
    for _ in 0..20 {
        assert_eq!(server.ask("GET", "/streams/mjpeg", &foreign).status, 403);
    }
    let seats: Vec<_> = (0..16).map(|_| server.stream()).collect();
    assert_eq!(server.get("/streams/mjpeg").status, 503, "16 is the most");
    drop(seats);
}

#[test]
fn a_live_view_says_words_and_no_books() {
    let server = Server::start();
    let mut viewer = server.watch();
    let tungstenite::stream::MaybeTlsStream::Plain(socket) = viewer.0.get_mut() else {
        panic!("it is plain")
    };
    // The head of a text frame of 8 MB, and as much of it as the box takes.
    let mut frame = vec![0x81, 0xFF];
    frame.extend((8_u64 << 20).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(8 << 20, b'a');
    let written = socket.write_all(&frame);
    let mut rest = Vec::new();
    let read = socket.read_to_end(&mut rest);
    assert!(written.is_err() || read.is_err(), "8 MB were read");
}

#[test]
fn more_commands_than_people_give_are_told_when_to_come_again() {
    let server = Server::start();
    let pause =
        || -> Answer { server.ask("POST", "/api/v1/commands/pause", &[("Content-Length", "0")]) };
    for _ in 0..60 {
        assert_eq!(pause().status, 202);
        assert_eq!(server.orders.take().len(), 1);
    }
    let refused = pause();
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert!(refused.problem().contains("one a second"));
    assert_eq!(server.refused("often"), 1);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(pause().status, 202);
}

#[test]
fn every_refusal_of_a_foreign_request_is_counted() {
    let server = Server::start();
    for _ in 0..30 {
        server.ask("GET", "/api/v1/status", &[("Host", "evil.example")]);
    }
    assert_eq!(server.refused("foreign"), 30);
}
