//! The text of `/metrics` as OTLP's metrics: the same names, labels and values.
//!
//! Reads what [`super::super::metrics`] renders, line by line; a line that it does not know is
//! passed over. A counter becomes a sum since the start, a histogram keeps its buckets (counted
//! each for itself, as OTLP wants, and not up to each bound).

use std::collections::BTreeMap;

use metrics::Unit;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
    metric, number_data_point,
};

use crate::telemetry::metrics::{FAMILIES, Family, Kind};

type Labels = Vec<(String, String)>;

/// One line of the text.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: Labels,
    value: &'a str,
}

/// The times of a set of numbers, nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Times {
    started_ns: u64,
    now_ns: u64,
}

/// An attribute with a text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// All families of which `text` has a known value.
pub(super) fn of(text: &str, started_ns: u64, now_ns: u64) -> Vec<Metric> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples: Vec<Sample> = lines.filter_map(sample).collect();
    let times = Times { started_ns, now_ns };
    FAMILIES.iter().filter_map(|family| metric(family, &samples, times)).collect()
}

fn metric(family: &Family, samples: &[Sample], times: Times) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative.into();
    let own = || samples.iter().filter(|sample| sample.name == family.name);
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: own().filter_map(|sample| count(sample, times)).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: own().filter_map(|sample| level(sample, times)).collect(),
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: distributions(family.name, samples, times),
            aggregation_temporality: cumulative,
        }),
    };
    let is_empty = match &data {
        metric::Data::Sum(sum) => sum.data_points.is_empty(),
        metric::Data::Gauge(gauge) => gauge.data_points.is_empty(),
        metric::Data::Histogram(histogram) => histogram.data_points.is_empty(),
        _ => true,
    };
    (!is_empty).then(|| Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(&family.unit).to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

/// Units as UCUM writes them, which OTLP wants.
fn unit(unit: &Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        _ => "1",
    }
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| text(key, value)).collect()
}

fn count(sample: &Sample, times: Times) -> Option<NumberDataPoint> {
    Some(NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: times.started_ns,
        time_unix_nano: times.now_ns,
        value: Some(number_data_point::Value::AsInt(sample.value.parse().ok()?)),
        ..NumberDataPoint::default()
    })
}

fn level(sample: &Sample, times: Times) -> Option<NumberDataPoint> {
    let value: f64 = sample.value.parse().ok()?;
    (!value.is_nan()).then(|| NumberDataPoint {
        attributes: attributes(&sample.labels),
        time_unix_nano: times.now_ns,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    })
}

/// The histograms of one name, one for each set of labels.
fn distributions(name: &str, samples: &[Sample], times: Times) -> Vec<HistogramDataPoint> {
    /// Upper bounds with the counts up to them, the last without a bound.
    #[derive(Default)]
    struct Found {
        up_to: Vec<(f64, u64)>,
        sum: Option<f64>,
        count: Option<u64>,
    }
    let mut found: BTreeMap<Labels, Found> = BTreeMap::new();
    for sample in samples {
        let Some(part) = sample.name.strip_prefix(name) else { continue };
        let mut labels = sample.labels.clone();
        let bound = labels.iter().position(|(key, _)| key == "le").map(|at| labels.remove(at).1);
        match (part, bound) {
            ("_bucket", Some(bound)) => {
                let (Ok(bound), Ok(count)) = (bound.parse(), sample.value.parse()) else {
                    continue;
                };
                found.entry(labels).or_default().up_to.push((bound, count));
            }
            ("_sum", None) => found.entry(labels).or_default().sum = sample.value.parse().ok(),
            ("_count", None) => found.entry(labels).or_default().count = sample.value.parse().ok(),
            _ => {}
        }
    }
    let points = found.into_iter().filter_map(|(labels, mut found)| {
        found.up_to.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let before = std::iter::once(0).chain(found.up_to.iter().map(|(_, count)| *count));
        let each = found.up_to.iter().zip(before);
        let bounds = found.up_to.iter().map(|(bound, _)| *bound);
        Some(HistogramDataPoint {
            attributes: attributes(&labels),
            start_time_unix_nano: times.started_ns,
            time_unix_nano: times.now_ns,
            count: found.count?,
            sum: found.sum,
            bucket_counts: each.map(|((_, count), before)| count.saturating_sub(before)).collect(),
            explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
            ..HistogramDataPoint::default()
        })
    });
    points.collect()
}

/// `name{label="value",other="value"} 1.5`, as Prometheus writes it.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (series, Labels::new()),
    };
    Some(Sample { name, labels, value })
}

fn labels(mut text: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => value.push(match characters.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.push((key.trim_start_matches(',').to_owned(), value));
        text = characters.as_str();
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;
    use reticle_base::clock::Clock;
    use reticle_domain::segmentation::Timings;
    use reticle_domain::status::{Counters, Status};

    fn rendered() -> String {
        let metrics = Metrics::new();
        metrics.segmented(&Timings { network_us: 200_000, ..Timings::default() }, 12);
        metrics.segmented(&Timings { network_us: 40_000_000, ..Timings::default() }, 8);
        let counters = Counters { captured: 40, skipped: 10, ..Counters::default() };
        metrics.render(&Status { counters, ..Status::default() }, 3, &Clock::manual(7).now())
    }

    fn named<'a>(metrics: &'a [Metric], name: &str) -> Option<&'a metric::Data> {
        metrics.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.as_ref())
    }

    #[test]
    fn a_line_is_read_with_its_labels_whatever_is_in_them() {
        let line = r#"a_total{stage="x",place="s3://lab \"1\"\\"} 7"#;
        let labels = vec![
            ("stage".to_owned(), "x".to_owned()),
            ("place".to_owned(), "s3://lab \"1\"\\".to_owned()),
        ];
        assert_eq!(sample(line), Some(Sample { name: "a_total", labels, value: "7" }));
        assert_eq!(sample("a{b=\"c} 1"), None);
    }

    #[test]
    fn counters_and_gauges_keep_names_labels_and_values_and_nan_is_left_out() {
        let metrics = of(&rendered(), 5, 7);
        let Some(metric::Data::Sum(sum)) = named(&metrics, "reticle_frames_skipped_total") else {
            panic!("no sum in {metrics:?}");
        };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsInt(10)));
        assert_eq!(sum.data_points[0].attributes, [text("stage", "segment")]);
        assert_eq!(sum.data_points[0].start_time_unix_nano, 5);
        let Some(metric::Data::Gauge(gauge)) = named(&metrics, "reticle_viewers") else {
            panic!("no gauge in {metrics:?}");
        };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(3.0)));
        assert!(named(&metrics, "reticle_focus").is_none(), "not known yet");
    }

    #[test]
    fn buckets_are_counted_each_for_itself() {
        let metrics = of(&rendered(), 5, 7);
        let Some(metric::Data::Histogram(histogram)) = named(&metrics, "reticle_inference_seconds")
        else {
            panic!("no histogram in {metrics:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (2, Some(40.2)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 2);
        assert_eq!(point.bucket_counts.last(), Some(&1), "40 s is beyond the last bound");
        let at = point.explicit_bounds.iter().position(|bound| *bound == 0.2).unwrap();
        assert_eq!(point.bucket_counts[at], 1);
        let Some(metric::Data::Histogram(parts)) = named(&metrics, "reticle_stage_seconds") else {
            panic!("no histogram in {metrics:?}");
        };
        assert_eq!(parts.data_points.len(), 4);
    }
}
