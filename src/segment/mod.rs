//! Segmentation: a frame becomes a label image, objects and a focus score.
//!
//! Left to right: [`normalise`] scales grey values, [`tile`] cuts the frame, [`network`] runs
//! the model on each tile, [`instances`] reads objects from its maps, [`measure`] and
//! [`focus`] put numbers on them. [`package`] is where models come from.
//!
//! Promises: the same frame and package give the same labels and numbers on the same machine,
//! whatever the number of threads; memory depends on the frame's size, not on how many frames
//! there were; a frame that cannot be segmented is refused by name and the next one is fine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::base::clock::Clock;
use crate::domain::frame::Frame;
use crate::domain::segmentation::{ModelRef, Segmentation, Timings};
use crate::imagefile::{Limits, MAX_PIXELS};

pub mod engine;
pub mod focus;
pub mod golden;
mod hull;
pub mod instances;
pub mod measure;
pub mod network;
pub mod normalise;
pub mod package;
pub mod size;
pub mod tile;
mod with_tract;

use instances::Maps;
use package::ModelPackage;

/// `[segment]`: how frames are segmented.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Model package: the name of a built-in one, or the path of a package folder.
    pub model: String,
    /// Threads that segment; by default one for each processor core.
    pub threads: Option<NonZeroUsize>,
    /// Frames of more megapixels are refused. One megapixel takes about 30 MB of memory.
    pub max_megapixels: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { model: "nuclei".to_owned(), threads: None, max_megapixels: MAX_PIXELS as f64 / 1e6 }
    }
}

impl Options {
    /// Threads to use: as configured, else one for each core this process may use.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }

    /// [`Options::max_megapixels`] in pixels.
    pub fn max_pixels(&self) -> u64 {
        (self.max_megapixels.max(0.0) * 1e6).round() as u64
    }

    /// The same for whoever reads the images that are to be segmented.
    pub fn limits(&self) -> Limits {
        Limits { max_pixels: self.max_pixels(), to_raise: Some("`max_megapixels` in [segment]") }
    }
}

/// Frames with a smaller edge are refused: no object the models know fits.
pub const MIN_EDGE: u32 = 16;

/// Why there is no segmenter.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The package is not usable.
    #[error(transparent)]
    Package(#[from] package::PackageError),
    /// Its network is not usable.
    #[error("model `{name}`: {source}")]
    Network {
        /// The package's name.
        name: String,
        /// What is wrong with it.
        source: network::NetworkError,
    },
    /// The operating system gives no threads.
    #[error("cannot start {threads} segmentation threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// Why a frame was not segmented. The next frame may be fine.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Too small.
    #[error(
        "the frame is {width}×{height} pixels and the smallest that can be segmented is {MIN_EDGE}×{MIN_EDGE}; is it a thumbnail?"
    )]
    TooSmall {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// Too large.
    #[error(
        "the frame is {width}×{height} pixels, more than the limit of {limit} pixels; crop it, \
         or raise `max_megapixels` in [segment] if the box has the memory"
    )]
    TooLarge {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// Pixels allowed.
        limit: u64,
    },
    /// The network failed on it.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
}

/// A stage of segmentation, for those who measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Percentiles.
    Normalise,
    /// The network over all tiles.
    Network,
    /// Instances from maps.
    Instances,
    /// Objects and focus.
    Measure,
}

/// Segments frames, one after the other, with all its threads on each.
pub struct Segmenter {
    package: ModelPackage,
    model: Arc<ModelRef>,
    network: network::Network,
    pool: rayon::ThreadPool,
    max_pixels: u64,
    clock: Clock,
    /// Reused from frame to frame.
    maps: Maps,
}

impl Segmenter {
    /// Loads the model that `options` name.
    ///
    /// # Errors
    /// When the package or its network cannot be used; the message says what to do.
    pub fn new(options: &Options, clock: Clock) -> Result<Self, SetUpError> {
        Self::with_package(ModelPackage::find(&options.model)?, options, clock)
    }

