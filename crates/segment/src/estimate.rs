//! How large the objects of an unknown frame are, by the network's own size map.
//!
//! The network looks at one window of the frame, at the frame's own scale first. It knows sizes
//! within a few octaves of the model's; where another scale would be nearer it looks again at
//! that one, so that sizes far from the model's are found step by step. Nothing is carried
//! from frame to frame here: the same frame always has the same scale.

use std::borrow::Cow;

use super::instances::Maps;
use super::network::{Network, NetworkError, Tiles};
use super::scale::{Plane, Scale};
use super::signal::Signal;
use super::size;

/// Edge of the window, in pixels at the scale that is tried: some hundred objects.
const WINDOW: usize = 256;

/// Looks at most. The first is seldom more than one octave off, but where it is, it says too little.
const LOOKS: usize = 5;

/// Objects that look this much smaller than the model's, in octaves, are looked at from further
/// away. On the held-out images, as they are and enlarged, all mistakes had less than this.
const LOOKS_SMALL: f32 = -0.25;

/// So are those of which the network is sure of less than this share of their pixels: from too
/// near, blobs within objects may look as large as the model's, but not as clear.
const UNSURE: f32 = 0.7;

/// By how much they may look smaller from further away, in octaves. What is an object of its own
/// gets smaller by a whole one.
const NOT_SMALLER: f32 = 0.3;

/// Until here a frame is looked at from further away that shows signal but no objects.
const FURTHEST_UNSEEN: f32 = 0.25;

/// Cells along the window's edge when it is placed.
const CELLS: usize = 8;

/// Normalised grey value from which on a pixel counts as signal when the window is placed.
const SIGNAL: f32 = 0.3;

/// Fewer pixels of objects say nothing about their size.
const FEWEST_PIXELS: f32 = 25.0;

/// Foreground probability from which on the network is sure of a pixel.
const SURE: f32 = 0.9;

/// Bins of the histogram of sizes, over the whole range of the map.
const BINS: usize = 96;

/// What a frame was estimated to need.
pub(super) struct Estimate {
    /// The scale; the frame's own where it shows nothing, or the network gives no sizes.
    pub(super) scale: Scale,
    /// Whether objects were seen that say so.
    pub(super) seen: bool,
    /// Of the run at that scale.
    pub(super) tiles: Tiles,
}

/// Runs `network` at the scale at which the objects of `native` have about the size that it is
/// made for.
///
/// # Errors
/// When the network fails.
pub(super) fn run(
    network: &Network,
    native: &Plane,
    signal: &Signal,
    maps: &mut Maps,
) -> Result<Estimate, NetworkError> {
    if !signal.anywhere() {
        // Nothing to look at, so no tile runs.
        let tiles = network.run_where(native, signal, maps)?;
        return Ok(Estimate { scale: Scale::NATIVE, seen: false, tiles });
    }
    let last = Last::default();
    let mut looks = Looks { network, native, maps, last, spare: Maps::default() };
    let found = looks.find()?;
    let scale = found.map_or(Scale::NATIVE, |(tried, octaves)| tried.smaller_by(octaves));
    let tiles = if looks.last.whole == Some(scale) {
        looks.last.tiles
    } else {
        network.run_where(&native.at(scale), &signal.at(scale), looks.maps)?
    };
    Ok(Estimate { scale, seen: found.is_some(), tiles })
}

/// How many times as large as the model's own the objects are that `maps` show at `scale`, in pixels of
/// the frame; `None` where there are too few to say so, or the network gives no sizes.
pub(super) fn diameter_ratio(maps: &Maps, scale: Scale) -> Option<f32> {
    if maps.size.is_empty() {
        return None;
    }
    Objects::of(maps)
        .filter(|seen| seen.sure >= UNSURE)
        .map(|seen| libm::exp2f(seen.octaves) / scale.factor())
}

/// The same as the picture alone says it, looked at in every scale that takes.
///
/// # Errors
/// When the network fails.
pub(super) fn look_for_ratio(
    network: &Network,
    native: &Plane,
) -> Result<Option<f32>, NetworkError> {
    let (last, mut maps) = (Last::default(), Maps::default());
    let mut looks = Looks { network, native, maps: &mut maps, last, spare: Maps::default() };
    let found = looks.find()?;
    Ok(found.map(|(tried, octaves)| libm::exp2f(octaves) / tried.factor()))
}

