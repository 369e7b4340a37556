//! The network's maps → a label image.
//!
//! A watershed that never makes too many seeds: pixels of the foreground are taken from the
//! highest to the lowest, each joins the object of its highest neighbour, and where two
//! objects meet, the lower one is merged into the higher unless it rose at least
//! `merge_height` above the meeting point (its persistence; Edelsbrunner et al., 2002, and
//! the h-maxima of mathematical morphology). Heights are the distance map less a share of
//! the contact map, smoothed.
//!
//! Ties are broken by position, so that the same maps give the same labels everywhere. Time and
//! memory are linear in the pixels, and nearly all of both is spent on the foreground alone:
//! [`heights`] computes how high it lies, [`runs`] lists where it is, [`basins`] does what the
//! flood would do without flooding pixel by pixel, [`holes`] fills what objects enclose.

mod basins;
mod heights;
mod holes;
#[cfg(test)]
mod reference;
mod runs;
#[cfg(test)]
mod tests;
mod uphill;

use reticle_domain::label_image::LabelImage;

/// How objects are read from the maps; part of the model package, chosen on held-out data.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postprocessing {
    /// Foreground probability above which a pixel may belong to an object.
    pub foreground_threshold: f32,
    /// Height an object must have somewhere, or it is dropped; see `sure_threshold`.
    pub seed_threshold: f32,
    /// Foreground probability that keeps an object that is too low: the smallest are low because
    /// heights are smoothed. 1, as in packages that do not say it, keeps none.
    #[serde(default = "keeps_none")]
    pub sure_threshold: f32,
    /// Rise above the meeting point that keeps two objects apart.
    pub merge_height: f32,
    /// How much of the contact map is taken off the distance map.
    pub contact_weight: f32,
    /// Passes of a 3×3 binomial filter over the heights.
    pub smoothing_passes: u32,
    /// Smaller objects are dropped, in pixels.
    pub min_area: u32,
}

fn keeps_none() -> f32 {
    1.0
}

/// The maps of a frame, row-major, values 0 to 1.
#[derive(Default)]
pub struct Maps {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Probability that a pixel is in an object.
    pub foreground: Vec<f32>,
    /// Distance to the object's edge over the object's largest.
    pub distance: Vec<f32>,
    /// Probability that another object is next to it.
    pub contact: Vec<f32>,
    /// Diameter of the object as [`super::size`] has it; means nothing outside objects. Empty
    /// when the network does not give it.
    pub size: Vec<f32>,
}

/// Memory for reading objects from maps, kept from frame to frame.
#[derive(Default)]
pub struct Workspace {
    heights: heights::Heights,
    foreground: runs::Runs,
    basins: basins::Basins,
    objects: runs::Runs,
    holes: holes::Holes,
}

/// Reads objects from maps, in the current rayon pool. What was in `workspace` does not matter.
pub fn from_maps(
    maps: &Maps,
    parameters: &Postprocessing,
    workspace: &mut Workspace,
) -> LabelImage {
    let Workspace { heights, foreground, basins, objects, holes } = workspace;
    let (width, height) = (maps.width, maps.height);
    heights.fill(maps, parameters);
    foreground.clear();
    for y in 0..height {
        foreground.push_row(heights.row(y), y * width);
    }
    let mut labels = vec![0; width * height];
    let count =
        basins.label((heights, &maps.foreground), foreground, parameters, &mut labels, objects);
    holes.fill(objects, &mut labels, width);
    LabelImage::numbered(width as u32, height as u32, count, labels)
}
