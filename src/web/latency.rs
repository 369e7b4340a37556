//! How long frames took from capture to the screen, by the box's clock alone.

use std::time::Duration;

use super::wire::ScreenTime;
use reticle_base::quantile::Recent;

/// Number of newest frames that the figures are taken over.
const WINDOW: usize = 200;

/// Times of the last frames that were seen on a screen.
#[derive(Debug, Default)]
pub(crate) struct Latency(Recent<WINDOW>);

impl Latency {
    /// A frame was on the screen `took` after it was captured.
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.add(took.as_secs_f32() * 1_000.0);
    }

    /// `None` before the first frame.
    pub(crate) fn summary(&self) -> Option<ScreenTime> {
        let [p50_ms, p95_ms] = self.0.percentiles([50, 95])?;
        Some(ScreenTime { p50_ms, p95_ms, frames: self.0.count() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_200_frames() {
        let mut latency = Latency::default();
        assert_eq!(latency.summary(), None);
        latency.add(Duration::from_secs(9));
        for ms in 1..=200 {
            latency.add(Duration::from_millis(ms));
        }
        let summary = latency.summary().unwrap();
        assert_eq!((summary.p50_ms, summary.p95_ms, summary.frames), (100.0, 190.0, 200));
    }
}
