//! Which cameras there are and what they can do; opening a device node safely.
//!
//! Asking a camera never disturbs a program that streams from it. Everything that may fail
//! here fails as a [`SourceError`] whose message says what, where and what to do; the type
//! says whether trying again may help.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use v4l::capability::{Capabilities, Flags};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;
use v4l::{Device, FourCC, Fraction};

use super::SourceError;
use super::pixel_format::PixelFormat;

/// A camera of this machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Camera {
    /// Device node, as `/dev/video0`. The number may change when cameras are replugged.
    pub device: PathBuf,
    /// Other paths of the node that stay the same, as `/dev/v4l/by-id/…`.
    pub aliases: Vec<PathBuf>,
    /// What the camera calls itself.
    pub name: String,
    /// Kernel driver; empty where the camera cannot be asked.
    pub driver: String,
    /// Where it is plugged in, in the driver's words; empty where the camera cannot be asked.
    pub bus: String,
    /// Why it cannot be used, for a person; `null` if it can.
    pub problem: Option<String>,
}

/// What a camera can do.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Abilities {
    /// Device node.
    pub device: PathBuf,
    /// What the camera calls itself.
    pub name: String,
    /// Kernel driver.
    pub driver: String,
    /// What it can send.
    pub formats: Vec<Format>,
    /// Whether `exposure_us` can be set.
    pub exposure: Option<Range>,
    /// Whether `gain` can be set.
    pub gain: Option<Range>,
}

/// One format that a camera can send.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Format {
    /// Four-character code, trailing blanks cut; `-BE` behind it for big-endian formats.
    pub fourcc: String,
    /// The driver's description.
    pub description: String,
    /// Whether it can be read, and its name as `pixel_format` if so.
    pub pixel_format: Option<PixelFormat>,
    /// Sizes it can be sent in.
    pub sizes: Vec<Size>,
}

/// A size, or a range of sizes, with its frame rates.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Size {
    /// Smallest width and height in pixels.
    pub from: [u32; 2],
    /// Largest width and height in pixels; the same as `from` for a single size.
    pub to: [u32; 2],
    /// Frames a second that can be chosen, lowest first; the two ends of the range where it
    /// is one; empty where the driver does not say.
    pub fps: Vec<f64>,
}

/// Values that a control takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Range {
    /// Smallest.
    pub min: i64,
    /// Largest.
    pub max: i64,
    /// Now.
    pub now: Option<i64>,
}

/// The cameras of this machine, in the order of their numbers. Nodes that give no images (as
/// the metadata node that every webcam has) are left out.
///
/// # Errors
/// When `/dev` cannot be read.
pub fn list() -> io::Result<Vec<Camera>> {
    let mut nodes: Vec<(u32, PathBuf)> = std::fs::read_dir("/dev")?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, path))
        })
        .collect();
    nodes.sort();
    let aliases = aliases();
    let mut cameras = Vec::new();
    for (number, device) in nodes {
        let (name, driver, bus, problem) = match open_node(&device) {
            Ok((_, caps)) => (caps.card, caps.driver, caps.bus, None),
            Err(NotOpen::NoCapture(_)) => continue,
            Err(NotOpen::Failed(error)) => {
                (name_from_sysfs(number), String::new(), String::new(), Some(error.to_string()))
            }
        };
        let aliases = aliases
            .iter()
            .filter(|(_, target)| *target == device)
            .map(|(alias, _)| alias.clone())
            .collect();
        cameras.push(Camera { device, aliases, name, driver, bus, problem });
    }
    Ok(cameras)
}

/// What the camera at `path` can do.
///
/// # Errors
/// When it is not there, is no camera, or cannot be asked.
pub fn abilities(path: &Path) -> Result<Abilities, SourceError> {
    let (device, caps) = open_node(path)?;
    let formats = guarded(path, "list its formats", || {
        let mut formats = Vec::new();
        for found in device.enum_formats()? {
            formats.push(Format {
                fourcc: code_text(found.fourcc.repr),
                description: found.description,
                pixel_format: PixelFormat::from_fourcc(found.fourcc.repr),
                sizes: sizes(&device, found.fourcc),
            });
        }
        Ok(formats)
    })?;
    let range = |ids: &[u32], unit: i64| control_range(&device, ids, unit);
    let (exposure, gain) = guarded(path, "list its controls", || {
        Ok((range(&[control::EXPOSURE_ABSOLUTE], 100), range(&control::GAINS, 1)))
    })?;
    Ok(Abilities {
        device: path.to_owned(),
        name: caps.card,
        driver: caps.driver,
        formats,
        exposure,
        gain,
    })
}

/// Numbers of the controls that are used, from the kernel's `v4l2-controls.h`.
pub(super) mod control {
    /// Boolean.
    pub(in super::super) const AUTO_GAIN: u32 = 0x0098_0912;
    /// Gain of the whole chain, else of the analogue part, in the driver's units.
    pub(in super::super) const GAINS: [u32; 2] = [0x0098_0913, 0x009e_0903];
    /// Menu.
    pub(in super::super) const EXPOSURE_AUTO: u32 = 0x009a_0901;
    /// The entry of [`EXPOSURE_AUTO`] that means "as told".
    pub(in super::super) const EXPOSURE_MANUAL: i64 = 1;
    /// In units of 100 µs.
    pub(in super::super) const EXPOSURE_ABSOLUTE: u32 = 0x009a_0902;
}

