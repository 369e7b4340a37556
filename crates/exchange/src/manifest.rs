//! `manifest.json`: what the archive holds of one session, with the checksum of every object.
//!
//! It is written after everything that it lists, so that whoever reads it finds all of it. It
//! says of itself when there is more to come (`complete`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use reticle_base::clock::rfc3339;
use reticle_base::ids::{SessionId, StoreId};
use reticle_domain::facts::{BoxName, Dated, ModelFacts, Series, SessionFacts};

/// Version of the document's form: changed when an old reader would misunderstand a new one.
pub const FORMAT: u32 = 1;

/// One session in the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the program that wrote it, as `reticle 0.1.0`.
    pub software: String,
    /// The lab.
    pub site: String,
    /// The box.
    #[serde(rename = "box")]
    pub box_name: String,
    /// The store that delivered it; not in documents of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
    /// The session.
    pub session: Session,
    /// Whether the session has ended and all of it is here.
    pub complete: bool,
    /// What ran on its frames, by key.
    pub models: Vec<Model>,
    /// Its arrays.
    pub series: Vec<SeriesEntry>,
    /// Everything of the session but this document, by key.
    pub objects: Vec<ObjectEntry>,
}

/// A session; times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Name for ever.
    pub id: SessionId,
    /// What people call it.
    pub name: String,
    /// Specification of its source.
    pub source: String,
    /// Fluorophore or contrast.
    pub channel: Option<String>,
    /// Who acquired it.
    pub operator: Option<String>,
    /// Edge of a pixel in the sample, in µm, where configured.
    pub pixel_size_um: Option<f64>,
    /// When it began, as it is known now.
    pub started: String,
    /// The same, as the box's clock said then.
    pub started_recorded: String,
    /// `CLOCK_MONOTONIC` then, and of which boot; not in documents of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_mono: Option<Mono>,
    /// When it ended.
    pub ended: Option<String>,
    /// The same, as the box's clock said then.
    pub ended_recorded: Option<String>,
    /// As `started_mono`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_mono: Option<Mono>,
    /// Day under which its tables are archived, `YYYY-MM-DD`.
    pub archive_date: String,
    /// Frames recorded.
    pub frames: u64,
    /// Results saved.
    pub segmentations: u64,
    /// Objects in them.
    pub objects: u64,
}

/// Monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mono {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub ns: u64,
    /// Which boot of which machine counted it.
    pub boot: Uuid,
}

/// A model with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name in keys.
    pub key: String,
    /// Name of the package.
    pub name: String,
    /// SHA-256 of the network, in hex.
    pub sha256: String,
    /// Parameters, as JSON.
    pub parameters: String,
    /// Version of the software that ran it.
    pub software: String,
}

/// Frames of one pixel grid: one OME-Zarr image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesEntry {
    /// Its number, which is in its keys.
    pub number: u32,
    /// Frames, height, width.
    pub shape: [u64; 3],
    /// `uint8` or `uint16`.
    pub dtype: String,
    /// Frames in one part.
    pub part_frames: u32,
}

/// One object of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Where it is.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Rows, where it is a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// What an object of the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A `zarr.json`.
    ZarrMetadata,
    /// Pixels of one part of the frames.
    ImageShard,
    /// One model's label images of one part of the frames.
    LabelShard,
    /// Table of frames.
    FramesTable,
    /// Table of objects.
    ObjectsTable,
    /// Table of results.
    ResultsTable,
}

impl Manifest {
    /// Of what is known; `objects` in any order.
    pub fn new(
        site: &BoxName,
        session: &SessionFacts,
        series: &[Series],
        models: &[ModelFacts],
        complete: bool,
        mut objects: Vec<ObjectEntry>,
    ) -> Self {
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let mut models: Vec<Model> = models.iter().map(Model::of).collect();
        models.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            format: FORMAT,
            software: concat!("reticle ", env!("CARGO_PKG_VERSION")).to_owned(),
            site: site.site.clone(),
            box_name: site.name.clone(),
            store: None,
            session: Session::of(session),
            complete,
            models,
            series: series.iter().map(SeriesEntry::of).collect(),
            objects,
        }
    }

    /// What this manifest knows of the session that another one does not; its objects apart.
    pub fn knows_more_than(&self, other: &Self) -> Option<String> {
        let counted = |of: &Session| {
            [("frames", of.frames), ("results", of.segmentations), ("objects", of.objects)]
        };
        for ((of, here), (_, there)) in
            counted(&self.session).into_iter().zip(counted(&other.session))
        {
            if here > there {
                return Some(format!("it counts {here} {of}"));
            }
        }
        for series in &self.series {
            let same = other.series.iter().find(|other| other.number == series.number);
            if same.is_none_or(|same| series.shape[0] > same.shape[0]) {
                let [frames, ..] = series.shape;
                return Some(format!("it names {frames} frames of series {}", series.number));
            }
        }
        let model = self
            .models
            .iter()
            .find(|model| !other.models.iter().any(|other| other.key == model.key))?;
        Some(format!("it names the model {}", model.key))
    }

    /// Says which store delivers it.
    #[must_use]
    pub fn of_store(self, store: StoreId) -> Self {
        Self { store: Some(store), ..self }
    }

    /// The document; the same for the same manifest.
    pub fn to_json(&self) -> Vec<u8> {
        super::zarr::document(self)
    }
}

