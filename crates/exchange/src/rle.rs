//! Masks as COCO writes them: lengths of runs, column by column, of background and object in
//! turn, beginning with background; as a list of numbers, or packed into printable characters
//! (`rleToString` of COCO's `maskApi.c`).

use super::canvas::Canvas;
use reticle_domain::label_image::LabelImage;

/// Where one object of a label image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) label: u32,
    /// Number of pixels.
    pub(super) area: u64,
    pub(super) top: u32,
    pub(super) left: u32,
    /// Row after the last.
    pub(super) bottom: u32,
    /// Column after the last.
    pub(super) right: u32,
}

/// The objects that occur, by label.
pub(super) fn regions(labels: &LabelImage) -> Vec<Region> {
    let mut regions: Vec<Option<Region>> = vec![None; labels.count() as usize];
    let width = labels.width().max(1) as usize;
    for (row, line) in (0_u32..).zip(labels.labels().chunks_exact(width)) {
        for (column, &label) in (0_u32..).zip(line) {
            if label == 0 {
                continue;
            }
            let region = regions[label as usize - 1].get_or_insert(Region {
                label,
                area: 0,
                top: row,
                left: column,
                bottom: row + 1,
                right: column + 1,
            });
            region.area += 1;
            region.left = region.left.min(column);
            region.right = region.right.max(column + 1);
            region.bottom = row + 1;
        }
    }
    regions.into_iter().flatten().collect()
}

/// The runs of one object; they add up to all pixels of the image.
pub(super) fn runs(labels: &LabelImage, region: &Region) -> Vec<u32> {
    let (width, height) = (labels.width() as usize, labels.height() as usize);
    let mut counts = Vec::new();
    // Pixels of the image, column by column, that the runs so far cover; the last run is of the
    // object.
    let mut covered = 0;
    for column in region.left as usize..region.right as usize {
        for row in region.top as usize..region.bottom as usize {
            if labels.labels()[row * width + column] != region.label {
                continue;
            }
            let at = column * height + row;
            match counts.last_mut() {
                Some(run) if at == covered => *run += 1,
                _ => counts.extend([(at - covered) as u32, 1]),
            }
            covered = at + 1;
        }
    }
    if covered < width * height {
        counts.push((width * height - covered) as u32);
    }
    counts
}

/// Draws a mask with `label`.
pub(super) fn draw(counts: &[u32], label: u32, canvas: &mut Canvas) -> Result<(), String> {
    let (width, height) = (canvas.width() as usize, canvas.height() as usize);
    canvas.spend(counts.len())?;
    let mut at = 0_usize;
    for (number, &length) in counts.iter().enumerate() {
        let end = at.saturating_add(length as usize);
        if end > width * height {
            return Err(format!("its runs are longer than its {width}×{height} pixels"));
        }
        if number % 2 == 1 {
            canvas.spend(end - at)?;
            let labels = canvas.pixels();
            for at in at..end {
                labels[at % height * width + at / height] = label;
            }
        }
        at = end;
    }
    Ok(())
}

/// Packs runs: each but the first three as the difference to the one before the last, in groups
/// of five bits, the lowest first, bit 5 for "more follows", plus 48.
pub(super) fn packed(counts: &[u32]) -> String {
    let mut text = String::new();
    for (at, &count) in counts.iter().enumerate() {
        let mut rest = i64::from(count);
        if at > 2 {
            rest -= i64::from(counts[at - 2]);
        }
        loop {
            let group = (rest & 0x1f) as u8;
            rest >>= 5;
            let is_last = if group & 0x10 != 0 { rest == -1 } else { rest == 0 };
            text.push(char::from(48 + group + if is_last { 0 } else { 0x20 }));
            if is_last {
                break;
            }
        }
    }
    text
}

/// Takes apart what [`packed`] made.
pub(super) fn unpacked(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || "its compressed runs are damaged".to_owned();
    let mut counts: Vec<u32> = Vec::new();
    let mut bytes = text.bytes();
    while let Some(mut byte) = bytes.next() {
        let (mut value, mut shift) = (0_i64, 0);
        loop {
            let group =
                i64::from(byte.checked_sub(48).filter(|group| *group < 64).ok_or_else(wrong)?);
            value |= (group & 0x1f) << shift;
            shift += 5;
            if group & 0x20 == 0 {
                if group & 0x10 != 0 {
                    value |= -1 << shift;
                }
                break;
            }
            // Seven groups hold any difference of two runs.
            byte = bytes.next().filter(|_| shift < 35).ok_or_else(wrong)?;
        }
        if counts.len() > 2 {
            value += i64::from(counts[counts.len() - 2]);
        }
        counts.push(u32::try_from(value).map_err(|_negative| wrong())?);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{any_labels, many_objects};
    use super::*;

    fn round_trip(labels: &LabelImage) -> LabelImage {
        let (width, height) = (labels.width(), labels.height());
        let mut drawn = Canvas::new((width, height));
        for region in regions(labels) {
            let counts = runs(labels, &region);
            let all: usize = counts.iter().map(|&n| n as usize).sum();
            assert_eq!(all, labels.labels().len());
            let area: u64 = counts.iter().skip(1).step_by(2).map(|&n| u64::from(n)).sum();
            assert_eq!(area, region.area);
            let counts = unpacked(&packed(&counts)).unwrap();
            draw(&counts, region.label, &mut drawn).unwrap();
        }
        drawn.finish().unwrap()
    }

    proptest! {
        #[test]
        fn any_label_image_comes_back(labels in any_labels()) {
            prop_assert_eq!(round_trip(&labels), labels);
        }

        #[test]
        fn any_runs_come_back(counts in proptest::collection::vec(any::<u32>(), 0..20)) {
            prop_assert_eq!(unpacked(&packed(&counts)).unwrap(), counts);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}", label in 1_u32..9) {
            if let Ok(counts) = unpacked(&text) {
                drop(draw(&counts, label, &mut Canvas::new((5, 4))));
            }
        }
    }

    #[test]
    fn more_objects_than_16_bits_can_number_come_back() {
        let labels = many_objects();
        assert_eq!(round_trip(&labels), labels);
    }

    #[test]
    fn runs_go_down_the_columns() {
        let labels = LabelImage::new(3, 2, vec![0, 1, 1, 1, 1, 0]).unwrap();
        let regions = regions(&labels);
        let all = Region { label: 1, area: 4, top: 0, left: 0, bottom: 2, right: 3 };
        assert_eq!(regions, [all]);
        assert_eq!(runs(&labels, &all), [1, 4, 1]);
        // pycocotools.mask.frPyObjects({"counts": [1, 4, 1], "size": [2, 3]}, 2, 3)
        assert_eq!(packed(&[1, 4, 1]), "141");
    }

    #[test]
    fn runs_beyond_the_image_are_refused() {
        assert!(draw(&[3, 4], 1, &mut Canvas::new((3, 2))).unwrap_err().contains("3×2"));
        assert!(unpacked("\u{1}").is_err());
        assert!(unpacked("P").is_err(), "more was announced");
    }

    #[test]
    fn work_without_end_is_refused() {
        let mut canvas = Canvas::new((2000, 2000));
        let drawn = (1..1000).try_for_each(|label| draw(&[0, 4_000_000], label, &mut canvas));
        assert!(drawn.unwrap_err().contains("cover the frame more than 16 times"));
    }
}
