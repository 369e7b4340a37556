//! The configuration as text: the documented default file, and the settings in effect.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::known::{Known, about};
use super::{Loaded, Settings, table_order};
use reticle_base::address;

/// A table of the file, with what is known of its keys.
struct Table {
    /// `store.frames`
    name: String,
    about: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    about: String,
}

/// A configuration file in which every key is explained and commented out with its default.
pub fn default_file() -> String {
    let mut text = String::from(
        "# Reticle: all that can be set, with its default. A line without `#` overrides.\n\
         # Drop-ins in the folder reticle.toml.d beside this file are read after it, by name.\n",
    );
    let defaults = as_toml(&Settings::default());
    for table in tables() {
        text.push('\n');
        comment(&mut text, &table.about);
        // Writing to a String cannot fail.
        writeln!(text, "[{}]", table.name).ok();
        for key in &table.keys {
            text.push('\n');
            comment(&mut text, &key.about);
            match value_of(&defaults, &table.name, &key.name) {
                Some(value) => writeln!(text, "#{} = {value}", key.name).ok(),
                None => writeln!(text, "#{} =", key.name).ok(),
            };
        }
    }
    text
}

/// The settings in effect, each with where it came from.
pub fn effective(loaded: &Loaded) -> String {
    let mut text = String::new();
    match loaded.files.as_slice() {
        [] => text.push_str("# No configuration file: these are the defaults.\n"),
        files => {
            for file in files {
                writeln!(text, "# read: {}", file.display()).ok();
            }
        }
    }
    let values = as_toml(&loaded.settings);
    let shown = shown(&loaded.settings);
    for table in tables() {
        writeln!(text, "\n[{}]", table.name).ok();
        for key in &table.keys {
            let full = format!("{}.{}", table.name, key.name);
            let pointer = format!("/{}", full.replace('.', "/"));
            // Numbers as TOML writes them, texts as they may be shown.
            let value = match shown.pointer(&pointer) {
                Some(Json::String(text)) => Some(toml::Value::String(text.clone())),
                _ => value_of(&values, &table.name, &key.name),
            };
            let written = match value {
                Some(value) => format!("{} = {value}", key.name),
                None => format!("#{} =", key.name),
            };
            match loaded.origins.get(&full) {
                Some(origin) => {
                    let (file, line) = (origin.file.display(), origin.line);
                    writeln!(text, "{written:<36} # {file}:{line}").ok()
                }
                None => writeln!(text, "{written:<36} # default").ok(),
            };
        }
    }
    text
}

/// Every table, in the order of the code; a table within one comes after its own keys.
fn tables() -> Vec<Table> {
    let known = Known::settings();
    let mut tables = Vec::new();
    for (name, order) in table_order() {
        if let Some(schema) = known.keys(known.root()).and_then(|tables| tables.get(name)) {
            collect(&known, schema, name, order, &mut tables);
        }
    }
    tables
}

fn collect(known: &Known, schema: &Json, name: &str, order: &[&str], into: &mut Vec<Table>) {
    let Some(keys) = known.keys(schema) else { return };
    let mut sorted: Vec<(&String, &Json)> = keys.iter().collect();
    let place = |key: &str| order.iter().position(|known| *known == key).unwrap_or(usize::MAX);
    sorted.sort_by_key(|(key, _)| place(key));
    let text = |schema: &Json| about(schema).unwrap_or_default().to_owned();
    let (tables, leaves): (Vec<_>, Vec<_>) =
        sorted.into_iter().partition(|(_, schema)| known.keys(schema).is_some());
    into.push(Table {
        name: name.to_owned(),
        about: text(schema),
        keys: leaves
            .into_iter()
            .map(|(key, schema)| Key { name: key.clone(), about: text(schema) })
            .collect(),
    });
    for (key, schema) in tables {
        collect(known, schema, &format!("{name}.{key}"), &[], into);
    }
}

fn as_toml(settings: &Settings) -> toml::Table {
    toml::Table::try_from(settings).expect("settings are TOML, or no file could set them")
}

/// The settings as they may be shown: addresses without what lets anyone in.
pub fn shown(settings: &Settings) -> Json {
    let mut values = serde_json::to_value(settings).expect("settings are plain data");
    hide("", &mut values);
    values
}

/// Keys whose values are addresses, well formed or not. Elsewhere only what looks like one is.
const ADDRESSES: [&str; 5] = [
    "sync.archive.to",
    "sync.archive.endpoint",
    "sync.central.url",
    "mqtt.url",
    "log.otlp_endpoint",
];

fn hide(name: &str, value: &mut Json) {
    match value {
        Json::String(text) if ADDRESSES.contains(&name) || text.contains("://") => {
            *text = address::shown(text);
        }
        Json::Object(table) => {
            for (key, value) in table {
                let between = if name.is_empty() { "" } else { "." };
                hide(&format!("{name}{between}{key}"), value);
            }
        }
        Json::Array(values) => values.iter_mut().for_each(|value| hide(name, value)),
        _ => {}
    }
}

fn value_of(values: &toml::Table, table: &str, key: &str) -> Option<toml::Value> {
    let mut here = values;
    for part in table.split('.') {
        here = here.get(part)?.as_table()?;
    }
    here.get(key).cloned()
}

/// Text as comment lines of at most 92 characters.
fn comment(into: &mut String, text: &str) {
    for paragraph in text.split("\n\n") {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > 92 {
                writeln!(into, "{line}").ok();
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        writeln!(into, "{line}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncommenting_every_line_of_the_default_file_changes_nothing() {
        let text: String = default_file()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') && !key.ends_with('=') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let settings: Settings = toml::from_str(&text).unwrap();
        assert_eq!(as_toml(&settings), as_toml(&Settings::default()));
    }

    #[test]
    fn every_key_that_takes_an_address_is_known_here() {
        let mut named = Vec::new();
        for table in tables() {
            for key in table.keys {
                let is_address = key.about.contains("://") || key.name.ends_with("url");
                // Names of the box itself.
                let is_address =
                    is_address && (table.name.as_str(), key.name.as_str()) != ("web", "hosts");
                named.extend(is_address.then(|| format!("{}.{}", table.name, key.name)));
            }
        }
        named.sort_unstable();
        let mut known = ADDRESSES;
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn the_default_file_explains_every_key() {
        for table in tables() {
            assert!(!table.about.is_empty(), "[{}]", table.name);
            for key in table.keys {
                assert!(!key.about.is_empty(), "{}.{}", table.name, key.name);
            }
        }
    }
}
