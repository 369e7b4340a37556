//! No circles: the files of a crate can be put in an order in which each names only those before.
//!
//! A file names another where it takes an item that is defined there, whatever module re-exports
//! it on the way. A re-export alone (`pub use`) is no use, and neither is `mod`. Tests may name
//! what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{Token, rust_files, tokens};

/// The files of one crate and what each takes from which.
pub(super) struct Sources {
    files: BTreeMap<Vec<String>, File>,
}

#[derive(Default)]
struct File {
    /// Items that are defined here.
    defined: BTreeSet<String>,
    /// Names that are re-exported, with the path that each stands for.
    passed_on: Vec<(String, Vec<String>)>,
    /// Modules of which everything is re-exported.
    passed_on_whole: Vec<Vec<String>>,
    /// Paths that are used, from the crate's root.
    used: Vec<Vec<String>>,
}

/// Words before the name of an item.
const DEFINING: [&str; 9] =
    ["struct", "enum", "fn", "trait", "type", "const", "static", "union", "macro_rules"];

/// Modules that hold tests, or what tests share.
const OF_TESTS: [&str; 4] = ["tests", "testing", "fixture", "test_support"];

impl Sources {
    /// Reads all files below `src` (the folder of `lib.rs`).
    pub(super) fn read(src: &Path) -> Self {
        let texts = rust_files(src).into_iter().map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source file is UTF-8 text");
            let inside = path.strip_prefix(src).expect("it was found there").to_owned();
            (inside, text)
        });
        Self::of(texts)
    }

    /// The same of files that are given, named from the folder of `lib.rs`.
    pub(super) fn of(texts: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut files = BTreeMap::new();
        for (path, text) in texts {
            let mut module: Vec<String> =
                path.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&&**last)) {
                module.pop();
            }
            if module.iter().any(|name| OF_TESTS.contains(&&**name)) {
                continue;
            }
            let mut file = File::default();
            Reading { tokens: tokens(&text), module: module.clone(), file: &mut file }.read();
            files.insert(module, file);
        }
        Self { files }
    }

    /// Groups of modules that lie beside each other and name each other, directly or by way of
    /// others: `a.rs` with all that lies in `a/` is one module there. A module and its own children
    /// may name each other, since the parent is the children's face.
    pub(super) fn circles(&self) -> Vec<Vec<String>> {
        let named: Vec<(&[String], Vec<&[String]>)> =
            self.files.iter().map(|(module, file)| (module.as_slice(), self.named(file))).collect();
        let mut circles = Vec::new();
        for parent in self.files.keys() {
            let child = |module: &[String]| {
                let inside = module.starts_with(parent) && module.len() > parent.len();
                inside.then(|| module[..=parent.len()].join("::"))
            };
            let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (from, to) in &named {
                let Some(from) = child(from) else { continue };
                let to = to.iter().filter_map(|to| child(to)).filter(|to| *to != from);
                arrows.entry(from.clone()).or_default().extend(to);
            }
            circles.extend(circles_of(&arrows));
        }
        circles
    }

    fn named(&self, file: &File) -> Vec<&[String]> {
        file.used.iter().filter_map(|path| self.definition(path, 0)).collect()
    }

    /// The module in whose file the last name of a path is defined; `None` for what is not of this crate.
    fn definition(&self, path: &[String], deep: usize) -> Option<&[String]> {
        // A path that leads in a circle of re-exports leads nowhere.
        if deep > 8 {
            return None;
        }
        let known = (0..=path.len()).rev().find(|&n| self.files.contains_key(&path[..n]))?;
        let (module, file) = self.files.get_key_value(&path[..known])?;
        let Some(item) = path.get(known) else { return Some(module) };
        if known == 0 && !file.defined.contains(item) && !file.passes_on(item) {
            return None;
        }
        if file.defined.contains(item) {
            return Some(module);
        }
        if let Some((_, stands_for)) = file.passed_on.iter().find(|(name, _)| name == item) {
            let more = path[known + 1..].iter().cloned();
            let whole: Vec<String> = stands_for.iter().cloned().chain(more).collect();
            return self.definition(&whole, deep + 1);
        }
        for whole in &file.passed_on_whole {
            let inside = self.files.get(whole);
            if inside.is_some_and(|file| file.defined.contains(item) || file.passes_on(item)) {
                let path: Vec<String> = whole.iter().cloned().chain([item.clone()]).collect();
                return self.definition(&path, deep + 1);
            }
        }
        Some(module)
    }
}

/// Groups of nodes from each of which all others of the group are reached.
fn circles_of(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        arrows.keys().map(|node| (node, reached(arrows, node))).collect();
    let among = |from: &String| -> Vec<String> {
        let back = |to: &&&String| reached.get(**to).is_some_and(|back| back.contains(from));
        reached[from].iter().filter(back).map(|node| (*node).clone()).collect()
    };
    arrows.keys().map(among).filter(|circle| circle.len() > 1).collect()
}

fn reached<'a>(
    arrows: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a String,
) -> BTreeSet<&'a String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(node) = next.pop() {
        next.extend(arrows.get(node).into_iter().flatten().filter(|to| seen.insert(*to)));
    }
    seen
}

impl File {
    fn passes_on(&self, item: &str) -> bool {
        self.passed_on.iter().any(|(name, _)| name == item) || !self.passed_on_whole.is_empty()
    }
}

/// One file as it is read.
struct Reading<'a> {
    tokens: Vec<Token>,
    module: Vec<String>,
    file: &'a mut File,
}