/// Why a node was not opened.
#[derive(Debug)]
enum NotOpen {
    /// It is a video device, but gives no images.
    NoCapture(SourceError),
    /// Anything else.
    Failed(SourceError),
}

impl From<NotOpen> for SourceError {
    fn from(error: NotOpen) -> Self {
        match error {
            NotOpen::NoCapture(error) | NotOpen::Failed(error) => error,
        }
    }
}

/// Opens the camera at `path`.
///
/// # Errors
/// When it is not there or may not be opened ([`SourceError::Lost`]: it may be plugged in,
/// and udev grants access a moment after a node appears), or is no camera that can stream.
pub(super) fn open_device(path: &Path) -> Result<Device, SourceError> {
    open_node(path).map(|(device, _)| device).map_err(SourceError::from)
}

fn open_node(path: &Path) -> Result<(Device, Capabilities), NotOpen> {
    let shown = path.display();
    let failed = |error| NotOpen::Failed(trouble(path, "open it", &error));
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_char_device() {
        return Err(NotOpen::Failed(SourceError::Unusable(format!(
            "{shown} is no camera but a {}; choose one of `reticle camera list`",
            if kind.is_dir() { "folder" } else { "file" },
        ))));
    }
    let device = Device::with_path(path).map_err(failed)?;
    let caps = guarded(path, "ask what it is", || device.query_caps()).map_err(NotOpen::Failed)?;
    let has = |flag| caps.capabilities.contains(flag);
    let wrong = |what: &str| {
        SourceError::Unusable(format!(
            "{shown} ({}) {what}; choose one of `reticle camera list`",
            caps.card
        ))
    };
    if has(Flags::VIDEO_CAPTURE) && has(Flags::STREAMING) {
        Ok((device, caps))
    } else if has(Flags::VIDEO_CAPTURE_MPLANE) {
        Err(NotOpen::Failed(wrong("sends its images in several planes, which is not supported")))
    } else if has(Flags::VIDEO_CAPTURE) {
        Err(NotOpen::Failed(wrong("cannot stream into memory")))
    } else {
        Err(NotOpen::NoCapture(wrong("gives no images")))
    }
}

/// Runs `ask`, which may panic: the v4l crate does where a driver answers with a colour space,
/// a control type or a name out of the standard, and that must not end the program.
pub(super) fn guarded<T>(
    path: &Path,
    doing: &str,
    ask: impl FnOnce() -> io::Result<T>,
) -> Result<T, SourceError> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => answer.map_err(|error| trouble(path, doing, &error)),
        Err(_) => Err(SourceError::Unusable(format!(
            "the driver of {} answers out of the standard when asked to {doing}; \
             update the kernel or use another camera",
            path.display()
        ))),
    }
}

/// What an error of the kernel means, by its number.
pub(super) fn trouble(path: &Path, doing: &str, error: &io::Error) -> SourceError {
    use rustix::io::Errno;
    let path = path.display();
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => SourceError::Lost(format!(
            "camera {path} is not there; plug it in, or choose one of `reticle camera list`"
        )),
        Some(Errno::ACCESS | Errno::PERM) => SourceError::Lost(format!(
            "no permission to open camera {path}; add this user to the group `video` \
             (`usermod -aG video USER`, then log in again)"
        )),
        Some(Errno::BUSY) => {
            SourceError::Lost(format!("camera {path} is used by another program; close that one"))
        }
        Some(Errno::NOTTY) => SourceError::Unusable(format!(
            "{path} is no video device; choose one of `reticle camera list`"
        )),
        Some(Errno::NOSPC) => SourceError::Unusable(format!(
            "not enough USB bandwidth for camera {path}; choose a smaller size or rate, or \
             plug it into another port"
        )),
        Some(Errno::IO | Errno::PIPE | Errno::PROTO | Errno::TIMEDOUT | Errno::AGAIN) => {
            SourceError::Lost(format!(
                "camera {path} does not answer ({doing}: {error}); check its cable and power"
            ))
        }
        _ => SourceError::Unusable(format!("camera {path}: cannot {doing}: {error}")),
    }
}

/// A four-character code as people write it. The kernel marks big-endian formats in the last
/// character's highest bit.
fn code_text(code: [u8; 4]) -> String {
    let [.., last] = code;
    let characters = code.map(|byte| match byte & 0x7f {
        byte if byte.is_ascii_graphic() || byte == b' ' => char::from(byte),
        _ => '?',
    });
    let text = String::from_iter(characters);
    format!("{}{}", text.trim_end(), if last & 0x80 == 0 { "" } else { "-BE" })
}

