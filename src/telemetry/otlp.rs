//! OTLP: the way of frames and the numbers of `/metrics`, sent to a collector of OpenTelemetry.
//!
//! Compiled in only with the cargo feature `otlp`; without it [`Export`] cannot be made, and
//! [`complaint`] says what to do instead.
//!
//! Promises:
//! 1. The daemon never waits for the collector. Spans go through a bounded queue to a thread of
//!    their own, and what has no room there is dropped; numbers are made and sent by another.
//! 2. A collector that is away or refuses is told in the log once, and once more when it is back.
//! 3. The numbers are those of [`super::metrics`], read from what it renders: there is no second
//!    account of them. What is not known (NaN) is left out.
//! 4. One frame in `otlp_trace_every` is traced, counted over the frames that were saved.
//!
//! The names of spans are `frame` (capture to committed) and in it `capture`, `segment` (with
//! `normalise`, `network`, `instances`, `measure`), `show` and `commit`. They stay.

use reticle_base::address;
use reticle_base::clock::Stamp;
use reticle_base::ids::FrameId;
use reticle_domain::facts::BoxName;
use reticle_domain::segmentation::Timings;

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod client;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod numbers;
#[cfg(feature = "otlp")]
mod spans;

#[cfg(not(feature = "otlp"))]
pub use absent::Export;
#[cfg(feature = "otlp")]
pub use export::Export;

/// What is known of a frame's way once its result is committed.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Which frame.
    pub frame: FrameId,
    /// Number that the source counted.
    pub sequence: u64,
    /// Objects that were found.
    pub objects: u32,
    /// When the first pixel was there.
    pub captured: Stamp,
    /// When it was segmented.
    pub segmented: Stamp,
    /// Where the time of segmenting went.
    pub timings: Timings,
    /// When it had been shown and was handed to the store.
    pub handed_on: Stamp,
    /// When its result was on the disk.
    pub saved: Stamp,
}

/// Where things go, and under which name.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address of the collector, as `http://collector:4318`.
    pub endpoint: String,
    /// One in so many frames is traced; at least 1.
    pub trace_every: u32,
    /// Who sends.
    pub sender: BoxName,
}

/// Renders the numbers as `/metrics` has them now.
pub type Render = Box<dyn Fn() -> String + Send>;

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The address or the TLS of this machine does not serve.
    #[error(
        "nothing can be sent to [log] otlp_endpoint = \"{}\": {reason}",
        address::shown(endpoint)
    )]
    Unusable {
        /// The address.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// The system gives no thread.
    #[error("cannot start the thread otlp")]
    NoThread(#[from] std::io::Error),
}

/// What is wrong with `endpoint` in this build, and what to do; `None` where it serves.
pub fn complaint(endpoint: &str) -> Option<String> {
    if !cfg!(feature = "otlp") {
        return Some(
            "asks for OTLP, which this build has not: build with `cargo build --release --features \
             otlp`, or leave the key out and let the collector scrape /metrics"
                .to_owned(),
        );
    }
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let is_address = host.is_some_and(|host| {
        !host.is_empty()
            && !host.starts_with('/')
            && !host.contains(['?', '#'])
            && !host.contains(char::is_whitespace)
    });
    (!is_address).then(|| {
        format!(
            "is \"{}\", but must be an address as \"http://collector:4318\" (OTLP over HTTP)",
            address::shown(endpoint)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "otlp"))]
    #[test]
    fn a_build_without_otlp_refuses_every_endpoint_and_says_what_to_do() {
        let complaint = complaint("http://collector:4318").unwrap();
        assert!(complaint.contains("--features otlp"), "{complaint}");
        assert!(complaint.contains("leave the key out"), "{complaint}");
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn an_endpoint_is_an_address_of_http() {
        for sound in ["http://collector:4318", "https://lab.example/otlp/", "http://[::1]:4318"] {
            assert_eq!(complaint(sound), None);
        }
        for wrong in
            ["", "collector:4318", "grpc://collector:4317", "http://", "http:///v1", "http://a b"]
        {
            assert!(complaint(wrong).is_some(), "{wrong}");
        }
    }
}
