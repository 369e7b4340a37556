//! Model packages: a network with everything needed to use it and to trust it.
//!
//! A package is a folder:
//! ```text
//! model.toml         this manifest
//! model.onnx         the network (input [1,1,H,W], output [1,16,H/2,W/2], see docs/design/model-package.md)
//! golden.png         a frame, and
//! golden-labels.png  what this package makes of it, to prove that a box segments as it should
//! README.md          the card: what it is for, what it was trained on, how good it is
//! ```
//! A [`ModelPackage`] exists only once the network's bytes had the hash that the manifest
//! states, so nothing else can be run.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::instances::Postprocessing;
use super::normalise::Normalisation;
use crate::domain::segmentation::ModelRef;

/// The manifest's format that this program reads and writes.
pub const FORMAT: u32 = 1;

/// Name of the manifest in its folder.
pub const MANIFEST: &str = "model.toml";

/// A base model, in the binary so that a box with nothing but the program can segment.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    manifest: &'static str,
    network: &'static [u8],
    pub(super) golden_frame: &'static [u8],
    pub(super) golden_labels: &'static [u8],
}

/// The package in the folder of that name.
macro_rules! built_in {
    ($name:literal) => {
        BuiltIn {
            name: $name,
            manifest: include_str!(concat!("../../models/", $name, "/model.toml")),
            network: include_bytes!(concat!("../../models/", $name, "/model.onnx")),
            golden_frame: include_bytes!(concat!("../../models/", $name, "/golden.png")),
            golden_labels: include_bytes!(concat!("../../models/", $name, "/golden-labels.png")),
        }
    };
}

pub(super) static BUILT_IN: [BuiltIn; 2] = [built_in!("nuclei"), built_in!("phase")];

/// The base model of that name.
pub(super) fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|model| model.name == name)
}

/// `model.toml`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout of this file, [`FORMAT`].
    pub format: u32,
    /// What people call the model.
    pub name: String,
    /// What it segments, in one line.
    pub description: String,
    /// The network's file.
    pub network: NetworkFile,
    /// How grey values are scaled.
    pub normalisation: Normalisation,
    /// How objects are read from the maps.
    pub postprocessing: Postprocessing,
    /// What it was trained on and how.
    pub training: Training,
    /// How good it was on held-out data when it was made.
    pub metrics: Metrics,
}

/// Table `[network]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// File name in the package.
    pub file: String,
    /// SHA-256 of that file, in hex.
    pub sha256: String,
    /// Diameter of objects at its own scale, in pixels. Frames are brought to that scale.
    pub object_diameter_px: f32,
    /// Edge of a pixel at its own scale, in µm, where objects of the kind have a known size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_size_um: Option<f64>,
}

/// Table `[training]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// What the images are and where they are from.
    pub data: String,
    /// SHA-256 over the names and pixels of all training images and labels, in hex.
    pub data_sha256: String,
    /// Number of images.
    pub images: usize,
    /// Number of objects.
    pub objects: usize,
    /// When it was made, RFC 3339 UTC.
    pub made: String,
    /// Version of the trainer.
    pub software: String,
    /// The recipe: steps, batch, crop, learning rate, seed, widths.
    pub recipe: toml::Table,
}

/// Table `[metrics]`: on the held-out split that chose the post-processing.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// What it was measured on.
    pub split: String,
    /// Images measured.
    pub images: usize,
    /// Pooled AP at IoU 0.5.
    pub ap50: f64,
    /// Pooled AP at IoU 0.7.
    pub ap70: f64,
    /// Pooled AP at IoU 0.9.
    pub ap90: f64,
}

/// Why a package cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// No package of that name or path.
    #[error(
        "there is no model `{0}`: give the path of a folder with a {MANIFEST}, or one of the \
         built-in models: {known}", known = built_in_names()
    )]
    NotFound(String),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; is the model package complete?")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The manifest makes no sense.
    #[error("{path} is not a model manifest: {reason}")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// Made by another version.
    #[error(
        "{path} has format {found} and this program reads format {FORMAT}; use a package made \
         by a matching version of `reticle train`"
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// Format it has.
        found: u32,
    },
    /// The network is not the one that the manifest describes.
    #[error(
        "{path} has SHA-256 {found}, but the manifest says {expected}: the file is damaged or \
         from another package; copy the whole package again"
    )]
    Hash {
        /// Which file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        expected: String,
    },
}

/// A package whose network is the one its manifest describes.
#[derive(Clone, Debug)]
pub struct ModelPackage {
    manifest: Manifest,
    network: Cow<'static, [u8]>,
    folder: Option<PathBuf>,
}

impl ModelPackage {
    /// Finds a package by the path of its folder (or of a file in it) or by a built-in name.
    ///
    /// # Errors
    /// When there is none, it is incomplete, or its network has another hash.
    pub fn find(name_or_path: &str) -> Result<Self, PackageError> {
        let path = Path::new(name_or_path);
        if path.is_dir() {
            return Self::load(path);
        }
        if path.is_file() {
            return Self::load(path.parent().unwrap_or(Path::new(".")));
        }
        let model = built_in(name_or_path)
            .ok_or_else(|| PackageError::NotFound(name_or_path.to_owned()))?;
        let path = PathBuf::from(format!("<built-in model {}>", model.name));
        Self::verified(parse(model.manifest, &path)?, Cow::Borrowed(model.network), &path, None)
    }