struct Looks<'a> {
    network: &'a Network,
    native: &'a Plane,
    /// Of the last look.
    maps: &'a mut Maps,
    last: Last,
    /// Memory for a look that may not be the last.
    spare: Maps,
}

/// What the last look was at.
#[derive(Default)]
struct Last {
    /// Its scale, where it was at the whole frame.
    whole: Option<Scale>,
    tiles: Tiles,
}

impl Looks<'_> {
    /// The scale at which objects were nearest to the model's size, and by how many octaves they were
    /// too large there; `None` where there are none, or the network gives no sizes.
    fn find(&mut self) -> Result<Option<(Scale, f32)>, NetworkError> {
        if !self.network.gives_sizes() {
            return Ok(None);
        }
        let mut scale = Scale::NATIVE;
        // What was tried, and how many octaves from the model's size objects were there.
        let mut tried: Vec<(Scale, f32)> = Vec::with_capacity(LOOKS);
        for _ in 0..LOOKS {
            let Some(mut seen) = self.at(scale)? else {
                // From too near an object may be too dull to be seen. Two steps further away
                // what appears is an object; from even further any stain is.
                if tried.is_empty() && scale.factor() > FURTHEST_UNSEEN {
                    scale = scale.smaller_by(1.0);
                    continue;
                }
                break;
            };
            // Spots within objects much too large look like small or unclear objects. From further
            // away small objects look smaller still, or flow together; spots do not, and the
            // objects appear.
            while seen.octaves < LOOKS_SMALL || seen.sure < UNSURE {
                let away = scale.smaller_by(1.0);
                if away == scale {
                    break;
                }
                let Some(there) = self.clearer_at(away, seen)? else { break };
                (scale, seen) = (away, there);
            }
            tried.push((scale, seen.octaves));
            scale = scale.smaller_by(seen.octaves);
            if tried.iter().any(|&(before, _)| before == scale) {
                break;
            }
        }
        // Where two scales point at each other, the one that is less off.
        Ok(tried.into_iter().min_by(|a, b| a.1.abs().total_cmp(&b.1.abs())))
    }

    /// The objects at `scale`; `None` where there are none.
    fn at(&mut self, scale: Scale) -> Result<Option<Objects>, NetworkError> {
        self.last = look(self.network, self.native, scale, self.maps)?;
        Ok(Objects::of(self.maps))
    }

    /// The same where objects are clearer than `before` at `scale` and larger, or not much smaller if
    /// they were unclear; elsewhere the look before stays the last one.
    fn clearer_at(
        &mut self,
        scale: Scale,
        before: Objects,
    ) -> Result<Option<Objects>, NetworkError> {
        let last = look(self.network, self.native, scale, &mut self.spare)?;
        let slack = if before.sure < UNSURE { NOT_SMALLER } else { 0.0 };
        let clearer = Objects::of(&self.spare)
            .filter(|there| there.octaves > before.octaves - slack && there.sure > before.sure);
        if clearer.is_some() {
            std::mem::swap(self.maps, &mut self.spare);
            self.last = last;
        }
        Ok(clearer)
    }
}

/// Looks at the frame, or at a window of it, at `scale`.
fn look(
    network: &Network,
    native: &Plane,
    scale: Scale,
    maps: &mut Maps,
) -> Result<Last, NetworkError> {
    let plane = native.at(scale);
    let window = plane.window(WINDOW);
    // All of it: what is background in a window full of objects is not to be seen there.
    let tiles = network.run_where(&window, &Signal::everywhere(&window), maps)?;
    Ok(Last { whole: matches!(window, Cow::Borrowed(_)).then_some(scale), tiles })
}

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Objects {
    /// Doublings from the model's own diameter to that of the median object.
    octaves: f32,
    /// Share of their pixels of which the network is sure.
    sure: f32,
}

