//! The virtual microscope: fluorescent nuclei on a plate, and a camera above them.
//!
//! Owns: a plate whose wells hold living [`population`]s, the [`stage`] that visits them, and
//! the [`optics`] that make pictures of them. It is the default source, so that the program
//! has something to show without any hardware, and it knows the true labels of each frame.
//!
//! Promises:
//! 1. The pixels of a frame are a function of the options and of its sequence number. Neither
//!    the clock nor what was taken before changes them.
//! 2. It is paced as a camera is: frame n is captured at its time n/fps after the first, and
//!    who comes late finds the newest frame and a gap in the sequence. The pace does not
//!    drift, and the next frame is exposed while the caller would wait for it.
//!
//! Exposure is against the usual 100 ms, gain in percent (100 is the usual gain).

use std::sync::Arc;
use std::time::Duration;

use self::optics::{Optics, Shutter};
use self::population::Population;
use self::stage::Stop;
use super::{Event, Options, Source, SourceError};
use reticle_base::clock::{Clock, Stamp};
use reticle_domain::frame::{Frame, Pixels, Place, Shot};
use reticle_domain::label_image::LabelImage;
use reticle_domain::pixel_size::PixelSizeSource;

#[expect(clippy::disallowed_methods, reason = "pictures of a made-up plate are no results")]
mod optics;
#[expect(clippy::disallowed_methods, reason = "pictures of a made-up plate are no results")]
mod population;
#[expect(clippy::disallowed_methods, reason = "pictures of a made-up plate are no results")]
mod stage;

const USUAL_FPS: f64 = 5.0;
const USUAL_EDGE: u32 = 1024;
const USUAL_EXPOSURE_US: u32 = 100_000;
const USUAL_GAIN_PERCENT: i32 = 100;
/// A 10× lens on a camera with pixels of 6.5 µm.
const USUAL_PIXEL_UM: f64 = 0.65;

/// Salts that keep the random streams of one seed apart.
mod salt {
    pub(super) const OPTICS: u64 = 1;
    pub(super) const NOISE: u64 = 2;
    pub(super) const CELLS: u64 = 3;
    pub(super) const FOCUS: u64 = 4;
}

/// The virtual microscope; see the module.
pub struct VirtualScope {
    clock: Clock,
    fps: f64,
    width: u32,
    height: u32,
    pixel_um: f64,
    exposure_us: u32,
    gain_percent: i32,
    seed: u64,
    /// Nuclei in the view of every field, instead of as many as its well has.
    objects: Option<u32>,
    optics: Optics,
    /// By number of the field; a field is seeded when the stage first comes by.
    fields: Vec<Option<Population>>,
    /// Number of the next frame that was not given out.
    upcoming: u64,
    /// When which frame was (or will be) captured; the others follow from it.
    pace: Option<Pace>,
    /// A frame exposed ahead of its time.
    exposed: Option<Exposed>,
}

struct Exposed {
    sequence: u64,
    pixels: Vec<u16>,
    truth: LabelImage,
}

/// A steady beat without drift: times are computed from its beginning, never added up.
#[derive(Clone, Copy)]
struct Pace {
    first: u64,
    begin_ns: u64,
    fps: f64,
}

impl Pace {
    /// Monotonic time at which frame `sequence` is captured.
    fn due_ns(&self, sequence: u64) -> u64 {
        let beats = sequence.saturating_sub(self.first);
        self.begin_ns + (beats as f64 / self.fps * 1e9).round() as u64
    }

    /// The newest frame captured at `now_ns`.
    fn newest(&self, now_ns: u64) -> u64 {
        let elapsed = now_ns.saturating_sub(self.begin_ns) as f64 / 1e9;
        let beat = self.first + (elapsed * self.fps).round() as u64;
        // Rounding may be a beat ahead; asking for the due time keeps both in agreement.
        if self.due_ns(beat) <= now_ns { beat } else { beat.saturating_sub(1).max(self.first) }
    }
}

