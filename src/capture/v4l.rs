//! `v4l:/dev/videoN`: a camera of the Linux kernel, streamed through memory-mapped buffers.
//!
//! Promises:
//! 1. What was configured is what is captured: size, format, rate, exposure and gain are read
//!    back, and a camera that cannot do what was asked is refused with what it can do.
//! 2. A camera that is unplugged, or that gives no frame for [`SILENCE`] (longer only where its
//!    own frame distance and exposure are), is lost; whoever opened it opens it again.
//! 3. A frame that the driver marks as damaged, that is too short or that cannot be decoded
//!    is refused by number, never handed on.
//! 4. A frame's time is the driver's, where the driver tells monotonic time; else it is the
//!    time of arrival. Its number is the driver's, so a jump is what the driver lost.
//!
//! Opening does not set what the options leave out: a camera keeps what other tools set.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use v4l::buffer::{Flags, Metadata, Type};
use v4l::control::{Control, Value};
use v4l::format::FieldOrder;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::parameters::Capabilities as Timing;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC, Fraction};

use super::cameras::{control, fps, guarded, open_device};
use super::pixel_format::{PixelFormat, Unfit};
use super::{Event, Options, Source, SourceError};
use reticle_base::clock::{Clock, Stamp};
use reticle_domain::frame::{Place, Shot};
use reticle_domain::pixel_size::PixelSizeSource;

/// A camera that gives nothing for so long is lost. Half a second under the three seconds in
/// which an operator is told, for the time it takes to tell.
const SILENCE: Duration = Duration::from_millis(2500);

/// Buffers that the driver fills: one is being read, and a stall of two frame distances loses
/// nothing.
const BUFFERS: u32 = 4;

/// The kernel's limit of buffers of one queue (`VIDEO_MAX_FRAME`).
const MOST_BUFFERS: usize = 32;

/// `POLLIN` of poll(2).
const READABLE: i16 = 1;

/// Streams from one camera.
pub struct Camera {
    path: PathBuf,
    clock: Clock,
    device: Device,
    /// `None` while capture rests.
    stream: Option<Stream<'static>>,
    layout: Layout,
    exposure_us: Option<u32>,
    pixel_size_um: Option<f64>,
    silence: Duration,
    /// Time between two frames; zero where the camera does not tell.
    interval: Duration,
    /// When the camera last gave a buffer, or was started.
    heard: Stamp,
    count: Count,
}

/// How pixels lie in a buffer.
#[derive(Clone, Copy, Debug)]
struct Layout {
    format: PixelFormat,
    width: u32,
    height: u32,
    stride: u32,
}

impl Camera {
    /// Opens the camera, sets what `options` ask for, and starts it.
    ///
    /// # Errors
    /// [`SourceError::Lost`] when it is not there, busy or silent; [`SourceError::Unusable`]
    /// when it is no camera or cannot do what the options ask for.
    pub fn open(path: &Path, options: &Options, clock: Clock) -> Result<Self, SourceError> {
        let device = open_device(path)?;
        let layout = set_format(path, &device, options)?;
        let interval = set_rate(path, &device, options.fps)?;
        let exposure_us = set_exposure(path, &device, options.exposure_us)?;
        if let Some(gain) = options.gain {
            set_gain(path, &device, gain)?;
        }
        let mut camera = Self {
            path: path.to_owned(),
            heard: clock.now(),
            clock,
            device,
            stream: None,
            layout,
            exposure_us,
            pixel_size_um: options.pixel_size_um,
            interval,
            silence: patience_with(interval, exposure_us),
            count: Count::default(),
        };
        camera.start()?;
        tracing::info!(
            camera = %path.display(),
            format = %layout.format,
            width = layout.width,
            height = layout.height,
            fps = (!interval.is_zero()).then(|| interval.as_secs_f64().recip()),
            exposure_us,
            "camera opened"
        );
        Ok(camera)
    }

