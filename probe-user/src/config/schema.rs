//! The configuration's JSON schema, from the types that read it; what is read from a text is described here.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use super::{After, Backoff, Config, Netns, Size, Span};
use crate::{address::Address, signal::Signal};

/// Of a whole configuration file. TOML has the same types, so editors check TOML files with it.
pub fn schema() -> Schema {
    SchemaSettings::draft07()
        .into_generator()
        .into_root_schema_for::<Config>()
}

/// Types that are written as a text: name, pattern, example.
macro_rules! texts {
    ($($kind:ty: $name:literal, $pattern:literal, $example:literal;)*) => {$(
        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }

        #[cfg(test)]
        impl Text for $kind {
            const EXAMPLE: &'static str = $example;
        }
    )*};
}

texts! {
    Address: "Address", "^(unix:/|unix:@.|(tcp|udp):.)", "tcp:127.0.0.1:8080";
    Netns: "Netns", "^(host|main|/.*)$", "main";
    Span: "Duration", "^ *[0-9]", "1m 30s";
    Size: "Size", "^[0-9]+ *(B|KiB|MiB|GiB|TiB)$", "256MiB";
    After: "After", "^ *[0-9]+ +in +[0-9]", "3 in 10m";
    Backoff: "Backoff", "^ *[0-9].*\\.\\. *[0-9]", "1s..60s";
}

#[cfg(test)]
trait Text {
    const EXAMPLE: &'static str;
}

impl JsonSchema for Signal {
    fn schema_name() -> Cow<'static, str> {
        "Signal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^((SIG)?[A-Z][A-Z0-9]*(\\+[0-9]+)?|[0-9]+)$", "examples": ["TERM"] },
                { "type": "integer", "minimum": 1, "maximum": 64 },
            ],
        })
    }
}

#[cfg(test)]
mod tests;
