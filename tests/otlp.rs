//! What a collector of OpenTelemetry is sent, read by OpenTelemetry's own messages, and how the
//! daemon does when there is no collector. Only with the feature:
//! `cargo nextest run --release --features otlp --test otlp`.

#![cfg(feature = "otlp")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;

mod common;

use common::{Daemon, Start, free_port, wait_for};

/// The one line about a collector that is away.
const AWAY: &str = "does not take traces or metrics";

/// The line when it is back.
const BACK: &str = "the collector takes traces and metrics again";

/// A daemon that has no collector must not be slower to stop than this.
const STOP: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Received {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

impl Collector {
    /// Listens, also where a daemon already asks in vain.
    fn listen(port: u16) -> (Self, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let collector = Self::default();
        let serving = collector.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let collector = serving.clone();
                thread::spawn(move || collector.serve(stream));
            }
        });
        (collector, port)
    }

    /// Answers the requests of one connection until it is closed.
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some((path, body)) = request(&mut reader) {
            {
                let mut received = self.0.lock().unwrap();
                match path.as_str() {
                    "/v1/traces" => received.traces.push(decoded(&body)),
                    "/v1/metrics" => received.metrics.push(decoded(&body)),
                    other => panic!("nothing is to be sent to {other}"),
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                           content-length: 0\r\n\r\n";
            if writer.write_all(answer).is_err() {
                return;
            }
        }
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let resources = received.traces.iter().flat_map(|request| &request.resource_spans);
        resources
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| scope.spans.clone())
            .collect()
    }

    fn sets(&self) -> usize {
        self.0.lock().unwrap().metrics.len()
    }

    /// The newest set of numbers, by name.
    fn numbers(&self) -> Option<BTreeMap<String, Metric>> {
        let received = self.0.lock().unwrap();
        let resources = &received.metrics.last()?.resource_metrics;
        let metrics = resources.iter().flat_map(|resource| &resource.scope_metrics);
        let metrics = metrics.flat_map(|scope| &scope.metrics);
        Some(metrics.map(|metric| (metric.name.clone(), metric.clone())).collect())
    }

    /// A counter without labels, in the newest set.
    fn count(&self, name: &str) -> Option<i64> {
        match self.numbers()?.remove(name)?.data? {
            metric::Data::Sum(sum) => match sum.data_points.first()?.value? {
                number_data_point::Value::AsInt(count) => Some(count),
                number_data_point::Value::AsDouble(_) => None,
            },
            _ => None,
        }
    }
}

fn decoded<M: prost::Message + Default>(body: &[u8]) -> M {
    M::decode(body).expect("it is the message that belongs to the path")
}

/// Path and body of the next request; `None` when the connection ends.
fn request(reader: &mut impl std::io::BufRead) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    assert!(line.starts_with("POST "), "{line}");
    let mut length = 0;
    let mut kind = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "content-type" => kind = value.trim().to_owned(),
            _ => {}
        }
    }
    assert_eq!(kind, "application/x-protobuf");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

/// A daemon that sends several times a second.
struct Sending {
    _folder: tempfile::TempDir,
    daemon: Daemon,
}

fn sending(port: u16, trace_every: u32) -> Sending {
    sending_with(port, trace_every, "")
}

fn sending_with(port: u16, trace_every: u32, injections: &str) -> Sending {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("reticle.toml");
    let text = format!(
        "[box]\nsite = \"lab\"\nname = \"box-1\"\n\
         [log]\notlp_endpoint = \"http://127.0.0.1:{port}\"\notlp_trace_every = {trace_every}\n"
    );
    std::fs::write(&config, text).unwrap();
    let daemon = Start::default()
        .source("virtual")
        .config(&config)
        .data(folder.path().join("data"))
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .env("RETICLE_INJECT", injections)
        .start();
    Sending { _folder: folder, daemon }
}

fn saved(daemon: &Daemon) -> u64 {
    daemon.json("/api/v1/status")["counters"]["saved"].as_u64().unwrap()
}

