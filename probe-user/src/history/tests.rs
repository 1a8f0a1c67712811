mod damage;
mod disk;
mod exporter;
mod life;
mod planted;

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    clock,
    config::Size,
    engine::finding::{Finding, FindingState, Kind},
    sources::testing::TempDir,
};

const LONG: Duration = Duration::from_secs(60);
const T0: i64 = 1_700_000_000_000_000_000;

/// A state directory that does not exist yet, in one that is removed.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            dir: TempDir::new("history"),
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn database(&self) -> PathBuf {
        self.state_dir().join("probe.db")
    }

    fn open(&self) -> (Store, Loaded) {
        Store::open(&self.state_dir(), forever()).unwrap()
    }

    /// Without anything that an administrator should know.
    fn open_well(&self) -> Store {
        let (store, loaded) = self.open();
        assert_eq!(loaded.notices, []);
        store
    }
}

fn forever() -> Retention {
    Retention {
        age: Duration::from_secs(100 * 365 * 86_400),
        size: Size(1 << 30),
    }
}

fn close(store: &Store) {
    assert!(store.close(LONG), "the writer did not end: {:?}", store.status());
}

/// The n-th line, a second after the one before it.
fn row(n: u64, service: &str, kind: &'static str) -> Row {
    Row {
        at: at(n),
        r#type: RowType::Event,
        service: Some(service.to_owned()),
        kind: Some(kind),
        json: format!(r#"{{"v":1,"type":"event","n":{n}}}"#),
        turn: None,
    }
}

fn at(n: u64) -> Wall {
    Wall(T0) + Duration::from_secs(n)
}

fn numbers(page: &Page) -> Vec<u64> {
    let value = |r: &Record| serde_json::from_str::<serde_json::Value>(&r.json).unwrap();
    page.records
        .iter()
        .filter_map(|r| value(r)["n"].as_u64())
        .collect()
}

/// Lines that the history itself says are missing.
fn lost(store: &Store) -> u64 {
    let query = Query {
        types: vec!["lost".into()],
        ..Query::default()
    };
    let page = store.query(&query).unwrap();
    let value = |r: &Record| serde_json::from_str::<serde_json::Value>(&r.json).unwrap();
    page.records
        .iter()
        .map(|r| value(r)["count"].as_u64().unwrap())
        .sum()
}

fn finding(state: FindingState, summary: &str) -> Finding {
    Finding {
        id: "f1".into(),
        state,
        kind: Kind::StaleSocket,
        service: "annad".into(),
        severity: Kind::StaleSocket.severity(),
        subject: "unix:/run/anna/annad.sock".into(),
        cause: "c1".into(),
        at: clock::Nanos(5_000_000_000),
        detected_after_ns: 1_000_000_000,
        actor: None,
        summary: summary.into(),
        resolution: (state == FindingState::Resolved).then(|| "a new socket".into()),
        evidence: vec![],
        facts: serde_json::Map::new(),
    }
}
