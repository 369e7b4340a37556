//! Capture: where a frame enters.
//!
//! A [`Source`] waits for the next frame and says what happened instead when none came. It
//! never retries: [`run::run`] opens it, opens it again after a loss with capped back-off,
//! and records the gap. Sources give mono frames of 8 to 16 bits, whatever the camera speaks.
//!
//! | specification     | source            | file               |
//! |-------------------|-------------------|--------------------|
//! | `virtual`         | virtual microscope| `virtual_scope/`   |
//! | `folder:PATH`     | images in a folder| `folder.rs`        |
//! | `v4l:/dev/videoN` | a camera          | `v4l.rs`           |

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reticle_base::clock::Clock;
use reticle_base::progress::Progress;
use reticle_domain::frame::Frame;
use reticle_domain::pixel_size::{self, LARGEST_UM, SMALLEST_UM};
use reticle_imagefile::{Limits, MAX_FILE_BYTES, MAX_PAGES, MAX_READ, Pick};

pub mod cameras;
mod exposure;
pub mod folder;
pub mod pixel_format;
pub mod run;
pub mod v4l;
mod virtual_scope;
mod watched;

pub use exposure::Exposure;
use pixel_format::PixelFormat;
pub use virtual_scope::VirtualScope;
use watched::Watched;

/// Where frames come from and how they are taken: the table `[source]`.
///
/// What is left out is for the source to decide, and each field says what it then does.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// `virtual`, `folder:PATH` or `v4l:/dev/videoN` (better a path under `/dev/v4l/by-id`,
    /// which stays the same when cameras are plugged in another order).
    #[schemars(with = "String")]
    pub spec: SourceSpec,
    /// Frames a second. A camera is asked for it (left out: as the camera is set), a folder
    /// is replayed at it (left out: it is watched for new images, or, with `replay`, replayed
    /// as fast as frames are taken), the virtual microscope runs at it (left out: 5).
    #[schemars(range(min = 0.001, max = 10000.0))]
    pub fps: Option<f64>,
    /// Width in pixels, of a camera or of the virtual microscope. Give both or neither.
    pub width: Option<u32>,
    /// Height in pixels, of a camera or of the virtual microscope. Give both or neither.
    pub height: Option<u32>,
    /// What a camera shall send, as its four-character code: `GREY`, `Y10`, `Y12`, `Y16`,
    /// `YUYV`, `MJPG`, or raw Bayer as `RGGB` or `RG12`. Left out: the deepest it offers.
    #[schemars(with = "Option<String>")]
    pub pixel_format: Option<PixelFormat>,
    /// Exposure in microseconds; switches automatic exposure off. Left out: as the camera is
    /// set.
    pub exposure_us: Option<u32>,
    /// Gain in the camera's own units; switches automatic gain off. Left out: as the camera
    /// is set.
    pub gain: Option<i32>,
    /// Edge of a pixel in the sample, in µm, from 0.01 to 20. Left out: as the image files say,
    /// else unknown.
    #[schemars(range(min = 0.01, max = 20.0))]
    pub pixel_size_um: Option<f64>,
    /// Folder: the channel that is segmented, where a file holds several: its name, or its number
    /// from 1. Left out: such files are refused, with the names of their channels.
    #[schemars(with = "Option<String>")]
    pub channel: Option<Pick>,
    /// Folder: the z plane that is segmented, where a file holds several: its number from 1, or
    /// `middle`. Left out: each plane is a frame.
    #[schemars(with = "Option<String>")]
    pub z: Option<Pick>,
    /// Folder: replay it without end, beginning again with the first image after the last.
    pub replay: bool,
    /// Folder: a file of more pages is refused.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pages: u32,
    /// Folder: a larger file is refused, in bytes.
    #[schemars(range(min = 1))]
    pub max_file_bytes: u64,
    /// Folder: a page that takes longer to be read is refused, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub max_read_s: u32,
    /// Virtual microscope: the same seed gives the same cells.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            spec: SourceSpec::Virtual,
            fps: None,
            width: None,
            height: None,
            pixel_format: None,
            exposure_us: None,
            gain: None,
            pixel_size_um: None,
            channel: None,
            z: None,
            replay: false,
            max_pages: MAX_PAGES as u32,
            max_file_bytes: MAX_FILE_BYTES,
            max_read_s: MAX_READ.as_secs() as u32,
            seed: 1,
        }
    }
}