fn word<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn assert_is_the_box(resource: Option<&Resource>) {
    let attributes = &resource.expect("who sends is told").attributes;
    assert_eq!(word(attributes, "service.name"), Some("reticle"));
    assert_eq!(word(attributes, "service.version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(word(attributes, "service.instance.id"), Some("lab/box-1"));
}

#[test]
fn a_frame_is_one_trace_from_its_capture_to_its_commit() {
    let (collector, port) = Collector::listen(0);
    let sending = sending(port, 1);
    let root = wait_for("a traced frame with all its parts", || {
        let spans = collector.spans();
        let root = spans.iter().find(|span| span.name == "frame")?.clone();
        Some((root, spans))
    });
    let (root, spans) = root;
    assert!(root.parent_span_id.is_empty(), "{root:?}");
    let frame = word(&root.attributes, "reticle.frame").expect("the frame is named");
    let known = sending.daemon.try_json(&format!("/api/v1/frames/{frame}"));
    assert!(known.is_ok(), "the box does not know the frame {frame}: {known:?}");

    let of_it: Vec<&Span> = spans.iter().filter(|span| span.trace_id == root.trace_id).collect();
    let children = |parent: &Span| -> Vec<&str> {
        let mut children: Vec<&&Span> =
            of_it.iter().filter(|span| span.parent_span_id == parent.span_id).collect();
        children.sort_by_key(|span| span.start_time_unix_nano);
        children.iter().map(|span| span.name.as_str()).collect()
    };
    assert_eq!(children(&root), ["capture", "segment", "show", "commit"]);
    let segment = of_it.iter().find(|span| span.name == "segment").unwrap();
    assert_eq!(children(segment), ["normalise", "network", "instances", "measure"]);
    for span in &of_it {
        let within = root.start_time_unix_nano <= span.start_time_unix_nano
            && span.start_time_unix_nano <= span.end_time_unix_nano
            && span.end_time_unix_nano <= root.end_time_unix_nano;
        assert!(within, "{} is not within its frame: {span:?}\n{root:?}", span.name);
    }
    let received = collector.0.lock().unwrap();
    assert_is_the_box(received.traces[0].resource_spans[0].resource.as_ref());
}

#[test]
fn the_numbers_are_those_of_the_metrics_page() {
    let (collector, port) = Collector::listen(0);
    let sending = sending(port, 10);
    let daemon = &sending.daemon;
    wait_for("a saved frame", || (saved(daemon) > 0).then_some(()));
    let captured = || {
        let text = String::from_utf8(daemon.bytes("/metrics")).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("reticle_frames_captured_total "));
        (line.unwrap().parse::<i64>().unwrap(), text)
    };

    let (before, _) = captured();
    // The set after the next was certainly made after `before` was read.
    let sets = collector.sets();
    wait_for("two more sets of numbers", || (collector.sets() >= sets + 2).then_some(()));
    let sent = collector.count("reticle_frames_captured_total").unwrap();
    let numbers = collector.numbers().unwrap();
    let (after, text) = captured();
    assert!((before..=after).contains(&sent), "{before} ≤ {sent} ≤ {after}");

    let mut told = BTreeSet::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            name = named.split(' ').next().unwrap();
        } else if !line.starts_with('#') && !line.is_empty() && !line.ends_with(" NaN") {
            told.insert(name.to_owned());
        }
    }
    let sent: BTreeSet<String> = numbers.keys().cloned().collect();
    assert_eq!(sent, told);
    let Some(metric::Data::Histogram(times)) = &numbers["reticle_inference_seconds"].data else {
        panic!("no histogram: {numbers:?}");
    };
    let point = &times.data_points[0];
    assert!(point.count > 0);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    assert_eq!(numbers["reticle_inference_seconds"].unit, "s");
    let received = collector.0.lock().unwrap();
    assert_is_the_box(received.metrics[0].resource_metrics[0].resource.as_ref());
}

#[test]
fn one_frame_in_so_many_is_traced_and_the_last_are_sent_at_the_end() {
    let (collector, port) = Collector::listen(0);
    let Sending { _folder, daemon } = sending(port, 5);
    wait_for("eleven saved frames", || (saved(&daemon) >= 11).then_some(()));
    assert!(daemon.stop().success());
    // The last set is made when everything is committed.
    let saved = collector.count("reticle_frames_saved_total").unwrap();
    let traced = collector.spans().iter().filter(|span| span.name == "frame").count();
    assert_eq!(i64::try_from(traced).unwrap(), (saved + 4) / 5, "of {saved} saved frames");
}

#[test]
fn a_sender_that_dies_is_told_of_and_sends_again() {
    let (collector, port) = Collector::listen(0);
    let Sending { _folder, daemon } = sending_with(port, 1, "otlp-panic:3");
    daemon.wait_for_log("a thread died");
    let died = collector.0.lock().unwrap().metrics.len();
    wait_for("the alarm", || {
        let status = daemon.json("/api/v1/status");
        let mut alarms = status["alarms"].as_array()?.iter();
        let alarm = alarms.find(|alarm| alarm["kind"] == "thread_died")?;
        alarm["reason"].as_str()?.starts_with("otlp died (1 times").then_some(())
    });
    wait_for("numbers to be sent again", || {
        (collector.0.lock().unwrap().metrics.len() > died).then_some(())
    });
    assert!(daemon.stop().success());
}

#[test]
fn a_collector_that_is_away_is_told_once_and_once_more_when_it_is_back() {
    let port = free_port();
    let Sending { _folder, daemon } = sending(port, 1);
    daemon.wait_for_log(AWAY);
    let told_at = saved(&daemon);
    wait_for("frames saved without a collector", || (saved(&daemon) >= told_at + 10).then_some(()));
    assert_eq!(daemon.log().matches(AWAY).count(), 1, "{}", daemon.log());

    let (collector, _) = Collector::listen(port);
    daemon.wait_for_log(BACK);
    wait_for("numbers at the collector that came late", || collector.numbers());
    wait_for("spans at the collector that came late", || {
        (!collector.spans().is_empty()).then_some(())
    });
    assert_eq!(daemon.log().matches(AWAY).count(), 1, "{}", daemon.log());
}

#[test]
fn a_collector_that_never_answers_holds_nothing_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let Sending { _folder, daemon } = sending(port, 1);
    // Accepted, read by nobody, and never answered.
    let held = listener.accept().unwrap();
    let before = saved(&daemon);
    wait_for("frames saved while it hangs", || (saved(&daemon) >= before + 10).then_some(()));
    let asked = Instant::now();
    assert!(daemon.stop().success());
    assert!(asked.elapsed() < STOP, "it took {:?} to stop", asked.elapsed());
    drop(held);
}
