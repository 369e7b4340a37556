//! The picture for people: grey values stretched to 8 bits, averaged down where the frame is
//! large, as JPEG. What is measured and stored never passes through here.

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

use reticle_domain::frame::{Frame, Pixels};
use reticle_domain::label_image::LabelImage;

/// Share of pixels that may be darker than black and brighter than white.
const CLIP: f64 = 0.001;
/// About how many pixels the stretch is taken from; more does not change it visibly.
const SAMPLES: usize = 65_536;
/// Fewest grey levels between black and white, so that noise alone is not blown up.
const LEAST_RANGE: (u16, u16) = (16, 48);
/// The segment in which a preview says whose it is.
const APP_SEGMENT: u8 = 9;
/// What that segment begins with; the frame's id follows as 16 bytes.
const APP_TAG: &[u8] = b"reticle\0";
/// Okabe–Ito yellow.
const OUTLINE: [u8; 3] = [0xF0, 0xE4, 0x42];
const EDGE: [u8; 3] = [0x10, 0x10, 0x10];

/// An 8-bit picture of a frame.
pub(crate) struct Preview {
    /// Width in its own pixels.
    pub(crate) width: u16,
    /// Height in its own pixels.
    pub(crate) height: u16,
    /// Pixels of the frame along the edge of one of its own.
    pub(crate) factor: u32,
    /// Grey values of the frame that are shown as black and white.
    pub(crate) stretch: [u16; 2],
    grey: Vec<u8>,
}

impl Preview {
    /// Of `frame`, no edge longer than `longest` pixels.
    pub(crate) fn of(frame: &Frame, longest: u32) -> Self {
        let edge = frame.width.max(frame.height).max(1);
        let factor = edge.div_ceil(longest.clamp(16, u32::from(u16::MAX)));
        let stretch = stretch(&frame.pixels);
        let lut = Lut::new(stretch);
        let (width, height) = (frame.width.div_ceil(factor), frame.height.div_ceil(factor));
        let size = [frame.width as usize, frame.height as usize];
        let grey = match &frame.pixels {
            Pixels::U8(values) => averaged(values, size, factor as usize, &lut),
            Pixels::U16(values) => averaged(values, size, factor as usize, &lut),
        };
        let short = |edge| u16::try_from(edge).expect("edges were brought under 65,536");
        Self { width: short(width), height: short(height), factor, stretch, grey }
    }

    /// As grey JPEG that carries the frame's id in an application segment.
    ///
    /// # Errors
    /// None that depend on the picture; the encoder's type says so less clearly.
    pub(crate) fn jpeg(&self, frame: &Frame, quality: u8) -> Result<Vec<u8>, EncodingError> {
        let mut out = Vec::with_capacity(self.grey.len() / 4);
        let mut encoder = Encoder::new(&mut out, quality.clamp(1, 100));
        encoder.add_app_segment(APP_SEGMENT, [APP_TAG, frame.id.as_bytes()].concat())?;
        encoder.encode(&self.grey, self.width, self.height, ColorType::Luma)?;
        Ok(out)
    }

    /// As colour JPEG with the outlines of `labels` drawn in, for viewers without our page.
    ///
    /// # Errors
    /// As [`Preview::jpeg`].
    pub(crate) fn jpeg_with_outlines(
        &self,
        labels: &LabelImage,
        quality: u8,
    ) -> Result<Vec<u8>, EncodingError> {
        let rgb = self.with_outlines(labels);
        let mut out = Vec::with_capacity(rgb.len() / 8);
        let mut encoder = Encoder::new(&mut out, quality.clamp(1, 100));
        // Thin yellow lines fade away when colour is stored at half size.
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
        encoder.encode(&rgb, self.width, self.height, ColorType::Rgb)?;
        Ok(out)
    }