    fn start(&mut self) -> Result<(), SourceError> {
        let started = guarded(&self.path, "start it", || {
            let mut stream = Stream::with_buffers(&self.device, Type::VideoCapture, BUFFERS)?;
            // `Stream::next` is called only when a buffer waits; this bounds it all the same.
            stream.set_timeout(SILENCE);
            // `Stream::next` queues the buffer that was read last, at first number 0, and then
            // takes a filled one. Its own start queues all of them and then waits, and after a
            // timeout it would queue one twice. So all but number 0 are queued here, until the
            // driver says that there are no more.
            let mut queued = 0;
            for index in 1..MOST_BUFFERS {
                match CaptureStream::queue(&mut stream, index) {
                    Ok(()) => queued += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => break,
                    Err(error) => return Err(error),
                }
            }
            if queued == 0 {
                return Err(std::io::Error::other("the driver has a single buffer only"));
            }
            stream.start()?;
            Ok(stream)
        });
        self.stream = Some(started?);
        self.heard = self.clock.now();
        self.count.restarted();
        Ok(())
    }

    /// Lets the buffers go. The library panics when it drops a stream whose device answers
    /// anything but "done" or "gone", and twice, which would end the program: so a device
    /// that answers otherwise keeps its buffers, and the leak is told.
    fn stop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let gone = rustix::io::Errno::NODEV.raw_os_error();
        match stream.stop() {
            Err(error) if error.raw_os_error() != Some(gone) => {
                tracing::error!(
                    camera = %self.path.display(), %error,
                    "the camera does not stop; its buffers stay in use until this program ends"
                );
                let _kept = std::mem::ManuallyDrop::new(stream);
            }
            _ => {
                if catch_unwind(AssertUnwindSafe(move || drop(stream))).is_err() {
                    tracing::warn!(camera = %self.path.display(), "buffers were not freed");
                }
            }
        }
    }

    fn lost(&self, what: &str) -> SourceError {
        SourceError::Lost(format!(
            "camera {} {what}; check its cable and power, it is opened again as soon as it \
             answers",
            self.path.display()
        ))
    }

    fn event(&self, bytes: &[u8], meta: &Metadata, sequence: u64, now: Stamp) -> Event {
        let shot = self.shot(bytes, meta, sequence, now);
        match shot
            .map_err(|error| error.to_string())
            .and_then(|shot| shot.into_frame().map_err(|error| error.to_string()))
        {
            Ok(frame) => Event::Frame(Box::new(frame)),
            Err(why) => {
                Event::Refused { what: format!("frame {sequence} of {}", self.path.display()), why }
            }
        }
    }

    fn shot(
        &self,
        bytes: &[u8],
        meta: &Metadata,
        sequence: u64,
        now: Stamp,
    ) -> Result<Shot, Damaged> {
        if meta.flags.contains(Flags::ERROR) {
            return Err(Damaged::Marked);
        }
        let Layout { format, width, height, stride } = self.layout;
        let used = bytes.get(..meta.bytesused as usize).unwrap_or(bytes);
        let pixels = format.to_mono(used, width, height, stride)?;
        Ok(Shot {
            sequence,
            captured: captured(meta, now),
            exposure_us: self.exposure_us,
            width,
            height,
            bit_depth: format.bit_depth(),
            pixels,
            pixel_size_um: self.pixel_size_um,
            pixel_size_source: self.pixel_size_um.map(|_| PixelSizeSource::Configured),
            pixel_size_note: None,
            place: Place::default(),
            origin: None,
            truth: None,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum Damaged {
    #[error("the driver marks it as damaged; a cable or hub may lose data")]
    Marked,
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// How long a camera may be silent before it counts as hung.
fn patience_with(interval: Duration, exposure_us: Option<u32>) -> Duration {
    SILENCE.max(interval * 3 + Duration::from_micros(exposure_us.unwrap_or(0).into()))
}

impl Source for Camera {
    fn set_exposure(&mut self, us: u32) -> Result<u32, String> {
        let set = set_exposure(&self.path, &self.device, Some(us));
        // Refused or not, it may have been changed.
        let now = set_exposure(&self.path, &self.device, None).ok().flatten();
        self.exposure_us = now;
        self.silence = patience_with(self.interval, now);
        set.map_err(|error| error.to_string())?;
        now.ok_or_else(|| format!("{} does not tell which exposure it took", self.path.display()))
    }

    fn next(&mut self, patience: Duration) -> Result<Event, SourceError> {
        if self.stream.is_none() {
            // Whatever a camera answers that has run before, it may be replugged.
            self.start().map_err(|error| SourceError::Lost(error.to_string()))?;
        }
        let wait = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        match self.device.handle().poll(READABLE, wait) {
            Ok(0) => {
                let silent = self.clock.now().since(&self.heard);
                if silent < self.silence {
                    return Ok(Event::Nothing);
                }
                let limit = self.silence.as_secs_f64();
                return Err(self.lost(&format!("gave no frame for {limit:.1} s")));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                return Ok(Event::Nothing);
            }
            Err(error) => return Err(self.lost(&format!("cannot be waited for ({error})"))),
        }
        let now = self.clock.now();
        self.heard = now;
        let mut stream = self.stream.take().expect("it was started above");
        let event = match CaptureStream::next(&mut stream) {
            Ok((bytes, meta)) => {
                let sequence = self.count.number(meta.sequence);
                Ok(self.event(bytes, meta, sequence, now))
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Err(self.lost("is gone"))
            }
            Err(error) => Err(self.lost(&format!("stopped ({error})"))),
        };
        self.stream = Some(stream);
        event
    }

    /// Stops the camera: else its full buffers would be the first frames after the pause.
    fn rest(&mut self) {
        self.stop();
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Numbers frames on from the driver's 32-bit count, which starts anew with each stream and
/// wraps.
#[derive(Debug, Default)]
struct Count {
    next: u64,
    driver: Option<u32>,
}

impl Count {
    fn restarted(&mut self) {
        self.driver = None;
    }

    fn number(&mut self, driver: u32) -> u64 {
        let step = self.driver.map_or(1, |last| driver.wrapping_sub(last));
        // Drivers that do not count, or count back, lost nothing that we could know of.
        let step = if step == 0 || step > u32::MAX / 2 { 1 } else { step };
        let number = self.next + u64::from(step) - 1;
        self.driver = Some(driver);
        self.next = number + 1;
        number
    }
}

/// When the frame was captured: the driver's time, where it is monotonic time and lies
/// between the last boot and now.
fn captured(meta: &Metadata, now: Stamp) -> Stamp {
    let kind = meta.flags & Flags::TIMESTAMP_MASK;
    let told = u64::try_from(meta.timestamp.sec).ok().zip(u64::try_from(meta.timestamp.usec).ok());
    let mono_ns = told.map(|(sec, usec)| sec * 1_000_000_000 + usec * 1000);
    match mono_ns {
        Some(mono_ns)
            if kind == Flags::TIMESTAMP_MONOTONIC && 0 < mono_ns && mono_ns <= now.mono_ns =>
        {
            let age = (now.mono_ns - mono_ns).cast_signed();
            Stamp { wall_ns: now.wall_ns - age, mono_ns, boot_id: now.boot_id }
        }
        _ => now,
    }
}

fn unusable(path: &Path, what: &str) -> SourceError {
    SourceError::Unusable(format!(
        "camera {} {what}; `reticle camera formats {0}` shows what it can do",
        path.display()
    ))
}

fn set_format(path: &Path, device: &Device, options: &Options) -> Result<Layout, SourceError> {
    let offered: Vec<[u8; 4]> = guarded(path, "list its formats", || device.enum_formats())?
        .into_iter()
        .map(|format| format.fourcc.repr)
        .collect();
    let wanted = match options.pixel_format {
        Some(format) if offered.contains(&format.fourcc()) => format,
        Some(format) => return Err(unusable(path, &format!("does not send {format}"))),
        None => PixelFormat::all()
            .find(|format| offered.contains(&format.fourcc()))
            .ok_or_else(|| unusable(path, "sends no pixel format that can be read"))?,
    };
    let now = guarded(path, "ask for its format", || device.format())?;
    let width = options.width.unwrap_or(now.width);
    let height = options.height.unwrap_or(now.height);
    // Stride and size stay zero: a driver that is handed those of another format keeps them.
    let mut asked = Format::new(width, height, FourCC::new(&wanted.fourcc()));
    asked.field_order = FieldOrder::Progressive;
    let got = guarded(path, "set its format", || device.set_format(&asked))?;
    if got.fourcc.repr != wanted.fourcc() {
        return Err(unusable(path, &format!("sends {} where {wanted} was asked for", got.fourcc)));
    }
    let other_size = options.width.is_some_and(|width| width != got.width)
        || options.height.is_some_and(|height| height != got.height);
    if other_size {
        let (near_width, near_height) = (got.width, got.height);
        return Err(unusable(
            path,
            &format!(
                "has no size {width}×{height} in {wanted}, the nearest is \
                 {near_width}×{near_height}"
            ),
        ));
    }
    match got.field_order {
        FieldOrder::Any
        | FieldOrder::Progressive
        | FieldOrder::Interlaced
        | FieldOrder::InterlacedTB
        | FieldOrder::InterlacedBT => {}
        half => return Err(unusable(path, &format!("sends half images ({half})"))),
    }
    Ok(Layout { format: wanted, width: got.width, height: got.height, stride: got.stride })
}

/// Sets the rate where one is asked for; gives the distance of frames, zero if not known.
fn set_rate(path: &Path, device: &Device, asked: Option<f64>) -> Result<Duration, SourceError> {
    // ENOTTY: cameras that run at what their clock gives have no such question.
    let now = match guarded(path, "ask for its rate", || device.params()) {
        Ok(now) => Some(now),
        Err(SourceError::Unusable(_)) => None,
        Err(lost) => return Err(lost),
    };
    let interval = match (asked, now) {
        (None, None) => return Ok(Duration::ZERO),
        (None, Some(now)) => now.interval,
        (Some(_), now)
            if !now.is_some_and(|now| now.capabilities.contains(Timing::TIME_PER_FRAME)) =>
        {
            return Err(unusable(path, "does not let its rate be set: leave `fps` out"));
        }
        (Some(asked), _) => {
            let interval = Fraction::new(1000, ((asked * 1000.0).round() as u32).max(1));
            let got =
                guarded(path, "set its rate", || device.set_params(&Parameters::new(interval)))?;
            let rate = fps(got.interval).unwrap_or(asked);
            // Drivers round to the sensor's clock; a tenth off is another rate.
            if (rate - asked).abs() > 0.1 * asked {
                return Err(unusable(
                    path,
                    &format!("has no rate of {asked} frames a second, the nearest is {rate:.3}"),
                ));
            }
            got.interval
        }
    };
    Ok(fps(interval).map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())))
}

fn read_control(device: &Device, id: u32) -> Option<i64> {
    let read = catch_unwind(AssertUnwindSafe(|| device.control(id)));
    match read.ok()?.ok()?.value {
        Value::Integer(value) => Some(value),
        Value::Boolean(value) => Some(value.into()),
        _ => None,
    }
}

fn write_control(path: &Path, device: &Device, id: u32, value: Value) -> Result<(), SourceError> {
    guarded(path, "set a control", || device.set_control(Control { id, value }))
}

/// Sets the exposure where one is asked for; gives what it is, where the camera tells and no
/// automatic changes it.
fn set_exposure(
    path: &Path,
    device: &Device,
    asked_us: Option<u32>,
) -> Result<Option<u32>, SourceError> {
    let microseconds = |units: i64| u32::try_from(units.saturating_mul(100)).ok();
    if let Some(asked) = asked_us {
        if read_control(device, control::EXPOSURE_ABSOLUTE).is_none() {
            return Err(unusable(path, "has no exposure in µs to set: leave `exposure_us` out"));
        }
        if read_control(device, control::EXPOSURE_AUTO).is_some() {
            let manual = Value::Integer(control::EXPOSURE_MANUAL);
            write_control(path, device, control::EXPOSURE_AUTO, manual)?;
        }
        let units = i64::from(asked.div_ceil(100).max(1));
        write_control(path, device, control::EXPOSURE_ABSOLUTE, Value::Integer(units))?;
        let got = read_control(device, control::EXPOSURE_ABSOLUTE).and_then(microseconds);
        let near = got.filter(|got| got.abs_diff(asked) <= (asked / 10).max(100));
        return near.map(Some).ok_or_else(|| {
            let got = got.map_or("another".to_owned(), |got| format!("{got} µs"));
            unusable(path, &format!("has no exposure of {asked} µs, it took {got}"))
        });
    }
    let automatic = read_control(device, control::EXPOSURE_AUTO)
        .is_some_and(|mode| mode != control::EXPOSURE_MANUAL);
    Ok(read_control(device, control::EXPOSURE_ABSOLUTE)
        .filter(|_| !automatic)
        .and_then(microseconds))
}

fn set_gain(path: &Path, device: &Device, asked: i32) -> Result<(), SourceError> {
    let Some(&id) = control::GAINS.iter().find(|id| read_control(device, **id).is_some()) else {
        return Err(unusable(path, "has no gain to set: leave `gain` out"));
    };
    if read_control(device, control::AUTO_GAIN).is_some() {
        write_control(path, device, control::AUTO_GAIN, Value::Boolean(false))?;
    }
    write_control(path, device, id, Value::Integer(asked.into()))?;
    match read_control(device, id) {
        Some(got) if got == i64::from(asked) => Ok(()),
        got => Err(unusable(
            path,
            &format!("has no gain of {asked}, it took {}", got.unwrap_or_default()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v4l::Timestamp;

    fn meta(flags: Flags, sec: i64, usec: i64) -> Metadata {
        Metadata { flags, timestamp: Timestamp { sec, usec }, ..Metadata::default() }
    }

    #[test]
    fn the_time_of_a_frame_is_the_drivers_where_it_is_monotonic() {
        let clock = Clock::manual(5_000_000_000_000);
        clock.advance(Duration::from_secs(10));
        let now = clock.now();
        let stamp = captured(&meta(Flags::TIMESTAMP_MONOTONIC, 9, 750_000), now);
        assert_eq!(stamp.mono_ns, 9_750_000_000);
        assert_eq!(stamp.wall_ns, now.wall_ns - 250_000_000);
    }

    #[test]
    fn a_time_that_is_not_monotonic_or_not_yet_is_replaced_by_that_of_arrival() {
        let clock = Clock::manual(0);
        clock.advance(Duration::from_secs(10));
        let now = clock.now();
        assert_eq!(captured(&meta(Flags::TIMESTAMP_UNKNOWN, 9, 0), now), now);
        assert_eq!(captured(&meta(Flags::TIMESTAMP_COPY, 9, 0), now), now);
        assert_eq!(captured(&meta(Flags::TIMESTAMP_MONOTONIC, 11, 0), now), now);
        assert_eq!(captured(&meta(Flags::TIMESTAMP_MONOTONIC, -1, 0), now), now);
    }

    #[test]
    fn numbers_go_on_over_a_wrap_and_a_restart_and_jump_with_the_driver() {
        let mut count = Count::default();
        assert_eq!(count.number(u32::MAX - 1), 0);
        assert_eq!(count.number(u32::MAX), 1);
        assert_eq!(count.number(0), 2);
        assert_eq!(count.number(3), 5, "two were lost");
        count.restarted();
        assert_eq!(count.number(0), 6);
        assert_eq!(count.number(0), 7, "this driver does not count");
    }
}
