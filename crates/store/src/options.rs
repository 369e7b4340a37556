//! Settings of the store.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where results are kept, and which frames are kept with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Folder of the database and the frame files; made when it is not there.
    pub folder: PathBuf,
    /// Bytes that database and frame files may take together; 0 is no limit. Frame files make
    /// room, and when none may go, frames are no longer taken until there is room again.
    pub max_bytes: u64,
    /// Which frames are kept as image files, and for how long.
    pub frames: FrameRetention,
    /// A setting that a later release may add: what it notes of each result. For tests.
    #[cfg(feature = "next-migration")]
    pub next_note: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("reticle-data"),
            max_bytes: 0,
            frames: FrameRetention::default(),
            #[cfg(feature = "next-migration")]
            next_note: "next".to_owned(),
        }
    }
}

/// Retention of frame files. Records, label images and measurements are never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FrameRetention {
    /// `all`, `none`, or `every N`: frames whose sequence number is a multiple of N.
    pub keep: Keep,
    /// Bytes that all frame files together may take; the oldest make room, those already
    /// segmented first. The pages of one file push no other out once they have a quarter of it.
    pub max_bytes: u64,
    /// Bytes left free on the file system for everything else. Older frame files make room, and
    /// when none may go, frames are no longer taken until there is room again.
    pub min_free_bytes: u64,
}

impl Default for FrameRetention {
    fn default() -> Self {
        Self { keep: Keep::All, max_bytes: 2 << 30, min_free_bytes: 1 << 30 }
    }
}

/// Which frames: to be kept as files, to be archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Each one.
    All,
    /// Not one; records and label images only.
    #[default]
    None,
    /// Those whose sequence number is a multiple of this.
    Every(NonZeroU32),
}

impl Keep {
    /// Whether the frame with this sequence number is kept.
    pub fn includes(self, sequence: u64) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Every(n) => sequence.is_multiple_of(u64::from(n.get())),
        }
    }
}

/// Why a text is no [`Keep`].
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" does not say which frames to keep; write \"all\", \"none\", or \"every 10\"")]
pub struct UnknownKeep(String);

impl FromStr for Keep {
    type Err = UnknownKeep;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            other => other
                .strip_prefix("every ")
                .and_then(|n| n.trim().parse().ok())
                .map(Self::Every)
                .ok_or_else(|| UnknownKeep(text.to_owned())),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::None => f.write_str("none"),
            Self::Every(n) => write!(f, "every {n}"),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Keep {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Keep".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(all|none|every +[1-9][0-9]*)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_rule_reads_what_it_writes() {
        for rule in [Keep::All, Keep::None, Keep::Every(NonZeroU32::new(10).unwrap())] {
            assert_eq!(rule.to_string().parse::<Keep>().unwrap(), rule);
        }
    }

    #[test]
    fn an_unknown_keep_rule_is_refused_with_what_to_write() {
        for text in ["", "some", "every", "every 0", "every -1", "every x"] {
            let error = text.parse::<Keep>().unwrap_err().to_string();
            assert!(error.contains("write \"all\""), "{error}");
        }
    }

    #[test]
    fn an_empty_table_is_the_default() {
        assert_eq!(toml::from_str::<Options>("").unwrap(), Options::default());
        let options: Options = toml::from_str("[frames]\nkeep = \"every 3\"").unwrap();
        assert!(options.frames.keep.includes(6) && !options.frames.keep.includes(7));
        assert_eq!(options.frames.max_bytes, 2 << 30);
    }
}