    /// A segmenter for a package at hand.
    ///
    /// # Errors
    /// When its network cannot be used.
    pub fn with_package(
        package: ModelPackage,
        options: &Options,
        clock: Clock,
    ) -> Result<Self, SetUpError> {
        let network = network::Network::new(package.network().to_vec()).map_err(|source| {
            SetUpError::Network { name: package.manifest().name.clone(), source }
        })?;
        let threads = options.threads().get();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("segment-{index}"))
            .build()
            .map_err(|error| SetUpError::Threads { threads, reason: error.to_string() })?;
        Ok(Self {
            model: Arc::new(package.reference()),
            package,
            network,
            pool,
            max_pixels: options.max_pixels(),
            clock,
            maps: Maps::default(),
        })
    }

    /// The model in use.
    pub fn model(&self) -> &Arc<ModelRef> {
        &self.model
    }

    /// The package in use.
    pub fn package(&self) -> &ModelPackage {
        &self.package
    }

    /// Segments one frame.
    ///
    /// # Errors
    /// When this frame cannot be segmented; the next one may be fine.
    pub fn segment(&mut self, frame: &Arc<Frame>) -> Result<Segmentation, SegmentError> {
        self.segment_observed(frame, |_| {})
    }

    /// As [`Segmenter::segment`]; `ended` is called at the end of each stage.
    ///
    /// # Errors
    /// When this frame cannot be segmented; the next one may be fine.
    pub fn segment_observed(
        &mut self,
        frame: &Arc<Frame>,
        mut ended: impl FnMut(Stage),
    ) -> Result<Segmentation, SegmentError> {
        let (width, height) = (frame.width, frame.height);
        if width.min(height) < MIN_EDGE {
            return Err(SegmentError::TooSmall { width, height });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(SegmentError::TooLarge { width, height, limit: self.max_pixels });
        }
        let manifest = self.package.manifest();
        let mut lap = Lap::start(&self.clock);
        let grey = manifest.normalisation.span(&frame.pixels, width as usize);
        ended(Stage::Normalise);
        let normalise_us = lap.next();
        let (network, maps) = (&self.network, &mut self.maps);
        self.pool.install(|| network.run(frame, grey, maps))?;
        ended(Stage::Network);
        let network_us = lap.next();
        let maps = &self.maps;
        let labels = self.pool.install(|| instances::from_maps(maps, &manifest.postprocessing));
        ended(Stage::Instances);
        let instances_us = lap.next();
        let objects = measure::objects(&labels, &frame.pixels);
        let focus = focus::score(&labels, &objects, &frame.pixels, grey);
        ended(Stage::Measure);
        let measure_us = lap.next();
        Ok(Segmentation {
            frame: Arc::clone(frame),
            model: Arc::clone(&self.model),
            labels: Arc::new(labels),
            objects: Arc::new(objects),
            focus,
            timings: Timings { normalise_us, network_us, instances_us, measure_us },
        })
    }

    /// Runs the network alone, for choosing post-processing.
    ///
    /// # Errors
    /// When the network fails.
    pub fn maps(&mut self, frame: &Frame) -> Result<Maps, SegmentError> {
        let grey = self.package.manifest().normalisation.span(&frame.pixels, frame.width as usize);
        let mut maps = Maps::default();
        let network = &self.network;
        self.pool.install(|| network.run(frame, grey, &mut maps))?;
        Ok(maps)
    }
}

/// Wall time between calls, in microseconds.
struct Lap<'a> {
    clock: &'a Clock,
    last: crate::base::clock::Stamp,
}

impl<'a> Lap<'a> {
    fn start(clock: &'a Clock) -> Self {
        Self { clock, last: clock.now() }
    }

    fn next(&mut self) -> u64 {
        let now = self.clock.now();
        let lap = now.since(&self.last);
        self.last = now;
        u64::try_from(lap.as_micros()).unwrap_or(u64::MAX)
    }
}
