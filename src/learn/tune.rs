//! Chooses post-processing on held-out images: the network runs once, then coordinate
//! descent over a small grid for pooled AP, averaged over IoU 0.5 to 0.9.

use std::sync::Arc;

use rayon::prelude::*;

use reticle_domain::frame::Frame;
use reticle_domain::label_image::LabelImage;
use reticle_segment::instances::Postprocessing;
use reticle_segment::scoring::{Comparison, Counts, SizeMismatch, THRESHOLDS};
use reticle_segment::{ScaledMaps, SegmentError, Segmenter};

/// Where the search begins; also what a package without held-out data gets.
pub const START: Postprocessing = Postprocessing {
    foreground_threshold: 0.5,
    seed_threshold: 0.35,
    sure_threshold: 0.98,
    merge_height: 0.2,
    contact_weight: 0.5,
    smoothing_passes: 2,
    min_area: 16,
};

/// Rounds over all parameters: the second one sees what the first one changed elsewhere.
const ROUNDS: usize = 2;

/// Why nothing was chosen.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The network failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Labels do not fit their image.
    #[error(transparent)]
    Size(#[from] SizeMismatch),
}

/// Finds the parameters under which `segmenter` does best on `held_out`.
///
/// # Errors
/// When the network fails or labels have another size than their image.
pub fn choose(
    segmenter: &mut Segmenter,
    held_out: &[(Arc<Frame>, LabelImage)],
) -> Result<(Postprocessing, Comparison), TuneError> {
    let maps = held_out
        .iter()
        .map(|(frame, _)| segmenter.maps(frame))
        .collect::<Result<Vec<ScaledMaps>, _>>()?;
    let truths: Vec<&LabelImage> = held_out.iter().map(|(_, truth)| truth).collect();
    let mut best = START;
    let mut best_result = score(&maps, &truths, &best)?;
    for _ in 0..ROUNDS {
        for candidate_of in variations() {
            for candidate in candidate_of(best) {
                let result = score(&maps, &truths, &candidate)?;
                if quality(&result) > quality(&best_result) {
                    (best, best_result) = (candidate, result);
                }
            }
        }
    }
    Ok((best, best_result))
}

/// Mean over the thresholds of pooled AP.
fn quality(comparison: &Comparison) -> f64 {
    comparison.at.iter().map(Counts::ap).sum::<f64>() / THRESHOLDS.len() as f64
}

fn score(
    maps: &[ScaledMaps],
    truths: &[&LabelImage],
    parameters: &Postprocessing,
) -> Result<Comparison, SizeMismatch> {
    let each: Vec<_> = maps
        .par_iter()
        .zip(truths)
        .map(|(maps, truth)| Comparison::of(truth, &maps.labels(parameters)))
        .collect();
    let mut pooled = Comparison::default();
    for comparison in each {
        pooled.add(&comparison?);
    }
    Ok(pooled)
}

type Variation = fn(Postprocessing) -> Vec<Postprocessing>;

/// One parameter changed at a time, most influential first.
fn variations() -> [Variation; 7] {
    [
        |base| {
            [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6]
                .map(|merge_height| Postprocessing { merge_height, ..base })
                .to_vec()
        },
        |base| {
            [0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75]
                .map(|foreground_threshold| Postprocessing { foreground_threshold, ..base })
                .to_vec()
        },
        |base| {
            [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
                .map(|seed_threshold| Postprocessing { seed_threshold, ..base })
                .to_vec()
        },
        |base| {
            [0.0, 0.25, 0.5, 0.75, 1.0]
                .map(|contact_weight| Postprocessing { contact_weight, ..base })
                .to_vec()
        },
        |base| {
            [1, 2, 3, 4]
                .map(|smoothing_passes| Postprocessing { smoothing_passes, ..base })
                .to_vec()
        },
        |base| {
            [8, 12, 16, 24, 32, 48, 64].map(|min_area| Postprocessing { min_area, ..base }).to_vec()
        },
        |base| {
            [0.8, 0.9, 0.95, 0.98, 0.99, 1.0]
                .map(|sure_threshold| Postprocessing { sure_threshold, ..base })
                .to_vec()
        },
    ]
}
