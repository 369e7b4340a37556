//! Table of segmented image files: `images.csv` of `reticle segment`. One row a page.
//!
//! | columns | meaning |
//! |---|---|
//! | `image`, `page` | file name, and number of the page in it from 0 |
//! | `objects`, `focus` | objects found, and the focus score |
//! | `pixel_size_um`, `pixel_size_source`, `pixel_size_note` | as in the table of frames |
//! | `scale_from`, `scale`, `size_ratio`, `unlike` | as in the table of results: how the picture was looked at, and what speaks against its numbers |

use super::{Cell, Column, ImageRef, Kind, Table};
use reticle_domain::look::{Look, Unlike};
use reticle_domain::pixel_size::PixelSizeSource;

/// Segmented images.
pub struct Images;

/// What is known of one page of an image file that was segmented.
#[derive(Clone, Copy, Debug)]
pub struct ImageRow<'a> {
    /// Which it is.
    pub image: ImageRef<'a>,
    /// Who stated its pixel size.
    pub pixel_size_source: Option<PixelSizeSource>,
    /// What a person should know of that.
    pub pixel_size_note: Option<&'a str>,
    /// Objects found.
    pub objects: u32,
    /// Focus score.
    pub focus: f32,
    /// How it was looked at.
    pub look: Look,
}

impl Table for Images {
    type Row<'a> = ImageRow<'a>;

    fn columns() -> Vec<Column> {
        vec![
            Column::new("image", Kind::Text),
            Column::new("page", Kind::U32),
            Column::new("objects", Kind::U32),
            Column::optional("focus", Kind::F64),
            Column::optional("pixel_size_um", Kind::F64),
            Column::optional("pixel_size_source", Kind::Text),
            Column::optional("pixel_size_note", Kind::Text),
            Column::new("scale_from", Kind::Text),
            Column::new("scale", Kind::F64),
            Column::optional("size_ratio", Kind::F64),
            Column::optional("unlike", Kind::Text),
        ]
    }

    fn cells(row: &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>)) {
        let ImageRow { image, look, .. } = row;
        put(Cell::Text(image.image));
        put(Cell::U32(image.page));
        put(Cell::U32(row.objects));
        put(Cell::number(row.focus.is_finite().then(|| row.focus.into())));
        put(Cell::number(image.pixel_size_um));
        put(Cell::text(row.pixel_size_source.map(PixelSizeSource::as_str)));
        put(Cell::text(row.pixel_size_note));
        put(Cell::Text(look.scale_from.word()));
        put(Cell::F64(look.scale.into()));
        put(Cell::number(look.size_ratio.map(f64::from)));
        put(Cell::text(look.unlike.map(Unlike::word)));
    }
}
