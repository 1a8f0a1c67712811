//! One attempt.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::Semaphore;

use super::{World, duplicates, plan::Order};
use crate::{
    clock,
    config::{Probe, Service},
    engine::{
        finding::{Finding, Kind},
        view::ServiceView,
    },
    hooks::exec::{End, Rest, Run, Runner},
    reclaim,
    stream::{ActionKind, Outcome},
};

/// What a restart may take besides the end of the old process and the beginning of the new one.
const RESTART_MARGIN: Duration = Duration::from_secs(30);

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acted {
    /// It was carried out, well or not: that was said.
    Done,
    /// Not now: something is unknown, or somebody else is at it.
    Later(String),
    /// There is nothing to be done any more.
    Needless(String),
}

/// Carries orders out.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) world: World,
    pub(super) probe: Arc<Probe>,
    pub(super) turn: Arc<Semaphore>,
}

impl Actor {
    pub(super) async fn act(&self, decl: &Arc<Service>, order: &Order) -> Acted {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        let view = match self.check(&decl.name, &order.finding).await {
            Ok(view) => view,
            Err(acted) => return acted,
        };
        if order.finding.kind == Kind::DuplicateInstance {
            return self.end_duplicates(decl, order, view).await;
        }
        if decl.heal.as_ref().is_some_and(|h| h.reclaim) && !self.reclaim(decl, order).await {
            return Acted::Done;
        }
        let Some(argv) = decl.heal.as_ref().and_then(|h| h.restart.clone()) else {
            return Acted::Done;
        };
        // A reclaim takes its time, in which systemd may have begun by itself.
        if let Err(acted) = self.check_unit(&decl.name).await {
            return acted;
        }
        self.restart(decl, order, argv).await;
        Acted::Done
    }

    /// Whether it is still so, known to be so, and nobody else is at it.
    async fn check(&self, service: &str, finding: &Finding) -> Result<ServiceView, Acted> {
        let view = self.check_unit(service).await?;
        if self
            .world
            .silences
            .until(service)
            .is_some_and(|until| until > clock::now())
        {
            return Err(Acted::Later("it is silenced".into()));
        }
        if !view.findings.iter().any(|f| f.id == finding.id) {
            return Err(Acted::Needless(format!("{} is over", finding.kind.name())));
        }
        if view.stopping.is_some() {
            return Err(Acted::Later("somebody has asked it to stop".into()));
        }
        if finding.kind == Kind::CrashLoop && view.main.is_some() {
            return Err(Acted::Needless("it runs again".into()));
        }
        Ok(view)
    }

    async fn check_unit(&self, service: &str) -> Result<ServiceView, Acted> {
        let Some(view) = self.world.engine.look(service).await else {
            return Err(Acted::Later("how it is can't be known now".into()));
        };
        match view.unit_is_changing {
            true => Err(Acted::Later("systemd is at its unit".into())),
            false => Ok(view),
        }
    }

    async fn end_duplicates(&self, decl: &Arc<Service>, order: &Order, view: ServiceView) -> Acted {
        let (keep, surplus) = match duplicates::choose(decl, &view.lives) {
            Ok(chosen) => chosen,
            Err(why) => {
                let summary = format!("no duplicate was ended: {why}");
                let facts = json!({ "attempt": order.attempt });
                self.world.say(
                    &decl.name,
                    ActionKind::Reclaim,
                    order,
                    Outcome::Refused,
                    summary,
                    facts,
                );
                return Acted::Done;
            }
        };
        let service = Arc::clone(decl);
        let ended = tokio::task::spawn_blocking(move || duplicates::end(&service, &surplus)).await;
        let (outcome, words, steps) = match ended {
            Ok(Ok(steps)) => (Outcome::Ok, format!("ended {}", steps.join(", ")), steps),
            Ok(Err(why)) => (
                Outcome::Failed,
                format!("duplicates could not be ended: {why}"),
                Vec::new(),
            ),
            Err(e) => (
                Outcome::Failed,
                format!("duplicates could not be ended: {e}"),
                Vec::new(),
            ),
        };
        let summary = format!("{words}; {keep} stays");
        let facts = json!({ "attempt": order.attempt, "steps": steps, "kept": keep });
        self.world
            .say(&decl.name, ActionKind::Reclaim, order, outcome, summary, facts);
        Acted::Done
    }

    /// Returns whether the service may be started.
    async fn reclaim(&self, decl: &Arc<Service>, order: &Order) -> bool {
        let (service, options) = (Arc::clone(decl), reclaim::Options::new(&self.probe));
        let done = tokio::task::spawn_blocking(move || {
            let mut steps = Vec::new();
            let outcome = reclaim::reclaim(&service, &options, &mut |step| steps.push(step.to_string()));
            (outcome, steps)
        })
        .await;
        let (done, steps) = match done {
            Ok((done, steps)) => (done.map_err(|e| e.to_string()), steps),
            Err(e) => (Err(e.to_string()), Vec::new()),
        };
        // systemd ends what is in the way of its own unit.
        let is_units = decl.unit.is_some();
        let (outcome, summary, go_on) = match done {
            Ok(o) if o.can_start => (Outcome::Ok, "reclaimed: it can start now".to_owned(), true),
            Ok(o) => {
                let ways = o.in_the_way.join("; ");
                (
                    Outcome::Refused,
                    format!("reclaimed, and it can't start now: {ways}"),
                    is_units,
                )
            }
            Err(e) => (Outcome::Failed, format!("it could not be reclaimed: {e}"), false),
        };
        let facts = json!({ "attempt": order.attempt, "steps": steps });
        self.world
            .say(&decl.name, ActionKind::Reclaim, order, outcome, summary, facts);
        go_on
    }

    async fn restart(&self, decl: &Service, order: &Order, argv: Vec<String>) {
        let began = clock::now();
        let program = argv.join(" ");
        let f = &order.finding;
        let ran = Runner::default()
            .run(Run {
                argv,
                environment: vec![
                    ("PROBE_SERVICE".into(), f.service.clone()),
                    ("PROBE_KIND".into(), f.kind.name().into()),
                    ("PROBE_ID".into(), f.id.clone()),
                    ("PROBE_ATTEMPT".into(), order.attempt.to_string()),
                ],
                user: None,
                input: Vec::new(),
                limit: decl.stop_within + decl.ready_within + RESTART_MARGIN,
                rest: Rest::Leave,
            })
            .await;
        let outcome = match ran.end {
            End::Exited(0) => Outcome::Ok,
            End::TimedOut { .. } => Outcome::Timeout,
            _ => Outcome::Failed,
        };
        let took = clock::now().since(began);
        let summary = format!(
            "{program}: {}, attempt {} because of {}",
            ran.end,
            order.attempt,
            f.kind.name()
        );
        let facts = json!({
            "attempt": order.attempt,
            "exit_code": ran.end.code(),
            "took_ns": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        });
        self.world
            .say(&decl.name, ActionKind::Restart, order, outcome, summary, facts);
    }
}
