//! How good a segmentation is: AP at IoU thresholds, precision, recall, panoptic quality.
//!
//! A predicted and a true object match at a threshold when their IoU is at least that; each
//! object matches at most one (best IoU first; above 0.5 there is no choice anyway). With
//! TP, FP and FN counted so, AP = TP/(TP+FP+FN), as StarDist, Cellpose and the 2018 Data
//! Science Bowl have it. **Pooled** sums the counts over all images first; the **per-image
//! mean** is another number. Panoptic quality (Kirillov et al. 2019) is the sum of the
//! matches' IoU over TP + FP/2 + FN/2, at 0.5.

use std::collections::HashMap;

use reticle_domain::label_image::LabelImage;

/// IoU thresholds that are reported: 0.50 to 0.90 in steps of 0.05.
pub const THRESHOLDS: [f64; 9] = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90];

/// Two label images of different size cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the true labels are {truth:?} pixels and the predicted ones {predicted:?}")]
pub struct SizeMismatch {
    /// Width and height of the truth.
    pub truth: (u32, u32),
    /// Width and height of the prediction.
    pub predicted: (u32, u32),
}

/// Counts at one threshold; they add up over images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Matched pairs.
    pub true_positives: u64,
    /// Predicted objects without a match.
    pub false_positives: u64,
    /// True objects without a match.
    pub false_negatives: u64,
    /// Sum of the matched pairs' IoU.
    pub matched_iou: f64,
}

impl Counts {
    /// TP/(TP+FP+FN); 1 where there is nothing and nothing was found.
    pub fn ap(&self) -> f64 {
        ratio(
            self.true_positives as f64,
            (self.true_positives + self.false_positives + self.false_negatives) as f64,
        )
    }

    /// TP/(TP+FP).
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives as f64, (self.true_positives + self.false_positives) as f64)
    }

    /// TP/(TP+FN).
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives as f64, (self.true_positives + self.false_negatives) as f64)
    }

    /// Panoptic quality.
    pub fn panoptic_quality(&self) -> f64 {
        let errors = (self.false_positives + self.false_negatives) as f64 / 2.0;
        ratio(self.matched_iou, self.true_positives as f64 + errors)
    }

    fn add(&mut self, other: &Self) {
        self.true_positives += other.true_positives;
        self.false_positives += other.false_positives;
        self.false_negatives += other.false_negatives;
        self.matched_iou += other.matched_iou;
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 1.0 } else { part / whole }
}

/// Comparison of label images, one or many added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// True objects.
    pub true_objects: u64,
    /// Predicted objects.
    pub predicted_objects: u64,
    /// Counts at each of [`THRESHOLDS`].
    pub at: [Counts; THRESHOLDS.len()],
}

impl Comparison {
    /// Compares one prediction with the truth.
    ///
    /// # Errors
    /// When the images are not of one size.
    pub fn of(truth: &LabelImage, predicted: &LabelImage) -> Result<Self, SizeMismatch> {
        let sizes = [truth, predicted].map(|image| (image.width(), image.height()));
        if sizes[0] != sizes[1] {
            return Err(SizeMismatch { truth: sizes[0], predicted: sizes[1] });
        }
        let overlaps = Overlaps::count(truth, predicted);
        let matches = overlaps.best_matches(THRESHOLDS[0]);
        let (true_objects, predicted_objects) = overlaps.objects();
        let at = THRESHOLDS.map(|threshold| {
            let good = matches.iter().filter(|&&iou| iou >= threshold);
            let true_positives = good.clone().count() as u64;
            Counts {
                true_positives,
                false_positives: predicted_objects - true_positives,
                false_negatives: true_objects - true_positives,
                matched_iou: good.sum(),
            }
        });
        Ok(Self { true_objects, predicted_objects, at })
    }

    /// Adds the counts of another image.
    pub fn add(&mut self, other: &Self) {
        self.true_objects += other.true_objects;
        self.predicted_objects += other.predicted_objects;
        for (mine, theirs) in self.at.iter_mut().zip(&other.at) {
            mine.add(theirs);
        }
    }

    /// Counts at IoU 0.5.
    pub fn at_half(&self) -> &Counts {
        &self.at[0]
    }

    /// |predicted − true| / true objects; for an empty truth the number predicted.
    pub fn count_error(&self) -> f64 {
        let difference = self.predicted_objects.abs_diff(self.true_objects) as f64;
        difference / self.true_objects.max(1) as f64
    }
}

/// Pixel counts of every pair of objects that overlap.
struct Overlaps {
    true_areas: HashMap<u32, u64>,
    predicted_areas: HashMap<u32, u64>,
    shared: HashMap<(u32, u32), u64>,
}