    fn with_outlines(&self, labels: &LabelImage) -> Vec<u8> {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let small: Vec<u32> = (0..width * height)
            .map(|index| {
                // The middle of the block that the pixel stands for.
                let at = |own: usize, edge: u32| {
                    let wanted = own * self.factor as usize + self.factor as usize / 2;
                    wanted.min((edge as usize).saturating_sub(1))
                };
                let (x, y) =
                    (at(index % width, labels.width()), at(index / width, labels.height()));
                labels.labels()[y * labels.width() as usize + x]
            })
            .collect();
        let is_outline = |index: usize| {
            let (x, y, mine) = (index % width, index / width, small[index]);
            mine != 0
                && ((x > 0 && small[index - 1] != mine)
                    || (x + 1 < width && small[index + 1] != mine)
                    || (y > 0 && small[index - width] != mine)
                    || (y + 1 < height && small[index + width] != mine))
        };
        let outline: Vec<bool> = (0..small.len()).map(is_outline).collect();
        let beside_outline = |index: usize| {
            let (x, y) = (index % width, index / width);
            (x > 0 && outline[index - 1])
                || (x + 1 < width && outline[index + 1])
                || (y > 0 && outline[index - width])
                || (y + 1 < height && outline[index + width])
        };
        let colour = |index: usize| {
            if outline[index] {
                OUTLINE
            } else if small[index] == 0 && beside_outline(index) {
                EDGE
            } else {
                [self.grey[index]; 3]
            }
        };
        (0..small.len()).flat_map(colour).collect()
    }
}

/// Black and white point: the grey values that [`CLIP`] of the pixels lie beyond.
fn stretch(pixels: &Pixels) -> [u16; 2] {
    let step = (pixels.len() / SAMPLES).max(1);
    // An odd step does not fall into the columns of an even width.
    let step = step | usize::from(step > 1);
    let mut samples: Vec<u16> = (0..pixels.len()).step_by(step).map(|i| pixels.get(i)).collect();
    if samples.is_empty() {
        return [0, 1];
    }
    let beyond = (samples.len() as f64 * CLIP) as usize;
    let last = samples.len() - 1;
    let black = *samples.select_nth_unstable(beyond).1;
    let white = *samples.select_nth_unstable(last - beyond).1;
    let least = match pixels {
        Pixels::U8(_) => LEAST_RANGE.0,
        Pixels::U16(_) => LEAST_RANGE.1,
    };
    [black, white.max(black.saturating_add(least))]
}

/// Grey values to 8 bits, by multiplication.
struct Lut {
    black: u32,
    /// 255 / (white − black), in 1/65536.
    gain: u32,
}

impl Lut {
    fn new([black, white]: [u16; 2]) -> Self {
        let range = u32::from(white.saturating_sub(black)).max(1);
        Self { black: black.into(), gain: (255 << 16) / range }
    }

    fn grey(&self, value: u32) -> u8 {
        let scaled = u64::from(value.saturating_sub(self.black)) * u64::from(self.gain);
        u8::try_from((scaled + (1 << 15)) >> 16).unwrap_or(u8::MAX)
    }
}

