//! Healing: what probe does by itself about a service that declares `heal`. Off unless declared.
//!
//! [`plan`] decides from findings and the time; here it is done, one thing at a time for each service: duplicates are ended,
//! what was left behind is reclaimed, the declared program restarts the service. Right before, the engine is asked whether
//! it is still so: nothing is done because of something unknown, nor while systemd itself is at it. Each action is said.

mod act;
mod duplicates;
pub mod plan;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::{
    select,
    sync::{Semaphore, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use self::{
    act::{Acted, Actor},
    plan::{Order, Plan, Wish},
};
use crate::{
    clock,
    config::{Config, Service},
    engine::{
        finding::{EventKind, FindingState, Kind},
        view::ServiceView,
    },
    hooks::pending::Silences,
    report::{self, KindName, LineType},
    stream::{Action, ActionKind, Filter, Next, Said, Start, Stream, Subscription},
};

/// So many services are healed at the same time; the others wait for their turn.
const AT_ONCE: usize = 4;

/// Everything that healing needs of the daemon. Clones are the same.
#[derive(Debug, Clone)]
pub struct World {
    /// Read for findings; what was done is said there.
    pub stream: Stream,
    pub silences: Arc<dyn Silences>,
    pub engine: Arc<dyn Engine>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asks and tells the engine.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// What is known of the service now. `None`: that can't be known now, or there is none.
    fn look(&self, service: &str) -> Answer<'_, Option<ServiceView>>;

    /// [`crate::event::What::GaveUp`].
    fn gave_up(&self, service: &str, attempts: Option<u32>) -> Answer<'_, ()>;
}

/// Healing, running.
#[derive(Debug)]
pub struct Healing {
    stop: Option<oneshot::Sender<()>>,
    configs: watch::Sender<Arc<Config>>,
    task: JoinHandle<()>,
}

impl Healing {
    /// Starts it for the services that declare it. To be called in a tokio runtime. `start`: from where on the stream is
    /// read.
    pub fn start(config: &Config, world: World, start: Start) -> Self {
        let plans = plans(config, BTreeMap::new());
        let sub = world
            .stream
            .subscribe(start, filter(plans.keys().cloned().collect()));
        let (configs, changed) = watch::channel(Arc::new(config.clone()));
        let actor = Actor {
            world: world.clone(),
            probe: Arc::new(config.probe.clone()),
            turn: Arc::new(Semaphore::new(AT_ONCE)),
        };
        let work = Work {
            plans,
            world,
            actor,
            blind: false,
            acting: JoinSet::new(),
            configs: changed,
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(work.run(sub, stopped));
        Self {
            stop: Some(stop),
            configs,
            task,
        }
    }

    /// Takes another configuration over. Services that are declared as before go on as if nothing had happened; what was
    /// begun is let end.
    pub fn reload(&self, config: &Config) {
        self.configs.send_replace(Arc::new(config.clone()));
    }

    /// Begins nothing more, and lets what was begun end, within the limit. What a program has begun by then ends with it;
    /// a reclaim is ended by the end of probe, between two steps.
    pub async fn stop(mut self, limit: Duration) {
        if let Some(stop) = self.stop.take() {
            // A task that has ended by itself hears nothing.
            _ = stop.send(());
        }
        if timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[derive(Debug)]
struct Healed {
    decl: Arc<Service>,
    plan: Plan,
}

struct Work {
    plans: BTreeMap<String, Healed>,
    world: World,
    actor: Actor,
    /// Events were lost: what is open need not be true.
    blind: bool,
    acting: JoinSet<(String, Acted)>,
    configs: watch::Receiver<Arc<Config>>,
}

/// A plan for each service that heals; of one that is declared as before, its own.
fn plans(config: &Config, mut before: BTreeMap<String, Healed>) -> BTreeMap<String, Healed> {
    let plan = |s: &Service| {
        if let Some(same) = before.remove(&s.name).filter(|h| *h.decl == *s) {
            return Some((s.name.clone(), same));
        }
        let plan = Plan::new(s, fastrand::f64)?;
        let decl = Arc::new(s.clone());
        Some((s.name.clone(), Healed { decl, plan }))
    };
    config.services.iter().filter_map(plan).collect()
}

impl Work {
    async fn run(mut self, mut sub: Subscription, mut stop: oneshot::Receiver<()>) {
        self.resync().await;
        loop {
            self.advance().await;
            let deadlines = self.plans.values().filter_map(|h| h.plan.deadline(self.blind));
            let deadline = deadlines.min();
            let wait = deadline.map_or(Duration::MAX, |at| at.since(clock::now()));
            select! {
                biased;
                _ = &mut stop => break,
                Some(done) = self.acting.join_next() => self.finish(done),
                Ok(()) = self.configs.changed(), if self.acting.is_empty() => {
                    self.reload();
                    let (epoch, cursor) = (sub.epoch().to_owned(), sub.cursor());
                    let names = self.plans.keys().cloned().collect();
                    sub = self.world.stream.subscribe(Start::After { epoch, cursor }, filter(names));
                    self.resync().await;
                }
                next = sub.next() => match next {
                    Next::Line(line) => self.hear(&line.said),
                    Next::Missed(_) => self.resync().await,
                    Next::End => break,
                },
                () = sleep(wait), if deadline.is_some() => {}
            }
        }
        // Whoever stops us says how long this may take.
        while self.acting.join_next().await.is_some() {}
    }

    fn reload(&mut self) {
        let config = Arc::clone(&self.configs.borrow_and_update());
        self.plans = plans(&config, std::mem::take(&mut self.plans));
        self.actor.probe = Arc::new(config.probe.clone());
    }

    fn hear(&mut self, said: &Said) {
        let now = clock::now();
        match said {
            Said::Finding(f) if f.kind == Kind::Blind => self.blind = f.state != FindingState::Resolved,
            Said::Finding(f) => {
                if let Some(healed) = self.plans.get_mut(&f.service) {
                    healed.plan.take(f, now);
                }
            }
            Said::Event(shown) if shown.kind == EventKind::Ready => {
                if let Some(healed) = self.plans.get_mut(&shown.service) {
                    healed.plan.ready(now);
                }
            }
            Said::Action(action) if action.what == ActionKind::Silence => {
                for healed in self.plans.values_mut() {
                    healed.plan.silences_changed(now);
                }
            }
            _ => {}
        }
    }

    /// Asks what is open, at the start and after lines were missed.
    async fn resync(&mut self) {
        for (service, healed) in &mut self.plans {
            if let Some(view) = self.world.engine.look(service).await {
                healed.plan.resync(&view.findings, clock::now());
            }
        }
    }

    async fn advance(&mut self) {
        let now = clock::now();
        let mut told = Vec::new();
        for (service, healed) in &mut self.plans {
            let silenced = self.world.silences.until(service);
            match healed.plan.due(silenced, self.blind, now) {
                Some(Wish::Act(order)) => {
                    let (actor, decl, name) = (self.actor.clone(), Arc::clone(&healed.decl), service.clone());
                    let acting = async move { (name, actor.act(&decl, &order).await) };
                    self.acting.spawn(acting);
                }
                Some(Wish::GiveUp(attempts)) => told.push((service.clone(), Some(attempts))),
                Some(Wish::TryAgain) => told.push((service.clone(), None)),
                None => {}
            }
        }
        for (service, attempts) in told {
            self.world.engine.gave_up(&service, attempts).await;
        }
    }

    fn finish(&mut self, done: Result<(String, Acted), tokio::task::JoinError>) {
        let now = clock::now();
        let (service, acted) = match done {
            Ok(done) => done,
            // A panic must not stop a service's healing for ever; which one it was is not told.
            Err(e) => {
                tracing::error!("an attempt to heal has ended early: {e}");
                for healed in self.plans.values_mut() {
                    healed.plan.abandon(now);
                }
                return;
            }
        };
        if let Some(healed) = self.plans.get_mut(&service) {
            match acted {
                Acted::Done => healed.plan.done(now),
                Acted::Later(why) => {
                    tracing::info!("{service} is not healed now: {why}");
                    healed.plan.postpone(now);
                }
                Acted::Needless(why) => {
                    tracing::info!("{service} need not be healed: {why}");
                    healed.plan.drop_order(now);
                }
            }
        }
    }
}

impl World {
    fn say(
        &self,
        service: &str,
        what: ActionKind,
        order: &Order,
        outcome: crate::stream::Outcome,
        summary: String,
        facts: Value,
    ) {
        tracing::info!("{service}: {}", report::plain(&summary));
        let facts = match facts {
            Value::Object(facts) => facts,
            _ => Map::new(),
        };
        self.stream.push(Said::Action(Box::new(Action {
            at: clock::now(),
            service: Some(service.to_owned()),
            what,
            subject: None,
            cause: Some(order.finding.id.clone()),
            outcome,
            summary,
            facts,
        })));
    }
}

/// Findings, that a service is ready, and that silences have changed.
fn filter(mut services: Vec<String>) -> Filter {
    let findings = plan::KINDS
        .into_iter()
        .chain([Kind::Blind])
        .map(KindName::Finding);
    let events = [EventKind::Ready, EventKind::Action].map(KindName::Event);
    // None at all would mean all of them.
    services.push(String::new());
    Filter {
        services,
        lines: report::Filter {
            only: vec![LineType::Finding, LineType::Event],
            kinds: findings.chain(events).collect(),
        },
    }
}
