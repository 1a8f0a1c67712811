//! What the program is made of, as CycloneDX: every crate that is linked, with its licence, its digest and where it came from.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{child, workspace};

const LIMIT: Duration = Duration::from_secs(120);
/// What is delivered.
const ROOT: &str = "probe-user";

/// Writes it beside the package, and says where.
pub(super) fn write() -> anyhow::Result<PathBuf> {
    let metadata = json_of(&["metadata", "--format-version", "1", "--locked"])?;
    let path = workspace::target_dir()?.join("package").join("probe.cdx.json");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let lock = workspace::root().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let bill = bill(&metadata, &digests(&lock)?)?;
    let text = serde_json::to_string_pretty(&bill).context("write JSON")?;
    fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn json_of(args: &[&str]) -> anyhow::Result<Value> {
    let text = child::capture(workspace::cargo().args(args), LIMIT)?;
    serde_json::from_str(&text).context("parse cargo metadata")
}

/// By name and version.
fn digests(lock: &str) -> anyhow::Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("parse Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let text = |p: &toml::Value, key: &str| Some(p.get(key)?.as_str()?.to_owned());
    Ok(packages
        .into_iter()
        .flatten()
        .filter_map(|p| Some(((text(p, "name")?, text(p, "version")?), text(p, "checksum")?)))
        .collect())
}

fn bill(metadata: &Value, digests: &BTreeMap<(String, String), String>) -> anyhow::Result<Value> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(metadata, "packages")
        .into_iter()
        .filter_map(|p| Some((p["id"].as_str()?.to_owned(), p)))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"], "nodes")
        .into_iter()
        .filter_map(|n| Some((n["id"].as_str()?.to_owned(), n)))
        .collect();
    let root = packages.iter().find(|(_, p)| p["name"] == ROOT);
    let (root, package) = root.context("cargo metadata does not name probe-user")?;
    // What only tests and builds take is not in it.
    let linked = |node: &Value| -> Vec<String> {
        let is_linked = |dep: &Value| list(dep, "dep_kinds").iter().any(|k| k["kind"].is_null());
        let deps = list(node, "deps").into_iter().filter(is_linked);
        deps.filter_map(|d| d["pkg"].as_str().map(str::to_owned))
            .collect()
    };
    let (mut found, mut todo) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(id) = todo.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let next = nodes.get(&id).map(linked).unwrap_or_default();
        todo.extend(next.iter().cloned());
        found.insert(id, next);
    }
    let name = |id: &str| {
        let package = packages.get(id).unwrap_or(&Value::Null);
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        (text("name"), text("version"))
    };
    let reference = |id: &str| {
        let (name, version) = name(id);
        format!("pkg:cargo/{name}@{version}")
    };
    let component = |id: &String| {
        let key = name(id);
        let mut component = json!({
            "type": "library",
            "bom-ref": reference(id),
            "name": key.0,
            "version": key.1,
            "purl": reference(id),
        });
        if let Some(licence) = packages.get(id).and_then(|p| p["license"].as_str()) {
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        if let Some(digest) = digests.get(&key) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        }
        component
    };
    let components: Vec<_> = found.keys().filter(|id| *id != root).map(component).collect();
    let dependencies: Vec<_> = found
        .iter()
        .map(|(id, on)| {
            let on: Vec<_> = on.iter().map(|id| reference(id)).collect();
            json!({ "ref": reference(id), "dependsOn": on })
        })
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "bom-ref": reference(root),
            "name": "probe",
            "version": package["version"],
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let metadata = json_of(&["metadata", "--format-version", "1", "--locked"]).unwrap();
        let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).unwrap();
        let bill = bill(&metadata, &digests(&lock).unwrap()).unwrap();
        let components = bill["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|c| c["name"] == name);
        let aya = named("aya").unwrap();
        assert_eq!(
            aya["purl"],
            format!("pkg:cargo/aya@{}", aya["version"].as_str().unwrap())
        );
        assert!(aya["hashes"][0]["content"].as_str().unwrap().len() == 64 && !aya["licenses"].is_null());
        assert!(named("proptest").is_none(), "only tests use it");
        // Everything that is depended on is listed.
        let listed: Vec<_> = components.iter().map(|c| &c["bom-ref"]).collect();
        for on in bill["dependencies"].as_array().unwrap() {
            for one in on["dependsOn"].as_array().unwrap() {
                assert!(listed.contains(&one), "{one} is missing");
            }
        }
    }
}
