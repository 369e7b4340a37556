//! Images through the camera: what is sent to the HDMI output comes out of the HDMI input.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use reticle::capture::run::Notice;
use reticle::capture::{Options, SourceSpec, pixel_format::PixelFormat};
use reticle_base::durable;
use reticle_domain::frame::{Frame, Pixels};
use v4l::buffer::Type;
use v4l::control::Value;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, OutputStream};
use v4l::video::Output;
use v4l::{Device, Format, FourCC};

use crate::Bench;
use crate::formats::NO_TEXT;
use crate::rig::{Rig, set};

/// 720p at 60 frames a second: what an HDMI input is set to at first.
const WIDTH: usize = 1280;
const HEIGHT: usize = 720;

/// Edge of the part that is kept for the segmenter, which is slow in an emulated machine.
const CORNER: usize = 512;

/// Frames that must be equal, one after the other.
const EQUAL: usize = 30;

pub(crate) fn eight_bit(bench: &Bench) -> anyhow::Result<String> {
    through(bench, "GREY", 8)
}

pub(crate) fn sixteen_bit(bench: &Bench) -> anyhow::Result<String> {
    through(bench, "Y16", 16)
}

fn through(bench: &Bench, format: &str, bits: u8) -> anyhow::Result<String> {
    let format: PixelFormat = format.parse()?;
    let (sent, images) = canvas(&bench.images, bits)?;
    save(&bench.out.join(format!("sent-{bits}.png")), &corner(&sent))?;
    set(&bench.input, "Loop Video", Value::Boolean(true))?;
    set(&bench.input, "OSD Text Mode", Value::Integer(NO_TEXT))?;
    let output = Device::with_path(&bench.output).context("cannot open the output")?;
    let shown = show(&output, format, &sent.to_le_bytes()).context("cannot show the image")?;
    let options = Options {
        spec: SourceSpec::V4l(bench.input.clone()),
        width: Some(WIDTH as u32),
        height: Some(HEIGHT as u32),
        pixel_format: Some(format),
        ..Options::default()
    };
    let rig = Rig::start(options, &bench.clock)?;
    let wanted = sent.sha256();
    let (mut before, mut equal) = (0, 0);
    let captured = loop {
        let frame = match rig.next()? {
            Notice::Frame(frame) => frame,
            // A slow guest does not keep up with 60 frames a second, and need not.
            Notice::Opening | Notice::Ready | Notice::Missed { .. } => continue,
            other => bail!("{other:?}"),
        };
        if frame.sha256 == wanted {
            equal += 1;
        } else if equal == 0 && before < 100 {
            before += 1;
        } else {
            let pixels = (0..sent.len()).filter(|&at| sent.get(at) != frame.pixels.get(at));
            bail!("{} pixels differ after {equal} equal frames", pixels.count());
        }
        if equal == EQUAL {
            break frame;
        }
    };
    drop(shown);
    let pixels = corner(&captured.pixels);
    let sha256 = pixels.sha256();
    let edge = CORNER as u32;
    let part = Frame { pixels, sha256, width: edge, height: edge, ..*captured };
    let file = reticle_imagefile::encode_frame_tiff(&part)?;
    durable::write(&bench.out.join(format!("captured-{bits}.tif")), &file)?;
    Ok(format!("{EQUAL} frames of {WIDTH}×{HEIGHT} in {format} equal to what was sent: {images}"))
}

