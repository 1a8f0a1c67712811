//! Questions to the daemon.

use std::{env, process, sync::Arc, time::Duration};

use tokio::{runtime::Runtime, sync::mpsc, time::timeout};

use crate::{
    api::{self, Api},
    clock::Nanos,
    config::Config,
    daemon::{acts::Acts, engine::Handle},
    history::Store,
    metrics::{Metrics, Timings},
    silence::book::Book,
    stream::{Limits, Stream},
};

/// Far more than an answer takes here.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// What a client gets that reads on for as long as lines come.
const CODES: [u16; 17] = [
    200, 400, 403, 404, 405, 408, 409, 411, 413, 414, 415, 417, 422, 431, 501, 503, 505,
];

struct Daemon {
    runtime: Runtime,
    api: Api,
}

thread_local! {
    static DAEMON: Daemon = Daemon::new();
}

impl Daemon {
    fn new() -> Self {
        let built = || -> Result<Self, Box<dyn std::error::Error>> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let _inside = runtime.enter();
            let directory = env::temp_dir().join(format!("probe-fuzz-{}", process::id()));
            std::fs::create_dir_all(&directory)?;
            let (store, _) = Store::open(&directory, Default::default())?;
            let stream = Stream::new("e", Limits::default());
            let engine = Handle::of_nobody()?;
            let silences = Book::new(Vec::new(), store.clone(), stream.clone());
            let acts = Acts::start(&Config::default(), &engine, &stream, &store, &silences);
            let (reloads, _) = mpsc::channel(1);
            let api = Api::new(api::Is {
                engine,
                stream,
                reloads,
                since: Nanos(1),
                store,
                notices: Vec::new(),
                silences,
                acts,
                metrics: Metrics::new(Arc::new(Timings::default())),
            });
            drop(_inside);
            Ok(Self { runtime, api })
        };
        match built() {
            Ok(daemon) => daemon,
            Err(e) => panic!("there is no daemon to ask: {e}"),
        }
    }
}

pub(super) fn request(bytes: &[u8]) {
    DAEMON.with(|daemon| {
        let answer = api::answer(daemon.api.clone(), bytes.to_vec());
        let Ok(answer) = daemon
            .runtime
            .block_on(async { timeout(ANSWER_WITHIN, answer).await })
        else {
            panic!("no answer within {ANSWER_WITHIN:?}");
        };
        if answer.is_empty() {
            return;
        }
        let head = answer.split(|b| *b == b'\n').next().unwrap_or_default();
        let head = String::from_utf8_lossy(head);
        let code = head
            .strip_prefix("HTTP/1.1 ")
            .or(head.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        assert!(code.is_some_and(|c| CODES.contains(&c)), "{head:?}");
    });
}
