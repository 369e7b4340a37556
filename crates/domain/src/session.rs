//! One acquisition.

use reticle_base::clock::Stamp;
use reticle_base::ids::SessionId;

/// A plate or slide imaged in one go. Every frame belongs to one.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Session {
    /// Name for ever.
    pub id: SessionId,
    /// What people call it.
    pub name: String,
    /// The source's specification, as `virtual` or `folder:/data/drop`.
    pub source: String,
    /// Fluorophore or contrast, as `DAPI`.
    pub channel: Option<String>,
    /// Who acquired it.
    pub operator: Option<String>,
    /// Edge of a pixel in the sample, in µm, where configured.
    pub pixel_size_um: Option<f64>,
    /// When it began.
    pub started: Stamp,
}
