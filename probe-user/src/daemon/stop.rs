//! Stopping: each step is logged and has a limit, and so has the whole.

use std::{future::Future, time::Duration};

use tokio::{sync::oneshot, task::JoinSet};

use super::engine::Handle;
use crate::{api::Server, clock, stream::Stream};

/// All steps together.
const WHOLE: Duration = Duration::from_millis(900);
const ENGINE: Duration = Duration::from_millis(400);
const CLIENTS: Duration = Duration::from_millis(200);
const TASKS: Duration = Duration::from_millis(200);

const STEPS: usize = 4;

/// Everything that runs.
pub(super) struct Stop {
    pub(super) handle: Handle,
    pub(super) stream: Stream,
    pub(super) server: Server,
    pub(super) tasks: JoinSet<()>,
}

impl Stop {
    /// `engine`: tells when the engine has ended; `None` where it has already.
    pub(super) async fn run(self, engine: Option<oneshot::Receiver<Result<(), String>>>) {
        let began = clock::now();
        if tokio::time::timeout(WHOLE, self.steps(engine)).await.is_err() {
            tracing::error!("stopping took longer than {WHOLE:?}: the rest is left to the kernel");
        }
        tracing::info!("stopped after {:?}", clock::now().since(began));
    }

    async fn steps(mut self, engine: Option<oneshot::Receiver<Result<(), String>>>) {
        let handle = self.handle.clone();
        step(1, "the engine takes what has happened and ends", ENGINE, async {
            let Some(ended) = engine else { return };
            match handle.stop() {
                Ok(()) => match ended.await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::error!("the engine ended with an error: {e}"),
                    Err(_) => tracing::error!("the engine panicked"),
                },
                Err(e) => tracing::error!("the engine cannot be told: {e}"),
            }
        })
        .await;
        step(2, "everything said is read", TASKS, async {
            self.stream.close();
        })
        .await;
        step(3, "clients are told the end", CLIENTS, async {
            if !self.server.stop(CLIENTS).await {
                tracing::warn!("some clients had not read everything");
            }
        })
        .await;
        step(4, "the rest ends", TASKS, async {
            self.tasks.shutdown().await;
        })
        .await;
    }
}

async fn step(n: usize, what: &str, limit: Duration, work: impl Future<Output = ()>) {
    tracing::info!("stop step {n}/{STEPS}: {what}");
    if tokio::time::timeout(limit, work).await.is_err() {
        tracing::warn!("stop step {n}/{STEPS} took longer than {limit:?}: going on without it");
    }
}
