//! Percentiles of what was measured lately.

use std::collections::VecDeque;

/// The newest `N` values of something that is measured again and again.
#[derive(Debug, Default)]
pub struct Recent<const N: usize>(VecDeque<f32>);

impl<const N: usize> Recent<N> {
    /// Takes a value in; the oldest makes room for it.
    pub fn add(&mut self, value: f32) {
        if self.0.len() >= N {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// How many values there are, `N` at most.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// For each of `percents` (0 to 100) the value that at least this share of the values does
    /// not exceed (nearest rank: always one that was measured). `None` before the first value.
    pub fn percentiles<const P: usize>(&self, percents: [usize; P]) -> Option<[f32; P]> {
        let mut sorted: Vec<f32> = self.0.iter().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        Some(percents.map(|percent| sorted[rank(percent).min(last)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent<const N: usize>(values: impl IntoIterator<Item = f32>) -> Recent<N> {
        let mut recent = Recent::default();
        values.into_iter().for_each(|value| recent.add(value));
        recent
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let four = recent::<10>([40.0, 10.0, 30.0, 20.0]);
        let told = four.percentiles([0, 25, 26, 50, 95, 100]);
        assert_eq!(told, Some([10.0, 10.0, 20.0, 20.0, 40.0, 40.0]));
        let hundred_and_one = recent::<200>((0..=100).map(|ms| ms as f32));
        assert_eq!(hundred_and_one.percentiles([50, 95]), Some([50.0, 95.0]));
        assert_eq!(recent::<10>([]).percentiles([50]), None);
    }

    #[test]
    fn old_values_are_forgotten() {
        let three = recent::<3>([900.0, 1.0, 2.0, 3.0]);
        assert_eq!((three.count(), three.percentiles([100])), (3, Some([3.0])));
    }
}
