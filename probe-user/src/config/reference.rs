//! The reference of the configuration, from its schema: for the book and as a manual page. What a key means is written once,
//! at the field that reads it.

mod man;
mod markdown;

use serde_json::{Map, Value};

use super::schema;

/// How the reference is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Markdown,
    /// For `man 5 probe.toml`.
    Man,
}

/// The whole reference.
pub fn reference(form: Form) -> String {
    let tables = tables(schema::schema().as_value());
    match form {
        Form::Markdown => markdown::write(&tables),
        Form::Man => man::write(&tables),
    }
}

/// A table of the file, or one within another.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    /// As it stands in a file: `[probe]`, `[[service]]`; within another: `heartbeat`.
    title: String,
    /// The table that it is in.
    within: Option<String>,
    text: String,
    keys: Vec<Key>,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    name: String,
    /// What may stand there.
    kind: String,
    /// As TOML.
    default: Option<String>,
    required: bool,
    text: String,
    /// Words that may stand there, and what they mean where their names don't say it.
    words: Vec<(String, String)>,
}

fn tables(schema: &Value) -> Vec<Table> {
    let mut tables = Vec::new();
    for name in ["probe", "service", "hook", "limits"] {
        let property = &schema["properties"][name];
        let text = text(property);
        let title = match property["type"] == "array" {
            true => format!("[[{name}]]"),
            false => format!("[{name}]"),
        };
        match target(property).or_else(|| target(&property["items"])) {
            Some(of) => table(schema, title, None, text, of, &mut tables),
            // Any name is a key.
            None => tables.push(Table {
                title,
                within: None,
                keys: vec![Key {
                    name: "NAME".to_owned(),
                    kind: kind(schema, &property["additionalProperties"]),
                    default: None,
                    required: false,
                    text: String::new(),
                    words: Vec::new(),
                }],
                text,
            }),
        }
    }
    tables
}

/// The table of a definition, and behind it those that its keys are.
fn table(
    schema: &Value,
    title: String,
    within: Option<String>,
    text: String,
    of: &str,
    tables: &mut Vec<Table>,
) {
    let definition = &schema["definitions"][of];
    let required = definition["required"].as_array();
    let empty = Map::new();
    let properties = definition["properties"].as_object().unwrap_or(&empty);
    let key = |(name, property): (&String, &Value)| Key {
        name: name.clone(),
        kind: kind(schema, property),
        default: default(property),
        required: required.is_some_and(|r| r.iter().any(|r| r == name)),
        text: self::text(property),
        words: words(schema, property),
    };
    let mut keys: Vec<Key> = properties.iter().map(key).collect();
    // A name is what one begins with; the rest is in the order of the alphabet, as the schema has it.
    keys.sort_by_key(|k| !k.required);
    tables.push(Table {
        title: title.clone(),
        within,
        text,
        keys,
    });
    for (name, property) in properties {
        if let Some(of) = target(property).filter(|of| schema["definitions"][of]["type"] == "object") {
            let definition = &schema["definitions"][of];
            let text = match self::text(definition) {
                text if text.is_empty() => self::text(property),
                text => text,
            };
            table(schema, name.clone(), Some(title.clone()), text, of, tables);
        }
    }
}

fn text(of: &Value) -> String {
    of["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// The definition that a property refers to, also an optional one.
fn target(property: &Value) -> Option<&str> {
    let options = ["allOf", "anyOf"].iter().filter_map(|k| property[*k].as_array());
    let mut all = options.flatten().chain([property]);
    all.find_map(|p| p["$ref"].as_str()?.strip_prefix("#/definitions/"))
}

fn kind(schema: &Value, property: &Value) -> String {
    if let Some(of) = target(property) {
        let definition = &schema["definitions"][of];
        return match definition["type"].as_str() {
            Some("object") => "a table".to_owned(),
            _ if !words(schema, property).is_empty() => "a word".to_owned(),
            _ => named(of),
        };
    }
    let types = match &property["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|t| *t != "null"),
        one => one.as_str(),
    };
    match types {
        Some("array") => format!("a list: {}", kind(schema, &property["items"])),
        Some("boolean") => "true or false".to_owned(),
        Some("integer") => "a number".to_owned(),
        _ => "a text".to_owned(),
    }
}

/// What is written as a text, for people; the headings of [`VALUES`].
fn named(definition: &str) -> String {
    VALUES
        .iter()
        .find(|(name, _, _)| *name == definition)
        .map_or_else(|| "a text".to_owned(), |(_, kind, _)| (*kind).to_owned())
}

/// Texts of a form of their own: definition, what it is called, how it is written.
const VALUES: [(&str, &str, &str); 7] = [
    (
        "Address",
        "an address",
        "`unix:/PATH`, `unix:@NAME` (abstract), `tcp:[ADDR:]PORT`, `udp:[ADDR:]PORT`; an IPv6 address stands in brackets",
    ),
    (
        "Duration",
        "a time",
        "a number with `ms`, `s`, `m`, `h` or `d`, or several: `1m 30s`",
    ),
    (
        "Size",
        "a size",
        "a whole number of `B`, `KiB`, `MiB`, `GiB` or `TiB`: `256MiB`",
    ),
    ("After", "a count within a time", "`3 in 10m`"),
    (
        "Backoff",
        "a range of times",
        "the first and the longest: `1s..60s`",
    ),
    (
        "Netns",
        "a network name space",
        "`host`, `main` (the main process's), or the path of one",
    ),
    (
        "Signal",
        "a signal",
        "its name, with or without `SIG`, or its number: `TERM`, `SIGUSR1`, `RTMIN+2`, 15",
    ),
];

/// The words of an enumeration, also of a list of them.
fn words(schema: &Value, property: &Value) -> Vec<(String, String)> {
    let of = target(property).or_else(|| target(&property["items"]));
    let Some(definition) = of.map(|of| &schema["definitions"][of]) else {
        return Vec::new();
    };
    let mut words = Vec::new();
    let one = [definition.clone()];
    for option in definition["oneOf"].as_array().map_or(&one[..], Vec::as_slice) {
        let names = option["enum"].as_array().into_iter().flatten();
        for name in names.chain([&option["const"]]).filter_map(Value::as_str) {
            let text = if option["const"].is_string() {
                text(option)
            } else {
                String::new()
            };
            words.push((name.to_owned(), text));
        }
    }
    words
}

fn default(property: &Value) -> Option<String> {
    match &property["default"] {
        Value::Null => None,
        // The table that it is says each of its own.
        Value::Object(_) => None,
        value => toml::Value::try_from(value).ok().map(|v| v.to_string()),
    }
}

#[cfg(test)]
mod tests;
