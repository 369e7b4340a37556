//! How programs say which channel, z plane and time a page is.
//!
//! | who | where | read here |
//! |---|---|---|
//! | OME-TIFF | OME-XML in the first description | sizes, order, `TiffData`, names; only what is in this file |
//! | ImageJ | `channels=`, `slices=` in the first description | order is always channel, z, time; labels are names |
//! | tifffile | `{"shape": …, "axes": …}` in the first description | sizes in the order of the axes |
//! | Micro-Manager | JSON in tag 51123 of each page | indices and the channel's name |
//!
//! What cannot be understood says nothing. Numbers are believed as far as there are pages.

use std::collections::HashMap;

use roxmltree::Node;
use serde_json::Value;

use crate::planes::{Axes, Coordinates};

/// Planes of one axis; more are a lie, and loops run over them.
const MOST: usize = 1_000_000;

/// What the descriptions of the first page say about `places`, the places of the pages in the
/// file's chain of directories.
pub(super) fn axes(descriptions: &[String], places: &[usize], labels: &[String]) -> Option<Axes> {
    let texts = || descriptions.iter().map(|text| text.trim_start_matches('\u{feff}').trim());
    texts()
        .find_map(|text| ome(text, places))
        .or_else(|| texts().find_map(|text| imagej(text, places.len(), labels)))
        .or_else(|| texts().find_map(|text| shaped(text, places.len())))
}

fn ome(text: &str, places: &[usize]) -> Option<Axes> {
    if !text.starts_with('<') || !text.contains("OME") {
        return None;
    }
    let document = roxmltree::Document::parse(text).ok()?;
    let own = document.root_element().attribute("UUID");
    let mut axes = Axes::default();
    let mut at_place = HashMap::new();
    let mut next = 0;
    for pixels in document.descendants().filter(|node| node.tag_name().name() == "Pixels") {
        let series = axes.channels.len();
        let image = OmeImage::read(pixels)?;
        let data = image.planes(pixels, own, &mut next, places.len());
        for (place, channel, z) in data {
            at_place.entry(place).or_insert(Coordinates { series, channel, z });
        }
        axes.depths.push(image.depth);
        axes.channels.push(image.names);
    }
    if axes.channels.is_empty() {
        return None;
    }
    if !places.iter().any(|place| at_place.contains_key(place)) {
        // It describes planes of other files only, or says nothing of where they are.
        let mut image = document.descendants().filter(|node| node.tag_name().name() == "Pixels");
        let image = OmeImage::read(image.next()?)?;
        let sizes = (image.names.len(), image.depth, image.times);
        let mut regular = Axes::regular(places.len(), &image.order, sizes);
        regular.channels = vec![image.names];
        return Some(regular);
    }
    let one_channel = axes.channels.iter().all(|names| names.len() == 1);
    // A page that is not described may be of any channel: where there are several, of none.
    let other =
        Coordinates { channel: if one_channel { 0 } else { usize::MAX }, ..Coordinates::default() };
    axes.pages = places.iter().map(|place| at_place.get(place).copied().unwrap_or(other)).collect();
    Some(axes)
}

struct OmeImage {
    /// Letters of C, Z and T, the fastest first.
    order: String,
    names: Vec<Option<String>>,
    depth: usize,
    times: usize,
}

impl OmeImage {
    fn read(pixels: Node<'_, '_>) -> Option<Self> {
        let size = |name: &str| number(pixels, name).unwrap_or(1).clamp(1, MOST);
        let elements: Vec<_> =
            pixels.children().filter(|node| node.tag_name().name() == "Channel").collect();
        let samples: usize =
            elements.iter().map(|node| number(*node, "SamplesPerPixel").unwrap_or(1)).sum();
        // Red, green and blue are one channel of three samples.
        let channels = if elements.is_empty() || samples < size("SizeC") {
            size("SizeC")
        } else {
            elements.len()
        };
        let names = (0..channels)
            .map(|at| {
                let name = elements.get(at)?.attribute("Name")?.trim();
                (!name.is_empty()).then(|| name.to_owned())
            })
            .collect();
        let order = pixels.attribute("DimensionOrder").unwrap_or("XYCZT");
        let order = order.chars().filter(|axis| "CZT".contains(*axis)).collect();
        Some(Self { order, names, depth: size("SizeZ"), times: size("SizeT") })
    }

