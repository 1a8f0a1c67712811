//! In a daemon.

use super::*;
use crate::{
    clock,
    config::Retention,
    history::Store,
    hooks::pending::Silences as _,
    silence::book::Book,
    sources::testing::TempDir,
    stream::{Filter, Limits, Next, Said, Start, Stream},
};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_silence_is_said_survives_a_restart_and_ends_by_itself() {
    let dir = TempDir::new("silence");
    let state = dir.path().join("state");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let stream = Stream::new("e", Limits::default());
        let mut lines = stream.subscribe(Start::Oldest, Filter::default());
        let (store, loaded) = Store::open(&state, Retention::default()).unwrap();
        let book = Book::new(loaded.silences, store.clone(), stream.clone());
        let short = book
            .add("annad", Duration::from_secs(2), "a new disk", Some(0))
            .unwrap();
        let long = book.add("redis", LONG, "an upgrade", None).unwrap();
        let other = book.add("other", LONG, "by mistake", None).unwrap();
        book.end(other.id).unwrap();
        assert!(store.close(LONG));

        let (store, loaded) = Store::open(&state, Retention::default()).unwrap();
        let book = Book::new(loaded.silences, store.clone(), stream.clone());
        assert_eq!(book.list(), [short.clone(), long.clone()]);
        assert_eq!(book.active("annad"), Some(short.clone()));
        assert_eq!(book.active("other"), None);
        let until = book.until("redis").unwrap().since(clock::now());
        assert!(until <= LONG && until > LONG / 2, "{until:?}");
        let task = tokio::spawn(book.clone().run());
        let mut said = vec![];
        while said.len() < 5 {
            let next = tokio::time::timeout(LONG, lines.next())
                .await
                .expect("it ends by itself");
            let Next::Line(line) = next else {
                panic!("{next:?}")
            };
            let Said::Action(action) = &line.said else {
                panic!("{line:?}")
            };
            said.push((action.service.clone().unwrap(), action.summary.clone()));
        }
        assert!(clock::wall() >= short.until);
        assert_eq!(said[4], ("annad".into(), "the silence of annad is over".into()));
        assert_eq!(said[3].1, "the silence of other was ended");
        assert!(
            said[0].1.starts_with("annad is silenced until 2"),
            "{}",
            said[0].1
        );
        assert_eq!((book.active("annad"), book.list().len()), (None, 1));
        task.abort();
        assert!(store.close(LONG));
        let (_, loaded) = Store::open(&state, Retention::default()).unwrap();
        assert_eq!(loaded.silences, [long]);
    });
}