/// Shows one image on the output for as long as the stream lives.
///
/// The driver keeps the last buffer that it was given and sends it again and again, but it
/// begins only with two; so another buffer goes first, and this image stays.
fn show(device: &Device, format: PixelFormat, image: &[u8]) -> anyhow::Result<Stream<'static>> {
    let fourcc = FourCC::new(&format.fourcc());
    let got = device.set_format(&Format::new(WIDTH as u32, HEIGHT as u32, fourcc))?;
    ensure!(got.fourcc == fourcc && got.size as usize == image.len(), "the output has {got}");
    let mut stream = Stream::with_buffers(device, Type::VideoOutput, 2)?;
    let (bytes, meta) = OutputStream::next(&mut stream)?;
    bytes.get_mut(..image.len()).context("a short buffer")?.copy_from_slice(image);
    meta.bytesused = got.size;
    // Not with `OutputStream::queue`: it first waits until the driver gives a buffer back.
    CaptureStream::queue(&mut stream, 1)?;
    CaptureStream::queue(&mut stream, 0)?;
    Ok(stream)
}

/// One frame full of the folder's images of so many bits, or of drawn cells where it has none;
/// and what is on it.
fn canvas(folder: &Path, bits: u8) -> anyhow::Result<(Pixels, String)> {
    let mut values = vec![0_u16; WIDTH * HEIGHT];
    let mut names = Vec::new();
    let (mut left, mut top, mut below) = (0, 0, 0);
    for path in reticle_imagefile::list_images(&[folder.to_owned()])? {
        for page in reticle_imagefile::open(&path, reticle_imagefile::Limits::default())? {
            let page = page?;
            let eight = matches!(page.pixels, Pixels::U8(_));
            let (width, height) = (page.width as usize, page.height as usize);
            if eight != (bits == 8) {
                continue;
            }
            if left >= WIDTH {
                (left, top) = (0, below);
            }
            if top >= HEIGHT {
                break;
            }
            for y in 0..height.min(HEIGHT - top) {
                for x in 0..width.min(WIDTH - left) {
                    values[(top + y) * WIDTH + left + x] = page.pixels.get(y * width + x);
                }
            }
            left += width;
            below = below.max(top + height);
            names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    let what = if names.is_empty() {
        draw_cells(&mut values, bits);
        "drawn cells".to_owned()
    } else {
        format!("{} images ({} …)", names.len(), names[0])
    };
    let pixels = match bits {
        8 => Pixels::U8(values.iter().map(|&value| value as u8).collect()),
        _ => Pixels::U16(values),
    };
    Ok((pixels, what))
}

/// Bright discs with soft edges on an uneven ground that uses the low bits.
fn draw_cells(values: &mut [u16], bits: u8) {
    let full = f64::from((1_u32 << bits) - 1);
    for (at, value) in values.iter_mut().enumerate() {
        let (x, y) = ((at % WIDTH) as f64, (at / WIDTH) as f64);
        let (column, row) = ((x / 64.0).floor(), (y / 60.0).floor());
        let radius = 10.0 + (column * 7.0 + row * 3.0) % 9.0;
        let centre = (column * 64.0 + 32.0, row * 60.0 + 30.0);
        let distance = (x - centre.0).hypot(y - centre.1);
        let cell = 0.6 / (1.0 + ((distance - radius) / 1.5).exp());
        let ground = 0.08 + 0.04 * (x / 97.0).sin() * (y / 61.0).cos();
        *value = ((cell + ground) * full) as u16;
    }
}

/// The upper left corner.
fn corner(frame: &Pixels) -> Pixels {
    let at = (0..CORNER * CORNER).map(|at| frame.get(at / CORNER * WIDTH + at % CORNER));
    match frame {
        Pixels::U8(_) => Pixels::U8(at.map(|value| value as u8).collect()),
        Pixels::U16(_) => Pixels::U16(at.collect()),
    }
}

fn save(path: &Path, pixels: &Pixels) -> anyhow::Result<()> {
    use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let (bytes, colour) = match pixels {
        Pixels::U8(values) => (values.clone(), ExtendedColorType::L8),
        // The encoder takes native words.
        Pixels::U16(values) => {
            (values.iter().flat_map(|value| value.to_ne_bytes()).collect(), ExtendedColorType::L16)
        }
    };
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&bytes, CORNER as u32, CORNER as u32, colour)?;
    durable::write(path, &png)?;
    Ok(())
}