impl Options {
    /// Refuses what no source can do.
    fn check(&self) -> Result<(), SourceError> {
        let wrong = |what: String| Err(SourceError::Unusable(format!("[source] {what}")));
        if let Some(fps) = self.fps.filter(|fps| !(0.001..=10_000.0).contains(fps)) {
            return wrong(format!("fps = {fps}: must lie between 0.001 and 10000"));
        }
        if self.width.is_some() != self.height.is_some() {
            return wrong("width and height: give both or neither".to_owned());
        }
        if self.width == Some(0) || self.height == Some(0) {
            return wrong("width and height: must not be 0".to_owned());
        }
        if !(1..=1_000_000).contains(&self.max_pages) {
            return wrong(format!(
                "max_pages = {}: must lie between 1 and 1000000",
                self.max_pages
            ));
        }
        if self.max_file_bytes == 0 {
            return wrong("max_file_bytes: must not be 0".to_owned());
        }
        if !(1..=3600).contains(&self.max_read_s) {
            return wrong(format!("max_read_s = {}: must lie between 1 and 3600", self.max_read_s));
        }
        if let Some(size) = self.pixel_size_um.filter(|size| !pixel_size::is_plausible(*size)) {
            return wrong(format!(
                "pixel_size_um = {size}: must lie between {SMALLEST_UM} and {LARGEST_UM}, in \
                 micrometres"
            ));
        }
        Ok(())
    }
}

/// Which source, as written `virtual`, `folder:PATH` or `v4l:/dev/videoN`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SourceSpec {
    /// The virtual microscope.
    Virtual,
    /// Images in a folder.
    Folder(PathBuf),
    /// A Video4Linux camera.
    V4l(PathBuf),
}

/// A text that names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no source{hint}; write `virtual`, `folder:PATH` or `v4l:/dev/videoN` \
     (`reticle camera list` shows the cameras)"
)]
pub struct UnknownSource {
    text: String,
    hint: String,
}

impl FromStr for SourceSpec {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = |hint: &str| UnknownSource { text: text.to_owned(), hint: hint.to_owned() };
        match text.split_once(':') {
            None if text == "virtual" => Ok(Self::Virtual),
            Some(("folder", "")) => Err(unknown(": the folder is missing")),
            Some(("folder", path)) => Ok(Self::Folder(PathBuf::from(path))),
            Some(("v4l", "")) => Err(unknown(": the device is missing")),
            Some(("v4l", path)) => Ok(Self::V4l(PathBuf::from(path))),
            None if text.starts_with("/dev/") => {
                Err(unknown(&format!(" (did you mean `v4l:{text}`?)")))
            }
            None if text.contains('/') => {
                Err(unknown(&format!(" (did you mean `folder:{text}`?)")))
            }
            _ => Err(unknown("")),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual => f.write_str("virtual"),
            Self::Folder(path) => write!(f, "folder:{}", path.display()),
            Self::V4l(path) => write!(f, "v4l:{}", path.display()),
        }
    }
}

impl TryFrom<String> for SourceSpec {
    type Error = UnknownSource;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SourceSpec> for String {
    fn from(spec: SourceSpec) -> Self {
        spec.to_string()
    }
}

/// What a source has to say.
#[derive(Debug)]
pub enum Event {
    /// A frame.
    Frame(Box<Frame>),
    /// Nothing within the time given; ask again.
    Nothing,
    /// One image is unfit and was passed over; the next one may be fine.
    Refused {
        /// Which image.
        what: String,
        /// Why, and what to do.
        why: String,
    },
    /// There is nothing more to come.
    End,
}

/// Why a source cannot go on. The type says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It may come back: drop it and open it again.
    #[error("{0}")]
    Lost(String),
    /// It will not work as configured: a person is needed.
    #[error("{0}")]
    Unusable(String),
}

/// Something that gives frames.
pub trait Source: Send {
    /// Waits up to `patience` for the next frame.
    ///
    /// # Errors
    /// [`SourceError::Lost`] when the device is gone or hangs, [`SourceError::Unusable`]
    /// when trying again cannot help.
    fn next(&mut self, patience: Duration) -> Result<Event, SourceError>;

    /// Capture was paused: lets go of what would grow stale. The following [`Source::next`]
    /// goes on, without a jump in the sequence.
    fn rest(&mut self) {}

    /// Takes frames with another exposure from now on, and gives the one that it is, in
    /// microseconds.
    ///
    /// # Errors
    /// For a person: why it cannot be had.
    fn set_exposure(&mut self, us: u32) -> Result<u32, String> {
        Err(format!("this source has no exposure that could be set to {us} µs"))
    }
}

