//! Segmentation: a frame becomes a label image, objects and a focus score.
//!
//! Left to right: [`normalise`] scales grey values, [`scale`] brings objects to the model's size,
//! [`tile`] cuts the frame, [`network`] runs the model on each tile that shows something,
//! [`instances`] reads objects from its maps, [`measure`] and [`focus`] put numbers on them.
//! [`package`] is where models come from.
//!
//! Promises: the same frame, package and parameters give the same labels and numbers, bit for bit,
//! on every processor and whatever the number of threads ([`numerics`]); memory depends on the frame's size, not on how many frames
//! there were; a frame that cannot be segmented is refused by name and the next one is fine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use reticle_base::clock::Clock;
use reticle_domain::frame::Frame;
use reticle_domain::label_image::LabelImage;
use reticle_domain::look::{DISAGREES, Look, ScaleFrom};
use reticle_domain::object::Object;
use reticle_domain::pixel_size::is_plausible;
use reticle_domain::segmentation::{ModelRef, Segmentation, Timings};
use reticle_imagefile::{Limits, MAX_PIXELS};

pub mod engine;
mod estimate;
pub mod evidence;
pub mod focus;
pub mod golden;
mod hull;
pub mod instances;
pub mod measure;
pub mod network;
mod noise;
pub mod normalise;
pub mod numerics;
pub mod package;
pub mod scale;
pub mod session;
mod signal;
pub mod size;
pub mod tile;
pub mod unlike;
mod with_tract;

use evidence::{Evidence, View};
use instances::{Maps, Postprocessing, Workspace};
use package::ModelPackage;
use scale::{Plane, Scale};
use signal::Signal;
use unlike::Polarity;

/// `[segment]`: how frames are segmented.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Model package: the name of a built-in one, or the path of a package folder.
    pub model: String,
    /// Threads that segment; by default one for each processor core.
    pub threads: Option<NonZeroUsize>,
    /// Typical diameter of the objects in pixels of the frame. Left out: from the pixel size,
    /// where the frame has one and the model knows its objects' size, else estimated from the
    /// first frames of the session that show objects.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub object_diameter_px: Option<f32>,
    /// Frames of more megapixels are refused. Frames for which
    /// there is not the memory are refused below it, too: one megapixel takes about 40 MB.
    #[schemars(range(min = 0.001, max = 10_000.0))]
    pub max_megapixels: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: "nuclei".to_owned(),
            threads: None,
            object_diameter_px: None,
            max_megapixels: MAX_PIXELS as f64 / 1e6,
        }
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
        Limits {
            max_pixels: self.max_pixels(),
            to_raise: Some("`max_megapixels` in [segment]"),
            bytes_a_pixel: BYTES_A_PIXEL,
            ..Limits::default()
        }
    }
}

/// Memory that a pixel takes from being read to being saved. At 8192² the segmentation alone had its
/// peak at 31.9 bytes a pixel, at 4096² at 30 besides what is there before (docs/performance.md);
/// the rest is the next image, the frame file and the preview.
const BYTES_A_PIXEL: u64 = 40;

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
    /// Whether the model knows such pictures.
    Judge,
}

