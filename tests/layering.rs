//! The order of the modules, kept: who may name whom (`src/lib.rs` says it in words), and how
//! long a file may get. Reads the sources; no compiler knows these rules.

use std::fmt;
use std::path::{Path, PathBuf};

/// Each top-level module with those that it may name. Everyone may name itself. Stages (capture,
/// segment, store) never name each other: they meet in `app`, through queues.
const MAY_NAME: &[(&str, &str)] = &[
    ("base", ""),
    ("domain", "base"),
    ("telemetry", "base domain"),
    ("imagefile", "base domain"),
    ("exchange", "base domain imagefile"),
    ("capture", "base domain imagefile"),
    ("segment", "base domain imagefile"),
    ("store", "base domain imagefile"),
    ("sync", "base domain imagefile exchange store"),
    ("publish", "base domain store"),
    ("web", "base domain imagefile store telemetry"),
    ("learn", "base domain imagefile segment store"),
    ("batch", "base domain imagefile exchange segment store"),
    ("config", "base domain imagefile capture segment store sync publish web learn telemetry"),
    (
        "check",
        "base domain imagefile capture segment store sync publish web learn telemetry config",
    ),
    ("app", "base domain imagefile capture segment store sync publish web learn telemetry config"),
    (
        "cli",
        "base domain imagefile exchange capture segment store sync publish web learn batch telemetry \
         config app check",
    ),
    ("main", "cli"),
    ("lib", ""),
];

/// From here on a file wants a reason; it is named on stderr.
const LONG: usize = 500;

/// From here on it fails, unless it is in [`LONG_FOR_A_REASON`].
const TOO_LONG: usize = 700;

/// Files that may be longer than [`TOO_LONG`], each with the reason.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

#[test]
fn no_module_names_one_that_it_may_not() {
    let mut found = Vec::new();
    for file in rust_files("src") {
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
    for file in ["src", "tests", "benches"].into_iter().flat_map(rust_files) {
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
        ("capture/v4l.rs", "pub use crate::{base::clock::Clock, store};"),
        ("capture/v4l.rs", "use crate::{\n    domain::{frame::Frame, ids},\n    store::Store,\n};"),
        ("capture/v4l.rs", "use super::super::store::Store;"),
        ("capture/v4l.rs", "use super::{super::{store::Store}, Source};"),
        ("capture/mod.rs", "use super::store;"),
        ("capture/mod.rs", "fn f() { let s: crate :: store::Store = todo!(); }"),
        ("capture/mod.rs", "mod tests { use super::super::store; }"),
        ("capture/mod.rs", "const C: char = '\"'; use reticle_store; const D: char = '\"';"),
        ("capture/mod.rs", "fn f<'a>(a: &'a str) -> &'a str { reticle_store::f(a) }"),
        ("capture/mod.rs", "const S: &str = r#\"a \" b\"#; use reticle_store;"),
        ("capture/mod.rs", "macro_rules! m { () => { $crate::store::f() } }"),
        ("base/mod.rs", "use reticle_domain;"),
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
        ("lib.rs", "pub mod base;\npub mod store;"),
        ("main.rs", "fn main() { reticle::cli::main() }"),
    ];
    for (file, text) in sound {
        let found = check(Path::new(file), text).expect("the module is known");
        assert!(found.is_empty(), "{file}: {text}\nfound {found:?}");
    }
}

#[test]
fn a_module_that_the_table_does_not_know_is_an_error() {
    let unknown = check(Path::new("jobs/plan.rs"), "").expect_err("jobs is not in the table");
    assert!(unknown.contains("jobs"), "{unknown}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All `.rs` files below a folder of the repository, sorted; none where it does not exist.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder of the repository can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
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
    let is_module = |name: &String| MAY_NAME.iter().any(|(known, _)| known == name);
    Ok(named
        .filter(|(_, named)| *named != from && is_module(named))
        .filter(|(_, named)| !allowed.split(' ').any(|allowed| allowed == named))
        .map(|(line, named)| Violation { file: file.into(), line, from: from.clone(), named })
        .collect())
}

/// The top-level modules that a file names, with the line of each.
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

/// A word, `::`, or one other character, and the line that it stands in.
struct Token {
    text: String,
    line: usize,
}

/// The tokens of Rust source, without comments and without what is in quotes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let start = at;
        match chars[at] {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && peek(at) != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut nested = 0;
                loop {
                    match (peek(at), peek(at + 1)) {
                        ('/', '*') => (nested, at) = (nested + 1, at + 2),
                        ('*', '/') => (nested, at) = (nested - 1, at + 2),
                        _ => at += 1,
                    }
                    if nested == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => at = end_of_string(&chars, at),
            'r' | 'b' | 'c' if raw_hashes(&chars, at).is_some() => {
                let (hashes, body) = raw_hashes(&chars, at).expect("the guard saw it");
                at = body;
                while at < chars.len()
                    && !(peek(at) == '"' && (1..=hashes).all(|n| peek(at + n) == '#'))
                {
                    at += 1;
                }
                at += 1 + hashes;
            }
            // A character, not a lifetime: '\…' or 'x'.
            '\'' if peek(at + 1) == '\\' => {
                at += 3;
                while at < chars.len() && peek(at) != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' if peek(at + 2) == '\'' => at += 3,
            c if is_word(c) => {
                while is_word(peek(at)) {
                    at += 1;
                }
                tokens.push(Token { text: chars[start..at].iter().collect(), line });
            }
            ':' if peek(at + 1) == ':' => {
                tokens.push(Token { text: "::".to_owned(), line });
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.to_string(), line });
                }
                at += 1;
            }
        }
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn end_of_string(chars: &[char], open: usize) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// For `r"`, `r##"`, `br"`, `cr"`: how many hashes, and where the text begins.
fn raw_hashes(chars: &[char], at: usize) -> Option<(usize, usize)> {
    let after_r = match (chars.get(at)?, chars.get(at + 1)?) {
        ('r', _) => at + 1,
        ('b' | 'c', 'r') => at + 2,
        _ => return None,
    };
    let hashes = chars[after_r..].iter().take_while(|c| **c == '#').count();
    (chars.get(after_r + hashes) == Some(&'"')).then_some((hashes, after_r + hashes + 1))
}