fn sizes(device: &Device, fourcc: FourCC) -> Vec<Size> {
    let mut sizes = Vec::new();
    // A driver that does not list its sizes (EINVAL, ENOTTY) still has one.
    for found in device.enum_framesizes(fourcc).unwrap_or_default() {
        let (from, to) = match found.size {
            FrameSizeEnum::Discrete(size) => ([size.width, size.height], [size.width, size.height]),
            FrameSizeEnum::Stepwise(range) => {
                ([range.min_width, range.min_height], [range.max_width, range.max_height])
            }
        };
        sizes.push(Size { from, to, fps: rates(device, fourcc, to) });
    }
    sizes
}

fn rates(device: &Device, fourcc: FourCC, [width, height]: [u32; 2]) -> Vec<f64> {
    let intervals = device.enum_frameintervals(fourcc, width, height).unwrap_or_default();
    let mut rates: Vec<f64> = intervals
        .into_iter()
        .flat_map(|found| match found.interval {
            FrameIntervalEnum::Discrete(interval) => vec![interval],
            FrameIntervalEnum::Stepwise(range) => vec![range.max, range.min],
        })
        .filter_map(fps)
        .collect();
    rates.sort_by(f64::total_cmp);
    rates
}

/// Frames a second at this distance of frames; `None` where it is zero, for "not known".
pub(super) fn fps(interval: Fraction) -> Option<f64> {
    (interval.numerator > 0 && interval.denominator > 0)
        .then(|| f64::from(interval.denominator) / f64::from(interval.numerator))
}

fn control_range(device: &Device, ids: &[u32], unit: i64) -> Option<Range> {
    let known = device.query_controls().ok()?;
    let found = ids.iter().find_map(|id| known.iter().find(|control| control.id == *id))?;
    let now = match device.control(found.id).ok()?.value {
        v4l::control::Value::Integer(value) => Some(value * unit),
        _ => None,
    };
    Some(Range { min: found.minimum * unit, max: found.maximum * unit, now })
}

fn aliases() -> Vec<(PathBuf, PathBuf)> {
    let mut aliases: Vec<(PathBuf, PathBuf)> = ["/dev/v4l/by-id", "/dev/v4l/by-path"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| {
            let alias = entry.ok()?.path();
            let target = alias.canonicalize().ok()?;
            Some((alias, target))
        })
        .collect();
    aliases.sort();
    aliases
}

fn name_from_sysfs(number: u32) -> String {
    std::fs::read_to_string(format!("/sys/class/video4linux/video{number}/name"))
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path) -> String {
        let error = open_device(path).err().expect("this is no camera");
        error.to_string()
    }

    #[test]
    fn a_camera_that_is_not_there_may_come_and_the_message_says_what_to_do() {
        let path = Path::new("/dev/video-that-is-not-there");
        assert!(matches!(open_device(path), Err(SourceError::Lost(_))));
        assert_eq!(
            message(path),
            "camera /dev/video-that-is-not-there is not there; plug it in, or choose one of \
             `reticle camera list`"
        );
    }

    #[test]
    fn what_is_no_video_device_is_unusable_and_named() {
        assert!(matches!(open_device(Path::new("/dev/null")), Err(SourceError::Unusable(_))));
        assert_eq!(
            message(Path::new("/dev/null")),
            "/dev/null is no video device; choose one of `reticle camera list`"
        );
        assert!(message(Path::new("/tmp")).starts_with("/tmp is no camera but a folder;"));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(message(file.path()).contains("is no camera but a file;"));
    }

    #[test]
    fn an_error_of_the_kernel_says_whether_to_try_again_and_what_to_do() {
        let of = |errno: rustix::io::Errno| {
            trouble(Path::new("/dev/video0"), "open it", &io::Error::from(errno))
        };
        use rustix::io::Errno;
        assert!(
            matches!(of(Errno::ACCESS), SourceError::Lost(text) if text.contains("group `video`"))
        );
        assert!(
            matches!(of(Errno::BUSY), SourceError::Lost(text) if text.contains("another program"))
        );
        assert!(matches!(of(Errno::NODEV), SourceError::Lost(_)));
        assert!(
            matches!(of(Errno::NOSPC), SourceError::Unusable(text) if text.contains("bandwidth"))
        );
        assert!(
            matches!(of(Errno::INVAL), SourceError::Unusable(text) if text.contains("cannot open it"))
        );
    }

    #[test]
    fn a_four_character_code_is_printable_whatever_it_is() {
        assert_eq!(code_text(*b"GREY"), "GREY");
        assert_eq!(code_text(*b"Y12 "), "Y12");
        assert_eq!(code_text([b'Y', b'1', b'6', b' ' | 0x80]), "Y16-BE");
        assert_eq!(code_text([b'R', 0, 0x1b, b'3']), "R??3");
    }

    #[test]
    fn a_driver_that_makes_the_library_panic_is_unusable_and_ends_nothing() {
        let asked: Result<(), _> =
            guarded(Path::new("/dev/video0"), "set its format", || panic!("Invalid colorspace"));
        assert!(
            matches!(asked, Err(SourceError::Unusable(text)) if text.contains("set its format"))
        );
    }
}
