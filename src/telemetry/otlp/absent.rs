//! The build without OTLP: the same names, and nothing behind them.

use super::{OtlpError, Render, Target, Way};
use reticle_base::clock::Clock;
use reticle_base::supervise::Watched;

/// There is none in this build.
#[derive(Clone, Debug)]
pub enum Export {}

impl Export {
    /// Never gives one; the configuration was refused before ([`super::complaint`]).
    ///
    /// # Errors
    /// Always: this build cannot send.
    pub fn start(
        target: &Target,
        _render: Render,
        _clock: Clock,
        _watched: Watched,
    ) -> Result<Self, OtlpError> {
        let reason = super::complaint(&target.endpoint).unwrap_or_default();
        Err(OtlpError::Unusable { endpoint: target.endpoint.clone(), reason })
    }

    /// Nobody can call it.
    pub fn frame(&self, _way: &Way) {
        match *self {}
    }

    /// Nobody can call it.
    pub fn stop(&self) {
        match *self {}
    }
}