impl Overlaps {
    fn count(truth: &LabelImage, predicted: &LabelImage) -> Self {
        let mut overlaps = Self {
            true_areas: HashMap::new(),
            predicted_areas: HashMap::new(),
            shared: HashMap::new(),
        };
        // Equal neighbours are counted as one run: objects are wide, maps are slow.
        let mut pairs = truth.labels().iter().copied().zip(predicted.labels().iter().copied());
        let Some(mut current) = pairs.next() else { return overlaps };
        let mut run = 1;
        for pair in pairs {
            if pair == current {
                run += 1;
            } else {
                overlaps.add(current, run);
                (current, run) = (pair, 1);
            }
        }
        overlaps.add(current, run);
        overlaps
    }

    fn add(&mut self, (truth, predicted): (u32, u32), pixels: u64) {
        if truth != 0 {
            *self.true_areas.entry(truth).or_default() += pixels;
        }
        if predicted != 0 {
            *self.predicted_areas.entry(predicted).or_default() += pixels;
        }
        if truth != 0 && predicted != 0 {
            *self.shared.entry((truth, predicted)).or_default() += pixels;
        }
    }

    fn objects(&self) -> (u64, u64) {
        (self.true_areas.len() as u64, self.predicted_areas.len() as u64)
    }

    /// IoU of each matched pair of at least `threshold`, every object used once.
    fn best_matches(&self, threshold: f64) -> Vec<f64> {
        let mut pairs: Vec<(f64, u32, u32)> = self
            .shared
            .iter()
            .map(|(&(truth, predicted), &shared)| {
                let union = self.true_areas[&truth] + self.predicted_areas[&predicted] - shared;
                (shared as f64 / union as f64, truth, predicted)
            })
            .filter(|&(iou, ..)| iou >= threshold)
            .collect();
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut used_true = std::collections::HashSet::new();
        let mut used_predicted = std::collections::HashSet::new();
        pairs
            .into_iter()
            .filter(|&(_, truth, predicted)| {
                let is_free = !used_true.contains(&truth) && !used_predicted.contains(&predicted);
                if is_free {
                    used_true.insert(truth);
                    used_predicted.insert(predicted);
                }
                is_free
            })
            .map(|(iou, ..)| iou)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(labels: &[u32]) -> LabelImage {
        LabelImage::new(labels.len() as u32, 1, labels.to_vec()).unwrap()
    }

    #[test]
    fn the_same_labels_under_other_numbers_are_perfect() {
        let comparison = Comparison::of(&row(&[0, 1, 1, 2, 2]), &row(&[0, 9, 9, 4, 4])).unwrap();
        assert!(comparison.at.iter().all(|counts| counts.ap() == 1.0));
        assert_eq!(comparison.at_half().panoptic_quality(), 1.0);
        assert_eq!(comparison.count_error(), 0.0);
    }

    #[test]
    fn thresholds_count_what_reaches_them() {
        // Object 1 overlaps with IoU 3/5 = 0.6, object 2 is missed, object 7 is invented.
        let truth = row(&[1, 1, 1, 1, 0, 2, 2, 0, 0]);
        let predicted = row(&[0, 5, 5, 5, 5, 0, 0, 7, 7]);
        let comparison = Comparison::of(&truth, &predicted).unwrap();
        let counts = |index: usize| {
            let at = comparison.at[index];
            (at.true_positives, at.false_positives, at.false_negatives)
        };
        assert_eq!(counts(0), (1, 1, 1));
        assert_eq!(counts(2), (1, 1, 1), "0.6 reaches the threshold 0.60");
        assert_eq!(counts(3), (0, 2, 2));
        assert!((comparison.at_half().ap() - 1.0 / 3.0).abs() < 1e-12);
        assert!((comparison.at_half().panoptic_quality() - 0.3).abs() < 1e-12);
    }

    #[test]
    fn at_exactly_half_every_object_is_used_once() {
        let comparison = Comparison::of(&row(&[1, 1]), &row(&[3, 4])).unwrap();
        assert_eq!(comparison.at_half().true_positives, 1);
        assert_eq!(comparison.at_half().false_positives, 1);
    }

    #[test]
    fn nothing_found_in_nothing_is_right() {
        let comparison = Comparison::of(&row(&[0, 0]), &row(&[0, 0])).unwrap();
        assert_eq!(comparison.at_half().ap(), 1.0);
    }

    #[test]
    fn images_of_different_size_are_refused() {
        assert!(Comparison::of(&row(&[0, 0]), &row(&[0])).is_err());
    }
}