/// Stretched means over blocks of `factor × factor`; blocks at the far edges may be smaller.
fn averaged<T: Copy + Into<u32>>(
    values: &[T],
    [width, height]: [usize; 2],
    factor: usize,
    lut: &Lut,
) -> Vec<u8> {
    if factor == 1 {
        return values.iter().map(|&value| lut.grey(value.into())).collect();
    }
    let mut grey = Vec::with_capacity(width.div_ceil(factor) * height.div_ceil(factor));
    let mut sums = vec![0_u32; width.div_ceil(factor)];
    for block in values.chunks(width * factor) {
        sums.fill(0);
        let rows = block.len() / width;
        for row in block.chunks_exact(width) {
            for (sum, part) in sums.iter_mut().zip(row.chunks(factor)) {
                *sum += part.iter().map(|&value| value.into()).sum::<u32>();
            }
        }
        for (column, &sum) in sums.iter().enumerate() {
            let columns = factor.min(width - column * factor);
            grey.push(lut.grey(sum / u32::try_from(columns * rows).expect("a block is small")));
        }
    }
    grey
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::clock::Clock;
    use reticle_domain::frame::{Place, Shot};

    fn frame(width: u32, height: u32, pixels: Pixels) -> Frame {
        let shot = Shot {
            sequence: 0,
            captured: Clock::manual(0).now(),
            exposure_us: None,
            width,
            height,
            bit_depth: if pixels.bytes_per_pixel() == 1 { 8 } else { 16 },
            pixels,
            pixel_size_um: None,
            pixel_size_source: None,
            pixel_size_note: None,
            place: Place::default(),
            origin: None,
            truth: None,
        };
        shot.into_frame().unwrap()
    }

    #[test]
    fn the_stretch_spans_the_frames_own_values_and_ignores_a_hot_pixel() {
        let mut values: Vec<u16> = (0..10_000).map(|index| 1_000 + (index % 400) as u16).collect();
        values[17] = 65_535;
        let preview = Preview::of(&frame(100, 100, Pixels::U16(values)), 1536);
        assert!(preview.stretch[0].abs_diff(1_000) < 4, "{:?}", preview.stretch);
        assert!(preview.stretch[1].abs_diff(1_399) < 4, "{:?}", preview.stretch);
        assert_eq!(preview.grey[17], 255);
        assert_eq!(preview.grey[0], 0);
    }

    #[test]
    fn a_flat_frame_is_not_blown_up_to_noise() {
        let values = (0..64).map(|index| 100 + index % 2).collect();
        let preview = Preview::of(&frame(8, 8, Pixels::U8(values)), 1536);
        assert!(preview.grey.iter().all(|&grey| grey < 20), "{:?}", preview.grey);
    }

    #[test]
    fn a_large_frame_is_averaged_down_with_its_edges() {
        // 5×3 by 2: the last column and the last row of blocks are narrower.
        let values = vec![0_u8, 0, 255, 255, 255, 0, 0, 255, 255, 255, 0, 0, 0, 0, 255];
        let lut = Lut::new([0, 255]);
        assert_eq!(averaged(&values, [5, 3], 2, &lut), [0, 255, 255, 0, 0, 255]);
        let large = frame(3000, 10, Pixels::U8(vec![9; 30_000]));
        let preview = Preview::of(&large, 1536);
        assert_eq!((preview.width, preview.height, preview.factor), (1500, 5, 2));
    }

    #[test]
    fn a_frame_of_one_pixel_is_a_picture() {
        let one = frame(1, 1, Pixels::U16(vec![700]));
        assert!(Preview::of(&one, 1536).jpeg(&one, 85).unwrap().starts_with(&[0xFF, 0xD8]));
    }

    #[test]
    fn the_jpeg_says_whose_picture_it_is() {
        let frame = frame(32, 32, Pixels::U8(vec![50; 1024]));
        let jpeg = Preview::of(&frame, 1536).jpeg(&frame, 85).unwrap();
        let mark = [APP_TAG, frame.id.as_bytes()].concat();
        assert!(jpeg.windows(mark.len()).any(|window| window == mark));
    }

    #[test]
    fn an_object_is_drawn_in_yellow_with_a_dark_edge_outside() {
        let mut labels = vec![0; 49];
        for y in 2..5 {
            for x in 2..5 {
                labels[y * 7 + x] = 1;
            }
        }
        let labels = LabelImage::new(7, 7, labels).unwrap();
        let rgb = Preview::of(&frame(7, 7, Pixels::U8(vec![99; 49])), 64).with_outlines(&labels);
        let at = |x: usize, y: usize| [0, 1, 2].map(|c| rgb[(y * 7 + x) * 3 + c]);
        assert_eq!(at(2, 2), OUTLINE);
        assert_eq!(at(1, 2), EDGE);
        assert_eq!(at(3, 3), at(0, 0), "inside and outside stay grey");
    }
}
