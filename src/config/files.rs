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
}

/// Reads `main` and its drop-ins, in the order in which they are to be merged.
pub(super) fn read(main: &Path, when_missing: WhenMissing) -> Result<Vec<Fragment>, Problem> {
    let mut fragments = Vec::new();
    match read_text(main) {
        Ok(text) => fragments.push(Fragment { file: main.to_owned(), text }),
        Err(error)
            if error.kind() == ErrorKind::NotFound && when_missing == WhenMissing::UseDefaults => {}
        Err(error) => return Err(unreadable(main, &error)),
    }
    for file in drop_ins(main)? {
        let text = read_text(&file).map_err(|error| unreadable(&file, &error))?;
        fragments.push(Fragment { file, text });
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
    fn what_comes_later_wins_key_by_key() {
        let mut merged: toml::Table = toml::from_str("[a]\nb = 1\nc = [1, 2]").unwrap();
        merge(&mut merged, toml::from_str("[a]\nc = [3]\n[d]\ne = 4").unwrap());
        let expected: toml::Table = toml::from_str("[a]\nb = 1\nc = [3]\n[d]\ne = 4").unwrap();
        assert_eq!(merged, expected);
    }
}
