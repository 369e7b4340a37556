//! A box of a test with its destinations, and what lies there.

#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]
#![expect(clippy::disallowed_methods, reason = "files of a test need not last")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use rusqlite::Connection;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::postgres::Postgres;
use super::s3_server::{ACCESS_KEY, BUCKET, SECRET_KEY};
use super::{Daemon, Start, reticle, wait_for};

/// A box of a test: its configuration and its data folder.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new(sync: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.configure(sync);
        lab
    }

    /// A small, fast virtual microscope, with these tables of `[sync]`.
    pub(crate) fn configure(&self, sync: &str) {
        let text = format!(
            "[box]\nsite = \"test\"\nname = \"box-1\"\n\
             [source]\nwidth = 128\nheight = 128\nfps = 20.0\n\
             [store.frames]\nmin_free_bytes = 0\n{sync}"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("reticle.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn start(&self) -> Daemon {
        Start::default()
            .config(self.config())
            .data(self.data())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("RETICLE_CENTRAL_PASSWORD", "open sesame")
            .start()
    }

    /// Takes this many results and more.
    pub(crate) fn take(&self, results: u64) -> Daemon {
        let daemon = self.start();
        wait_for("results to be saved", || {
            (daemon.json("/api/v1/totals")["segmentations"].as_u64()? >= results).then_some(())
        });
        daemon
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        reticle()
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .arg("--data")
            .arg(self.data())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("RETICLE_CENTRAL_PASSWORD", "open sesame")
            .output()
            .unwrap()
    }

    /// The JSON of a verb that must end with this exit code.
    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{error}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{error}"))
    }

    pub(crate) fn is_sound(&self) {
        let output = reticle().args(["fsck", "--data"]).arg(self.data()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }

    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.data().join("reticle.db")).unwrap()
    }

    /// Frames, results and objects in the store.
    pub(crate) fn counts(&self) -> [u64; 3] {
        ["frame", "segmentation", "object"].map(|table| {
            let count = format!("SELECT count(*) FROM {table}");
            self.database().query_row(&count, [], |row| row.get::<_, i64>(0)).unwrap() as u64
        })
    }
}

pub(crate) fn s3(endpoint: &str, pixels: &str) -> String {
    format!(
        "[sync.archive]\nto = \"s3://{BUCKET}/lab-7\"\nendpoint = \"{endpoint}\"\n\
         pixels = \"{pixels}\"\n"
    )
}

pub(crate) fn central(postgres: &Postgres) -> String {
    format!("[sync.central]\nurl = \"{}\"\n", postgres.url())
}

/// Every file below a folder, by its path from there, with its hash; but for what says who delivers,
/// which changes with every delivery.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = all_files(folder);
    found.retain(|name, _| !name.contains(".reticle/"));
    found
}

/// Every file below a folder, by its path from there, with its hash.
pub(crate) fn all_files(folder: &Path) -> BTreeMap<String, String> {
    fn collect(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, into);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let hash = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
                into.insert(name, hash);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, folder, &mut found);
    found
}

pub(crate) fn waiting(status: &Value) -> u64 {
    status["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|destination| destination["waiting"].as_u64().unwrap())
        .sum()
}
