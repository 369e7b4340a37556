//! Configuration: text becomes typed settings here, once.
//!
//! One TOML file, then its drop-ins (`<file>.d/*.toml`, by name), merged key by key: the
//! last one that says something wins. Everything has a default, and an empty file runs the
//! virtual microscope on loopback with local storage only.
//!
//! A drop-in that a newer program wrote (its first line says `# written by reticle 0.2.0`) is passed
//! over as a whole, with a warning, where this program cannot take something in it: so an update has
//! a way back.
//!
//! - [`files`] finds and reads them; each file is judged alone, so that a message can name
//!   file, line and key;
//! - [`known`] is what may be written, taken from the JSON schema of [`Settings`], that is,
//!   from the doc comments and types of each stage's `Options`;
//! - [`render`] writes the documented default file and the effective settings.
//!
//! A new table is a field of [`Settings`] and a line in [`table_order`]; nothing else knows
//! the tables by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::{capture, publish, sync, telemetry, web};
use reticle_base::address;
use reticle_domain::facts::BoxName;

mod files;
mod introspect;
mod known;
mod render;

pub use render::{default_file, effective, shown};

/// Read when no other file is named; it need not be there.
pub const DEFAULT_FILE: &str = "/etc/reticle/reticle.toml";

/// Everything that can be set. Each table belongs to the stage that reads it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which box of which lab this is: in keys, tables and topics wherever results go.
    pub r#box: BoxOptions,
    /// Where frames come from and how they are taken.
    pub source: capture::Options,
    /// What is recorded with each acquisition.
    pub session: SessionOptions,
    /// How frames are segmented, and by which model.
    pub segment: reticle_segment::Options,
    /// Where results are kept, and which frames are kept with them.
    pub store: reticle_store::Options,
    /// Where results go from here. They are safe in the store whatever happens there.
    pub sync: sync::Options,
    /// What the lab's message broker is told, and what may be asked through it.
    pub mqtt: publish::Options,
    /// The page and the HTTP API.
    pub web: web::Options,
    /// What is logged, and how. The environment variable `RETICLE_LOG` overrides the level,
    /// module by module if wanted (`warn,reticle::capture=trace`).
    pub log: telemetry::Options,
}

/// Tables and their keys in the order of the code, which is the order to read them in.
fn table_order() -> Vec<(&'static str, &'static [&'static str])> {
    use introspect::fields;
    vec![
        ("box", fields::<BoxOptions>()),
        ("source", fields::<capture::Options>()),
        ("session", fields::<SessionOptions>()),
        ("segment", fields::<reticle_segment::Options>()),
        ("store", fields::<reticle_store::Options>()),
        ("sync", fields::<sync::Options>()),
        ("mqtt", fields::<publish::Options>()),
        ("web", fields::<web::Options>()),
        ("log", fields::<telemetry::Options>()),
    ]
}

/// Which box of which lab this is: the table `[box]`.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct BoxOptions {
    /// Name of the lab.
    pub site: String,
    /// Name of the box, other than those of all others in the lab. Left out: the host's name.
    pub name: Option<String>,
}

impl Default for BoxOptions {
    fn default() -> Self {
        Self { site: "lab".to_owned(), name: None }
    }
}

impl BoxOptions {
    /// The names in effect.
    pub fn name(&self) -> BoxName {
        let host = || {
            let uname = rustix::system::uname();
            uname.nodename().to_string_lossy().into_owned()
        };
        BoxName { site: self.site.clone(), name: self.name.clone().unwrap_or_else(host) }
    }
}

/// What is recorded with each acquisition: the table `[session]`.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    /// What people call the acquisition. Left out: the time it began.
    pub name: Option<String>,
    /// Name or barcode of the plate or slide. Left out: as the source says, else unknown.
    pub plate: Option<String>,
    /// Fluorophore or contrast, as `DAPI` or `phase`.
    pub channel: Option<String>,
    /// Who acquires.
    pub operator: Option<String>,
}