impl Reading<'_> {
    fn read(&mut self) {
        let children: BTreeSet<String> = (0..self.tokens.len())
            .filter(|&at| self.is(at, "mod") && self.is(at + 2, ";"))
            .map(|at| self.text(at + 1).to_owned())
            .collect();
        let mut at = 0;
        // Braces that are open, and where an inline module began.
        let (mut depth, mut inline) = (0_usize, Vec::<usize>::new());
        while at < self.tokens.len() {
            let starts = at == 0 || !(self.is(at - 1, "::") || self.is(at - 1, "."));
            match self.text(at).to_owned().as_str() {
                "mod" if self.is(at + 2, "{") => {
                    let name = self.text(at + 1).to_owned();
                    if OF_TESTS.contains(&&*name) {
                        at = self.after_braces(at + 2);
                        continue;
                    }
                    self.module.push(name);
                    inline.push(depth);
                    depth += 1;
                    at += 3;
                    continue;
                }
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        self.module.pop();
                    }
                }
                "use" if starts => {
                    let public = at > 0 && (self.is(at - 1, "pub") || self.is(at - 1, ")"));
                    at = self.tree(at + 1, &[], public, &children);
                    continue;
                }
                "crate" | "super" | "self" if starts && self.is(at + 1, "::") => {
                    at = self.tree(at, &[], false, &children);
                    continue;
                }
                word if starts && children.contains(word) && self.is(at + 1, "::") => {
                    at = self.tree(at, &[], false, &children);
                    continue;
                }
                word if DEFINING.contains(&word) => {
                    let named = if self.is(at + 1, "!") { at + 2 } else { at + 1 };
                    let name = self.text(named).to_owned();
                    self.file.defined.insert(name);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Follows a path, or the tree of a `use`, from `base`; returns where it ends.
    fn tree(
        &mut self,
        mut at: usize,
        base: &[String],
        public: bool,
        children: &BTreeSet<String>,
    ) -> usize {
        let mut path = base.to_vec();
        let mut is_ours = !base.is_empty();
        loop {
            match self.text(at).to_owned().as_str() {
                "crate" => (path, is_ours) = (Vec::new(), true),
                "super" => {
                    if !is_ours {
                        (path, is_ours) = (self.module.clone(), true);
                    }
                    path.pop();
                }
                "self" => {
                    if !is_ours {
                        (path, is_ours) = (self.module.clone(), true);
                    }
                }
                "{" => {
                    at += 1;
                    while at < self.tokens.len() && !self.is(at, "}") {
                        // An empty base is the crate's root here, which `is_ours` must say.
                        let inner = if is_ours { Some(path.clone()) } else { None };
                        at = match inner {
                            Some(inner) if inner.is_empty() => self.in_root(at, public, children),
                            Some(inner) => self.tree(at, &inner, public, children),
                            None => self.tree(at, &[], public, children),
                        }
                        .max(at + 1);
                        if self.is(at, ",") {
                            at += 1;
                        }
                    }
                    return at + 1;
                }
                "*" => {
                    if is_ours {
                        if public {
                            self.file.passed_on_whole.push(path);
                        } else {
                            self.file.used.push(path);
                        }
                    }
                    return at + 1;
                }
                name => {
                    if !is_ours && children.contains(name) {
                        (path, is_ours) = (self.module.clone(), true);
                    }
                    path.push(name.to_owned());
                }
            }
            if !self.is(at + 1, "::") {
                break;
            }
            at += 2;
        }
        at += 1;
        let mut alias = path.last().cloned().unwrap_or_default();
        if self.is(at, "as") {
            alias = self.text(at + 1).to_owned();
            at += 2;
        }
        if is_ours && public {
            self.file.passed_on.push((alias, path));
        } else if is_ours {
            self.file.used.push(path);
        }
        at
    }

    /// One branch of `use crate::{…}`.
    fn in_root(&mut self, at: usize, public: bool, children: &BTreeSet<String>) -> usize {
        let module = std::mem::take(&mut self.module);
        let mut known = children.clone();
        known.insert(self.text(at).to_owned());
        let end = self.tree(at, &[], public, &known);
        self.module = module;
        end
    }

    /// Where the braces end that open at `at`.
    fn after_braces(&self, mut at: usize) -> usize {
        let mut depth = 0_usize;
        while at < self.tokens.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
        at
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.text(at) == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned()));
        Sources::of(files).circles()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let b = ("b.rs", "pub struct B; fn f() { super::a::g(); }");
        for a in [
            "use super::b::B; pub fn g() {}",
            "use crate::b::B; pub fn g() {}",
            "use crate::{b::B}; pub fn g() {}",
            "use super::B; pub fn g() {}",
            "pub fn g(b: crate::B) {}",
            "use super::b; pub fn g(b: b::B) {}",
            "use crate::b::*; pub fn g() {}",
        ] {
            let lib = ("lib.rs", "mod a; mod b; pub use b::B;");
            let found = circles(&[lib, ("a.rs", a), b]);
            assert_eq!(found, [["a", "b"]], "{a}");
        }
        // By way of a child.
        let lib = ("lib.rs", "mod a; mod b;");
        let files = [lib, ("a.rs", "mod c; pub fn g() {}"), ("a/c.rs", "use crate::b::B;"), b];
        assert_eq!(circles(&files), [["a", "b"]]);
    }

    #[test]
    fn what_is_no_circle_is_let_through() {
        let lib = ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;");
        let a = ("a.rs", "pub struct A; mod tests { use super::super::B; }");
        let b = ("b.rs", "use super::A; pub struct B; // crate::a");
        assert!(circles(&[lib, a, b]).is_empty());
        let parent = ("a.rs", "mod c; pub use c::C; pub struct A; fn f() { c::g(); }");
        let child = ("a/c.rs", "use super::A; pub struct C;");
        assert!(circles(&[("lib.rs", "mod a;"), parent, child]).is_empty());
    }
}