    /// Reads the package in `folder`.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or the network has another hash.
    pub fn load(folder: &Path) -> Result<Self, PackageError> {
        let manifest_path = folder.join(MANIFEST);
        let read = |path: &Path| {
            fs::read(path).map_err(|source| PackageError::Read { path: path.to_owned(), source })
        };
        let text = String::from_utf8_lossy(&read(&manifest_path)?).into_owned();
        let manifest = parse(&text, &manifest_path)?;
        let network_path = folder.join(&manifest.network.file);
        let network = Cow::Owned(read(&network_path)?);
        Self::verified(manifest, network, &network_path, Some(folder.to_owned()))
    }

    fn verified(
        manifest: Manifest,
        network: Cow<'static, [u8]>,
        path: &Path,
        folder: Option<PathBuf>,
    ) -> Result<Self, PackageError> {
        let found = hex::encode(Sha256::digest(&network));
        if found != manifest.network.sha256 {
            return Err(PackageError::Hash {
                path: path.to_owned(),
                found,
                expected: manifest.network.sha256,
            });
        }
        Ok(Self { manifest, network, folder })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The network as ONNX.
    pub fn network(&self) -> &[u8] {
        &self.network
    }

    /// Where it was read from; `None` for a built-in one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The same network with other post-processing, for choosing it.
    #[must_use]
    pub fn with_postprocessing(mut self, postprocessing: Postprocessing) -> Self {
        self.manifest.postprocessing = postprocessing;
        self
    }

    /// What goes into every record made with it, with the diameter of objects in pixels of the
    /// frame where it was stated.
    pub fn reference(&self, object_diameter_px: Option<f32>) -> ModelRef {
        let mut parameters = serde_json::json!({
            "normalisation": self.manifest.normalisation,
            "postprocessing": self.manifest.postprocessing,
        });
        if let Some(diameter) = object_diameter_px {
            parameters["object_diameter_px"] = diameter.into();
        }
        ModelRef {
            name: self.manifest.name.clone(),
            sha256: self.manifest.network.sha256.clone(),
            parameters: parameters.to_string(),
            software: concat!("reticle ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Names of the models in the binary, comma-separated.
pub fn built_in_names() -> String {
    BUILT_IN.each_ref().map(|model| model.name).join(", ")
}

fn parse(text: &str, path: &Path) -> Result<Manifest, PackageError> {
    /// Read before all else: a manifest of another format may have other keys.
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let malformed = |error: toml::de::Error| PackageError::Manifest {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let Format { format } = toml::from_str(text).map_err(malformed)?;
    if format != FORMAT {
        return Err(PackageError::Format { path: path.to_owned(), found: format });
    }
    toml::from_str(text).map_err(malformed)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use super::*;

    fn copy_of_nuclei() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let BuiltIn { manifest, network, .. } = BUILT_IN[0];
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        fs::write(folder.path().join("model.onnx"), network).unwrap();
        folder
    }

    #[test]
    fn the_built_in_models_have_the_hashes_they_state() {
        for BuiltIn { name, .. } in &BUILT_IN {
            let package = ModelPackage::find(name).unwrap();
            assert_eq!(package.manifest().name, *name);
            assert!(package.folder().is_none());
        }
    }

    #[test]
    fn a_network_that_was_changed_is_refused_by_name() {
        let folder = copy_of_nuclei();
        let network = folder.path().join("model.onnx");
        let mut bytes = fs::read(&network).unwrap();
        bytes[1000] ^= 1;
        fs::write(&network, bytes).unwrap();
        let error = ModelPackage::load(folder.path()).unwrap_err();
        assert!(matches!(error, PackageError::Hash { .. }));
        assert!(error.to_string().contains("model.onnx"), "{error}");
    }

    #[test]
    fn records_tell_results_of_another_stated_diameter_apart() {
        let package = ModelPackage::find("nuclei").unwrap();
        let (estimated, stated) = (package.reference(None), package.reference(Some(60.0)));
        assert_ne!(estimated, stated);
        assert!(stated.parameters.contains("\"object_diameter_px\":60.0"), "{stated:?}");
    }

    #[test]
    fn an_unknown_model_is_answered_with_the_known_ones() {
        let error = ModelPackage::find("nuclie").unwrap_err().to_string();
        assert!(
            error.contains("`nuclie`") && error.contains("built-in models: nuclei, phase"),
            "{error}"
        );
    }

    #[test]
    fn a_newer_format_is_named_before_its_unknown_keys() {
        let folder = copy_of_nuclei();
        fs::write(folder.path().join(MANIFEST), "format = 9\nnews = 1\n").unwrap();
        let error = ModelPackage::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 9"), "{error}");
    }
}
