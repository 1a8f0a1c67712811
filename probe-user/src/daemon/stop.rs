//! Stopping: each step is logged and has a limit, and so has the whole.

use std::{future::Future, time::Duration};

use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{acts::Acts, engine::Handle};
use crate::{api::Server, clock, history::Store, stream::Stream};

/// All steps together.
const WHOLE: Duration = Duration::from_millis(900);
const ACTS: Duration = Duration::from_millis(350);
const ENGINE: Duration = Duration::from_millis(400);
const HISTORY: Duration = Duration::from_millis(250);
const CLIENTS: Duration = Duration::from_millis(150);
const TASKS: Duration = Duration::from_millis(50);

const STEPS: usize = 5;

/// Everything that runs.
pub(super) struct Stop {
    pub(super) handle: Handle,
    pub(super) stream: Stream,
    pub(super) acts: Acts,
    pub(super) store: Store,
    pub(super) exporter: JoinHandle<()>,
    pub(super) server: Server,
    pub(super) tasks: JoinSet<()>,
}

type Ended = oneshot::Receiver<Result<(), String>>;

impl Stop {
    /// `engine`: tells when the engine has ended; `None` where it has already.
    pub(super) async fn run(self, engine: Option<Ended>) {
        let began = clock::now();
        if tokio::time::timeout(WHOLE, self.steps(engine)).await.is_err() {
            tracing::error!("stopping took longer than {WHOLE:?}: the rest is left to the kernel");
        }
        tracing::info!("stopped after {:?}", clock::now().since(began));
    }

    async fn steps(mut self, engine: Option<Ended>) {
        let (handle, acts) = (self.handle.clone(), self.acts.clone());
        step(1, "hooks and healing begin nothing more", ACTS, acts.stop(ACTS)).await;
        step(
            2,
            "the engine takes what has happened and ends",
            ENGINE,
            end(&handle, engine),
        )
        .await;
        self.stream.close();
        let (store, exporter) = (self.store.clone(), &mut self.exporter);
        step(3, "the history is written and closed", HISTORY, async move {
            if let Err(e) = exporter.await {
                tracing::error!("the history was not handed everything: {e}");
            }
            let closing = tokio::task::spawn_blocking(move || store.close(HISTORY));
            if !closing.await.unwrap_or(false) {
                tracing::warn!("the history could not be written to its end");
            }
        })
        .await;
        step(4, "clients are told the end", CLIENTS, async {
            if !self.server.stop(CLIENTS).await {
                tracing::warn!("some clients had not read everything");
            }
        })
        .await;
        step(5, "the rest ends", TASKS, self.tasks.shutdown()).await;
    }
}

async fn end(handle: &Handle, engine: Option<Ended>) {
    let Some(ended) = engine else { return };
    match handle.stop() {
        Ok(()) => match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("the engine ended with an error: {e}"),
            Err(_) => tracing::error!("the engine panicked"),
        },
        Err(e) => tracing::error!("the engine cannot be told: {e}"),
    }
}

async fn step(n: usize, what: &str, limit: Duration, work: impl Future<Output = ()>) {
    tracing::info!("stop step {n}/{STEPS}: {what}");
    if tokio::time::timeout(limit, work).await.is_err() {
        tracing::warn!("stop step {n}/{STEPS} took longer than {limit:?}: going on without it");
    }
}
