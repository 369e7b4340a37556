//! Keys of the archive: the one place where they are made.
//!
//! ```text
//! sessions/<session>/manifest.json
//! sessions/<session>/series-<n>.ome.zarr/zarr.json                          image: group
//! sessions/<session>/series-<n>.ome.zarr/0/zarr.json                        its array [t, y, x]
//! sessions/<session>/series-<n>.ome.zarr/0/c/<part>/0/0                     one shard
//! sessions/<session>/series-<n>.ome.zarr/labels/zarr.json                   list of label images
//! sessions/<session>/series-<n>.ome.zarr/labels/<model key>/zarr.json       label image: group
//! sessions/<session>/series-<n>.ome.zarr/labels/<model key>/0/zarr.json     its array [t, y, x]
//! sessions/<session>/series-<n>.ome.zarr/labels/<model key>/0/c/<part>/0/0  one shard
//! frames/box=<box>/date=<date>/<session>-<n>-<part>.parquet
//! objects/box=<box>/date=<date>/<session>-<n>-<model key>-<part>.parquet
//! .reticle/stores/<store>.json                                              who delivers, how far
//! ```
//!
//! A key says what it holds and nothing of when it was made: the same part of the same session
//! has the same key for ever, so that sending it again replaces it. `<date>` is
//! [`SessionFacts::archive_date`], chosen once. Parts are numbered from 0; in names of tables
//! with five digits, so that they sort.
//!
//! [`SessionFacts::archive_date`]: crate::domain::facts::SessionFacts::archive_date

use std::fmt::Write as _;

use crate::base::ids::{SessionId, StoreId};
use crate::domain::facts::{ModelFacts, Series, SessionFacts};

/// What a session holds, as [`super::manifest::Manifest`].
pub fn manifest(session: SessionId) -> String {
    format!("{}/manifest.json", session_folder(session))
}

/// What a store says of itself, as [`super::standing::Standing`].
pub fn standing(store: StoreId) -> String {
    format!(".reticle/stores/{store}.json")
}

/// Table of the frames of one part of a series.
pub fn frames_table(box_name: &str, archive_date: &str, series: &Series, part: u64) -> String {
    let Series { session, number, .. } = series;
    format!("frames/{}/{session}-{number}-{part:05}.parquet", partition(box_name, archive_date))
}

/// Table of the objects that one model found in one part of a series.
pub fn objects_table(
    box_name: &str,
    archive_date: &str,
    series: &Series,
    model: &ModelFacts,
    part: u64,
) -> String {
    let Series { session, number, .. } = series;
    let partition = partition(box_name, archive_date);
    format!("objects/{partition}/{session}-{number}-{}-{part:05}.parquet", model.key())
}

/// What all keys of one session begin with.
pub fn prefixes(box_name: &str, session: &SessionFacts) -> [String; 3] {
    let partition = partition(box_name, &session.archive_date);
    [
        format!("{}/", session_folder(session.id)),
        format!("frames/{partition}/{}-", session.id),
        format!("objects/{partition}/{}-", session.id),
    ]
}

/// Keys of the OME-Zarr image of one series and of its label images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesKeys {
    root: String,
}

impl SeriesKeys {
    /// In an archive.
    pub fn archived(series: &Series) -> Self {
        Self { root: format!("{}/{}", session_folder(series.session), series_name(series.number)) }
    }

    /// In a folder that holds one session.
    pub fn exported(series: &Series) -> Self {
        Self { root: series_name(series.number) }
    }

    /// The group of the image; what readers are pointed at.
    pub fn group(&self) -> String {
        format!("{}/zarr.json", self.root)
    }

    /// The array of the image.
    pub fn image_array(&self) -> String {
        format!("{}/0/zarr.json", self.root)
    }

    /// One part of the frames.
    pub fn image_shard(&self, part: u64) -> String {
        format!("{}/0/c/{part}/0/0", self.root)
    }

    /// The list of the label images.
    pub fn labels(&self) -> String {
        format!("{}/labels/zarr.json", self.root)
    }

    /// The group of one model's label image.
    pub fn label_group(&self, model: &ModelFacts) -> String {
        format!("{}/labels/{}/zarr.json", self.root, model.key())
    }

    /// The array of one model's label image.
    pub fn label_array(&self, model: &ModelFacts) -> String {
        format!("{}/labels/{}/0/zarr.json", self.root, model.key())
    }

    /// One part of one model's label images.
    pub fn label_shard(&self, model: &ModelFacts, part: u64) -> String {
        format!("{}/labels/{}/0/c/{part}/0/0", self.root, model.key())
    }
}

/// Number of the series that a folder of this name holds.
pub(super) fn series_number(name: &str) -> Option<u32> {
    name.strip_prefix("series-")?.strip_suffix(".ome.zarr")?.parse().ok()
}

fn series_name(number: u32) -> String {
    format!("series-{number}.ome.zarr")
}

fn session_folder(session: SessionId) -> String {
    format!("sessions/{session}")
}

fn partition(box_name: &str, archive_date: &str) -> String {
    format!("box={}/date={archive_date}", escaped(box_name))
}

/// A name as a Hive partition's value: ASCII letters, digits, `-`, `_` and `.` as they are, each
/// other byte of its UTF-8 as `%` and two hex digits. Hive, Arrow and DuckDB undo exactly this,
/// and what remains are characters that S3 calls safe, but for the percent sign.
fn escaped(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(text, "%{byte:02X}").ok();
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn every_key_is_as_the_guide_says() {
        let series = testing::series(3, 2);
        let model = testing::model("nuclei");
        let keys = SeriesKeys::archived(&series);
        let session = series.session;
        let root = format!("sessions/{session}/series-2.ome.zarr");
        let key = model.key();
        assert_eq!(manifest(session), format!("sessions/{session}/manifest.json"));
        assert_eq!(keys.group(), format!("{root}/zarr.json"));
        assert_eq!(keys.image_array(), format!("{root}/0/zarr.json"));
        assert_eq!(keys.image_shard(7), format!("{root}/0/c/7/0/0"));
        assert_eq!(keys.labels(), format!("{root}/labels/zarr.json"));
        assert_eq!(keys.label_group(&model), format!("{root}/labels/{key}/zarr.json"));
        assert_eq!(keys.label_array(&model), format!("{root}/labels/{key}/0/zarr.json"));
        assert_eq!(keys.label_shard(&model, 0), format!("{root}/labels/{key}/0/c/0/0/0"));
        assert_eq!(SeriesKeys::exported(&series).group(), "series-2.ome.zarr/zarr.json");
        assert_eq!(
            frames_table("box-1", "2026-05-04", &series, 12),
            format!("frames/box=box-1/date=2026-05-04/{session}-2-00012.parquet")
        );
        assert_eq!(
            objects_table("box-1", "2026-05-04", &series, &model, 12),
            format!("objects/box=box-1/date=2026-05-04/{session}-2-{key}-00012.parquet")
        );
    }

    #[test]
    fn a_box_may_be_called_anything() {
        assert_eq!(escaped("Scope_2.b-1"), "Scope_2.b-1");
        assert_eq!(escaped("Röntgen / 2=a%"), "R%C3%B6ntgen%20%2F%202%3Da%25");
    }

    #[test]
    fn a_series_is_known_again_by_its_folder() {
        assert_eq!(series_number(&series_name(12)), Some(12));
        assert_eq!(series_number("cells.ome.zarr"), None);
    }
}
