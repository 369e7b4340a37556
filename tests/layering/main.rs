//! What Cargo cannot say of the program's order (`src/lib.rs` says it in words): which module may
//! name which module and which crate, that no files name each other in a circle, how long a file may
//! get, and what a crate must not link. Reads the sources; no compiler knows these rules.

mod circles;
mod crates;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};

use circles::Sources;
use source::{Token, rust_files, tokens};

/// Each top-level module of the program with the modules and crates that it may name. Everyone may
/// name itself. Stages (capture, segment, store) never name each other: they meet in `app`, through
/// queues. What a crate may name is in its `Cargo.toml`.
const MAY_NAME: &[(&str, &str)] = &[
    ("telemetry", "base domain"),
    ("capture", "base domain imagefile"),
    ("sync", "base domain imagefile exchange object_storage store"),
    ("publish", "base domain store"),
    ("web", "base domain imagefile store telemetry"),
    ("learn", "base domain imagefile nn segment store"),
    ("batch", "base domain imagefile exchange segment store"),
    ("config", "base domain imagefile capture segment store sync publish web learn telemetry"),
    (
        "check",
        "base domain imagefile object_storage capture segment store sync publish web learn telemetry config",
    ),
    ("app", "base domain imagefile capture segment store sync publish web learn telemetry config"),
    (
        "cli",
        "base domain imagefile exchange nn capture segment store sync publish web learn batch \
         telemetry config app check",
    ),
    ("main", "cli"),
    ("lib", ""),
];

/// The crates below the program, as [`MAY_NAME`] names them.
const CRATES: [&str; 8] =
    ["base", "domain", "imagefile", "exchange", "nn", "object_storage", "segment", "store"];

/// What their names begin with in the source.
const CRATE: &str = "reticle_";

/// From here on a file wants a reason; it is named on stderr.
const LONG: usize = 500;

/// From here on it fails, unless it is in [`LONG_FOR_A_REASON`].
const TOO_LONG: usize = 700;

/// Files that may be longer than [`TOO_LONG`], each with the reason.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

#[test]
fn no_module_names_one_that_it_may_not() {
    let mut found = Vec::new();
    for file in rust_files(&root().join("src")) {
        let text = std::fs::read_to_string(&file).expect("a source file is UTF-8 text");
        let inside = file.strip_prefix(root().join("src")).expect("it was found there");
        match check(inside, &text) {
            Ok(violations) => found.extend(violations.iter().map(ToString::to_string)),
            Err(unknown) => found.push(unknown),
        }
    }
    assert!(found.is_empty(), "the layering is broken:\n{}", found.join("\n"));
}

#[test]
fn no_file_is_too_long_without_a_reason() {
    let mut too_long = Vec::new();
    for file in ["src", "crates", "tests", "benches"]
        .into_iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
    {
        let lines = std::fs::read_to_string(&file).expect("a source file is text").lines().count();
        let name = file.strip_prefix(root()).expect("it was found there").display().to_string();
        let excused = LONG_FOR_A_REASON.iter().any(|(excused, _)| *excused == name);
        if lines > TOO_LONG && !excused {
            too_long.push(format!("{name} has {lines} lines; {TOO_LONG} is the most"));
        } else if lines > LONG {
            eprintln!("{name} has {lines} lines; is it still about one subject?");
        }
    }
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}

#[test]
fn a_planted_violation_is_found_in_every_way_of_writing_it() {
    let planted = [
        ("capture/v4l.rs", "use reticle_store::Store;"),
        ("capture/v4l.rs", "pub use crate::{capture::Source, web};"),
        ("capture/v4l.rs", "use crate::{\n    capture::{frame::Frame, ids},\n    web::Store,\n};"),
        ("capture/v4l.rs", "use super::super::web::Store;"),
        ("capture/v4l.rs", "use super::{super::{web::Store}, Source};"),
        ("capture/mod.rs", "use super::web;"),
        ("capture/mod.rs", "fn f() { let s: crate :: web::Store = todo!(); }"),
        ("capture/mod.rs", "mod tests { use super::super::web; }"),
        ("capture/mod.rs", "const C: char = '\"'; use reticle_store; const D: char = '\"';"),
        ("capture/mod.rs", "fn f<'a>(a: &'a str) -> &'a str { reticle_store::f(a) }"),
        ("capture/mod.rs", "const S: &str = r#\"a \" b\"#; use reticle_store;"),
        ("capture/mod.rs", "macro_rules! m { () => { $crate::web::f() } }"),
        ("telemetry/mod.rs", "use reticle_store as records;"),
        ("web/live.rs", "use reticle_segment::Options;"),
        ("app.rs", "use crate::cli;"),
        ("main.rs", "fn main() { reticle_store::open() }"),
    ];
    for (file, text) in planted {
        let found = check(Path::new(file), text).expect("the module is known");
        assert_eq!(found.len(), 1, "{file}: {text}\nfound {found:?}");
    }
}