    /// Places in the chain of directories with channel and z, as far as they are in this file.
    fn planes(
        &self,
        pixels: Node<'_, '_>,
        own: Option<&str>,
        next: &mut usize,
        pages: usize,
    ) -> Vec<(usize, usize, usize)> {
        let all = self.names.len().saturating_mul(self.depth).saturating_mul(self.times);
        let mut planes = Vec::new();
        let mut run = |place: usize, first: usize, count: usize| {
            // More than there are pages would be a lie.
            let count = count.min(pages);
            for step in 0..count {
                let (channel, z) = self.coordinates(first + step);
                planes.push((place.saturating_add(step), channel, z));
            }
            place.saturating_add(count)
        };
        let mut after = None;
        for data in pixels.children().filter(|node| node.tag_name().name() == "TiffData") {
            let uuid = data.children().find(|node| node.tag_name().name() == "UUID");
            let uuid = uuid.and_then(|node| node.text()).map(str::trim);
            after.get_or_insert(*next);
            if let (Some(own), Some(uuid)) = (own, uuid)
                && !own.eq_ignore_ascii_case(uuid)
            {
                continue;
            }
            let place = number(data, "IFD");
            let count = number(data, "PlaneCount").unwrap_or(if place.is_some() { 1 } else { all });
            let first = |name: &str| number(data, name).unwrap_or(0).min(MOST);
            let first = self.linear(first("FirstC"), first("FirstZ"), first("FirstT"));
            after = Some(run(place.unwrap_or(0), first, count));
        }
        // Without a word, the planes of this image follow those of the one before.
        *next = after.unwrap_or_else(|| run(*next, 0, all));
        planes
    }

    fn length(&self, axis: char) -> usize {
        match axis {
            'C' => self.names.len(),
            'Z' => self.depth,
            _ => self.times,
        }
    }

    fn linear(&self, channel: usize, z: usize, time: usize) -> usize {
        let mut step = 1_usize;
        let mut linear = 0_usize;
        for axis in self.order.chars() {
            let at = match axis {
                'C' => channel,
                'Z' => z,
                _ => time,
            };
            linear = linear.saturating_add(at.saturating_mul(step));
            step = step.saturating_mul(self.length(axis));
        }
        linear
    }

    fn coordinates(&self, linear: usize) -> (usize, usize) {
        let (mut left, mut channel, mut z) = (linear, 0, 0);
        for axis in self.order.chars() {
            let length = self.length(axis).max(1);
            match axis {
                'C' => channel = left % length,
                'Z' => z = left % length,
                _ => {}
            }
            left /= length;
        }
        (channel, z)
    }
}

fn number(node: Node<'_, '_>, name: &str) -> Option<usize> {
    node.attribute(name)?.trim().parse().ok()
}

fn imagej(text: &str, pages: usize, labels: &[String]) -> Option<Axes> {
    if !text.starts_with("ImageJ=") {
        return None;
    }
    let size = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(1).clamp(1, MOST)
    };
    let sizes = (size("channels"), size("slices"), size("frames"));
    // A description that outlived a crop, or that stands before a stack of which one was saved.
    if sizes.0.max(sizes.1) > pages {
        return None;
    }
    let mut axes = Axes::regular(pages, "CZT", sizes);
    // Labels are one for each page, and names of channels where they differ from the next one
    // and come again in the next plane.
    if sizes.0 > 1 && labels.len() >= pages {
        let names = &labels[..sizes.0];
        let differ = (1..names.len()).all(|at| !names[..at].contains(&names[at]));
        let repeat = (0..pages).all(|page| labels[page] == names[page % sizes.0]);
        if differ && repeat && names.iter().all(|name| !name.is_empty()) {
            axes.channels = vec![names.iter().cloned().map(Some).collect()];
        }
    }
    Some(axes)
}

/// Labels of the slices, from ImageJ's own tag. Its numbers are those of the file's byte order.
pub(super) fn imagej_labels(bytes: &[u8], counts: &[u64], big_endian: bool) -> Option<Vec<String>> {
    let word = |at: usize| {
        let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    };
    let (magic, labels) = (u32::from_be_bytes(*b"IJIJ"), u32::from_be_bytes(*b"labl"));
    let header = usize::try_from(*counts.first()?).ok()?;
    if word(0)? != magic {
        return None;
    }
    let (mut at, mut block) = (header, 1);
    for kind in 0..header.saturating_sub(4) / 8 {
        let count = word(8 + kind * 8)? as usize;
        let is_labels = word(4 + kind * 8)? == labels;
        let mut found = Vec::new();
        for _ in 0..count {
            let length = usize::try_from(*counts.get(block)?).ok()?;
            let text = bytes.get(at..at.checked_add(length)?)?;
            (at, block) = (at + length, block + 1);
            if is_labels {
                let units = text.chunks_exact(2).map(|pair| {
                    let pair = [pair[0], pair[1]];
                    if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
                });
                let text: String =
                    char::decode_utf16(units).map(|letter| letter.unwrap_or('?')).collect();
                found.push(text.trim().to_owned());
            }
        }
        if is_labels {
            return Some(found);
        }
    }
    None
}

