//! `reticle camera list` and `reticle camera formats DEVICE`.
//!
//! `--json` prints what [`cameras::list`] and [`cameras::abilities`] give: an array of
//! [`cameras::Camera`] and one [`cameras::Abilities`], whose fields are documented there and
//! stay.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Outcome, out};
use crate::capture::cameras::{self, Abilities, Camera, Format, Range, Size};

/// Arguments of `reticle camera`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the cameras of this machine
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the pixel formats, sizes, rates and controls of a camera
    Formats {
        /// Device node, as /dev/video0
        device: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
///
/// # Errors
/// When the camera is not there or cannot be asked, or stdout cannot be written.
pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut out = out::stdout();
    match args.what {
        What::List { json } => {
            let cameras = cameras::list().context("cannot list /dev")?;
            if json {
                serde_json::to_writer_pretty(&mut out, &cameras)?;
                writeln!(out)?;
            } else {
                write_list(&mut out, &cameras)?;
            }
        }
        What::Formats { device, json } => {
            let abilities = cameras::abilities(without_scheme(&device))?;
            if json {
                serde_json::to_writer_pretty(&mut out, &abilities)?;
                writeln!(out)?;
            } else {
                write_abilities(&mut out, &abilities)?;
            }
        }
    }
    Ok(Outcome::Fine)
}

/// People paste the source specification.
fn without_scheme(device: &Path) -> &Path {
    device.to_str().and_then(|text| text.strip_prefix("v4l:")).map_or(device, Path::new)
}

fn write_list(out: &mut impl Write, cameras: &[Camera]) -> std::io::Result<()> {
    if cameras.is_empty() {
        return writeln!(
            out,
            "No camera found: there is no /dev/video* that gives images. Plug one in, or use \
             --source virtual."
        );
    }
    for camera in cameras {
        writeln!(out, "v4l:{}  {}", camera.device.display(), camera.name)?;
        if let Some(problem) = &camera.problem {
            writeln!(out, "    {problem}")?;
        } else {
            writeln!(out, "    {} on {}", camera.driver, camera.bus)?;
        }
        for alias in &camera.aliases {
            writeln!(out, "    v4l:{}", alias.display())?;
        }
    }
    Ok(())
}

fn write_abilities(out: &mut impl Write, camera: &Abilities) -> std::io::Result<()> {
    writeln!(out, "v4l:{}  {} ({})", camera.device.display(), camera.name, camera.driver)?;
    let (known, unknown): (Vec<&Format>, Vec<&Format>) =
        camera.formats.iter().partition(|format| format.pixel_format.is_some());
    for format in known {
        let name = format.pixel_format.map(|name| name.to_string()).unwrap_or_default();
        writeln!(out, "  {name:<8} {}", format.description)?;
        for size in &format.sizes {
            writeln!(out, "           {}", size_text(size))?;
        }
    }
    if !unknown.is_empty() {
        let codes: Vec<&str> = unknown.iter().map(|format| format.fourcc.as_str()).collect();
        writeln!(out, "  not read: {}", codes.join(" "))?;
    }
    writeln!(out, "  exposure_us: {}", range_text(camera.exposure))?;
    writeln!(out, "  gain: {}", range_text(camera.gain))
}

fn size_text(size: &Size) -> String {
    let [width, height] = size.from;
    let mut text = format!("{width}×{height}");
    if size.to != size.from {
        text.push_str(&format!(" to {}×{}", size.to[0], size.to[1]));
    }
    if !size.fps.is_empty() {
        let rates: Vec<String> =
            size.fps.iter().map(|rate| format!("{}", (rate * 100.0).round() / 100.0)).collect();
        text.push_str(&format!(" at {} frames/s", rates.join(", ")));
    }
    text
}

fn range_text(range: Option<Range>) -> String {
    match range {
        None => "cannot be set".to_owned(),
        Some(Range { min, max, now: None }) => format!("{min} to {max}"),
        Some(Range { min, max, now: Some(now) }) => format!("{min} to {max}, now {now}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(from: [u32; 2], to: [u32; 2], fps: &[f64]) -> Size {
        Size { from, to, fps: fps.to_vec() }
    }

    #[test]
    fn abilities_read_as_a_person_would_say_them() {
        let camera = Abilities {
            device: "/dev/video0".into(),
            name: "Scope".into(),
            driver: "uvcvideo".into(),
            formats: vec![
                Format {
                    fourcc: "Y12".into(),
                    description: "12-bit Greyscale".into(),
                    pixel_format: Some("Y12".parse().unwrap()),
                    sizes: vec![
                        size([640, 480], [640, 480], &[7.5, 29.970_03]),
                        size([16, 16], [1024, 1024], &[]),
                    ],
                },
                Format {
                    fourcc: "H264".into(),
                    description: "H.264".into(),
                    pixel_format: None,
                    sizes: vec![],
                },
            ],
            exposure: Some(Range { min: 100, max: 500_000, now: Some(15_600) }),
            gain: None,
        };
        let mut text = Vec::new();
        write_abilities(&mut text, &camera).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r"
        v4l:/dev/video0  Scope (uvcvideo)
          Y12      12-bit Greyscale
                   640×480 at 7.5, 29.97 frames/s
                   16×16 to 1024×1024
          not read: H264
          exposure_us: 100 to 500000, now 15600
          gain: cannot be set
        ");
    }

    #[test]
    fn a_machine_without_cameras_says_so_and_what_to_do() {
        let mut text = Vec::new();
        write_list(&mut text, &[]).unwrap();
        assert!(String::from_utf8(text).unwrap().starts_with("No camera found"));
    }

    #[test]
    fn the_device_may_be_written_as_the_source_is() {
        assert_eq!(without_scheme(Path::new("v4l:/dev/video3")), Path::new("/dev/video3"));
    }
}