impl VirtualScope {
    /// Switches the microscope on.
    ///
    /// # Errors
    /// [`SourceError::Unusable`] when an option is out of its range.
    pub fn new(options: &Options, clock: Clock) -> Result<Self, SourceError> {
        let (width, height) = match (options.width, options.height) {
            (None, None) => (USUAL_EDGE, USUAL_EDGE),
            (Some(width), Some(height)) => (width, height),
            _ => {
                return Err(SourceError::Unusable(
                    "the virtual microscope was given only one of width and height; \
                     give both or neither"
                        .to_owned(),
                ));
            }
        };
        check("width", f64::from(width), 64.0, 8192.0, "pixels")?;
        check("height", f64::from(height), 64.0, 8192.0, "pixels")?;
        let fps = options.fps.unwrap_or(USUAL_FPS);
        check("fps", fps, 0.001, 1000.0, "frames a second")?;
        let pixel_um = options.pixel_size_um.unwrap_or(USUAL_PIXEL_UM);
        check("pixel_size_um", pixel_um, 0.1, 2.0, "µm")?;
        let exposure_us = options.exposure_us.unwrap_or(USUAL_EXPOSURE_US);
        check_exposure(exposure_us)?;
        let gain_percent = options.gain.unwrap_or(USUAL_GAIN_PERCENT);
        check("gain", f64::from(gain_percent), 1.0, 10_000.0, "percent")?;
        let optics = Optics::new(
            width as usize,
            height as usize,
            pixel_um as f32,
            mix(options.seed, salt::OPTICS),
        );
        Ok(Self {
            clock,
            fps,
            width,
            height,
            pixel_um,
            exposure_us,
            gain_percent,
            seed: options.seed,
            objects: None,
            optics,
            fields: vec![None; stage::ALL_FIELDS as usize],
            upcoming: 0,
            pace: None,
            exposed: None,
        })
    }

    /// The same microscope above fields that hold `objects` nuclei each, spread evenly over the
    /// view, that neither move nor divide: for measuring by their number.
    ///
    /// # Errors
    /// [`SourceError::Unusable`] when so many do not fit side by side.
    pub fn with_objects(self, objects: u32) -> Result<Self, SourceError> {
        let (width, height) = self.view_um();
        let room = Population::room_for(width, height);
        if objects as usize > room {
            return Err(SourceError::Unusable(format!(
                "{objects} objects do not fit side by side in a frame of {}×{} pixels, which holds \
                 {room}; ask for fewer, or for a larger frame",
                self.width, self.height
            )));
        }
        let fields = vec![None; self.fields.len()];
        Ok(Self { objects: Some(objects), fields, exposed: None, ..self })
    }

    /// Width and height of the view, µm.
    fn view_um(&self) -> (f32, f32) {
        let edge_um = |pixels: u32| (f64::from(pixels) * self.pixel_um) as f32;
        (edge_um(self.width), edge_um(self.height))
    }

    /// Exposes frame `sequence`.
    fn expose(&mut self, sequence: u64) -> Exposed {
        let stop = Stop::at(sequence);
        let shutter = Shutter {
            defocus_um: defocus_um(self.seed, &stop),
            exposure: self.exposure_us as f32 / USUAL_EXPOSURE_US as f32,
            gain: self.gain_percent as f32 / USUAL_GAIN_PERCENT as f32,
            noise_seed: mix(mix(self.seed, salt::NOISE), sequence),
        };
        let seed = mix(mix(self.seed, salt::CELLS), u64::from(stop.field_index()));
        let (width, height) = self.view_um();
        let population =
            self.fields[stop.field_index() as usize].get_or_insert_with(|| match self.objects {
                Some(count) => Population::spread(seed, width, height, count as usize),
                None => Population::seeded(seed, width, height, stop.well.nuclei_per_mm2()),
            });
        if self.objects.is_none() {
            population.live_until(stop.steps());
        }
        let (pixels, truth) = self.optics.expose(population.nuclei(), shutter);
        Exposed { sequence, pixels, truth }
    }

