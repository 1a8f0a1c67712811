//! The reference as a page of the book.

use std::fmt::Write;

use super::{Key, Table, VALUES};

const HEAD: &str = "# Configuration reference

<!-- made by `cargo xtask docs` from the types that read the configuration; what is changed here is lost -->

One file, `/etc/probe/probe.toml`, and further ones, `/etc/probe/probe.d/*.toml`, in the order of their names. A key that does
not exist is an error that names the place and the nearest key that does. No file at all is valid: probe then watches what it
discovers. `probe config show` prints what counts, with every default; `probe config schema` the JSON schema, for editors.
";

pub(super) fn write(tables: &[Table]) -> String {
    let mut page = HEAD.to_owned();
    for table in tables {
        // Writing to a string cannot fail.
        let _ = match &table.within {
            None => write!(page, "\n## `{}`\n", table.title),
            Some(within) => write!(page, "\n### `{}` in `{within}`\n", table.title),
        };
        if !table.text.is_empty() {
            let _ = write!(page, "\n{}\n", table.text);
        }
        page.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in &table.keys {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                key.name,
                key.kind,
                default(key),
                meaning(key)
            );
        }
    }
    page.push_str("\n## Values\n\n| value | is written |\n| --- | --- |\n");
    for (_, kind, form) in VALUES {
        let _ = writeln!(page, "| {kind} | {form} |");
    }
    page
}

fn default(key: &Key) -> String {
    match &key.default {
        Some(value) => format!("`{value}`"),
        None if key.required => "required".to_owned(),
        None => String::new(),
    }
}

fn meaning(key: &Key) -> String {
    let mut text = key.text.replace('|', "\\|");
    let words: Vec<String> = key
        .words
        .iter()
        .map(|(word, meaning)| match meaning.trim_end_matches('.') {
            "" => format!("`{word}`"),
            meaning => format!("`{word}` ({meaning})"),
        })
        .collect();
    if !words.is_empty() {
        text = format!("{text} One of {}.", words.join(", "));
    }
    text.trim_start().to_owned()
}
