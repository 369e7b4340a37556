//! The way of one frame as spans of one trace.
//!
//! They are made after the fact, from times that were taken anyway: a stage carries no trace
//! with it, and a frame that is not traced costs one addition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span, SpanBuilder, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::client::Client;
use super::{OtlpError, Target, Way};
use reticle_base::clock::Stamp;

/// How long the last spans may take at the end.
const LAST: Duration = Duration::from_secs(1);

/// Makes spans and hands them to the thread that sends them.
pub(super) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    every: u64,
    frames: AtomicU64,
}

impl Spans {
    pub(super) fn new(
        target: &Target,
        client: &Arc<Client>,
        attributes: &[(&'static str, String)],
    ) -> Result<Self, OtlpError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(client) as Arc<dyn HttpClient>)
            .with_endpoint(client.address("/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| OtlpError::Unusable {
                endpoint: target.endpoint.clone(),
                reason: error.to_string(),
            })?;
        let attributes = attributes.iter().map(|(key, value)| KeyValue::new(*key, value.clone()));
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder_empty().with_attributes(attributes).build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self {
            tracer: provider.tracer("reticle"),
            provider,
            every: u64::from(target.trace_every.max(1)),
            frames: AtomicU64::new(0),
        })
    }

    /// Traces this frame if it is its turn.
    pub(super) fn frame(&self, way: &Way) {
        if self.frames.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) {
            record(&self.tracer, way);
        }
    }

    /// Sends what is there, for a second at most.
    pub(super) fn stop(&self) {
        // Whether the collector was there stands in the log.
        self.provider.shutdown_with_timeout(LAST).ok();
    }
}

fn record<T: Tracer>(tracer: &T, way: &Way)
where
    T::Span: Send + Sync + 'static,
{
    let at = |stamp: &Stamp| at(&way.captured, stamp);
    let root =
        SpanBuilder::from_name("frame").with_start_time(at(&way.captured)).with_attributes([
            KeyValue::new("reticle.frame", way.frame.to_string()),
            KeyValue::new("reticle.sequence", i64::try_from(way.sequence).unwrap_or(i64::MAX)),
            KeyValue::new("reticle.objects", i64::from(way.objects)),
        ]);
    let root = tracer.build_with_context(root, &Context::new());
    let context = Context::new().with_span(root);
    let part = |name: &'static str, parent: &Context, from: SystemTime, to: SystemTime| {
        let span = SpanBuilder::from_name(name).with_start_time(from);
        tracer.build_with_context(span, parent).end_with_timestamp(to);
    };

    let segmented = at(&way.segmented);
    let begun = segmented - Duration::from_micros(way.timings.total_us());
    part("capture", &context, at(&way.captured), begun.max(at(&way.captured)));
    let segment = SpanBuilder::from_name("segment").with_start_time(begun);
    let segment = context.with_span(tracer.build_with_context(segment, &context));
    let mut from = begun;
    for (name, took_us) in [
        ("normalise", way.timings.normalise_us),
        ("network", way.timings.network_us),
        ("instances", way.timings.instances_us),
        ("measure", way.timings.measure_us),
    ] {
        let to = from + Duration::from_micros(took_us);
        part(name, &segment, from, to);
        from = to;
    }
    segment.span().end_with_timestamp(segmented);
    part("show", &context, segmented, at(&way.handed_on));
    part("commit", &context, at(&way.handed_on), at(&way.saved));
    context.span().end_with_timestamp(at(&way.saved));
}

/// Wall time of `stamp` by the clock as it stood at `first`: a clock that is set in between
/// moves no span.
fn at(first: &Stamp, stamp: &Stamp) -> SystemTime {
    let wall_ns = u64::try_from(first.wall_ns).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns) + stamp.since(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;

    #[test]
    fn a_clock_that_is_set_moves_no_span() {
        let clock = Clock::manual(1_700_000_000_000_000_000);
        let captured = clock.now();
        clock.advance(Duration::from_millis(40));
        let set_back = Stamp { wall_ns: 0, ..clock.now() };
        let took = at(&captured, &set_back).duration_since(at(&captured, &captured)).unwrap();
        assert_eq!(took, Duration::from_millis(40));
    }
}