#[test]
fn what_is_allowed_is_let_through() {
    let sound = [
        ("capture/v4l.rs", "use reticle_base::clock::{Clock, Stamp};"),
        ("capture/v4l.rs", "use super::{Source, formats::{self, Format}};"),
        (
            "capture/v4l.rs",
            "use crate::capture::Source;\npub(crate) fn f() {}\npub(super) fn g() {}",
        ),
        ("capture/v4l.rs", "mod tests { use super::*; use super::super::Source; }"),
        ("capture/v4l.rs", "mod a { mod b {} } mod tests { use super::super::store; }"),
        ("capture/mod.rs", "//! Goes to [`reticle_store`].\n/* reticle_store /* */ crate::web */"),
        ("capture/mod.rs", "const S: &str = \"reticle_store \\\" crate::web\";"),
        ("capture/mod.rs", "const S: &str = r##\"reticle_store \"# crate::web\"##;"),
        (
            "capture/mod.rs",
            "fn f(a: &str) { a.store(); other::store::f(); tokio::store::crate_(); }",
        ),
        ("lib.rs", "pub mod capture;\npub mod web;"),
        ("main.rs", "fn main() { reticle::cli::main() }"),
    ];
    for (file, text) in sound {
        let found = check(Path::new(file), text).expect("the module is known");
        assert!(found.is_empty(), "{file}: {text}\nfound {found:?}");
    }
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for src in crates::source_folders(root()) {
        for circle in Sources::read(&src).circles() {
            let src = src.strip_prefix(root()).expect("it was found there").display();
            circles.push(format!("{src}: {}", circle.join(", ")));
        }
    }
    assert!(circles.is_empty(), "modules that name each other:\n{}", circles.join("\n"));
}

#[test]
fn a_module_that_the_table_does_not_know_is_an_error() {
    let unknown = check(Path::new("jobs/plan.rs"), "").expect_err("jobs is not in the table");
    assert!(unknown.contains("jobs"), "{unknown}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A module that names another which it may not.
#[derive(Debug)]
struct Violation {
    file: PathBuf,
    line: usize,
    from: String,
    named: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { file, line, from, named } = self;
        write!(f, "src/{}:{line}: `{from}` may not name `{named}`", file.display())
    }
}

/// What the file, named from `src/`, may not name and names. `Err` where [`MAY_NAME`] does not
/// know its module.
fn check(file: &Path, text: &str) -> Result<Vec<Violation>, String> {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    let from = module[0].clone();
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == from) else {
        return Err(format!("src/{}: MAY_NAME does not know `{from}`", file.display()));
    };
    if from == "lib" || from == "main" {
        module.clear();
    }
    let mut names = Names { tokens: tokens(text), module, found: Vec::new() };
    names.collect(from == "main");
    let named = names.found.into_iter();
    let is_module = |name: &String| {
        MAY_NAME.iter().any(|(known, _)| known == name) || CRATES.contains(&name.as_str())
    };
    Ok(named
        .filter(|(_, named)| *named != from && is_module(named))
        .filter(|(_, named)| !allowed.split(' ').any(|allowed| allowed == named))
        .map(|(line, named)| Violation { file: file.into(), line, from: from.clone(), named })
        .collect())
}

/// The top-level modules and the crates that a file names, with the line of each.
struct Names {
    tokens: Vec<Token>,
    /// Where we are: the path of the module that the token stands in.
    module: Vec<String>,
    found: Vec<(usize, String)>,
}

impl Names {
    fn collect(&mut self, is_main: bool) {
        // Inline modules that are open: how deep in braces each began.
        let mut depth = 0;
        let mut open = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let starts_path = at == 0 || !self.is(at - 1, "::");
            match self.text(at) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if open.last() == Some(&depth) {
                        open.pop();
                        self.module.pop();
                    }
                }
                "mod" if self.is(at + 2, "{") => {
                    self.module.push(self.text(at + 1).to_owned());
                    open.push(depth);
                    depth += 1;
                    at += 2;
                }
                "crate" | "super" if starts_path && self.is(at + 1, "::") => {
                    at = self.path(at, self.module.clone());
                    continue;
                }
                "reticle" if is_main && starts_path && self.is(at + 1, "::") => {
                    at = self.path(at + 2, Vec::new());
                    continue;
                }
                word if starts_path => {
                    if let Some(named) = word.strip_prefix(CRATE) {
                        let named = named.to_owned();
                        self.found.push((self.tokens[at].line, named));
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Follows one path, or the tree of a `use`, from `base`; returns where it ends.
    fn path(&mut self, mut at: usize, mut base: Vec<String>) -> usize {
        loop {
            let text = self.text(at).to_owned();
            match text.as_str() {
                "crate" => base.clear(),
                "super" => drop(base.pop()),
                "self" => {}
                "{" => {
                    at += 1;
                    while at < self.tokens.len() && !self.is(at, "}") {
                        at = self.path(at, base.clone()).max(at + 1);
                    }
                    return at + 1;
                }
                name => {
                    if base.is_empty() && name.starts_with(|c: char| c.is_alphabetic()) {
                        self.found.push((self.tokens[at].line, name.to_owned()));
                    }
                    base.push(name.to_owned());
                }
            }
            if !self.is(at + 1, "::") {
                return at + 1;
            }
            at += 2;
            if at >= self.tokens.len() {
                return at;
            }
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.text(at) == text
    }
}