/// Segments frames, one after the other, with all its threads on each.
pub struct Segmenter {
    package: ModelPackage,
    model: Arc<ModelRef>,
    network: network::Network,
    pool: rayon::ThreadPool,
    object_diameter_px: Option<f32>,
    max_pixels: u64,
    clock: Clock,
    /// Of the last frame.
    tiles: network::Tiles,
    /// Of the last frame.
    evidence: Evidence,
    /// Of the model's objects.
    polarity: Polarity,
    /// Reused from frame to frame.
    plane: Plane,
    /// Reused from frame to frame.
    maps: Maps,
    /// Reused from frame to frame.
    reading: Workspace,
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
        let polarity = unlike::polarity_of(&package, &clock);
        let numerics =
            if network.is_exact() { &package.manifest().network.numerics } else { numerics::TRACT };
        Ok(Self {
            model: Arc::new(package.reference(numerics, options.object_diameter_px)),
            package,
            network,
            pool,
            object_diameter_px: options.object_diameter_px,
            max_pixels: options.max_pixels(),
            clock,
            tiles: network::Tiles::default(),
            evidence: Evidence::default(),
            polarity,
            plane: Plane::default(),
            maps: Maps::default(),
            reading: Workspace::default(),
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

    /// From now on the network looks at empty background too: to measure what leaving it out
    /// saves, and that it changes nothing.
    pub fn run_every_tile(&mut self) {
        self.network.run_every_tile();
    }

    /// Tiles of the last frame, at the scale at which it was segmented.
    pub fn tiles(&self) -> network::Tiles {
        self.tiles
    }

    /// What the last frame was judged by.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Segments one frame by what is known of it alone.
    ///
    /// # Errors
    /// When this frame cannot be segmented; the next one may be fine.
    pub fn segment(&mut self, frame: &Arc<Frame>) -> Result<Segmentation, SegmentError> {
        self.segment_observed(frame, |_| {})
    }

    /// Segments one frame of a session whose earlier frames may have said in which `scale`: it counts
    /// where nothing is stated of this one.
    ///
    /// # Errors
    /// When this frame cannot be segmented; the next one may be fine.
    pub fn segment_in_session(
        &mut self,
        frame: &Arc<Frame>,
        scale: Option<Scale>,
    ) -> Result<Segmentation, SegmentError> {
        self.segment_with(frame, scale, |_| {})
    }

    /// As [`Segmenter::segment`]; `ended` is called at the end of each stage.
    ///
    /// # Errors
    /// When this frame cannot be segmented; the next one may be fine.
    pub fn segment_observed(
        &mut self,
        frame: &Arc<Frame>,
        ended: impl FnMut(Stage),
    ) -> Result<Segmentation, SegmentError> {
        self.segment_with(frame, None, ended)
    }

    fn segment_with(
        &mut self,
        frame: &Arc<Frame>,
        of_session: Option<Scale>,
        mut ended: impl FnMut(Stage),
    ) -> Result<Segmentation, SegmentError> {
        let (width, height) = (frame.width, frame.height);
        if width.min(height) < MIN_EDGE {
            return Err(SegmentError::TooSmall { width, height });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(SegmentError::TooLarge { width, height, limit: self.max_pixels });
        }
        let clock = self.clock.clone();
        let mut lap = Lap::start(&clock);
        let grey = self.package.manifest().normalisation.span(&frame.pixels, width as usize);
        ended(Stage::Normalise);
        let normalise_us = lap.next();
        let (Looked { scale, from, size_ratio }, signal) =
            self.run_network(frame, grey, of_session)?;
        ended(Stage::Network);
        let network_us = lap.next();
        let Self { pool, maps, reading, package, .. } = self;
        let parameters = &package.manifest().postprocessing;
        let labels = pool.install(|| {
            let labels = instances::from_maps(maps, parameters, reading);
            at_frame(labels, scale, width, height)
        });
        ended(Stage::Instances);
        let instances_us = lap.next();
        let objects = measure::objects(&labels, &frame.pixels);
        let (labels, objects) = without_noise(labels, objects, frame, &signal, grey);
        let focus = focus::score(&labels, &objects, &frame.pixels, grey);
        ended(Stage::Measure);
        self.evidence = Evidence::of(&View {
            plane: &self.plane,
            scale,
            maps: &self.maps,
            labels: &labels,
            objects: &objects,
            focus,
            grey: (grey.low, grey.high),
        });
        let look = Look {
            scale_from: from,
            scale: scale.factor(),
            size_ratio,
            unlike: unlike::judge(&self.evidence, self.polarity),
        };
        ended(Stage::Judge);
        let measure_us = lap.next();
        Ok(Segmentation {
            frame: Arc::clone(frame),
            model: Arc::clone(&self.model),
            labels: Arc::new(labels),
            objects: Arc::new(objects),
            focus,
            look,
            timings: Timings { normalise_us, network_us, instances_us, measure_us },
        })
    }

    /// Runs the network alone, for choosing post-processing.
    ///
    /// # Errors
    /// When the network fails.
    pub fn maps(&mut self, frame: &Frame) -> Result<ScaledMaps, SegmentError> {
        let grey = self.package.manifest().normalisation.span(&frame.pixels, frame.width as usize);
        let (Looked { scale, .. }, _) = self.run_network(frame, grey, None)?;
        Ok(ScaledMaps {
            maps: std::mem::take(&mut self.maps),
            scale,
            width: frame.width,
            height: frame.height,
        })
    }

    /// Maps of the frame at the scale that is returned, with where in the frame there is something.
    fn run_network(
        &mut self,
        frame: &Frame,
        grey: normalise::Span,
        of_session: Option<Scale>,
    ) -> Result<(Looked, Signal), SegmentError> {
        let stated = self.stated_ratio(frame);
        let own = self.package.manifest().network.object_diameter_px;
        let Self { pool, network, plane, maps, .. } = self;
        plane.fill(frame, grey);
        let signal = network.signal(plane);
        let (looked, tiles) = pool.install(|| -> Result<_, network::NetworkError> {
            let known = match stated {
                Some((from, ratio)) => Some((from, Scale::for_diameter(own * ratio, own))),
                None => of_session.map(|scale| (ScaleFrom::Session, scale)),
            };
            let Some((from, scale)) = known else {
                let estimate::Estimate { scale, seen, tiles } =
                    estimate::run(network, plane, &signal, maps)?;
                let from = if seen { ScaleFrom::Picture } else { ScaleFrom::Model };
                return Ok((Looked { scale, from, size_ratio: None }, tiles));
            };
            let tiles = network.run_where(&plane.at(scale), &signal.at(scale), maps)?;
            let size_ratio = match stated {
                Some((_, ratio)) if signal.anywhere() => {
                    disagreement(network, plane, (maps, scale), ratio)?
                }
                _ => None,
            };
            Ok((Looked { scale, from, size_ratio }, tiles))
        })?;
        self.tiles = tiles;
        Ok((looked, signal))
    }

    /// How many times as large as the model's own the objects should be by what is stated of the
    /// frame, without looking at it, and who states it.
    fn stated_ratio(&self, frame: &Frame) -> Option<(ScaleFrom, f32)> {
        let own = &self.package.manifest().network;
        if let Some(diameter) = self.object_diameter_px {
            return Some((ScaleFrom::Configured, diameter / own.object_diameter_px));
        }
        let pixel = frame.pixel_size_um.filter(|size| is_plausible(*size))?;
        Some((ScaleFrom::Stated, (own.pixel_size_um? / pixel) as f32))
    }
}

/// In which scale a frame was looked at.
struct Looked {
    scale: Scale,
    from: ScaleFrom,
    /// See [`Look::size_ratio`].
    size_ratio: Option<f32>,
}

/// How many times as large as `stated` the objects look, where that is a disagreement. What was stated
/// stands all the same: giant or tiny nuclei may be the drug's effect.
fn disagreement(
    network: &network::Network,
    plane: &Plane,
    (maps, scale): (&Maps, Scale),
    stated: f32,
) -> Result<Option<f32>, network::NetworkError> {
    if !network.gives_sizes() {
        return Ok(None);
    }
    let off = |ratio: f32| !(1.0 / DISAGREES..=DISAGREES).contains(&ratio);
    let here = estimate::diameter_ratio(maps, scale).map(|seen| seen / stated);
    if here.is_some_and(|ratio| !off(ratio)) {
        return Ok(None);
    }
    // From a wrong distance the network tells sizes badly, so the picture is asked in its own scale.
    let there = estimate::look_for_ratio(network, plane)?.map(|seen| seen / stated);
    Ok(there.filter(|ratio| off(*ratio) && here.is_none_or(|here| (here > 1.0) == (*ratio > 1.0))))
}

/// What the network says of one frame, at the scale at which it looked.
pub struct ScaledMaps {
    maps: Maps,
    scale: Scale,
    width: u32,
    height: u32,
}

impl ScaledMaps {
    /// The label image of the frame, read with `parameters`.
    pub fn labels(&self, parameters: &Postprocessing) -> LabelImage {
        let labels = instances::from_maps(&self.maps, parameters, &mut Workspace::default());
        at_frame(labels, self.scale, self.width, self.height)
    }
}

/// Leaves out what the network found in noise.
fn without_noise(
    labels: LabelImage,
    objects: Vec<Object>,
    frame: &Frame,
    signal: &Signal,
    grey: normalise::Span,
) -> (LabelImage, Vec<Object>) {
    let shows: Vec<bool> = objects
        .iter()
        .map(|object| signal.shows(object, grey.scale(object.intensity_mean as f32)))
        .collect();
    if shows.iter().all(|shows| *shows) {
        return (labels, objects);
    }
    let labels = labels.only(|label| shows[label as usize - 1]);
    let objects = measure::objects(&labels, &frame.pixels);
    (labels, objects)
}

/// Labels found at `scale`, at the pixels of the frame.
fn at_frame(labels: LabelImage, scale: Scale, width: u32, height: u32) -> LabelImage {
    if scale == Scale::NATIVE { labels } else { scale::to_frame(&labels, scale, width, height) }
}

/// Wall time between calls, in microseconds.
struct Lap<'a> {
    clock: &'a Clock,
    last: reticle_base::clock::Stamp,
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