/// Opens one source, as often as it is lost.
pub struct Opener {
    options: Options,
    limits: Limits,
    /// What a watched folder gave, whenever it was opened.
    memory: folder::Memory,
    clock: Clock,
    /// What was taken from a watched folder, for longer than this process lives.
    ledger: Option<Arc<dyn folder::ledger::Ledger>>,
    /// Each call of the source is a piece of work.
    progress: Progress,
}

impl Opener {
    /// For the source that `options` name; of an image file no more is read than `limits` allow.
    pub fn new(options: Options, limits: Limits, clock: Clock) -> Self {
        let progress = Progress::unwatched();
        let limits = Limits {
            max_pages: options.max_pages as usize,
            max_bytes: options.max_file_bytes,
            max_read: Duration::from_secs(options.max_read_s.into()),
            ..limits
        };
        let memory = folder::Memory::default();
        Self { options, limits, memory, clock, ledger: None, progress }
    }

    /// A watched folder asks this ledger before it opens a file.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn folder::ledger::Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Tells the progress of the source there from now on.
    #[must_use]
    pub fn report_to(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Opens the source.
    ///
    /// # Errors
    /// [`SourceError::Lost`] when it is not there now, [`SourceError::Unusable`] when it cannot
    /// be what the options say.
    pub fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        let _busy = self.progress.work();
        Ok(Box::new(Watched::new(self.open_source()?, self.progress.clone())))
    }

    fn open_source(&self) -> Result<Box<dyn Source>, SourceError> {
        let (options, clock) = (&self.options, self.clock.clone());
        options.check()?;
        Ok(match &options.spec {
            SourceSpec::V4l(path) => Box::new(v4l::Camera::open(path, options, clock)?),
            SourceSpec::Folder(path) => {
                let known = (self.memory.clone(), self.ledger.clone());
                Box::new(folder::Folder::open(path, options, self.limits, known, clock)?)
            }
            SourceSpec::Virtual => Box::new(VirtualScope::new(options, clock)?),
        })
    }
}

/// Opens the source that `options` name, once and with the usual limits.
///
/// # Errors
/// As [`Opener::open`].
pub fn open(options: &Options, clock: &Clock) -> Result<Box<dyn Source>, SourceError> {
    Opener::new(options.clone(), Limits::default(), clock.clone()).open()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_written_as_it_is_read() {
        for text in ["virtual", "folder:/data/drop", "folder:a:b", "v4l:/dev/video0"] {
            assert_eq!(text.parse::<SourceSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_text_that_names_no_source_is_answered_with_what_would() {
        let message = |text: &str| text.parse::<SourceSpec>().unwrap_err().to_string();
        assert!(message("/dev/video2").contains("did you mean `v4l:/dev/video2`?"));
        assert!(message("./images").contains("did you mean `folder:./images`?"));
        assert!(message("folder:").contains("the folder is missing"));
        assert!(message("usb").contains("`usb` is no source; write `virtual`"));
    }

    #[test]
    fn what_no_source_can_do_is_refused_by_its_key() {
        let why = |options: Options| {
            let opened = open(&options, &Clock::manual(0));
            opened.err().expect("this must be refused").to_string()
        };
        let fps = |fps| Options { fps: Some(fps), ..Options::default() };
        assert!(why(fps(0.0)).starts_with("[source] fps = 0: must lie between"));
        assert!(why(fps(f64::NAN)).contains("fps = NaN"));
        let size = |width, height| Options { width, height, ..Options::default() };
        assert!(why(size(Some(512), None)).contains("give both or neither"));
        assert!(why(size(Some(512), Some(0))).contains("must not be 0"));
        for um in [-0.5, 0.0, 0.0065, 20.5, 650.0, f64::NAN] {
            let pixel = Options { pixel_size_um: Some(um), ..Options::default() };
            let expected = format!("pixel_size_um = {um}: must lie between 0.01 and 20, in micro");
            assert!(why(pixel).contains(&expected), "{um}");
        }
    }

    #[test]
    fn options_survive_toml() {
        let options = Options {
            spec: SourceSpec::V4l("/dev/video0".into()),
            pixel_format: Some("Y12".parse().unwrap()),
            fps: Some(12.5),
            channel: Some("DAPI".parse().unwrap()),
            z: Some("3".parse().unwrap()),
            ..Options::default()
        };
        let text = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<Options>(&text).unwrap(), options);
        assert_eq!(toml::from_str::<Options>("").unwrap(), Options::default());
    }
}
