//! What is measured on one object, by the names of scikit-image's `regionprops_table`.

/// One segmented object. Lengths are in pixels, areas in pixels, intensities in grey values.
///
/// `centroid_0` is the row and `centroid_1` the column, as in scikit-image; the bounding box
/// is half open: rows `bbox_0..bbox_2`, columns `bbox_1..bbox_3`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// Value in the label image, from 1.
    pub label: u32,
    /// Number of pixels.
    pub area: u32,
    /// Row of the centre of mass.
    #[serde(rename = "centroid-0")]
    pub centroid_0: f64,
    /// Column of the centre of mass.
    #[serde(rename = "centroid-1")]
    pub centroid_1: f64,
    /// First row.
    #[serde(rename = "bbox-0")]
    pub bbox_0: u32,
    /// First column.
    #[serde(rename = "bbox-1")]
    pub bbox_1: u32,
    /// Row after the last.
    #[serde(rename = "bbox-2")]
    pub bbox_2: u32,
    /// Column after the last.
    #[serde(rename = "bbox-3")]
    pub bbox_3: u32,
    /// Perimeter by the 4-neighbourhood weights of scikit-image (Benkrid & Crookes).
    pub perimeter: f64,
    /// Eccentricity of the ellipse with the same second moments, 0 (circle) to 1.
    pub eccentricity: f64,
    /// Area over the area of the convex hull, 0 to 1.
    pub solidity: f64,
    /// Long axis of that ellipse.
    pub major_axis_length: f64,
    /// Short axis of that ellipse.
    pub minor_axis_length: f64,
    /// Angle of the long axis to the row axis, in radians, −π/2 to π/2.
    pub orientation: f64,
    /// Mean grey value.
    pub intensity_mean: f64,
    /// Largest grey value.
    pub intensity_max: f64,
    /// Smallest grey value.
    pub intensity_min: f64,
    /// Whether it touches the edge of the frame, so that its size is not the cell's.
    pub touches_border: bool,
}
