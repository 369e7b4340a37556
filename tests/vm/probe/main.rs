//! Checks of the capture code against a real kernel: runs inside the virtual machine that
//! `scripts/vm-camera` boots, where the `vivid` driver is a webcam, and an HDMI input that is
//! looped to an HDMI output.
//!
//! Usage: `probe WEBCAM INPUT OUTPUT IMAGES OUT`, where IMAGES is a folder of image files to
//! send through the loop, and OUT takes what was sent and what was captured, for the
//! segmenter. One line a check: `ok NAME: what was seen` or `FAILED NAME: why`; the exit code
//! is 1 if one failed.

mod faults;
mod formats;
#[expect(clippy::disallowed_methods, reason = "pictures of a test are no results")]
mod looped;
mod rig;
mod settings;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use reticle_base::clock::Clock;

/// What there is to check with.
pub(crate) struct Bench {
    /// Node of the webcam.
    pub(crate) webcam: PathBuf,
    /// Node of the HDMI input.
    pub(crate) input: PathBuf,
    /// Node of the HDMI output.
    pub(crate) output: PathBuf,
    /// Folder of images.
    pub(crate) images: PathBuf,
    /// Folder for what was sent and captured.
    pub(crate) out: PathBuf,
    /// The guest's clock.
    pub(crate) clock: Clock,
}

type Check = fn(&Bench) -> anyhow::Result<String>;

const CHECKS: [(&str, Check); 17] = [
    ("the webcam is listed", settings::listed),
    ("what is no camera, or not there, is named", settings::no_camera),
    ("size, rate and format that it has not are refused", settings::refused),
    ("a camera in use is waited for", settings::in_use),
    ("gain is set and read back", settings::gain),
    ("rate is set and seen", settings::rate),
    ("brightness is seen while streaming", settings::seen_while_streaming),
    ("200 frames in each format", formats::every_format),
    ("the driver's count wraps", formats::wrap),
    ("a pause leaves no stale frame and no jump", settings::pause),
    ("dropped frames are counted", faults::dropped),
    ("a damaged frame is refused", faults::damaged),
    ("a fatal streaming error is survived", faults::fatal),
    ("a camera that hangs is noticed and comes back", faults::hang),
    ("the driver unbound and bound again", faults::unbind),
    ("8-bit images through the camera, bit for bit", looped::eight_bit),
    ("16-bit images through the camera, bit for bit", looped::sixteen_bit),
];

fn main() -> anyhow::Result<ExitCode> {
    let [webcam, input, output, images, out] =
        <[String; 5]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
            .map_err(|_wrong| anyhow::anyhow!("usage: probe WEBCAM INPUT OUTPUT IMAGES OUT"))?
            .map(PathBuf::from);
    let bench = Bench { webcam, input, output, images, out, clock: Clock::system() };
    let mut failed = 0;
    for (name, check) in CHECKS {
        let start = bench.clock.now();
        let result = check(&bench);
        let took = bench.clock.now().since(&start).as_secs_f64();
        let mut stdout = std::io::stdout().lock();
        match result {
            Ok(seen) => writeln!(stdout, "ok {name}: {seen} [{took:.1} s]")?,
            Err(error) => {
                failed += 1;
                writeln!(stdout, "FAILED {name}: {error:#} [{took:.1} s]")?;
            }
        }
    }
    writeln!(std::io::stdout(), "{} checks, {failed} failed", CHECKS.len())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
