//! The folder of results: one run's, whole, and nobody else's files written over.
//!
//! - Files that this program did not make, or that were changed since, are refused before anything
//!   is done; `--force` does not help against that. So are files that the run itself reads.
//! - What an earlier run made goes when this run begins, so that its results are not mixed with
//!   new ones. Where that would lose label images of images that this run does not have, it wants
//!   `--force`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::plan::Input;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;
use reticle_exchange::made::{Made, MadeError, State};
use reticle_exchange::tables::{ImageRow, ImagesCsv, ObjectsCsv, ObjectsParquet};

const CSV: &str = "objects.csv";
const PARQUET: &str = "objects.parquet";
const IMAGES: &str = "images.csv";
const LABELS: &str = "labels";

/// A folder that may be written into.
pub(super) struct Results {
    made: Made,
}

impl Results {
    /// Takes the folder, where the results of these images may go into it. Changes nothing yet but
    /// that it makes the folder.
    ///
    /// # Errors
    /// When something in it would be lost, each by name with what to do.
    pub(super) fn take(out: &Path, images: &[Input], force: bool) -> anyhow::Result<Self> {
        let made = Made::open(out)?;
        let shown = |name: &str| out.join(name).display().to_string();
        if let Some((first, others)) = made.foreign_in(LABELS)?.split_first() {
            bail!(
                "{}{} not made by `reticle segment`, and would be lost or mixed with its label \
                 images; nothing was written: give another --out",
                shown(first),
                and_more(others.len())
            );
        }
        let mut changed = Vec::new();
        for (name, _) in made.files() {
            if made.state(name)? == State::Changed {
                changed.push(name);
            }
        }
        if let Some((first, others)) = changed.split_first() {
            bail!(
                "{}{} changed since this program made {}, and would be lost; nothing was written: \
                 give another --out, or move what was changed away",
                shown(first),
                and_more(others.len()),
                if others.is_empty() { "it" } else { "them" }
            );
        }
        if let Some(path) = made.read_from(images.iter().map(|image| image.path.as_path())) {
            bail!(
                "{} is to be segmented, and its place is where the results go; nothing was \
                 written: give another --out",
                path.display()
            );
        }
        for name in [CSV, PARQUET, IMAGES] {
            made.check(name)?;
        }
        let names: HashSet<&str> = images.iter().map(|image| image.name.as_str()).collect();
        let is_stale = |&(name, of): &(&str, Option<&str>)| {
            of.is_some_and(|of| !names.contains(of)) && made.exists(name)
        };
        let stale: Vec<&str> = made.files().filter(is_stale).map(|(name, _)| name).collect();
        if let (Some((first, others)), false) = (stale.split_first(), force) {
            let more = match others.len() {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            bail!(
                "{} holds results of an earlier run, of images that this run does not have \
                 ({first}{more}); nothing was written: give another --out, or --force to remove \
                 them",
                out.display()
            );
        }
        Ok(Self { made })
    }

    /// Removes what an earlier run made.
    ///
    /// # Errors
    /// When a file of it cannot be removed.
    pub(super) fn clear(&mut self) -> Result<(), MadeError> {
        self.made.clear()
    }

    /// Begins the tables.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn tables(&self) -> anyhow::Result<Tables> {
        Ok(Tables {
            csv: ObjectsCsv::new(self.made.grow(CSV)?)?,
            parquet: ObjectsParquet::new(self.made.begin(PARQUET)?)?,
            images: ImagesCsv::new(self.made.grow(IMAGES)?)?,
        })
    }

    /// Writes the label image of a page: as PNG while its labels fit, else as TIFF.
    ///
    /// # Errors
    /// When something bears its name, or it cannot be written.
    pub(super) fn labels(
        &self,
        input: &Input,
        page: Option<u32>,
        labels: &LabelImage,
    ) -> Result<PathBuf, MadeError> {
        let (ending, bytes) = match reticle_imagefile::encode_labels_png(labels) {
            Some(bytes) => ("png", bytes),
            None => ("tif", reticle_imagefile::encode_labels_tiff(labels)),
        };
        let name = format!("{LABELS}/{}", input.label_file(page, ending));
        self.made.put(&name, Some(&input.name), &bytes)
    }
}

/// The tables of a run. Those of text grow under their names, row by row; the one of Parquet, which
/// nobody can read before it is whole, gets its name at the end.
pub(super) struct Tables {
    csv: ObjectsCsv,
    parquet: ObjectsParquet,
    images: ImagesCsv,
}

impl Tables {
    /// Adds a page and its objects, objects first: a page that is in the table of images has all of
    /// its objects in the other, also after a kill.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub(super) fn append(&mut self, row: ImageRow<'_>, objects: &[Object]) -> anyhow::Result<()> {
        self.csv.append(row.image, objects)?;
        self.csv.flush()?;
        self.parquet.append(row.image, objects)?;
        self.images.push(&row)?;
        Ok(self.images.flush()?)
    }

    /// Ends them.
    ///
    /// # Errors
    /// When the disk is full or gone.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.csv.finish()?;
        self.parquet.finish()?;
        self.images.finish()?;
        Ok(())
    }
}

/// After the first of several files; with the verb.
fn and_more(others: usize) -> String {
    match others {
        0 => " was".to_owned(),
        1 => " and another file were".to_owned(),
        others => format!(" and {others} other files were"),
    }
}