    /// Makes the frame of `exposed`, captured at `captured`.
    fn frame(&self, exposed: Exposed, captured: Stamp) -> Frame {
        let stop = Stop::at(exposed.sequence);
        Shot {
            sequence: exposed.sequence,
            captured,
            exposure_us: Some(self.exposure_us),
            width: self.width,
            height: self.height,
            bit_depth: optics::BIT_DEPTH,
            pixels: Pixels::U16(exposed.pixels),
            pixel_size_um: Some(self.pixel_um),
            pixel_size_source: Some(PixelSizeSource::Configured),
            pixel_size_note: None,
            place: Place {
                plate: Some(format!("V-{:04}", self.seed)),
                well: Some(stop.well.name()),
                field: Some(stop.field + 1),
            },
            origin: None,
            truth: Some(Arc::new(exposed.truth)),
        }
        .into_frame()
        .expect("as many pixels are exposed as width × height")
    }
}

impl Source for VirtualScope {
    fn set_exposure(&mut self, us: u32) -> Result<u32, String> {
        check_exposure(us).map_err(|error| error.to_string())?;
        self.exposure_us = us;
        // The next frame was exposed ahead of its time.
        self.exposed = None;
        Ok(us)
    }

    fn next(&mut self, patience: Duration) -> Result<Event, SourceError> {
        let now = self.clock.now();
        let pace = *self.pace.get_or_insert(Pace {
            first: self.upcoming,
            begin_ns: now.mono_ns,
            fps: self.fps,
        });
        let due_ns = pace.due_ns(self.upcoming);
        if now.mono_ns < due_ns {
            // The wait is used: a camera has its frame when it is captured, not some
            // milliseconds of drawing later.
            if self.exposed.is_none() {
                self.exposed = Some(self.expose(self.upcoming));
            }
            let wait_ns = due_ns.saturating_sub(self.clock.now().mono_ns);
            std::thread::sleep(Duration::from_nanos(wait_ns).min(patience));
        }
        let now = self.clock.now();
        if now.mono_ns < due_ns {
            return Ok(Event::Nothing);
        }
        let sequence = pace.newest(now.mono_ns).max(self.upcoming);
        let exposed = match self.exposed.take() {
            Some(exposed) if exposed.sequence == sequence => exposed,
            _ => self.expose(sequence),
        };
        self.upcoming = sequence + 1;
        let late_ns = now.mono_ns - pace.due_ns(sequence);
        let captured = Stamp {
            wall_ns: now.wall_ns - late_ns.cast_signed(),
            mono_ns: now.mono_ns - late_ns,
            boot_id: now.boot_id,
        };
        Ok(Event::Frame(Box::new(self.frame(exposed, captured))))
    }

    fn rest(&mut self) {
        self.pace = None;
    }
}

/// Blur by defocus for one frame, standard deviation in µm. The autofocus finds most fields
/// well enough, one in nine badly; there the focus also creeps while the stage stands.
fn defocus_um(seed: u64, stop: &Stop) -> f32 {
    let visit = mix(stop.round, u64::from(stop.field_index()));
    let dice = mix(mix(seed, salt::FOCUS), visit);
    let fraction = |dice: u64| (dice >> 40) as f32 / (1_u64 << 24) as f32;
    let (how_bad, how_far) = (fraction(dice), fraction(mix(dice, 1)));
    let along = stop.frame as f32 / stage::FRAMES as f32;
    let very_first = stop.round == 0 && stop.field_index() < stage::FIELDS;
    if how_bad < 1.0 / 9.0 && !very_first {
        (1.2 + 1.8 * how_far) * (1.0 - 0.35 * along)
    } else {
        0.45 * how_far + 0.15 * along
    }
}

fn check_exposure(us: u32) -> Result<(), SourceError> {
    check("exposure_us", f64::from(us), 100.0, 10_000_000.0, "µs")
}

fn check(name: &str, value: f64, from: f64, to: f64, unit: &str) -> Result<(), SourceError> {
    if (from..=to).contains(&value) {
        return Ok(());
    }
    Err(SourceError::Unusable(format!(
        "{name} is {value}, but the virtual microscope takes {from} to {to} {unit}"
    )))
}

/// A number that looks random, from two (the finaliser of SplitMix64).
fn mix(one: u64, other: u64) -> u64 {
    let mut value = one
        .wrapping_add(other.wrapping_mul(0xD1B5_4A32_D192_ED03))
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
