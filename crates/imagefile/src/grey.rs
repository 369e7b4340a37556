//! From interleaved or planar channels to the one that is meant.

use super::Problem;
use super::planes::Selection;

/// What the samples of a pixel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Samples {
    /// One grey value.
    Grey,
    /// One grey value and how opaque it is.
    GreyAlpha,
    /// Red, green and blue, and what else there may be.
    Rgb,
    /// Red, green, blue and how opaque they are.
    Rgba,
    /// Brightness and two differences of colour, which are 128 in grey.
    YCbCr,
    /// Channels that have no names.
    Channels,
}

/// How the channels of a decoded image lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    /// Values a pixel has, alpha included.
    pub(super) count: usize,
    /// What they are.
    pub(super) meaning: Samples,
    /// Whether each channel is stored as an image of its own, one after the other.
    pub(super) planar: bool,
}

impl Channels {
    /// Interleaved channels.
    pub(super) fn interleaved(count: usize, alpha: bool) -> Self {
        let meaning = match (count, alpha) {
            (1, _) => Samples::Grey,
            (_, false) => Samples::Rgb,
            (2, true) => Samples::GreyAlpha,
            (_, true) => Samples::Rgba,
        };
        Self { count, meaning, planar: false }
    }
}

/// The colours of a pixel, as they can be chosen.
const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// Keeps the grey value where all colours of every pixel are equal and alpha is `opaque`; of
/// colours and channels the one that is chosen.
pub(super) fn one_channel<T: Copy + PartialEq + From<u8>>(
    values: Vec<T>,
    channels: Channels,
    opaque: T,
    selection: &Selection,
) -> Result<Vec<T>, Problem> {
    let Channels { count, meaning, planar } = channels;
    if count == 1 {
        selection.channel(&[None], 1)?;
        return Ok(values);
    }
    let pixels = values.len() / count;
    let at = |pixel: usize, channel: usize| {
        if planar { values[channel * pixels + pixel] } else { values[pixel * count + channel] }
    };
    let all = |holds: &dyn Fn(usize) -> bool| (0..pixels).all(holds);
    let middle = T::from(128);
    let is_grey = match meaning {
        Samples::Grey | Samples::GreyAlpha => true,
        Samples::Rgb | Samples::Rgba => {
            all(&|pixel| at(pixel, 1) == at(pixel, 0) && at(pixel, 2) == at(pixel, 0))
        }
        Samples::YCbCr => all(&|pixel| at(pixel, 1) == middle && at(pixel, 2) == middle),
        Samples::Channels => false,
    };
    let names = COLOURS.map(|name| Some(name.to_owned()));
    let channel = match meaning {
        _ if is_grey => 0,
        Samples::Channels => selection.channel(&vec![None; count], count)?,
        Samples::Rgb | Samples::Rgba if selection.channel.is_some() => {
            selection.channel(&names, names.len())?
        }
        _ => return Err(Problem::Colour),
    };
    let has_alpha = matches!(meaning, Samples::GreyAlpha | Samples::Rgba);
    if has_alpha && !all(&|pixel| at(pixel, count - 1) == opaque) {
        return Err(Problem::kind("has transparent pixels, whose grey value is not known"));
    }
    Ok((0..pixels).map(|pixel| at(pixel, channel)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<T: Copy + PartialEq + From<u8>>(
        values: Vec<T>,
        channels: Channels,
        opaque: T,
    ) -> Result<Vec<T>, Problem> {
        one_channel(values, channels, opaque, &Selection::default())
    }

    #[test]
    fn grey_saved_as_colour_is_grey_whichever_way_it_lies() {
        let rgba = Channels::interleaved(4, true);
        let grey = plain(vec![7, 7, 7, 255, 9, 9, 9, 255], rgba, 255_u8).unwrap();
        assert_eq!(grey, [7, 9]);
        let planar = Channels { planar: true, ..rgba };
        let grey = plain(vec![7, 9, 7, 9, 7, 9, 255, 255], planar, 255_u8).unwrap();
        assert_eq!(grey, [7, 9]);
        let ycbcr = Channels { count: 3, meaning: Samples::YCbCr, planar: false };
        assert_eq!(plain(vec![7, 128, 128, 9, 128, 128], ycbcr, 255_u8).unwrap(), [7, 9]);
    }

    #[test]
    fn one_coloured_pixel_makes_a_colour_image() {
        let refused = plain(vec![7, 7, 7, 9, 8, 9], Channels::interleaved(3, false), 255_u8);
        assert!(matches!(refused, Err(Problem::Colour)));
        let ycbcr = Channels { count: 3, meaning: Samples::YCbCr, planar: false };
        let refused = plain(vec![7, 128, 128, 9, 128, 127], ycbcr, 255_u8);
        assert!(matches!(refused, Err(Problem::Colour)));
    }

    #[test]
    fn transparency_is_refused() {
        let refused = plain(vec![7, 255, 9, 0], Channels::interleaved(2, true), 255_u8);
        assert!(refused.unwrap_err().to_string().contains("transparent"));
    }

    #[test]
    fn a_colour_or_channel_is_taken_where_it_is_chosen() {
        let chosen = |text: &str| Selection { channel: Some(text.parse().unwrap()), z: None };
        let rgb = Channels::interleaved(3, false);
        let values = vec![7, 7, 7, 1, 2, 3_u8];
        for (text, expected) in [("blue", [7, 3]), ("2", [7, 2]), ("Red", [7, 1])] {
            assert_eq!(one_channel(values.clone(), rgb, 255, &chosen(text)).unwrap(), expected);
        }
        let wrong = one_channel(values.clone(), rgb, 255, &chosen("DAPI")).unwrap_err().to_string();
        assert!(wrong.contains("1 red, 2 green, 3 blue"), "{wrong}");
        let two = Channels { count: 2, meaning: Samples::Channels, planar: true };
        let values = vec![1, 2, 3, 4_u16];
        assert_eq!(one_channel(values.clone(), two, u16::MAX, &chosen("2")).unwrap(), [3, 4]);
        let refused = plain(values, two, u16::MAX).unwrap_err().to_string();
        assert!(refused.contains("2 channels (1, 2)"), "{refused}");
    }

    #[test]
    fn a_grey_picture_is_its_own_first_channel() {
        let chosen = |text: &str| Selection { channel: Some(text.parse().unwrap()), z: None };
        let grey = Channels::interleaved(1, false);
        for text in ["1", "DAPI"] {
            assert_eq!(one_channel(vec![5_u8], grey, 255, &chosen(text)).unwrap(), [5]);
        }
        assert!(one_channel(vec![5_u8], grey, 255, &chosen("2")).is_err());
    }
}