impl Objects {
    fn of(maps: &Maps) -> Option<Self> {
        let mut histogram = [0.0_f32; BINS];
        let (mut pixels, mut sure) = (0.0, 0.0);
        for (&foreground, &value) in maps.foreground.iter().zip(&maps.size) {
            if foreground > 0.5 {
                let bin = (value * BINS as f32) as usize;
                // An object of twice the diameter has four times as many pixels and is one object.
                histogram[bin.min(BINS - 1)] += size::ratio_of(value).powi(-2);
                pixels += 1.0;
                sure += f32::from(u8::from(foreground > SURE));
            }
        }
        if pixels < FEWEST_PIXELS {
            return None;
        }
        let half = histogram.iter().sum::<f32>() / 2.0;
        let mut below = 0.0;
        let median = histogram.iter().position(|weight| {
            below += weight;
            below >= half
        })?;
        let ratio = size::ratio_of((median as f32 + 0.5) / BINS as f32);
        Some(Self { octaves: libm::log2f(ratio), sure: sure / pixels })
    }
}

impl Plane {
    /// The square part of at most `edge × edge` with the most signal; the first in reading order
    /// where several have it.
    fn window(&self, edge: usize) -> Cow<'_, Self> {
        if self.width <= edge && self.height <= edge {
            return Cow::Borrowed(self);
        }
        let cell = edge / CELLS;
        let (columns, rows) = (self.width.div_ceil(cell), self.height.div_ceil(cell));
        let mut signal = vec![0_u32; columns * rows];
        for (y, line) in self.values.chunks_exact(self.width).enumerate() {
            let cells = &mut signal[y / cell * columns..][..columns];
            for (pixels, cell) in line.chunks(cell).zip(cells) {
                *cell += pixels.iter().filter(|value| **value > SIGNAL).count() as u32;
            }
        }
        let (wide, high) = (CELLS.min(columns), CELLS.min(rows));
        let sum = |row: usize, column: usize| -> u32 {
            (row..row + high)
                .map(|row| signal[row * columns + column..][..wide].iter().sum::<u32>())
                .sum()
        };
        let places = (0..=rows - high).flat_map(|row| (0..=columns - wide).map(move |c| (row, c)));
        let (row, column) = places
            .max_by_key(|&(row, column)| {
                (sum(row, column), std::cmp::Reverse(row), std::cmp::Reverse(column))
            })
            .unwrap_or((0, 0));
        let top = (row * cell).min(self.height.saturating_sub(edge));
        let left = (column * cell).min(self.width.saturating_sub(edge));
        let (width, height) = (edge.min(self.width), edge.min(self.height));
        let values = (top..top + height)
            .flat_map(|y| &self.values[y * self.width + left..][..width])
            .copied()
            .collect();
        Cow::Owned(Self { width, height, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(of: &[(f32, f32, usize)]) -> Maps {
        let mut maps = Maps::default();
        for &(foreground, ratio, pixels) in of {
            maps.foreground.extend(std::iter::repeat_n(foreground, pixels));
            maps.size.extend(std::iter::repeat_n(size::value_of(ratio), pixels));
        }
        maps
    }

    #[test]
    fn the_median_counts_objects_and_not_pixels() {
        // Three small objects of 50 pixels and one eight times as wide.
        let objects = Objects::of(&maps(&[(0.8, 0.5, 150), (0.95, 4.0, 3200)])).unwrap();
        assert!((objects.octaves + 1.0).abs() < 0.1, "{objects:?}");
        assert!((objects.sure - 3200.0 / 3350.0).abs() < 1e-3, "{objects:?}");
    }

    #[test]
    fn background_and_a_speck_say_nothing() {
        assert_eq!(Objects::of(&maps(&[(0.2, 1.0, 5000), (0.9, 1.0, 20)])), None);
    }

    #[test]
    fn the_window_is_where_the_signal_is() {
        let (width, height) = (700, 300);
        let mut plane = Plane { width, height, values: vec![0.0; width * height] };
        for y in 150..250 {
            plane.values[y * width + 500..y * width + 620].fill(1.0);
        }
        let window = plane.window(WINDOW);
        assert_eq!((window.width, window.height), (WINDOW, WINDOW));
        let signal = window.values.iter().filter(|value| **value > SIGNAL).count();
        assert_eq!(signal, 100 * 120);
    }

    #[test]
    fn a_frame_that_is_narrow_keeps_its_width() {
        let plane = Plane { width: 100, height: 1000, values: vec![0.5; 100_000] };
        let window = plane.window(WINDOW);
        assert_eq!((window.width, window.height), (100, WINDOW));
    }
}