fn shaped(text: &str, pages: usize) -> Option<Axes> {
    if !text.starts_with('{') {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let shape = value.get("shape")?.as_array()?;
    let axes = value.get("axes")?.as_str()?;
    if axes.len() != shape.len() || !axes.is_ascii() {
        return None;
    }
    let (mut sizes, mut order, mut planes) = ((1, 1, 1), String::new(), 1_usize);
    for (axis, size) in axes.bytes().map(char::from).zip(shape).rev() {
        let size = usize::try_from(size.as_u64()?).ok()?;
        match axis {
            'X' | 'Y' | 'S' => continue,
            'C' => sizes.0 = size,
            'Z' => sizes.1 = size,
            // Two axes of time are one that is longer.
            _ => sizes.2 *= size,
        }
        planes = planes.checked_mul(size)?;
        let axis = if matches!(axis, 'C' | 'Z') { axis } else { 'T' };
        if !order.ends_with(axis) {
            order.push(axis);
        }
    }
    // Channels within a page are not pages.
    (planes == pages).then(|| Axes::regular(pages, &order, sizes))
}

/// From what Micro-Manager wrote beside each page.
pub(super) fn micro_manager(pages: &[String]) -> Option<Axes> {
    let mut axes = Axes::default();
    let mut names: Vec<Option<String>> = Vec::new();
    let mut depth = 1;
    for page in pages {
        let value: Value = serde_json::from_str(page).ok()?;
        let index = |key: &str| {
            let index = value.get(key)?.as_u64()?;
            usize::try_from(index).ok().filter(|&index| index < 10_000)
        };
        let channel = index("ChannelIndex")?;
        let z = index("SliceIndex").unwrap_or(0);
        if names.len() <= channel {
            names.resize(channel + 1, None);
        }
        if let Some(name) = value.get("Channel").and_then(Value::as_str) {
            names[channel] = Some(name.to_owned());
        }
        depth = depth.max(z + 1);
        axes.pages.push(Coordinates { series: 0, channel, z });
    }
    axes.channels = vec![names];
    axes.depths = vec![depth];
    (!pages.is_empty()).then_some(axes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channel and z of each page.
    fn planes(axes: &Axes) -> Vec<(usize, usize)> {
        axes.pages.iter().map(|page| (page.channel, page.z)).collect()
    }

    fn names(axes: &Axes) -> Vec<&str> {
        axes.channels[0].iter().map(|name| name.as_deref().unwrap_or("-")).collect()
    }

    fn read(text: &str, pages: usize) -> Option<Axes> {
        axes(&[text.to_owned()], &(0..pages).collect::<Vec<_>>(), &[])
    }

    fn ome_xml(pixels: &str, inside: &str) -> String {
        format!(
            r#"<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:A1"><Image ID="Image:0"><Pixels ID="Pixels:0" {pixels}>{inside}</Pixels></Image></OME>"#
        )
    }

    const TWO: &str = r#"<Channel ID="Channel:0:0" Name="Brightfield" SamplesPerPixel="1"/><Channel ID="Channel:0:1" Name="DAPI"/>"#;

    #[test]
    fn ome_says_the_order_of_its_planes() {
        let sizes = r#"SizeC="2" SizeZ="3" SizeT="1""#;
        let text =
            ome_xml(&format!(r#"DimensionOrder="XYZCT" {sizes}"#), &format!("{TWO}<TiffData/>"));
        let axes = read(&text, 6).unwrap();
        assert_eq!(planes(&axes), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(names(&axes), ["Brightfield", "DAPI"]);
        let text = ome_xml(
            &format!(r#"DimensionOrder="XYCZT" {sizes}"#),
            &format!("{TWO}<TiffData IFD=\"0\" PlaneCount=\"6\"/>"),
        );
        assert_eq!(planes(&read(&text, 6).unwrap())[..3], [(0, 0), (1, 0), (0, 1)]);
    }

    #[test]
    fn ome_says_each_plane_by_itself_and_leaves_those_of_other_files_out() {
        let data = r#"<TiffData IFD="1" FirstC="0" FirstZ="0" FirstT="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:A1</UUID></TiffData>
            <TiffData IFD="0" FirstC="1"><UUID FileName="a.ome.tif">urn:uuid:a1</UUID></TiffData>
            <TiffData IFD="0" FirstC="1" FirstT="1"><UUID FileName="b.ome.tif">urn:uuid:B2</UUID></TiffData>"#;
        let text = ome_xml(
            r#"DimensionOrder="XYCZT" SizeC="2" SizeZ="1" SizeT="2""#,
            &format!("{TWO}{data}"),
        );
        let axes = read(&text, 3).unwrap();
        // The third page is described nowhere.
        assert_eq!(planes(&axes), [(1, 0), (0, 0), (usize::MAX, 0)]);
    }

    #[test]
    fn several_images_are_series_and_red_green_blue_is_one_channel() {
        let pixels = |from: u32| {
            format!(
                r#"<Image><Pixels DimensionOrder="XYCZT" SizeC="3" SizeZ="1" SizeT="2"><Channel SamplesPerPixel="3"/><TiffData IFD="{from}" PlaneCount="2"/></Pixels></Image>"#
            )
        };
        let text = format!("<OME>{}{}</OME>", pixels(0), pixels(2));
        let axes = read(&text, 4).unwrap();
        let series: Vec<_> = axes.pages.iter().map(|page| page.series).collect();
        assert_eq!(series, [0, 0, 1, 1]);
        assert_eq!(axes.channels, [[None], [None]]);
    }

    #[test]
    fn imagej_counts_channels_first() {
        let text = "ImageJ=1.53t\nimages=12\nchannels=2\nslices=3\nframes=2\nhyperstack=true\n";
        let axes = read(text, 12).unwrap();
        assert_eq!(planes(&axes)[..7], [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 0)]);
        assert_eq!(planes(&read("ImageJ=1.53t\n", 2).unwrap()), [(0, 0), (0, 0)]);
        // One plane of a hyperstack, saved with the description of the whole.
        assert!(read(text, 1).is_none());
    }

    #[test]
    fn imagej_labels_name_channels_where_they_come_again() {
        let text = "ImageJ=1.53t\nimages=4\nchannels=2\nslices=2\n".to_owned();
        let labels = |labels: [&str; 4]| labels.map(str::to_owned);
        let places: Vec<_> = (0..4).collect();
        let named =
            axes(std::slice::from_ref(&text), &places, &labels(["DAPI", "GFP", "DAPI", "GFP"]));
        assert_eq!(names(&named.unwrap()), ["DAPI", "GFP"]);
        let numbered = axes(&[text], &places, &labels(["p1", "p2", "p3", "p4"]));
        assert_eq!(names(&numbered.unwrap()), ["-", "-"]);
    }

    #[test]
    fn imagej_labels_are_read_in_either_byte_order() {
        for big_endian in [true, false] {
            let word =
                |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
            let mut bytes = Vec::new();
            let number = |text: &[u8; 4]| u32::from_be_bytes(*text);
            for value in [number(b"IJIJ"), number(b"info"), 1, number(b"labl"), 2] {
                bytes.extend(word(value));
            }
            let mut counts = vec![20];
            for text in ["x", "DAPI", "µ"] {
                let units: Vec<u16> = text.encode_utf16().collect();
                counts.push(2 * units.len() as u64);
                for unit in units {
                    bytes.extend(if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() });
                }
            }
            let labels = imagej_labels(&bytes, &counts, big_endian).unwrap();
            assert_eq!(labels, ["DAPI", "µ"]);
            assert!(imagej_labels(&bytes[..22], &counts, big_endian).is_none());
        }
    }

    #[test]
    fn tifffile_says_shape_and_axes() {
        let text = r#"{"shape": [2, 3, 96, 112], "axes": "ZCYX"}"#;
        let axes = read(text, 6).unwrap();
        assert_eq!(planes(&axes)[..4], [(0, 0), (1, 0), (2, 0), (0, 1)]);
        assert!(read(r#"{"shape": [3, 96, 112]}"#, 3).is_none());
        // Channels in one page.
        assert!(read(r#"{"shape": [2, 96, 112], "axes": "CYX"}"#, 1).is_none());
    }

    #[test]
    fn micro_manager_says_it_with_each_page() {
        let page = |channel: u32, name: &str, z: u32| {
            format!(r#"{{"ChannelIndex": {channel}, "Channel": "{name}", "SliceIndex": {z}}}"#)
        };
        let pages = [page(0, "BF", 0), page(1, "Cy5", 0), page(0, "BF", 1)];
        let axes = micro_manager(&pages).unwrap();
        assert_eq!(planes(&axes), [(0, 0), (1, 0), (0, 1)]);
        assert_eq!(names(&axes), ["BF", "Cy5"]);
        assert!(micro_manager(&["no JSON".to_owned()]).is_none());
    }

    #[test]
    fn broken_descriptions_say_nothing() {
        for text in ["<OME><Image", "{\"shape\":", "", "<OME/>", "ImageJ"] {
            assert!(read(text, 3).is_none(), "{text}");
        }
        let huge = ome_xml(r#"SizeC="99999999999" SizeZ="4294967295" SizeT="-1""#, "");
        // As many as there are pages, whatever it says.
        assert!(read(&huge, 2).is_none_or(|axes| axes.pages.len() == 2));
    }
}
