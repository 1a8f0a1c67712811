//! From the stream to the disk.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use super::{
    super::exporter::{self, Lives},
    *,
};
use crate::{
    engine::finding::{EventKind, Shown},
    event::TimeSource,
    stream::{Filter, Limits, Said, Start, Stream},
};

/// An engine that tells of generations at its end only.
#[derive(Clone, Default)]
struct Engine(Arc<Mutex<BTreeMap<String, Remembered>>>);

impl Lives for Engine {
    fn changed(&self) -> Pin<Box<dyn Future<Output = BTreeMap<String, Remembered>> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn take(&self) -> BTreeMap<String, Remembered> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn event(kind: EventKind) -> Said {
    Said::Event(Box::new(Shown {
        seq: 1,
        at: clock::Nanos(1),
        time_source: TimeSource::Kernel,
        service: "annad".into(),
        kind,
        subject: None,
        process: None,
        actor: None,
        facts: Default::default(),
        summary: String::new(),
    }))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(test);
}

#[test]
fn lines_are_kept_as_they_were_said_and_generations_with_them() {
    let scene = Scene::new();
    let store = scene.open_well();
    run(async {
        let stream = Stream::new("e1", Limits::default());
        let engine = Engine::default();
        let subscription = stream.subscribe(Start::Oldest, Filter::default());
        let task = tokio::spawn(exporter::run(subscription, store.clone(), engine.clone()));
        let before = clock::wall();
        stream.push(event(EventKind::Exec));
        stream.push(Said::Finding(Box::new(finding(FindingState::Opened, "gone"))));
        stream.push(Said::Lost {
            source: "ring".into(),
            count: 3,
        });
        let life = Remembered {
            generation: 2,
            main: None,
        };
        *engine.0.lock().unwrap() = [("annad".to_owned(), life)].into();
        stream.close();
        task.await.unwrap();
        assert!(store.flush(LONG));
        let page = store.query(&Query::default()).unwrap();
        let values: Vec<serde_json::Value> = page
            .records
            .iter()
            .map(|r| serde_json::from_str(&r.json).unwrap())
            .collect();
        let types: Vec<_> = values.iter().map(|v| v["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["event", "finding", "lost"]);
        assert!(values.iter().all(|v| v["epoch"] == "e1"), "{values:?}");
        assert!(
            page.records
                .iter()
                .all(|r| r.at >= before && r.at <= clock::wall())
        );
        assert_eq!(store.lives(&Query::default()).unwrap()[0].id, "f1");
    });
    close(&store);
    assert_eq!(scene.open().1.services["annad"].generation, 2);
}

#[test]
fn what_the_stream_no_longer_kept_is_counted() {
    let scene = Scene::new();
    let store = scene.open_well();
    run(async {
        let limits = Limits {
            lines: 10,
            bytes: 1 << 20,
        };
        let stream = Stream::new("e1", limits);
        let subscription = stream.subscribe(Start::Oldest, Filter::default());
        for _ in 0..25 {
            stream.push(event(EventKind::Signal));
        }
        stream.close();
        exporter::run(subscription, store.clone(), Engine::default()).await;
    });
    assert!(store.flush(LONG));
    assert_eq!(
        (store.status().written, store.status().lost, lost(&store)),
        (10, 15, 15)
    );
}
