//! What acts on findings: hooks and healing, with what they need of the daemon.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::engine::Handle;
use crate::{
    clock,
    config::Config,
    engine::{finding::Finding, view::ServiceView},
    event::{Event, TimeSource, What},
    heal::{self, Healing},
    history::Store,
    hooks::{self, HookError, Hooks, OpenFindings, status::HookStatus},
    silence::book::Book,
    stream::{Start, Stream},
};

/// Hooks and healing, running. A clone is the same.
#[derive(Debug, Clone)]
pub struct Acts(Arc<Mutex<Option<Running>>>);

#[derive(Debug)]
struct Running {
    hooks: Hooks,
    healing: Healing,
}

impl Acts {
    /// Starts what the configuration declares, with what waits from before. To be called in a tokio runtime.
    pub fn start(config: &Config, engine: &Handle, stream: &Stream, store: &Store, book: &Book) -> Self {
        let hooks = hooks::World {
            stream: stream.clone(),
            pending: Arc::new(store.clone()),
            silences: Arc::new(book.clone()),
            open: Arc::new(engine.clone()),
        };
        let healing = heal::World {
            stream: stream.clone(),
            silences: Arc::new(book.clone()),
            engine: Arc::new(engine.clone()),
        };
        Self(Arc::new(Mutex::new(Some(Running {
            hooks: Hooks::start(config, hooks, Start::Now),
            healing: Healing::start(config, healing, Start::Now),
        }))))
    }

    /// What is declared as before goes on as if nothing had happened.
    pub async fn reload(&self, config: &Config) {
        if let Some(running) = self.0.lock().await.as_mut() {
            running.healing.reload(config);
            running.hooks.reload(config).await;
        }
    }

    /// How each hook fares.
    pub async fn hooks(&self) -> Vec<HookStatus> {
        let running = self.0.lock().await;
        running.as_ref().map_or_else(Vec::new, |r| r.hooks.status())
    }

    /// Sends a sample through a hook.
    ///
    /// # Errors
    /// There is no such hook.
    pub async fn test(&self, hook: &str) -> Result<hooks::Attempt, HookError> {
        let running = self.0.lock().await;
        let sending = match running.as_ref() {
            Some(running) => running.hooks.test(hook)?,
            None => return Err(HookError::Bad("the daemon ends".to_owned())),
        };
        drop(running);
        Ok(sending.await)
    }

    /// Begins nothing more. What was begun is given a moment, and what waits is told after the next start.
    pub async fn stop(&self, limit: Duration) {
        if let Some(running) = self.0.lock().await.take() {
            tokio::join!(running.hooks.stop(limit), running.healing.stop(limit));
        }
    }
}

impl OpenFindings for Handle {
    fn open(&self) -> Pin<Box<dyn Future<Output = Option<Vec<Finding>>> + Send + '_>> {
        Box::pin(async move {
            let picture = self.picture(None).await.ok()??;
            // While events are missing, what was open stays open.
            let services = picture.services.into_iter().flat_map(|(s, _)| s.findings);
            let open = picture.blind.into_iter().chain(services).collect();
            picture.joined.then_some(open)
        })
    }
}

impl heal::Engine for Handle {
    fn look(&self, service: &str) -> Pin<Box<dyn Future<Output = Option<ServiceView>> + Send + '_>> {
        let service = service.to_owned();
        Box::pin(async move {
            let mut picture = self.picture(Some(service)).await.ok()??;
            let (view, _) = picture.services.pop()?;
            (picture.can_judge && view.fits).then_some(view)
        })
    }

    fn gave_up(&self, service: &str, attempts: Option<u32>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let service = service.to_owned();
        Box::pin(self.tell(Event {
            at: clock::now(),
            time_source: TimeSource::Observed,
            what: What::GaveUp { service, attempts },
        }))
    }
}
