//! What the crates are built of: Cargo's own answer to what each of them links.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that a worker on a cluster or in a cloud function links, and what must not come with them:
/// it has no database, no page, no camera and no broker.
const OF_A_WORKER: [&str; 4] =
    ["reticle-segment", "reticle-imagefile", "reticle-exchange", "reticle-object-storage"];
const NOT_IN_A_WORKER: [&str; 7] =
    ["rusqlite", "libsqlite3-sys", "axum", "v4l", "rumqttc", "tokio-postgres", "reticle-store"];

/// Crates that the updater links, which has to work when nothing else does.
const OF_THE_UPDATER: [&str; 2] = ["reticle-base", "reticle-domain"];
const NOT_IN_THE_UPDATER: [&str; 6] =
    ["tract-onnx", "tract-core", "aws-sdk-s3", "rusqlite", "reticle-store", "axum"];

/// Folders with the `lib.rs` of the program and of each crate.
pub(super) fn source_folders(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("src")];
    for entry in std::fs::read_dir(root.join("crates")).expect("the crates lie there") {
        folders.push(entry.expect("a folder can be listed").path().join("src"));
    }
    folders.sort();
    folders
}

/// Names of all packages that end up in a build of this one, itself among them.
fn linked(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn assert_links_none(packages: &[&str], unwanted: &[&str]) {
    for package in packages {
        let linked = linked(package);
        assert!(linked.iter().any(|name| name == package), "{package}: {linked:?}");
        let found: Vec<_> = linked.iter().filter(|name| unwanted.contains(&&***name)).collect();
        assert!(found.is_empty(), "{package} links {found:?}");
    }
}

#[test]
fn what_a_worker_links_has_no_database_no_page_no_camera_and_no_broker() {
    assert_links_none(&OF_A_WORKER, &NOT_IN_A_WORKER);
}

#[test]
fn what_the_updater_links_has_no_network_engine_no_cloud_and_no_store() {
    assert_links_none(&OF_THE_UPDATER, &NOT_IN_THE_UPDATER);
}

#[test]
fn what_is_linked_is_seen_at_all() {
    let program = linked("reticle");
    for name in NOT_IN_A_WORKER.iter().chain(&NOT_IN_THE_UPDATER) {
        assert!(program.iter().any(|linked| linked == name), "the program links no {name}");
    }
}
