//! Settings of what leaves the box.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use reticle_object_storage::Location;
use reticle_store::Keep;

/// Where results go from here. They are safe in the store whatever happens there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Megabits a second that all uploads together may take; 0 is no limit.
    pub max_upload_mbit: u32,
    /// Object storage or a folder.
    pub archive: ArchiveOptions,
    /// The lab's PostgreSQL.
    pub central: CentralOptions,
}

/// The archive: label images, tables and, where wanted, pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveOptions {
    /// `s3://bucket/prefix`, `file:PATH` (relative to the data folder), or `none`.
    pub to: String,
    /// Which kept frames are archived with their pixels: `none`, `all`, or `every N`. Those wait
    /// on the box until the archive has them.
    pub pixels: Keep,
    /// Seconds after which a result is archived although its part is not yet full.
    pub max_delay_s: u32,
    /// Address of an S3-compatible server (`https://minio.lab:9000`). Left out: AWS.
    pub endpoint: Option<String>,
    /// Region of the bucket. Left out: as the environment or the profile says, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket is in the path instead of the host name. Left out: true where an
    /// endpoint is given.
    pub path_style: Option<bool>,
    /// Profile of the AWS configuration files. Left out: the environment's keys, the default
    /// profile, the instance's or container's role, in this order.
    pub profile: Option<String>,
    /// File with the certificates (PEM) of a CA of one's own.
    pub ca_file: Option<PathBuf>,
}

impl ArchiveOptions {
    /// The part that says where it is.
    pub fn location(&self) -> Location {
        let Self { to, pixels: _, max_delay_s: _, endpoint, region, path_style, profile, ca_file } =
            self.clone();
        Location { to, endpoint, region, path_style, profile, ca_file }
    }
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            to: "file:archive".to_owned(),
            pixels: Keep::None,
            max_delay_s: 300,
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            ca_file: None,
        }
    }
}

/// The lab's PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CentralOptions {
    /// `postgresql://user@host:5432/database`. Left out: none. The password comes from the
    /// environment variable `RETICLE_CENTRAL_PASSWORD` or the systemd credential
    /// `central-password`.
    pub url: Option<String>,
    /// File with the certificates (PEM) of a CA of one's own.
    pub ca_file: Option<PathBuf>,
}
