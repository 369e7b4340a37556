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
//!
//! A package is of others' making: its files are regular files in its folder and of a bounded
//! size, and each number of its manifest is one that segmenting can use. A bare name that a
//! built-in model has is that model, whatever lies in the working folder.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::instances::Postprocessing;
use super::normalise::Normalisation;
use super::numerics;
use reticle_base::foreign_file;
use reticle_base::plain_text::is_active;
use reticle_domain::segmentation::ModelRef;

/// The manifest's format that this program reads and writes.
pub const FORMAT: u32 = 1;

/// Name of the manifest in its folder.
pub const MANIFEST: &str = "model.toml";

/// Largest manifest that is read, bytes; ours have one thousand.
const MANIFEST_BYTES: u64 = 1 << 20;

/// Largest network that is read, bytes: two hundred times one of ours.
const NETWORK_BYTES: u64 = 256 << 20;

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
            manifest: include_str!(concat!("../../../models/", $name, "/model.toml")),
            network: include_bytes!(concat!("../../../models/", $name, "/model.onnx")),
            golden_frame: include_bytes!(concat!("../../../models/", $name, "/golden.png")),
            golden_labels: include_bytes!(concat!("../../../models/", $name, "/golden-labels.png")),
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
    /// File name in the package: a bare name, without folders.
    pub file: String,
    /// SHA-256 of that file, in hex.
    pub sha256: String,
    /// Diameter of objects at its own scale, in pixels. Frames are brought to that scale.
    pub object_diameter_px: f32,
    /// Edge of a pixel at its own scale, in µm, where objects of the kind have a known size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_size_um: Option<f64>,
    /// How it is computed, one of [`numerics::KNOWN`].
    #[serde(default = "numerics::first")]
    pub numerics: String,
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
        /// What the parser said, or which key cannot be meant.
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
    /// Finds a package by a built-in name, or by the path of its folder (or of a file in it).
    /// A folder that bears a built-in name is found by a path with a separator: `./nuclei`.
    ///
    /// # Errors
    /// When there is none, it is incomplete, or its network has another hash.
    pub fn find(name_or_path: &str) -> Result<Self, PackageError> {
        if let Some(model) = built_in(name_or_path) {
            let path = PathBuf::from(format!("<built-in model {}>", model.name));
            let manifest = parse(model.manifest, &path)?;
            return Self::verified(manifest, Cow::Borrowed(model.network), &path, None);
        }
        let path = Path::new(name_or_path);
        if path.is_dir() {
            return Self::load(path);
        }
        if path.is_file() {
            return Self::load(path.parent().unwrap_or(Path::new(".")));
        }
        Err(PackageError::NotFound(name_or_path.to_owned()))
    }

    /// Reads the package in `folder`.
    ///
    /// # Errors
    /// When a file is missing, is none that a package may have, or the network has another hash.
    pub fn load(folder: &Path) -> Result<Self, PackageError> {
        let manifest_path = folder.join(MANIFEST);
        let read = |path: &Path, limit: u64| {
            foreign_file::read_no_link(path, limit)
                .map_err(|error| PackageError::Read { path: path.to_owned(), source: error.into() })
        };
        let text = String::from_utf8_lossy(&read(&manifest_path, MANIFEST_BYTES)?).into_owned();
        let manifest = parse(&text, &manifest_path)?;
        let network_path = folder.join(&manifest.network.file);
        let network = Cow::Owned(read(&network_path, NETWORK_BYTES)?);
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

    /// What goes into every record made with it by these numerics, with the diameter of objects in
    /// pixels of the frame where it was stated.
    pub fn reference(&self, numerics: &str, object_diameter_px: Option<f32>) -> ModelRef {
        let mut parameters = serde_json::json!({
            "numerics": numerics,
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

/// Whether a text is the name of a model in the binary, and so no path.
pub fn is_built_in(name: &str) -> bool {
    built_in(name).is_some()
}

impl Manifest {
    /// The first key whose value nobody can mean, and what it must be.
    fn complaint(&self) -> Option<String> {
        let Self { name, network, normalisation, postprocessing, metrics, .. } = self;
        if name.trim().is_empty() || name.chars().count() > 120 || name.contains(is_active) {
            return Some("`name` must be one line of 1 to 120 characters".to_owned());
        }
        if !is_bare_name(&network.file) {
            return Some(format!(
                "`network.file` is {:?}, but must be the name of a file in the package, without \
                 folders",
                network.file
            ));
        }
        if network.sha256.len() != 64 || !network.sha256.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Some("`network.sha256` must be 64 hex digits".to_owned());
        }
        if !numerics::KNOWN.contains(&network.numerics.as_str()) {
            return Some(format!(
                "`network.numerics` is {:?}, and this program computes {}; use the version of \
                 Reticle that the package was made with, or a newer one",
                network.numerics,
                numerics::KNOWN.join(", ")
            ));
        }
        let part = 0.0..=1.0;
        let percent = 0.0..=100.0;
        let of_pixels = |pixels: u32| f64::from(pixels);
        let numbers: [(&str, f64, RangeInclusive<f64>); 15] = [
            ("network.object_diameter_px", network.object_diameter_px.into(), 1.0..=1000.0),
            ("network.pixel_size_um", network.pixel_size_um.unwrap_or(1.0), 0.000_1..=10_000.0),
            ("normalisation.low_percentile", normalisation.low_percentile, percent.clone()),
            ("normalisation.high_percentile", normalisation.high_percentile, percent),
            ("normalisation.min_span_sigmas", normalisation.min_span_sigmas, 0.0..=1000.0),
            (
                "postprocessing.foreground_threshold",
                postprocessing.foreground_threshold.into(),
                part.clone(),
            ),
            ("postprocessing.seed_threshold", postprocessing.seed_threshold.into(), part.clone()),
            ("postprocessing.sure_threshold", postprocessing.sure_threshold.into(), part.clone()),
            ("postprocessing.merge_height", postprocessing.merge_height.into(), part.clone()),
            ("postprocessing.contact_weight", postprocessing.contact_weight.into(), 0.0..=10.0),
            // Each pass goes over the whole frame; what is chosen from has 0 to 4.
            (
                "postprocessing.smoothing_passes",
                of_pixels(postprocessing.smoothing_passes),
                0.0..=32.0,
            ),
            ("postprocessing.min_area", of_pixels(postprocessing.min_area), 0.0..=1e8),
            ("metrics.ap50", metrics.ap50, part.clone()),
            ("metrics.ap70", metrics.ap70, part.clone()),
            ("metrics.ap90", metrics.ap90, part),
        ];
        // NaN is in no range.
        let wrong = numbers.into_iter().find(|(_, number, range)| !range.contains(number));
        if let Some((key, number, range)) = wrong {
            let (least, most) = range.into_inner();
            return Some(format!(
                "`{key}` is {number}, but must be a number from {least} to {most}"
            ));
        }
        (normalisation.low_percentile >= normalisation.high_percentile).then(|| {
            "`normalisation.low_percentile` must be below `normalisation.high_percentile`"
                .to_owned()
        })
    }
}

/// Whether it names a file in a folder and nothing elsewhere.
fn is_bare_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name)
        && !name.contains(is_active)
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
    let manifest: Manifest = toml::from_str(text).map_err(malformed)?;
    match manifest.complaint() {
        None => Ok(manifest),
        Some(reason) => Err(PackageError::Manifest { path: path.to_owned(), reason }),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a power cut")]
mod tests {
    use std::fs;

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
        let reference = |diameter| package.reference(numerics::F32_FMA_1, diameter);
        let (estimated, stated) = (reference(None), reference(Some(60.0)));
        assert_ne!(estimated, stated);
        assert!(stated.parameters.contains("\"object_diameter_px\":60.0"), "{stated:?}");
    }

    #[test]
    fn records_state_their_numerics() {
        let segmenter =
            crate::Segmenter::new(&crate::Options::default(), reticle_base::clock::Clock::system())
                .unwrap();
        let parameters: serde_json::Value =
            serde_json::from_str(&segmenter.model().parameters).unwrap();
        assert_eq!(parameters["numerics"], numerics::F32_FMA_1);
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

    /// The manifest of a copy with one line replaced, and what is said of it.
    fn refusal(key: &str, value: &str) -> String {
        let folder = copy_of_nuclei();
        let path = folder.path().join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let mut found = false;
        let lines = text.lines().map(|line| {
            let is_it = line.split(" = ").next() == Some(key) && !found;
            found |= is_it;
            if is_it { format!("{key} = {value}") } else { line.to_owned() }
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        assert!(found, "{key}");
        fs::write(&path, text).unwrap();
        ModelPackage::load(folder.path()).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn each_number_that_nobody_can_mean_is_refused_by_its_key() {
        let numbers = [
            "object_diameter_px",
            "pixel_size_um",
            "low_percentile",
            "high_percentile",
            "min_span_sigmas",
            "foreground_threshold",
            "seed_threshold",
            "sure_threshold",
            "merge_height",
            "contact_weight",
            "ap50",
            "ap70",
            "ap90",
        ];
        for key in numbers {
            for value in ["nan", "inf", "-inf", "-0.01", "1e30"] {
                let said = refusal(key, value);
                assert!(said.contains(&format!(".{key}` is ")), "{key} = {value}: {said}");
            }
        }
        for (key, value) in [("smoothing_passes", "4294967295"), ("min_area", "4294967295")] {
            let said = refusal(key, value);
            assert!(said.contains(&format!("postprocessing.{key}` is 4294967295")), "{said}");
        }
        let said = refusal("low_percentile", "99.9");
        assert!(said.contains("must be below `normalisation.high_percentile`"), "{said}");
        assert!(refusal("sha256", "\"5ac8\"").contains("64 hex digits"));
        for name in ["\"\"", "\"a\\u001b[2J\"", "\"a\\nb\""] {
            assert!(refusal("name", name).contains("`name` must be one line"), "{name}");
        }
    }

    #[test]
    fn a_package_that_asks_for_numerics_of_another_program_is_refused() {
        let said = refusal("numerics", "\"int8-1\"");
        assert!(said.contains("`network.numerics` is \"int8-1\""), "{said}");
        assert!(said.contains("this program computes f32-fma-1"), "{said}");
        // Made before there was another.
        let folder = copy_of_nuclei();
        let path = folder.path().join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap().replace("numerics = \"f32-fma-1\"\n", "");
        fs::write(&path, text).unwrap();
        let package = ModelPackage::load(folder.path()).unwrap();
        assert_eq!(package.manifest().network.numerics, numerics::F32_FMA_1);
    }

    /// What is said of a planted file, and how it is planted.
    type Plant = (&'static str, fn(&Path));

    #[test]
    fn the_network_is_a_regular_file_of_the_package_and_of_a_size_that_can_be() {
        for file in ["/dev/zero", "../model.onnx", "a/b.onnx", "./model.onnx", "..", ".", "", "a/"]
        {
            let said = refusal("file", &format!("{file:?}"));
            assert!(said.contains("`network.file` is"), "{file}: {said}");
        }
        let cases: [Plant; 4] = [
            ("is no regular file", |path| {
                rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap();
            }),
            ("is no regular file", |path| {
                std::os::unix::fs::symlink("/dev/zero", path).unwrap();
            }),
            ("is no regular file", |path| fs::create_dir(path).unwrap()),
            ("are the most that are read", |path| {
                fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
            }),
        ];
        for name in [MANIFEST, "model.onnx"] {
            for (expected, plant) in &cases {
                let folder = copy_of_nuclei();
                let path = folder.path().join(name);
                fs::remove_file(&path).unwrap();
                plant(&path);
                let said = ModelPackage::load(folder.path()).map(drop).unwrap_err().to_string();
                assert!(said.contains(expected) && said.contains(name), "{name}: {said}");
            }
        }
    }

    #[test]
    fn a_file_is_bare_only_without_any_folder() {
        assert!(is_bare_name("model.onnx") && is_bare_name("..onnx") && is_bare_name("a b"));
        for name in ["", ".", "..", "/a", "a/", "./a", "a/b", "a/../b", "a\0"] {
            assert!(!is_bare_name(name), "{name:?}");
        }
    }
}
