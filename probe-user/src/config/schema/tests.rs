use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

/// Every key that there is.
const EXAMPLE: &str = r#"
[probe]
socket = "/run/probe/probe.sock"
group = "probe"
api_tcp = "127.0.0.1:9464"
realtime = true
state_dir = "/var/lib/probe"
tier = "auto"
keep_pinned = true
pin_dir = "/sys/fs/bpf/probe"
ring = "4MiB"
settle_every = "60s"
retention = { age = "30d", size = "256MiB" }
timeouts = { connect = "2s", write = "2s", read = "5s" }
bounds = { members = 65536, sockets = 1024, holders = 1024, ended = 65536 }

[limits]
git = "120s"

[[service]]
name = "annad"
unit = "annad.service"
user = "alice"
exe = "/usr/local/bin/annad"
script = "/usr/local/bin/agent.sh"
argument = "--main"
pid_file = "/run/anna/annad.pid"
pid = 812
listen = ["unix:/run/anna/annad.sock", "unix:@anna", "tcp:127.0.0.1:8080", "udp:53"]
netns = "host"
expected = true
singleton = true
kill_other = false
keep_instance = "pid-file"
max_instances = 1
overlap = "30s"
ready_within = "10s"
accept_within = "2s"
signal_within = "5s"
stop_within = "15s"
relisten_within = "1s"
clean_exit = [0]
stop_signals = ["TERM", "SIGINT", 3]
signals = { handled = ["TERM", "HUP", "RTMIN+2"] }
crash_loop = { restarts = 5, window = "60s" }
heal = { reclaim = true, restart = ["systemctl", "restart", "annad"], backoff = "1s..60s", give_up_after = 5 }

[service.heartbeat]
file = "/run/anna/heartbeat"
notify = true
connect = "unix:/run/anna/annad.sock"
send = "x"
expect = "y"
every = "10s"
timeout = "2s"
log = "/var/log/anna.log"
contains = "daemon alive"
journal = "daemon alive"
stale_after = "30s"

[[hook]]
name = "page"
on = ["stale-socket", "duplicate-instance", "stale-heartbeat"]
severity = "critical"
gave_up = true
services = ["annad"]
states = ["opened", "escalated", "resolved"]
after = "3 in 10m"
group_wait = "1s"
at_most = "60 in 10m"
exec = ["/usr/local/bin/page", "{service}", "{kind}"]
user = "nobody"
timeout = "10s"
webhook = "http://127.0.0.1:9093/api/v2/alerts"
format = "alertmanager"
retry_for = "15m"
resend_every = "1m"
journal = true
"#;

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let all_of = schema["allOf"].get(0).unwrap_or(schema);
    match all_of["$ref"].as_str() {
        Some(name) => root.pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Whether a value fits; as much of JSON Schema as the configuration's needs, and a panic at anything else.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolve(root, schema);
    if let Some(any) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return any.iter().any(|s| fits(root, s, value));
    }
    if let Some(constant) = schema.get("const") {
        return constant == value;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed.contains(value);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        many => many
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect(),
    };
    types.iter().any(|kind| match *kind {
        "object" => value.as_object().is_some_and(|map| {
            let required = schema["required"].as_array().into_iter().flatten();
            let known = |key: &str| schema["properties"].get(key);
            let rest = schema.get("additionalProperties");
            required.map(|r| r.as_str().unwrap()).all(|r| map.contains_key(r))
                && map.iter().all(|(key, value)| match (known(key), rest) {
                    (Some(s), _) => fits(root, s, value),
                    (None, Some(Value::Bool(allowed))) => *allowed,
                    (None, Some(s)) => fits(root, s, value),
                    (None, None) => true,
                })
        }),
        "array" => value
            .as_array()
            .is_some_and(|all| all.iter().all(|v| fits(root, &schema["items"], v))),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    })
}

fn example() -> Value {
    let config: toml::Value = toml::from_str(EXAMPLE).unwrap();
    serde_json::to_value(config).unwrap()
}

#[test]
fn the_example_is_a_configuration_and_fits() {
    toml::from_str::<Config>(EXAMPLE).unwrap();
    let root = schema().to_value();
    assert!(fits(&root, &root, &example()));
    // What probe prints as the effective configuration does too.
    let config: Config = toml::from_str(EXAMPLE).unwrap();
    assert!(fits(&root, &root, &serde_json::to_value(config).unwrap()));
}

#[test]
fn what_is_wrong_does_not_fit() {
    let root = schema().to_value();
    for (place, value) in [
        ("/probe/tier", "best".into()),
        ("/probe/keep_pinned", "yes".into()),
        ("/service/0/expected", 1.into()),
        ("/service/0/name", Value::Null),
        ("/service/0/listen", "tcp:80".into()),
        ("/hook/0/on/0", "stale-sock".into()),
        ("/hook/0/severity", "bad".into()),
        ("/limits/git", 5.into()),
    ] {
        let mut config = example();
        *config.pointer_mut(place).unwrap() = value;
        assert!(!fits(&root, &root, &config), "{place}");
    }
    let mut config = example();
    config["service"][0]["lissen"] = Value::Null;
    assert!(!fits(&root, &root, &config), "a key that there is not");
    let mut config = example();
    config["service"][0].as_object_mut().unwrap().remove("name");
    assert!(!fits(&root, &root, &config), "a key that must be");
}

/// All keys of the schema, each with its description.
fn keys(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let schema = resolve(root, schema);
    for s in schema["anyOf"].as_array().into_iter().flatten() {
        keys(root, s, path, found);
    }
    if schema["type"] == "array" {
        keys(root, &schema["items"], path, found);
    }
    for (key, s) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let description = s["description"].as_str().unwrap_or_default();
        assert!(
            !description.is_empty(),
            "{path} has no description: write its doc comment"
        );
        keys(root, s, &path, found);
        found.insert(path);
    }
}

fn keys_of(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                // The names of commands are no keys of ours.
                if path != ".limits.git" {
                    keys_of(value, &path, found);
                    found.insert(path);
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|v| keys_of(v, path, found)),
        _ => {}
    }
}

/// A field that is added shows in the schema by itself; that the example has it too, this says.
#[test]
fn every_key_is_described_and_in_the_example() {
    let root = schema().to_value();
    let (mut described, mut used) = (BTreeSet::new(), BTreeSet::new());
    keys(&root, &root, "", &mut described);
    keys_of(&example(), "", &mut used);
    assert_eq!(described, used);
    // What is written is what is read: nothing that serde knows is missing.
    let mut written = BTreeSet::new();
    let config: Config = toml::from_str(EXAMPLE).unwrap();
    keys_of(&serde_json::to_value(config).unwrap(), "", &mut written);
    assert_eq!(written, described);
}

#[test]
fn the_examples_of_texts_are_right() {
    fn check<T: DeserializeOwned + Text>() {
        serde_json::from_value::<T>(T::EXAMPLE.into()).unwrap();
    }
    check::<Address>();
    check::<Netns>();
    check::<Span>();
    check::<Size>();
    check::<After>();
    check::<Backoff>();
}
