//! Which files make up the configuration, and how they are put together.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::Problem;

/// Largest file that is read, bytes; all keys with their explanations take 20,000.
const FILE_BYTES: u64 = 1 << 20;

/// What to make of a main file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenMissing {
    /// A person named it: say so.
    Complain,
    /// It is only the usual place.
    UseDefaults,
}

/// One file, as read.
pub(super) struct Fragment {
    pub(super) file: PathBuf,
    pub(super) text: String,
    /// The version of the program that wrote it, where it is a drop-in that says so.
    pub(super) written_by: Option<String>,
}

/// How the first line of a drop-in begins that a program wrote, as an update does; the version of
/// the program follows. It is a comment, so that every TOML file may have it and no key is used up.
const WRITTEN_BY: &str = "# written by reticle ";

/// The version that a drop-in says wrote it.
fn written_by(text: &str) -> Option<String> {
    let version = text.lines().next()?.strip_prefix(WRITTEN_BY)?.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// Whether a version (`0.2.0`, `1.0.0-rc.1`) is newer than that of this program. One that cannot be
/// read is not.
pub(super) fn is_newer(version: &str) -> bool {
    fn numbers(version: &str) -> Option<[u64; 3]> {
        let mut parts = version.split(['-', '+']).next()?.split('.');
        let mut next = || parts.next()?.parse().ok();
        Some([next()?, next()?, next()?])
    }
    numbers(version).zip(numbers(env!("CARGO_PKG_VERSION"))).is_some_and(|(it, own)| it > own)
}

/// Reads `main` and its drop-ins, in the order in which they are to be merged.
pub(super) fn read(main: &Path, when_missing: WhenMissing) -> Result<Vec<Fragment>, Problem> {
    let mut fragments = Vec::new();
    match read_text(main) {
        Ok(text) => {
            fragments.push(Fragment { file: main.to_owned(), text, written_by: None });
        }
        Err(error)
            if error.kind() == ErrorKind::NotFound && when_missing == WhenMissing::UseDefaults => {}
        Err(error) => return Err(unreadable(main, &error)),
    }
    for file in drop_ins(main)? {
        let text = read_text(&file).map_err(|error| unreadable(&file, &error))?;
        let written_by = written_by(&text);
        fragments.push(Fragment { file, text, written_by });
    }
    Ok(fragments)
}

/// A file, or what a shell pipes in its place; one without end is not read to its end.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {FILE_BYTES} bytes; is it a configuration?"),
        ));
    }
    Ok(text)
}

/// `*.toml` in the folder `<main>.d`, by name. Other files there (`.toml.bak`, `.rpmsave`)
/// are left alone.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&folder, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(&folder, &error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !hidden {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn unreadable(file: &Path, error: &std::io::Error) -> Problem {
    let advice = match error.kind() {
        ErrorKind::NotFound => {
            "is not there; name another file with --config, or write this one: `reticle config \
             default` prints a documented start"
                .to_owned()
        }
        ErrorKind::PermissionDenied => {
            "may not be read by this user; change its owner or mode".to_owned()
        }
        ErrorKind::InvalidData => "is not UTF-8 text; save it as UTF-8".to_owned(),
        ErrorKind::IsADirectory => "is a folder; name the TOML file in it".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    Problem { file: file.to_owned(), line: None, key: None, message: advice }
}

/// Lays `over` over `under`: tables are merged, everything else is replaced.
pub(super) fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reticle_base::durable;

    #[test]
    fn drop_ins_are_taken_by_name_and_backups_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("r.toml");
        durable::write(&main, b"").unwrap();
        let drop_ins = folder.path().join("r.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        for name in ["20-b.toml", "10-a.toml", "30.toml.bak", ".40.toml", "README"] {
            durable::write(&drop_ins.join(name), b"").unwrap();
        }
        let names: Vec<_> = read(&main, WhenMissing::Complain)
            .unwrap()
            .iter()
            .map(|fragment| fragment.file.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["r.toml", "10-a.toml", "20-b.toml"]);
    }

    #[test]
    fn a_version_is_newer_by_its_numbers() {
        let own = env!("CARGO_PKG_VERSION");
        let [major, minor] =
            [0, 1].map(|at| own.split('.').nth(at).unwrap().parse::<u64>().unwrap());
        assert!(is_newer(&format!("{}.0.0", major + 1)));
        assert!(is_newer(&format!("{major}.{}.0-rc.1", minor + 10)));
        assert!(!is_newer(own) && !is_newer("0.0.1") && !is_newer("newest") && !is_newer("9"));
    }

    #[test]
    fn what_comes_later_wins_key_by_key() {
        let mut merged: toml::Table = toml::from_str("[a]\nb = 1\nc = [1, 2]").unwrap();
        merge(&mut merged, toml::from_str("[a]\nc = [3]\n[d]\ne = 4").unwrap());
        let expected: toml::Table = toml::from_str("[a]\nb = 1\nc = [3]\n[d]\ne = 4").unwrap();
        assert_eq!(merged, expected);
    }
}
