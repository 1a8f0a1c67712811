//! The OpenAPI document, from the table of routes and the types of the answers.

use axum::{Json, http::Method};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    routes::{ALWAYS, Content, Route, routes},
    types::Problem,
};

pub(super) async fn openapi() -> Json<Value> {
    Json(document())
}

/// The whole document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes() {
        let operation = operation(&route, &mut generator);
        let path = paths
            .entry(route.path)
            .or_insert_with(|| Value::Object(Map::new()));
        path[route.method.as_str().to_lowercase()] = operation;
    }
    let schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "probe",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What is wrong with the daemons of this host. Reading is for root and the socket's group, \
                            acting for root. Fields are only added within one `v`.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = path_parameters(route.path);
    if let Some(query) = route.query {
        parameters.extend(query_parameters(query, generator));
    }
    let problem = generator.subschema_for::<Problem>();
    let refused =
        |what: &str| json!({ "description": what, "content": { "application/json": { "schema": problem } } });
    let mut answers: Map<String, Value> = ALWAYS
        .iter()
        .chain(route.refusals)
        .map(|(code, what)| (code.to_string(), refused(what)))
        .collect();
    let answer = |what: &str, media: &str, schema: Option<Schema>| {
        let content = schema.map_or(json!({}), |s| json!({ "schema": s }));
        json!({ "description": what, "content": { media: content } })
    };
    let ok = match &route.answer {
        Content::Json(schema) => answer("The answer", "application/json", Some(schema(generator))),
        Content::Lines => answer("A line of JSON each", "application/x-ndjson", None),
        Content::Health(schema) => {
            let schema = schema(generator);
            answers.insert(
                "503".to_owned(),
                answer(
                    "It is not so",
                    "application/json",
                    Some(either(&schema, &problem)),
                ),
            );
            answer("It is so", "application/json", Some(schema))
        }
        Content::Other(media) => answer("The document", media, None),
        Content::Text(media) => {
            let text = |m: &&str| ((*m).to_owned(), json!({ "schema": { "type": "string" } }));
            let content: Map<String, Value> = media.iter().map(text).collect();
            json!({ "description": "The text", "content": content })
        }
    };
    answers.insert("200".to_owned(), ok);
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.summary,
        "responses": answers,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = route.body {
        let too_much = [
            (413, "The question is too long"),
            (415, "The question is no JSON"),
        ];
        for (code, what) in too_much {
            operation["responses"][code.to_string()] = refused(what);
        }
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": body(generator) } },
        });
    }
    debug_assert!(route.method != Method::GET || route.body.is_none());
    operation
}

fn either(a: &Schema, b: &Schema) -> Schema {
    schemars::json_schema!({ "anyOf": [a, b] })
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            // Numbers are named so.
            let schema = match name {
                "id" => json!({ "type": "integer", "format": "uint64", "minimum": 0 }),
                _ => json!({ "type": "string", "minLength": 1 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

/// Each field of the query's type is a parameter.
fn query_parameters(query: super::routes::SchemaOf, generator: &mut SchemaGenerator) -> Vec<Value> {
    let reference = query(generator);
    let name = reference
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.rsplit('/').next())
        .unwrap_or_default()
        .to_owned();
    // It is no answer: only its fields are told.
    let Some(schema) = generator.definitions_mut().remove(&name) else {
        return Vec::new();
    };
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let Some(fields) = schema["properties"].as_object() else {
        return Vec::new();
    };
    fields
        .iter()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema
                .as_object_mut()
                .and_then(|s| {
                    s.remove("default");
                    s.remove("description")
                })
                .unwrap_or_default();
            json!({
                "name": name,
                "in": "query",
                "required": required.iter().any(|r| r == name),
                "description": description,
                "schema": not_null(schema),
            })
        })
        .collect()
}

/// A parameter is there or it is not; `null` would be a text.
fn not_null(mut schema: Value) -> Value {
    if let Some(types) = schema["type"].as_array() {
        let mut types: Vec<Value> = types.iter().filter(|t| *t != "null").cloned().collect();
        if let (Some(only), 1) = (types.pop(), types.len() + 1) {
            schema["type"] = only;
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_once_under_its_own_name() {
        let document = document();
        let mut names = BTreeSet::new();
        for route in routes() {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            assert_eq!(operation["operationId"], route.operation);
            assert!(names.insert(route.operation), "{}", route.operation);
            assert!(operation["responses"]["200"].is_object());
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = 0;
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(o) => {
                    if let Some(r) = o.get("$ref") {
                        let path = r.as_str().unwrap().strip_prefix('#').unwrap();
                        assert!(document.pointer(path).is_some(), "{path}");
                        found += 1;
                    }
                    open.extend(o.values());
                }
                Value::Array(a) => open.extend(a),
                _ => {}
            }
        }
        assert!(found > 10);
    }

    #[test]
    fn parameters_of_a_query_are_no_nulls() {
        let document = document();
        let parameters = document["paths"]["/v1/events"]["get"]["parameters"]
            .as_array()
            .unwrap();
        assert_eq!(parameters.len(), 5);
        for p in parameters {
            assert!(p["schema"]["type"].is_string(), "{p}");
            assert_ne!(p["description"], "");
        }
    }
}
