//! Tables of objects: `objects.csv` and `objects.parquet` of `reticle segment`, of exports and of
//! the archive. One row an object.
//!
//! | columns | meaning |
//! |---|---|
//! | of an image: `image`, `page` | file name, and number of the page in it from 0 |
//! | of a session: `frame`, `session`, `model`, `model_name`, `model_sha256` | ids; the model's key, name and checksum |
//! | `plate`, `well`, `field`, `captured_at` | where and when the frame was taken |
//! | both: `label` … `touches_border` | the fields of [`Object`], by scikit-image's names, in pixels |
//! | `pixel_size_um` | edge of a pixel in µm; empty where not known, as all that follow |
//! | `area_um2`, `perimeter_um`, `major_axis_length_um`, `minor_axis_length_um` | in µm |

use super::{Cell, Column, CsvTable, Kind, ParquetTable, Table};
use crate::output::WriteError;
use reticle_domain::facts::{FrameFacts, ModelFacts};
use reticle_domain::object::Object;

/// What is known about the image that objects were found in.
#[derive(Clone, Copy, Debug)]
pub struct ImageRef<'a> {
    /// File name.
    pub image: &'a str,
    /// Page in the file, from 0.
    pub page: u32,
    /// Edge of a pixel in µm, where known.
    pub pixel_size_um: Option<f64>,
}

/// A model as tables name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelKey {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) sha256: String,
}

impl ModelKey {
    /// Made once for many rows.
    pub fn of(facts: &ModelFacts) -> Self {
        let model = &facts.model;
        Self { key: facts.key(), name: model.name.clone(), sha256: model.sha256.clone() }
    }

    /// See [`ModelFacts::key`].
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// One object of a recorded frame.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRow<'a> {
    /// The frame.
    pub frame: &'a FrameFacts,
    /// By what it was found.
    pub model: &'a ModelKey,
    /// The object.
    pub object: &'a Object,
}

/// Objects of image files.
pub struct ImageObjects;

/// Objects of recorded frames.
pub struct Objects;

impl Table for ImageObjects {
    type Row<'a> = (ImageRef<'a>, &'a Object);

    fn columns() -> Vec<Column> {
        let first = [Column::new("image", Kind::Text), Column::new("page", Kind::U32)];
        first.into_iter().chain(object_columns()).collect()
    }

    fn cells((image, object): &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>)) {
        put(Cell::Text(image.image));
        put(Cell::U32(image.page));
        object_cells(object, image.pixel_size_um, put);
    }
}

impl Table for Objects {
    type Row<'a> = ObjectRow<'a>;

    fn columns() -> Vec<Column> {
        let first = [
            Column::new("frame", Kind::Text),
            Column::new("session", Kind::Text),
            Column::new("model", Kind::Text),
            Column::new("model_name", Kind::Text),
            Column::new("model_sha256", Kind::Text),
            Column::optional("plate", Kind::Text),
            Column::optional("well", Kind::Text),
            Column::optional("field", Kind::U32),
            Column::new("captured_at", Kind::Time),
        ];
        first.into_iter().chain(object_columns()).collect()
    }

    fn cells(row: &Self::Row<'_>, put: &mut dyn FnMut(Cell<'_>)) {
        let ObjectRow { frame, model, object } = row;
        put(Cell::Text(&frame.id.to_string()));
        put(Cell::Text(&frame.session.to_string()));
        put(Cell::Text(&model.key));
        put(Cell::Text(&model.name));
        put(Cell::Text(&model.sha256));
        put(Cell::text(frame.place.plate.as_deref()));
        put(Cell::text(frame.place.well.as_deref()));
        put(Cell::count(frame.place.field));
        put(Cell::Time(frame.captured.at_ns));
        object_cells(object, frame.pixel_size_um, put);
    }
}

impl CsvTable<ImageObjects> {
    /// Adds the objects of one image.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn append(&mut self, image: ImageRef<'_>, objects: &[Object]) -> Result<(), WriteError> {
        objects.iter().try_for_each(|object| self.push(&(image, object)))
    }
}

impl ParquetTable<ImageObjects> {
    /// Adds the objects of one image.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub fn append(&mut self, image: ImageRef<'_>, objects: &[Object]) -> Result<(), WriteError> {
        objects.iter().try_for_each(|object| self.push(&(image, object)))
    }
}

fn object_columns() -> impl Iterator<Item = Column> {
    COLUMNS.into_iter().map(|(name, value)| match value {
        Value::Count(_) => Column::new(name, Kind::U32),
        Value::Number(_) => Column::new(name, Kind::F64),
        Value::Flag(_) => Column::new(name, Kind::Flag),
        Value::Micrometres(_) => Column::optional(name, Kind::F64),
    })
}

fn object_cells(object: &Object, pixel_size_um: Option<f64>, put: &mut dyn FnMut(Cell<'_>)) {
    for (_, value) in COLUMNS {
        put(match value {
            Value::Count(value) => Cell::U32(value(object)),
            Value::Number(value) => Cell::F64(value(object)),
            Value::Flag(value) => Cell::Flag(value(object)),
            Value::Micrometres(value) => Cell::number(pixel_size_um.map(|um| value(object, um))),
        });
    }
}

/// How to get a column's value from an object.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Count(fn(&Object) -> u32),
    Number(fn(&Object) -> f64),
    Flag(fn(&Object) -> bool),
    /// From the object and the pixel size in µm.
    Micrometres(fn(&Object, f64) -> f64),
}

/// The columns that every table of objects ends with.
pub(super) const COLUMNS: [(&str, Value); 23] = [
    ("label", Value::Count(|object| object.label)),
    ("area", Value::Count(|object| object.area)),
    ("centroid-0", Value::Number(|object| object.centroid_0)),
    ("centroid-1", Value::Number(|object| object.centroid_1)),
    ("bbox-0", Value::Count(|object| object.bbox_0)),
    ("bbox-1", Value::Count(|object| object.bbox_1)),
    ("bbox-2", Value::Count(|object| object.bbox_2)),
    ("bbox-3", Value::Count(|object| object.bbox_3)),
    ("perimeter", Value::Number(|object| object.perimeter)),
    ("eccentricity", Value::Number(|object| object.eccentricity)),
    ("solidity", Value::Number(|object| object.solidity)),
    ("major_axis_length", Value::Number(|object| object.major_axis_length)),
    ("minor_axis_length", Value::Number(|object| object.minor_axis_length)),
    ("orientation", Value::Number(|object| object.orientation)),
    ("intensity_mean", Value::Number(|object| object.intensity_mean)),
    ("intensity_max", Value::Number(|object| object.intensity_max)),
    ("intensity_min", Value::Number(|object| object.intensity_min)),
    ("touches_border", Value::Flag(|object| object.touches_border)),
    ("pixel_size_um", Value::Micrometres(|_, um| um)),
    ("area_um2", Value::Micrometres(|object, um| f64::from(object.area) * um * um)),
    ("perimeter_um", Value::Micrometres(|object, um| object.perimeter * um)),
    ("major_axis_length_um", Value::Micrometres(|object, um| object.major_axis_length * um)),
    ("minor_axis_length_um", Value::Micrometres(|object, um| object.minor_axis_length * um)),
];