impl Session {
    fn of(facts: &SessionFacts) -> Self {
        let recorded = |dated: &Dated| rfc3339(dated.recorded_ns);
        let mono = |dated: &Dated| Mono { ns: dated.mono_ns, boot: dated.boot };
        Self {
            id: facts.id,
            name: facts.name.clone(),
            source: facts.source.clone(),
            channel: facts.channel.clone(),
            operator: facts.operator.clone(),
            pixel_size_um: facts.pixel_size_um,
            started: facts.started.rfc3339(),
            started_recorded: recorded(&facts.started),
            started_mono: Some(mono(&facts.started)),
            ended: facts.ended.as_ref().map(Dated::rfc3339),
            ended_recorded: facts.ended.as_ref().map(recorded),
            ended_mono: facts.ended.as_ref().map(mono),
            archive_date: facts.archive_date.clone(),
            frames: facts.frames,
            segmentations: facts.segmentations,
            objects: facts.objects,
        }
    }
}

impl Model {
    fn of(facts: &ModelFacts) -> Self {
        Self {
            key: facts.key(),
            name: facts.model.name.clone(),
            sha256: facts.model.sha256.clone(),
            parameters: facts.model.parameters.clone(),
            software: facts.model.software.clone(),
        }
    }
}

impl SeriesEntry {
    fn of(series: &Series) -> Self {
        Self {
            number: series.number,
            shape: [series.frames, series.height.into(), series.width.into()],
            dtype: super::zarr::image_type(series).to_owned(),
            part_frames: series.part_frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn entry(key: &str) -> ObjectEntry {
        ObjectEntry {
            key: key.to_owned(),
            bytes: 3,
            sha256: "00".repeat(32),
            kind: ObjectKind::FramesTable,
            rows: Some(2),
        }
    }

    #[test]
    fn the_order_in_which_things_were_made_changes_no_byte() {
        let session = testing::session();
        let series = [testing::series(3, 0)];
        let (a, b) = (testing::model("nuclei"), testing::model("cells"));
        let site = BoxName { site: "lab".into(), name: "box-1".into() };
        let one = Manifest::new(
            &site,
            &session,
            &series,
            &[a.clone(), b.clone()],
            true,
            vec![entry("b"), entry("a")],
        );
        let other =
            Manifest::new(&site, &session, &series, &[b, a], true, vec![entry("a"), entry("b")]);
        assert_eq!(one.to_json(), other.to_json());
        let back: Manifest = serde_json::from_slice(&one.to_json()).unwrap();
        assert_eq!(back, one);
        assert_eq!(back.series[0].shape, [3, 4, 6]);
        assert_eq!(back.knows_more_than(&one), None);
        let mut more = back.clone();
        more.session.segmentations += 1;
        assert_eq!(more.knows_more_than(&one).unwrap(), "it counts 3 results");
        assert_eq!(one.knows_more_than(&more), None);
        let mut more = back.clone();
        more.series[0].shape[0] = 4;
        assert_eq!(more.knows_more_than(&one).unwrap(), "it names 4 frames of series 0");
        let mut more = back.clone();
        more.models[0].key = "other".to_owned();
        assert_eq!(more.knows_more_than(&one).unwrap(), "it names the model other");
        let json: serde_json::Value = serde_json::from_slice(&one.to_json()).unwrap();
        assert_eq!(json["box"], "box-1");
        assert_eq!(json["objects"][0]["kind"], "frames-table");
        assert_eq!(json["session"]["ended"], serde_json::Value::Null);
    }
}
