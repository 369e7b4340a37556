//! What may be written in a configuration file, and what is said when something else is.
//!
//! Everything is taken from the JSON schema of the settings: the keys, their types and
//! ranges, and the sentence that explains each. Values with a syntax of their own (a source,
//! an address) are tried on the settings themselves, one at a time, so that one run names
//! everything that is wrong.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::files::Fragment;
use super::{Origin, Problem, Settings};
use reticle_base::address;

/// How like a known key (Jaro-Winkler) an unknown one must be to be taken for it. Below this
/// our own keys begin to resemble each other, and a suggestion would mislead.
const ALIKE: f64 = 0.7;

/// The schema of the settings.
pub(super) struct Known {
    root: Json,
}

/// A file without fault.
pub(super) struct Judged {
    pub(super) table: toml::Table,
    pub(super) origins: BTreeMap<String, Origin>,
}

/// One file while it is judged.
struct Case<'a> {
    fragment: &'a Fragment,
    problems: Vec<Problem>,
    origins: BTreeMap<String, Origin>,
}

impl Case<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.fragment.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// What lets anyone in goes out of the message here, whoever put it there.
    fn object(&mut self, span: &Range<usize>, key: Option<String>, message: String) {
        let line = Some(self.line(span));
        let key = key.map(|key| address::shown_in(&key).into_owned());
        let message = address::shown_in(&message).into_owned();
        self.problems.push(Problem { file: self.fragment.file.clone(), line, key, message });
    }

    /// A value as it stands in the file, shortened for a message. A text that may be an address
    /// is cleaned before it is shortened, which could cut off what it is known by.
    fn written(&self, span: &Range<usize>, value: &toml::Value) -> String {
        let text = match value {
            toml::Value::String(text) if text.contains('@') || text.contains("://") => {
                toml::Value::String(address::shown(text)).to_string()
            }
            _ => {
                let text = self.fragment.text.get(span.clone()).unwrap_or_default();
                address::shown_in(text).into_owned()
            }
        };
        let text = text.lines().next().unwrap_or_default();
        match text.char_indices().nth(60) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text.to_owned(),
        }
    }
}

impl Known {
    /// What [`Settings`] know.
    pub(super) fn settings() -> Self {
        Self { root: super::schema() }
    }

    /// Reads one file.
    pub(super) fn judge(&self, fragment: &Fragment) -> Result<Judged, Vec<Problem>> {
        let mut case = Case { fragment, problems: Vec::new(), origins: BTreeMap::new() };
        let (spans, errors) = DeTable::parse_recoverable(&fragment.text);
        let table = match fragment.text.parse::<toml::Table>() {
            Ok(table) if errors.is_empty() => table,
            parsed => {
                // Only the first: the others are often its echo.
                let error = parsed.err().or(errors.into_iter().next());
                let span = error.as_ref().and_then(toml::de::Error::span).unwrap_or_default();
                let what = error.as_ref().map_or("unknown error", |error| error.message());
                let what = what.lines().next().unwrap_or_default();
                case.object(&span, None, format!("this is not TOML: {what}"));
                return Err(case.problems);
            }
        };
        self.judge_table(&mut case, spans.get_ref(), &table, &self.root, &[]);
        if case.problems.is_empty() {
            return Ok(Judged { table, origins: case.origins });
        }
        case.problems.sort_by_key(|problem| problem.line);
        Err(case.problems)
    }

