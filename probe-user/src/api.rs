//! What the daemon answers, over HTTP on a UNIX socket and optionally on a loopback port.
//!
//! [`routes`] is the one table: it builds the router and the OpenAPI document. The types of the answers are in [`types`].

mod answer;
mod events;
mod guard;
mod listen;
mod openapi;
mod peer;
mod routes;
mod serve;
mod services;
mod status;
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
use crate::{clock::Nanos, daemon::engine::Handle, stream::Stream};

/// Somebody asks for a reload, and waits for what came of it.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, String>>;

/// Everything that the answers are made of. Clones are the same.
#[derive(Debug, Clone)]
pub struct Api(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    engine: Handle,
    stream: Stream,
    reloads: mpsc::Sender<ReloadRequest>,
    /// When the daemon began.
    since: Nanos,
    loaded: Mutex<LoadedState>,
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

impl Api {
    pub fn new(engine: Handle, stream: Stream, reloads: mpsc::Sender<ReloadRequest>, since: Nanos) -> Self {
        Self(Arc::new(Parts {
            engine,
            stream,
            reloads,
            since,
            loaded: Mutex::new(LoadedState {
                at: since,
                ..LoadedState::default()
            }),
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
