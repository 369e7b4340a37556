//! Table of frames: one row for each frame that was recorded, whether it was segmented or not.
//!
//! | column | meaning |
//! |---|---|
//! | `frame`, `session` | ids |
//! | `site`, `box` | which box took it; empty in exports, which go where people know |
//! | `series`, `position` | array and first index of it in the session's OME-Zarr |
//! | `sequence` | number that the source counted |
//! | `captured_at`, `captured_recorded_at` | when, as known now, and as the box's clock said then |
//! | `mono_ns`, `boot` | `CLOCK_MONOTONIC` then, and of which boot |
//! | `exposure_us`, `width`, `height`, `bit_depth` | of the camera, in µs and pixels |
//! | `sha256` | of the little-endian pixels, in hex |
//! | `pixel_size_um` | edge of a pixel in the sample |
//! | `plate`, `well`, `field` | where on the plate |
//! | `origin` | file it came from |
//! | `segmented` | whether any model has segmented it |
//! | `pixel_size_source` | who stated the pixel size, one of [`PixelSizeSource`]'s words |
//! | `pixel_size_note` | what a person should know of it; both not in tables of older versions |

use super::{Cell, Column, Kind, Table};
use reticle_domain::facts::{BoxName, FrameFacts};
use reticle_domain::pixel_size::PixelSizeSource;

/// Recorded frames.
pub struct Frames;

impl Table for Frames {
    /// Which box took it, where that matters, and the frame.
    type Row<'a> = (Option<&'a BoxName>, &'a FrameFacts);

    fn columns() -> Vec<Column> {
        vec![
            Column::new("frame", Kind::Text),
            Column::new("session", Kind::Text),
            Column::optional("site", Kind::Text),
            Column::optional("box", Kind::Text),
            Column::new("series", Kind::U32),
            Column::new("position", Kind::U64),
            Column::new("sequence", Kind::U64),
            Column::new("captured_at", Kind::Time),
            Column::new("captured_recorded_at", Kind::Time),
            Column::new("mono_ns", Kind::U64),
            Column::new("boot", Kind::Text),
            Column::optional("exposure_us", Kind::U32),
            Column::new("width", Kind::U32),
            Column::new("height", Kind::U32),
            Column::new("bit_depth", Kind::U8),
            Column::new("sha256", Kind::Text),
            Column::optional("pixel_size_um", Kind::F64),
            Column::optional("plate", Kind::Text),
            Column::optional("well", Kind::Text),
            Column::optional("field", Kind::U32),
            Column::optional("origin", Kind::Text),
            Column::new("segmented", Kind::Flag),
            Column::optional("pixel_size_source", Kind::Text),
            Column::optional("pixel_size_note", Kind::Text),
        ]
    }

    fn cells((site, frame): &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>)) {
        put(Cell::Text(&frame.id.to_string()));
        put(Cell::Text(&frame.session.to_string()));
        put(Cell::text(site.map(|site| site.site.as_str())));
        put(Cell::text(site.map(|site| site.name.as_str())));
        put(Cell::U32(frame.series));
        put(Cell::U64(frame.position));
        put(Cell::U64(frame.sequence));
        put(Cell::Time(frame.captured.at_ns));
        put(Cell::Time(frame.captured.recorded_ns));
        put(Cell::U64(frame.captured.mono_ns));
        put(Cell::Text(&frame.captured.boot.to_string()));
        put(Cell::count(frame.exposure_us));
        put(Cell::U32(frame.width));
        put(Cell::U32(frame.height));
        put(Cell::U8(frame.bit_depth));
        put(Cell::Text(&hex::encode(frame.sha256)));
        put(Cell::number(frame.pixel_size_um));
        put(Cell::text(frame.place.plate.as_deref()));
        put(Cell::text(frame.place.well.as_deref()));
        put(Cell::count(frame.place.field));
        put(Cell::text(frame.origin.as_deref()));
        put(Cell::Flag(frame.segmented));
        put(Cell::text(frame.pixel_size_source.map(PixelSizeSource::as_str)));
        put(Cell::text(frame.pixel_size_note.as_deref()));
    }
}
