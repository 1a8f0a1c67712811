//! What the daemon answers, over HTTP on a UNIX socket and optionally on a loopback port.
//!
//! [`routes`] is the one table: it builds the router and the OpenAPI document. The types of the answers are in [`types`].

mod answer;
mod events;
mod guard;
mod hooks;
mod listen;
mod metrics;
mod openapi;
mod peer;
mod routes;
mod serve;
mod services;
mod silences;
mod socket_file;
mod status;
mod turn;
pub mod types;
mod who;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use self::types::Reloaded;
pub use self::{
    listen::{ListenError, Listeners},
    openapi::document,
    serve::Server,
};
use crate::{
    clock::Nanos,
    daemon::{acts::Acts, engine::Handle},
    history::Store,
    metrics::Metrics,
    silence::book::Book,
    stream::Stream,
    who::Looker,
};

/// Somebody asks for a reload, and waits for what came of it.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, String>>;

/// Everything that the answers are made of. Clones are the same.
#[derive(Debug, Clone)]
pub struct Api(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    is: Is,
    loaded: Mutex<LoadedState>,
    /// For looks at addresses, one at a time: see [`who`]. It begins with the first question.
    looks: Arc<tokio::sync::Mutex<Option<Looker>>>,
}

/// What the answers are made of.
#[derive(Debug)]
pub struct Is {
    pub engine: Handle,
    pub stream: Stream,
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// When the daemon began.
    pub since: Nanos,
    pub store: Store,
    /// What the history's opening had to say.
    pub notices: Vec<String>,
    pub silences: Book,
    pub acts: Acts,
    pub metrics: Metrics,
}

impl std::ops::Deref for Parts {
    type Target = Is;

    fn deref(&self) -> &Is {
        &self.is
    }
}

/// What became of the configuration.
#[derive(Debug, Clone, Default)]
pub struct LoadedState {
    /// When it was last read and taken.
    pub at: Nanos,
    pub reloads: u64,
    /// Why the last attempt changed nothing.
    pub error: Option<String>,
}

/// What whoever is root is answered to these bytes by a daemon whose engine has ended, for fuzzing.
pub(crate) async fn answer(api: Api, bytes: Vec<u8>) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let root = peer::Peer::Unix {
        pid: None,
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    let router = routes::router(api, guard::Guard { group: None });
    let mut answer = Vec::new();
    let asks = async {
        let (mut from, mut to) = tokio::io::split(ours);
        // It may hang up before it has heard everything.
        _ = to.write_all(&bytes).await;
        _ = to.shutdown().await;
        _ = from.read_to_end(&mut answer).await;
    };
    let connection = serve::connection(router, theirs, root);
    _ = tokio::join!(asks, connection);
    answer
}

impl Api {
    pub fn new(is: Is) -> Self {
        let loaded = Mutex::new(LoadedState {
            at: is.since,
            ..LoadedState::default()
        });
        Self(Arc::new(Parts {
            is,
            loaded,
            looks: Arc::default(),
        }))
    }

    /// Notes what became of the configuration.
    pub fn note_loaded(&self, change: impl FnOnce(&mut LoadedState)) {
        change(&mut self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn loaded(&self) -> LoadedState {
        self.0
            .loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