    fn judge_table(
        &self,
        case: &mut Case<'_>,
        spans: &DeTable<'_>,
        table: &toml::Table,
        schema: &Json,
        path: &[&str],
    ) {
        let Some(keys) = self.keys(schema) else { return };
        for (key, spanned) in spans {
            let name: &str = key.get_ref();
            let Some(value) = table.get(name) else { continue };
            let full_path: Vec<&str> = path.iter().copied().chain([name]).collect();
            let full = full_path.join(".");
            let Some(schema) = keys.get(name) else {
                let message = self.unknown(name, path, keys);
                case.object(&key.span(), Some(full), message);
                continue;
            };
            match (self.keys(schema), spanned.get_ref(), value) {
                (Some(_), DeValue::Table(spans), toml::Value::Table(table)) => {
                    self.judge_table(case, spans, table, schema, &full_path);
                }
                (Some(_), _, _) => {
                    let message = format!(
                        "is {}, but must be a table: write [{full}] and its keys below",
                        case.written(&spanned.span(), value)
                    );
                    case.object(&spanned.span(), Some(full), message);
                }
                (None, _, _) => match self.fault(value, schema, &full_path) {
                    None => {
                        let line = case.line(&key.span());
                        let file = case.fragment.file.clone();
                        case.origins.insert(full, Origin { file, line });
                    }
                    Some(fault) => {
                        let written = case.written(&spanned.span(), value);
                        let mut message = format!("is {written}, but {fault}");
                        // A type of ours that explains itself needs no second explanation.
                        let explained = fault.contains("; write ");
                        if let Some(about) = about(schema).filter(|_| !explained) {
                            message.push_str(&format!(" ({})", first_sentence(about)));
                        }
                        case.object(&spanned.span(), Some(full), message);
                    }
                },
            }
        }
    }

    /// What is wrong with the value of a single key, as the end of "is …, but".
    fn fault(&self, value: &toml::Value, schema: &Json, path: &[&str]) -> Option<String> {
        let allowed = self.allowed(schema);
        if !allowed.takes(value) {
            return Some(format!("must be {}", allowed.in_words()));
        }
        let number = match value {
            toml::Value::Integer(number) => Some(*number as f64),
            toml::Value::Float(number) => Some(*number),
            _ => None,
        };
        if let Some(number) = number {
            let low = allowed.minimum.is_some_and(|minimum| number < minimum);
            let high = allowed.maximum.is_some_and(|maximum| number > maximum);
            if low || high || !number.is_finite() {
                return Some(format!("must be {}", allowed.in_words()));
            }
        }
        // The last word has the type itself.
        let alone = path.iter().rev().fold(value.clone(), |value, key| {
            toml::Value::Table([((*key).to_owned(), value)].into_iter().collect())
        });
        let error = alone.try_into::<Settings>().err()?;
        if allowed.words.is_empty() {
            let why = match value {
                toml::Value::String(text) if !text.is_empty() => {
                    error.message().replace(text.as_str(), &address::shown(text))
                }
                _ => error.message().to_owned(),
            };
            Some(format!("that cannot be used: {why}"))
        } else {
            Some(format!("must be {}", allowed.in_words()))
        }
    }

    /// What to say of a key that nobody knows.
    fn unknown(&self, name: &str, path: &[&str], keys: &serde_json::Map<String, Json>) -> String {
        let prefix = if path.is_empty() { String::new() } else { format!("{}.", path.join(".")) };
        let likeness = |known: &str| {
            if strsim::damerau_levenshtein(name, known) <= 1 {
                1.0
            } else {
                strsim::jaro_winkler(name, known)
            }
        };
        let sibling = keys
            .keys()
            .map(|known| (likeness(known), format!("{prefix}{known}")))
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .filter(|(likeness, _)| *likeness >= ALIKE);
        // The right key under the wrong heading is as common a slip.
        let elsewhere =
            self.leaves().into_iter().find(|known| known.rsplit('.').next() == Some(name));
        match elsewhere.or(sibling.map(|(_, known)| known)) {
            Some(known) => format!("is not a known key; did you mean `{known}`?"),
            None => {
                let all: Vec<String> = keys.keys().map(|key| format!("`{key}`")).collect();
                let here = if path.is_empty() {
                    "at the top level".to_owned()
                } else {
                    format!("in [{}]", path.join("."))
                };
                format!("is not a known key; {here} there are {}", all.join(", "))
            }
        }
    }