impl Settings {
    /// What no single key can tell: keys that must fit each other.
    fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.source.width.is_some() != self.source.height.is_some() {
            let alone = if self.source.width.is_some() { "source.width" } else { "source.height" };
            found.push((alone, "stands alone; give both width and height, or neither".to_owned()));
        }
        let texts = [
            ("session.name", &self.session.name),
            ("session.plate", &self.session.plate),
            ("session.channel", &self.session.channel),
            ("session.operator", &self.session.operator),
            ("box.name", &self.r#box.name),
            ("box.site", &Some(self.r#box.site.clone())),
        ];
        for (key, text) in texts {
            let Some(text) = text else { continue };
            if text.trim().is_empty() {
                found.push((key, "is empty; write something or leave the key out".to_owned()));
            } else if text.chars().any(char::is_control) || text.chars().count() > 120 {
                found.push((key, "must be one line of at most 120 characters".to_owned()));
            }
        }
        let endpoint = self.log.otlp_endpoint.as_deref();
        found.extend(
            endpoint
                .and_then(telemetry::otlp::complaint)
                .map(|complaint| ("log.otlp_endpoint", complaint)),
        );
        found
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
}

/// Settings, and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings in effect.
    pub settings: Settings,
    /// The files that were read, in the order in which they were merged.
    pub files: Vec<PathBuf>,
    /// Where each key (`source.fps`) was set; what is not here has its default.
    pub origins: BTreeMap<String, Origin>,
    /// Drop-ins of a newer program that this one cannot take.
    pub passed_over: Vec<PassedOver>,
}

/// A drop-in that was left out, because a newer program wrote it and this one does not know all
/// that is in it.
#[derive(Clone, Debug)]
pub struct PassedOver {
    /// Which.
    pub file: PathBuf,
    /// The version that wrote it.
    pub version: String,
    /// What this program cannot take.
    pub problems: Vec<Problem>,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was written by reticle {} and is passed over; this is {}, which cannot take it",
            self.file.display(),
            self.version,
            env!("CARGO_PKG_VERSION")
        )?;
        self.problems.iter().try_for_each(|problem| write!(f, "; {problem}"))
    }
}

impl Loaded {
    /// What is wrong with a key, with where it was set.
    pub fn problem(&self, key: &str, message: String) -> Problem {
        let origin = self.origins.get(key);
        let first = || self.files.first().cloned().unwrap_or(PathBuf::from(DEFAULT_FILE));
        Problem {
            file: origin.map_or_else(first, |origin| origin.file.clone()),
            line: origin.map(|origin| origin.line),
            key: Some(key.to_owned()),
            message,
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1, where one is at fault.
    pub line: Option<usize>,
    /// The key (`source.fps`), where one is at fault.
    pub key: Option<String>,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(key) = &self.key {
            write!(f, "`{key}` ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with the configuration; at least one thing.
#[derive(Debug, thiserror::Error)]
#[error("{}", .problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// In the order of the files and lines.
    pub problems: Vec<Problem>,
}

/// Reads the settings from `path` and its drop-ins; without a path from [`DEFAULT_FILE`],
/// which need not be there.
///
/// # Errors
/// Everything that is wrong with the files, all at once.
pub fn load(path: Option<&Path>) -> Result<Settings, ConfigError> {
    load_explained(path).map(|loaded| loaded.settings)
}

/// As [`load`], and says where each value came from.
///
/// # Errors
/// Everything that is wrong with the files, all at once.
pub fn load_explained(path: Option<&Path>) -> Result<Loaded, ConfigError> {
    let read = match path {
        Some(path) => files::read(path, files::WhenMissing::Complain),
        None => files::read(Path::new(DEFAULT_FILE), files::WhenMissing::UseDefaults),
    };
    let fragments = read.map_err(|problem| ConfigError { problems: vec![problem] })?;
    let known = known::Known::settings();

    let mut problems = Vec::new();
    let mut merged = toml::Table::new();
    let mut origins = BTreeMap::new();
    let mut files = Vec::new();
    let mut passed_over = Vec::new();
    for fragment in fragments {
        match known.judge(&fragment) {
            Ok(judged) => {
                files::merge(&mut merged, judged.table);
                origins.extend(judged.origins);
            }
            // An update put it there, and the program before it was put back: what it does not
            // know must not stop it.
            Err(found) if fragment.written_by.as_deref().is_some_and(files::is_newer) => {
                let version = fragment.written_by.unwrap_or_default();
                passed_over.push(PassedOver { file: fragment.file, version, problems: found });
                continue;
            }
            Err(found) => problems.extend(found),
        }
        files.push(fragment.file);
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }

    // Each file was judged, and keys do not change each other's types by merging.
    let settings: Settings = merged.try_into().map_err(|error: toml::de::Error| ConfigError {
        problems: vec![Problem {
            file: path.unwrap_or(Path::new(DEFAULT_FILE)).to_owned(),
            line: None,
            key: None,
            message: address::shown_in(error.message()).into_owned(),
        }],
    })?;
    let contradictions = settings.contradictions();
    let loaded = Loaded { settings, files, origins, passed_over };
    if contradictions.is_empty() {
        return Ok(loaded);
    }
    let problems =
        contradictions.into_iter().map(|(key, message)| loaded.problem(key, message)).collect();
    Err(ConfigError { problems })
}

/// The JSON schema of the configuration, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Settings).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_place_in_the_order() {
        let schema = schema();
        let mut tables: Vec<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        tables.sort_unstable();
        let mut ordered: Vec<&str> = table_order().iter().map(|(table, _)| *table).collect();
        ordered.sort_unstable();
        assert_eq!(tables, ordered);
        for (table, fields) in table_order() {
            assert!(!fields.is_empty(), "{table}");
        }
    }

    #[test]
    fn nothing_configured_is_the_virtual_microscope_on_loopback() {
        let settings = Settings::default();
        assert_eq!(settings.source.spec, capture::SourceSpec::Virtual);
        assert!(settings.web.listen.ip().is_loopback());
        assert!(settings.contradictions().is_empty());
    }
}
