//! Two threads that send: spans in batches (the SDK's), and the numbers every few seconds.
//!
//! What is common in OpenTelemetry is read from its environment variables: `OTEL_BSP_*` (queue
//! and pace of spans) and `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds between two sets of numbers).

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::client::Client;
use super::spans::Spans;
use super::{OtlpError, Render, Target, Way, numbers};
use reticle_base::clock::Clock;
use reticle_base::shutdown::Shutdown;
use reticle_base::supervise::Watched;

/// Time between two sets of numbers: as often as Prometheus usually asks.
const EVERY: Duration = Duration::from_secs(15);

/// Overrides [`EVERY`], in milliseconds.
const EVERY_VARIABLE: &str = "OTEL_METRIC_EXPORT_INTERVAL";

/// How long the last numbers may take at the end.
const LAST: Duration = Duration::from_secs(1);

/// What sends. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Export(Arc<Inner>);

struct Inner {
    spans: Spans,
    shutdown: Shutdown,
    numbers: Mutex<Option<Numbers>>,
}

/// The thread of the numbers.
struct Numbers {
    thread: JoinHandle<()>,
    /// Closed when the thread is at its end: a thread cannot be joined for some time only.
    ended: Receiver<()>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").finish_non_exhaustive()
    }
}

impl Export {
    /// Sends from now on. Whether the collector is there does not matter.
    ///
    /// # Errors
    /// When the endpoint is no address, or the machine has no certificates or no thread.
    pub fn start(
        target: &Target,
        render: Render,
        clock: Clock,
        watched: Watched,
    ) -> Result<Self, OtlpError> {
        let client = Arc::new(Client::new(&target.endpoint)?);
        let attributes = resource(target);
        let spans = Spans::new(target, &client, &attributes)?;
        let shutdown = Shutdown::new();
        let every = every(std::env::var(EVERY_VARIABLE).ok().as_deref());
        let (alive, ended) = sync_channel(1);
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn({
            let shutdown = shutdown.clone();
            move || {
                let _alive = alive;
                let started_ns = wall_ns(&clock);
                let life = || loop {
                    let is_last = shutdown.wait(every);
                    watched.pass();
                    let message = request(&render(), &attributes, started_ns, wall_ns(&clock));
                    client.post("/v1/metrics", message);
                    if is_last {
                        return Ok(());
                    }
                };
                while let Some(pause) = watched.attempt(life) {
                    if shutdown.wait(pause) {
                        break;
                    }
                }
            }
        })?;
        let numbers = Mutex::new(Some(Numbers { thread, ended }));
        Ok(Self(Arc::new(Inner { spans, shutdown, numbers })))
    }

    /// The result of a frame was committed. Never waits.
    pub fn frame(&self, way: &Way) {
        self.0.spans.frame(way);
    }

    /// Sends what is left, for two seconds at most; what takes longer ends with the process.
    pub fn stop(&self) {
        self.0.shutdown.request();
        self.0.spans.stop();
        let numbers = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Numbers { thread, ended }) = numbers else { return };
        let is_ended = ended.recv_timeout(LAST) == Err(RecvTimeoutError::Disconnected);
        if is_ended && thread.join().is_err() {
            tracing::error!("the thread otlp panicked; this is a fault in Reticle");
        }
    }
}

/// Who sends, as OpenTelemetry names it.
fn resource(target: &Target) -> Vec<(&'static str, String)> {
    let sender = &target.sender;
    vec![
        ("service.name", "reticle".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", format!("{}/{}", sender.site, sender.name)),
    ]
}

/// What the environment says, or [`EVERY`].
fn every(variable: Option<&str>) -> Duration {
    let told = variable.and_then(|text| text.trim().parse().ok()).filter(|ms| *ms > 0);
    told.map_or(EVERY, Duration::from_millis)
}

fn wall_ns(clock: &Clock) -> u64 {
    u64::try_from(clock.now().wall_ns).unwrap_or(0)
}

/// The message for `/v1/metrics`.
fn request(
    text: &str,
    attributes: &[(&'static str, String)],
    started_ns: u64,
    now_ns: u64,
) -> Vec<u8> {
    let resource = Resource {
        attributes: attributes.iter().map(|(key, value)| numbers::text(key, value)).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "reticle".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_metrics = ScopeMetrics {
        scope: Some(scope),
        metrics: numbers::of(text, started_ns, now_ns),
        ..ScopeMetrics::default()
    };
    let resource_metrics = ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![scope_metrics],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_what_the_environment_says_if_it_says_a_number() {
        assert_eq!(every(Some("250")), Duration::from_millis(250));
        for nothing in [None, Some(""), Some("0"), Some("often")] {
            assert_eq!(every(nothing), EVERY);
        }
    }
}
