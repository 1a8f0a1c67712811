//! The JSON schema of what `--json` prints, from the types that are printed or read.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::line::Line;
use crate::{
    api::types::{HookTested, Services, Silence, Silences},
    check, wait, who,
};

/// What prints JSON by a schema, and the schema's name.
pub const NAMES: [&str; 8] = [
    "lines",
    "status",
    "wait",
    "who",
    "check",
    "silence",
    "silences",
    "hook-test",
];

/// The schema of that name. `None`: there is none.
pub fn schema(name: &str) -> Option<Schema> {
    Some(match name {
        "lines" => of::<Line>(),
        "status" => of::<Services>(),
        "wait" => of::<wait::Answer>(),
        "who" => of::<who::Answer>(),
        "check" => of::<check::Report>(),
        "silence" => of::<Silence>(),
        "silences" => of::<Silences>(),
        "hook-test" => of::<HookTested>(),
        _ => return None,
    })
}

fn of<T: JsonSchema>() -> Schema {
    // As a reader meets it: a field that is always printed is required, also where it may be null.
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// `PROBE_BLESS=1` writes them anew.
    #[test]
    fn the_files_in_docs_are_those_schemas() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        for name in NAMES {
            let path = directory.join(format!("{name}.json"));
            let text = format!("{}\n", serde_json::to_string_pretty(&schema(name)).unwrap());
            if std::env::var_os("PROBE_BLESS").is_some() {
                fs::create_dir_all(&directory).unwrap();
                fs::write(&path, &text).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == text,
                "{} is not what --json prints: run this test with PROBE_BLESS=1 and look at the difference",
                path.display()
            );
        }
        let files = fs::read_dir(&directory).unwrap().count();
        assert_eq!(files, NAMES.len(), "a schema of nothing lies in docs/schema");
    }
}