    /// Full names of all keys that have a value.
    fn leaves(&self) -> Vec<String> {
        fn collect(known: &Known, schema: &Json, prefix: &str, into: &mut Vec<String>) {
            for (key, schema) in known.keys(schema).into_iter().flatten() {
                let full = format!("{prefix}{key}");
                match known.keys(schema) {
                    Some(_) => collect(known, schema, &format!("{full}."), into),
                    None => into.push(full),
                }
            }
        }
        let mut leaves = Vec::new();
        collect(self, &self.root, "", &mut leaves);
        leaves
    }

    /// Schema of the whole configuration.
    pub(super) fn root(&self) -> &Json {
        &self.root
    }

    /// The keys of a table; `None` where the schema is of a value.
    pub(super) fn keys<'a>(
        &'a self,
        schema: &'a Json,
    ) -> Option<&'a serde_json::Map<String, Json>> {
        self.alternatives(schema).into_iter().find_map(|schema| schema["properties"].as_object())
    }

    /// The schema with references followed, and each of its alternatives.
    fn alternatives<'a>(&'a self, schema: &'a Json) -> Vec<&'a Json> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = reference.strip_prefix('#').and_then(|path| self.root.pointer(path));
            return target.map(|target| self.alternatives(target)).unwrap_or_default();
        }
        let mut found = vec![schema];
        for several in ["anyOf", "oneOf", "allOf"] {
            for one in schema[several].as_array().into_iter().flatten() {
                found.extend(self.alternatives(one));
            }
        }
        found
    }

    fn allowed(&self, schema: &Json) -> Allowed {
        let mut allowed = Allowed::default();
        for schema in self.alternatives(schema) {
            let types = match &schema["type"] {
                Json::String(one) => vec![one.clone()],
                Json::Array(several) => {
                    several.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
                }
                _ => Vec::new(),
            };
            allowed.types.extend(types.into_iter().filter(|name| name != "null"));
            allowed.minimum = schema["minimum"].as_f64().or(allowed.minimum);
            allowed.maximum = schema["maximum"].as_f64().or(allowed.maximum);
            let words = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
            allowed.words.extend(words.filter_map(|word| word.as_str().map(str::to_owned)));
        }
        allowed
    }
}

/// What the value of a key may be.
#[derive(Default)]
struct Allowed {
    /// As JSON schema names them; empty where anything goes.
    types: Vec<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    words: Vec<String>,
}

impl Allowed {
    fn takes(&self, value: &toml::Value) -> bool {
        let name = match value {
            toml::Value::String(word) => {
                if !self.words.is_empty() && !self.words.contains(word) {
                    return false;
                }
                "string"
            }
            toml::Value::Integer(_) => "integer",
            toml::Value::Float(_) => "number",
            toml::Value::Boolean(_) => "boolean",
            toml::Value::Array(_) => "array",
            toml::Value::Table(_) => "object",
            toml::Value::Datetime(_) => "datetime",
        };
        self.types.is_empty()
            || self.types.iter().any(|kind| kind == name || (kind == "number" && name == "integer"))
    }

    fn in_words(&self) -> String {
        if !self.words.is_empty() {
            let words: Vec<String> = self.words.iter().map(|word| format!("\"{word}\"")).collect();
            return format!("one of {}", words.join(", "));
        }
        let range = match (self.minimum, self.maximum) {
            (Some(minimum), Some(maximum)) => format!(" from {minimum} to {maximum}"),
            (Some(minimum), None) => format!(" of at least {minimum}"),
            (None, Some(maximum)) => format!(" of at most {maximum}"),
            (None, None) => String::new(),
        };
        let words: Vec<String> = self
            .types
            .iter()
            .map(|kind| match kind.as_str() {
                "string" => "a text in quotes".to_owned(),
                "integer" => format!("a whole number{range}"),
                "number" => format!("a number{range}"),
                "boolean" => "true or false".to_owned(),
                "array" => "a list in square brackets".to_owned(),
                other => format!("of type {other}"),
            })
            .collect();
        words.join(" or ")
    }
}

/// The sentences that explain a key.
pub(super) fn about(schema: &Json) -> Option<&str> {
    schema["description"].as_str()
}

fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    text.split_inclusive(". ").next().unwrap_or_default().trim().trim_end_matches('.').to_owned()
}
