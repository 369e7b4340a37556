//! The data folder, and who may read and write what.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;

use super::{Finding, Scene};
use crate::capture::SourceSpec;
use reticle_base::durable;
use reticle_base::ids::SessionId;
use reticle_store::Reader;

/// Beginning of the name of the file that is written into the data folder and removed at once. The
/// rest is a new id, so that nobody can put something in its place beforehand.
const TRIAL: &str = "check-trial-";

/// From here on a durable write of a few bytes is slow. SD cards were seen to take 20 to 80 ms; a
/// result is one such write, and at 5 frames a second there are 200 ms for it.
const SLOW: Duration = Duration::from_millis(200);

/// Bits of the mode: others may read; others may write; anyone but the owner may do something.
pub(super) const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
const NOT_OWNER: u32 = 0o077;

pub(super) fn data(scene: &Scene) -> Finding {
    let folder = &scene.settings.store.folder;
    let shown = folder.display();
    if !folder.exists() {
        return not_yet(folder);
    }
    if !folder.is_dir() {
        return Finding::fail(
            format!("{shown} is no folder"),
            "name another in [store] folder, or move that file away",
        );
    }
    let began = scene.clock.now();
    let trial = folder.join(format!("{TRIAL}{}", SessionId::new()));
    let written = durable::write_private(&trial, b"Reticle wrote this to see whether it may.\n")
        .and_then(|()| durable::remove(&trial));
    if let Err(error) = written {
        return Finding::fail(
            format!("{shown} cannot be written: {error}"),
            "give the folder to the user that Reticle runs as (chown), look for a full disk or one \
             that is mounted read-only",
        );
    }
    let took = scene.clock.now().since(&began);
    let database = folder.join("reticle.db");
    if database.exists()
        && let Err(error) = Reader::open(folder)
    {
        return Finding::fail(
            error.to_string(),
            "copy the folder aside, then `reticle fsck`; a newer database wants a newer Reticle",
        );
    }
    let found = format!("{shown}; a durable write takes {:.0} ms", took.as_secs_f64() * 1e3);
    if scene.running {
        return Finding::ok(format!("{found}; a daemon is at work in it"));
    }
    if !reticle_store::is_closed_in_order(folder) {
        return Finding::warn(
            format!("{found}; the last daemon was not stopped in order"),
            "nothing: the next start mends what is left; `reticle fsck` shows it",
        );
    }
    if took > SLOW {
        return Finding::warn(found, "use a faster disk, or fewer frames a second");
    }
    Finding::ok(found)
}

/// A data folder that the first start has to make.
fn not_yet(folder: &Path) -> Finding {
    let shown = folder.display();
    let mut parents = folder
        .ancestors()
        .skip(1)
        .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(parent) = parents.find(|path| path.exists()) else {
        return Finding::fail(format!("{shown}: no such place"), "name another in [store] folder");
    };
    let may = rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK);
    if !parent.is_dir() || may.is_err() {
        return Finding::fail(
            format!("{shown} is not there, and this user cannot make it in {}", parent.display()),
            "make it and give it to the user that Reticle runs as, or name another in [store] folder",
        );
    }
    Finding::ok(format!("{shown} is not there yet; the first start makes it"))
}

pub(super) fn permissions(scene: &Scene) -> Finding {
    let settings = &scene.settings;
    let mut findings = Vec::new();
    if let SourceSpec::V4l(device) = &settings.source.spec
        && device.exists()
        && rustix::fs::access(device, Access::READ_OK | Access::WRITE_OK).is_err()
    {
        findings.push(Finding::fail(
            format!("this user may not open {}", device.display()),
            "`sudo usermod -aG video USER` with the user that Reticle runs as; log in again",
        ));
    }
    let folder = &settings.store.folder;
    let shown = folder.display();
    match mode(folder) {
        Some(mode) if mode & OTHERS_WRITE != 0 => findings.push(Finding::fail(
            format!("everybody may write {shown}"),
            format!("`chmod -R go-rwx {shown}`"),
        )),
        // Made by an older version, or opened by somebody: it is theirs to close.
        Some(mode) if mode & NOT_OWNER != 0 => findings.push(Finding::warn(
            format!("others than its owner may enter {shown} (mode {:o})", mode & 0o777),
            format!("`chmod -R go-rwx {shown}`, unless others are meant to read it"),
        )),
        _ => {}
    }
    let is_s3 = settings.sync.archive.to.trim().starts_with("s3://");
    for secret in secrets(is_s3, |name| std::env::var_os(name)) {
        if mode(&secret).is_some_and(|mode| mode & OTHERS_READ != 0) {
            let shown = secret.display();
            findings.push(Finding::fail(
                format!("everybody may read {shown}, which holds secrets"),
                format!("`chmod 600 {shown}`, and change the secrets in it"),
            ));
        }
    }
    let well = "what is to be opened may be, and what is secret is";
    Finding::worst(findings).unwrap_or_else(|| Finding::ok(well))
}

/// Who may do what with it; `None` where it is not there.
pub(super) fn mode(path: &Path) -> Option<u32> {
    path.metadata().ok().map(|metadata| metadata.permissions().mode())
}

/// Files that hold passwords and keys: those that the service manager hands over, and those of
/// the archive's account.
fn secrets(is_s3: bool, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(folder) = variable("CREDENTIALS_DIRECTORY") {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    if is_s3 {
        let named = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let usual = || variable("HOME").map(|home| Path::new(&home).join(".aws/credentials"));
        files.extend(named.or_else(usual));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_with_secrets_are_those_that_would_be_used() {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/box"));
        assert_eq!(secrets(false, home), Vec::<PathBuf>::new());
        assert_eq!(secrets(true, home), [PathBuf::from("/home/box/.aws/credentials")]);
    }
}
