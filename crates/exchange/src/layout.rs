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
//! results/box=<box>/date=<date>/<session>-<n>-<model key>-<part>.parquet
//! .reticle/stores/<store>.json                                              who delivers, how far
//! ```
//!
//! A key says what it holds and nothing of when it was made: the same part of the same session
//! has the same key for ever, so that sending it again replaces it. `<date>` is
//! [`SessionFacts::archive_date`], chosen once. Parts are numbered from 0; in names of tables
//! with five digits, so that they sort.
//!
//! [`SessionFacts::archive_date`]: reticle_domain::facts::SessionFacts::archive_date

use std::fmt::Write as _;

use reticle_base::ids::{SessionId, StoreId};
use reticle_domain::facts::{ModelFacts, Series};

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
    model_table("objects", (box_name, archive_date), series, model, part)
}

/// Table of one model's results in one part of a series.
pub fn results_table(
    box_name: &str,
    archive_date: &str,
    series: &Series,
    model: &ModelFacts,
    part: u64,
) -> String {
    model_table("results", (box_name, archive_date), series, model, part)
}

fn model_table(
    table: &str,
    (box_name, archive_date): (&str, &str),
    series: &Series,
    model: &ModelFacts,
    part: u64,
) -> String {
    let Series { session, number, .. } = series;
    let partition = partition(box_name, archive_date);
    format!("{table}/{partition}/{session}-{number}-{}-{part:05}.parquet", model.key())
}

/// What all keys of one session begin with.
pub fn prefixes(box_name: &str, session: SessionId, archive_date: &str) -> [String; 4] {
    let partition = partition(box_name, archive_date);
    [
        format!("{}/", session_folder(session)),
        format!("frames/{partition}/{session}-"),
        format!("objects/{partition}/{session}-"),
        format!("results/{partition}/{session}-"),
    ]
}

/// What all keys of sessions begin with.
pub const SESSIONS: &str = "sessions/";

/// What all keys of [`standing`] begin with.
pub const STANDINGS: &str = ".reticle/stores/";

/// The session whose manifest has this key; `None` where it is none.
pub fn session_of_manifest(key: &str) -> Option<SessionId> {
    key.strip_prefix(SESSIONS)?.strip_suffix("/manifest.json")?.parse().ok()
}

/// What a key of a session holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// The manifest.
    Manifest,
    /// A `zarr.json`.
    Document,
    /// Something of one part of a series.
    Part {
        /// Number of the series.
        series: u32,
        /// Number of the part.
        part: u64,
        /// What.
        of: PartOf,
    },
}

/// What of a part a key holds; results by the model's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartOf {
    /// Table of frames.
    Frames,
    /// Pixels.
    Pixels,
    /// Label images.
    Labels(String),
    /// Table of objects.
    Objects(String),
    /// Table of results.
    Results(String),
}

/// What one of the keys that begin with [`prefixes`] holds; `None` where it is none of ours.
pub fn holds(session: SessionId, key: &str) -> Option<Holds> {
    if let Some(rest) = key.strip_prefix(&format!("{}/", session_folder(session))) {
        return of_arrays(rest);
    }
    let (table, rest) = key.split_once('/')?;
    let file = rest.rsplit_once('/')?.1.strip_suffix(".parquet")?;
    let (series, rest) = file.strip_prefix(&format!("{session}-"))?.split_once('-')?;
    let series = series.parse().ok()?;
    if table == "frames" {
        return Some(Holds::Part { series, part: rest.parse().ok()?, of: PartOf::Frames });
    }
    let (model, part) = rest.rsplit_once('-')?;
    let of = match table {
        "objects" => PartOf::Objects(model.to_owned()),
        "results" => PartOf::Results(model.to_owned()),
        _ => return None,
    };
    Some(Holds::Part { series, part: part.parse().ok()?, of })
}

fn of_arrays(rest: &str) -> Option<Holds> {
    if rest == "manifest.json" {
        return Some(Holds::Manifest);
    }
    let (root, rest) = rest.split_once('/')?;
    let series = series_number(root)?;
    if rest == "zarr.json" || rest.ends_with("/zarr.json") {
        return Some(Holds::Document);
    }
    let (array, chunk) = rest.split_once("0/c/")?;
    let part = chunk.strip_suffix("/0/0")?.parse().ok()?;
    let of = match array.strip_prefix("labels/") {
        None if array.is_empty() => PartOf::Pixels,
        None => return None,
        Some(model) => PartOf::Labels(model.strip_suffix('/')?.to_owned()),
    };
    Some(Holds::Part { series, part, of })
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
        assert_eq!(
            results_table("box-1", "2026-05-04", &series, &model, 12),
            format!("results/box=box-1/date=2026-05-04/{session}-2-{key}-00012.parquet")
        );
        assert_eq!(session_of_manifest(&manifest(session)), Some(session));
        assert_eq!(session_of_manifest(&keys.group()), None);

        let holds = |key: &str| holds(session, key);
        let part = |of| Some(Holds::Part { series: 2, part: 12, of });
        assert_eq!(holds(&manifest(session)), Some(Holds::Manifest));
        assert_eq!(holds(&keys.group()), Some(Holds::Document));
        assert_eq!(holds(&keys.label_array(&model)), Some(Holds::Document));
        assert_eq!(holds(&keys.image_shard(12)), part(PartOf::Pixels));
        assert_eq!(holds(&keys.label_shard(&model, 12)), part(PartOf::Labels(key.clone())));
        let frames = frames_table("box-1", "2026-05-04", &series, 12);
        assert_eq!(holds(&frames), part(PartOf::Frames));
        let objects = objects_table("box-1", "2026-05-04", &series, &model, 12);
        assert_eq!(holds(&objects), part(PartOf::Objects(key.clone())));
        let results = results_table("box-1", "2026-05-04", &series, &model, 12);
        assert_eq!(holds(&results), part(PartOf::Results(key.clone())));
        for other in ["sessions/x", "frames/a/b.parquet", &format!("sessions/{session}/0/c/1")] {
            assert_eq!(holds(other), None, "{other}");
        }
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
