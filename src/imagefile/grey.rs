//! From interleaved or planar channels to the one that is meant.

use super::Problem;

/// How the channels of a decoded image lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    /// Values a pixel has, alpha included: 1 to 4.
    pub(super) count: usize,
    /// Whether the last of them is alpha.
    pub(super) alpha: bool,
    /// Whether each channel is stored as an image of its own, one after the other.
    pub(super) planar: bool,
}

impl Channels {
    /// Interleaved channels.
    pub(super) fn interleaved(count: usize, alpha: bool) -> Self {
        Self { count, alpha, planar: false }
    }
}

/// Keeps the grey value where all colours of every pixel are equal and alpha is `opaque`.
pub(super) fn one_channel<T: Copy + PartialEq>(
    values: Vec<T>,
    channels: Channels,
    opaque: T,
) -> Result<Vec<T>, Problem> {
    if channels.count == 1 {
        return Ok(values);
    }
    let pixels = values.len() / channels.count;
    let colours = channels.count - usize::from(channels.alpha);
    let at = |pixel: usize, channel: usize| {
        if channels.planar {
            values[channel * pixels + pixel]
        } else {
            values[pixel * channels.count + channel]
        }
    };
    let mut grey = Vec::with_capacity(pixels);
    for pixel in 0..pixels {
        let value = at(pixel, 0);
        if (1..colours).any(|channel| at(pixel, channel) != value) {
            return Err(Problem::Colour);
        }
        if channels.alpha && at(pixel, colours) != opaque {
            return Err(Problem::kind("has transparent pixels, whose grey value is not known"));
        }
        grey.push(value);
    }
    Ok(grey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_saved_as_colour_is_grey_whichever_way_it_lies() {
        let rgba = Channels::interleaved(4, true);
        let grey = one_channel(vec![7, 7, 7, 255, 9, 9, 9, 255], rgba, 255_u8).unwrap();
        assert_eq!(grey, [7, 9]);
        let planar = Channels { planar: true, ..rgba };
        let grey = one_channel(vec![7, 9, 7, 9, 7, 9, 255, 255], planar, 255_u8).unwrap();
        assert_eq!(grey, [7, 9]);
    }

    #[test]
    fn one_coloured_pixel_makes_a_colour_image() {
        let refused = one_channel(vec![7, 7, 7, 9, 8, 9], Channels::interleaved(3, false), 255_u8);
        assert!(matches!(refused, Err(Problem::Colour)));
    }

    #[test]
    fn transparency_is_refused() {
        let refused = one_channel(vec![7, 255, 9, 0], Channels::interleaved(2, true), 255_u8);
        assert!(refused.unwrap_err().to_string().contains("transparent"));
    }
}
