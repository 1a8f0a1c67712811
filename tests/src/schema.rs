//! Whether what `--json` prints fits the schemas in `docs/schema`.

use std::{fs, path::Path};

use serde_json::Value;

/// Fails unless `value` fits `docs/schema/NAME.json`.
#[track_caller]
pub fn assert_fits(name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schema/{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let root = serde_json::from_str(&text).expect("a schema is JSON");
    if let Err(why) = fits(&root, &root, value) {
        panic!("this is not what docs/schema/{name}.json says: {why}\n{value}");
    }
}

/// As much of JSON Schema as these need, and a panic at anything else.
fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Some(keys) = schema.as_object() else {
        return match schema {
            Value::Bool(true) => Ok(()),
            other => panic!("no schema: {other}"),
        };
    };
    for (key, rule) in keys {
        match key.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" | "format" | "pattern" => {
            }
            "$ref" => {
                let place = rule.as_str().and_then(|r| r.strip_prefix('#'));
                let target = place
                    .and_then(|p| root.pointer(p))
                    .expect("a reference leads somewhere");
                fits(root, target, value)?;
            }
            "anyOf" | "oneOf" => {
                let tried: Vec<String> = list(rule)
                    .map(|s| fits(root, s, value))
                    .map_while(Result::err)
                    .collect();
                if tried.len() == list(rule).count() {
                    return Err(format!("none of {}: {}", tried.len(), tried.join(", or ")));
                }
            }
            "allOf" => list(rule).try_for_each(|s| fits(root, s, value))?,
            "const" => expect(rule == value, || format!("{value} is not {rule}"))?,
            "enum" => expect(list(rule).any(|v| v == value), || {
                format!("{value} is none of {rule}")
            })?,
            "type" => {
                let types: Vec<&str> = match rule {
                    Value::String(one) => vec![one],
                    many => list(many).filter_map(Value::as_str).collect(),
                };
                expect(types.iter().any(|t| is(t, value)), || {
                    format!("{value} is no {rule}")
                })?;
            }
            "minimum" => {
                let number = value.as_f64().unwrap_or(f64::MAX);
                expect(number >= rule.as_f64().unwrap_or(0.0), || {
                    format!("{value} is below {rule}")
                })?;
            }
            "maximum" => {
                let number = value.as_f64().unwrap_or(0.0);
                expect(number <= rule.as_f64().unwrap_or(f64::MAX), || {
                    format!("{value} is above {rule}")
                })?;
            }
            "minItems" | "maxItems" => {}
            "required" if value.is_object() => {
                for name in list(rule).filter_map(Value::as_str) {
                    expect(value.get(name).is_some(), || format!("{name} is missing"))?;
                }
            }
            "properties" if value.is_object() => {
                for (name, schema) in rule.as_object().expect("properties") {
                    if let Some(value) = value.get(name) {
                        fits(root, schema, value).map_err(|e| format!("{name}: {e}"))?;
                    }
                }
            }
            "additionalProperties" if value.is_object() => {
                let known = schema["properties"].as_object();
                for (name, value) in value.as_object().expect("an object") {
                    if known.is_none_or(|k| !k.contains_key(name)) {
                        fits(root, rule, value).map_err(|e| format!("{name}: {e}"))?;
                    }
                }
            }
            "items" if value.is_array() => list(value).try_for_each(|v| fits(root, rule, v))?,
            "required" | "properties" | "additionalProperties" | "items" => {}
            other => panic!("the checker does not know {other:?}"),
        }
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn expect(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    holds.then_some(()).ok_or_else(why)
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the checker does not know the type {other:?}"),
    }
}
