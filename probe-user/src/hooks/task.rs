//! One hook: reads the stream at its own pace, decides, and tells. Nothing that it waits for keeps another hook waiting,
//! nor does what it tells keep it from reading on.

use std::{pin::Pin, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    select,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    World,
    deliver::{Delivered, deliver},
    notification::Notification,
    pending::{Change, Entry},
    queue::Queue,
    router::Router,
    rule::Rule,
    sender::Sender,
    status::Board,
};
use crate::{
    clock::{self, Nanos},
    report,
    stream::{Action, ActionKind, Next, Outcome, Said, Subscription},
};

/// How long a stop waits for what is being told, and then for the disk.
const STOP_WITHIN: Duration = Duration::from_millis(150);

pub(super) struct Task {
    pub(super) label: String,
    pub(super) sender: Sender,
    pub(super) rule: Rule,
    pub(super) retry_for: Duration,
    pub(super) board: Board,
    pub(super) world: World,
    /// What an earlier run kept for this hook.
    pub(super) entries: Vec<Entry>,
    /// After how long what is not found again is over.
    pub(super) inherit_for: Duration,
}

type Delivery = Pin<Box<dyn Future<Output = (u64, Delivered)> + Send>>;

struct State {
    router: Router,
    queue: Queue,
    delivery: Option<Delivery>,
    /// When what was inherited must have been found again.
    resync: Option<Nanos>,
}

impl Task {
    /// Until the stream or the daemon ends.
    pub(super) async fn run(self, mut sub: Subscription, mut stop: oneshot::Receiver<()>) {
        let now = clock::now();
        let (queue, told, unreadable) = Queue::load(&self.entries);
        for why in unreadable.0 {
            tracing::warn!("hook {}: what was kept for it cannot be read: {why}", self.label);
        }
        let mut router = Router::new(self.rule.clone(), clock::wall_offset());
        let resync = (!told.is_empty()).then(|| now + self.inherit_for);
        router.inherit(told, now);
        let mut state = State {
            router,
            queue,
            delivery: None,
            resync,
        };
        // What was open before the first line that is read.
        if let Some(open) = self.world.open.open().await {
            for finding in &open {
                state.router.take(finding, clock::now());
            }
        }
        loop {
            self.advance(&mut state).await;
            let deadline = state.router.deadline().into_iter().chain(state.resync).min();
            let wait = deadline.map_or(Duration::MAX, |at| at.since(clock::now()));
            select! {
                biased;
                _ = &mut stop => break,
                (number, delivered) = delivered(&mut state.delivery) => {
                    state.delivery = None;
                    self.finish(&mut state, number, delivered);
                }
                next = sub.next() => match next {
                    Next::Line(line) => match &line.said {
                        Said::Finding(finding) => state.router.take(finding, clock::now()),
                        Said::Action(action) if action.what == ActionKind::Silence => {
                            state.router.silences_changed(clock::now());
                        }
                        _ => {}
                    },
                    Next::Missed(count) => {
                        tracing::warn!("hook {}: {count} lines were missed; what is open is asked for", self.label);
                        state.resync = Some(clock::now());
                    }
                    Next::End => break,
                },
                () = sleep(wait), if deadline.is_some() => {}
            }
        }
        self.stop(&mut state).await;
    }

    /// Everything that can be done without waiting for somebody else.
    async fn advance(&self, state: &mut State) {
        let now = clock::now();
        if state.resync.is_some_and(|at| at <= now) {
            // What can't be known now is asked for again a little later.
            state.resync = match self.world.open.open().await {
                Some(open) => {
                    state.router.resync(&open, now);
                    None
                }
                None => Some(now + Duration::from_secs(1)),
            };
        }
        for n in state.router.due(&*self.world.silences, now) {
            state.queue.push(n);
        }
        let changed = state.router.take_changed();
        state.queue.keep_told(changed);
        self.keep(state.queue.take_changes()).await;
        let dropped = state.queue.take_dropped();
        if dropped > 0 {
            self.say_dropped(dropped);
        }
        if state.delivery.is_none()
            && let Some((number, n)) = state.queue.first()
        {
            let delivery = deliver(self.sender.clone(), n.clone(), self.retry_for, self.board.clone());
            state.delivery = Some(Box::pin(async move { (number, delivery.await) }));
        }
        let decided = state.router.decided();
        self.board.change(|s| {
            s.waiting = state.queue.len() as u64;
            s.busy = state.delivery.is_some();
            s.results.limited = decided.limited;
            s.results.silenced = decided.silenced;
            s.results.overflow = decided.overflow;
            s.results.dropped += dropped;
        });
    }

    /// Told before anything is tried, so that nothing is lost when probe ends in the middle.
    async fn keep(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let (pending, label) = (Arc::clone(&self.world.pending), self.label.clone());
        let kept = tokio::task::spawn_blocking(move || pending.change(&label, &changes)).await;
        let problem = match kept {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        let known = self.board.get().not_kept;
        if problem != known {
            if let Some(why) = &problem {
                tracing::error!("hook {}: {why}", self.label);
            }
            self.board.change(|s| s.not_kept = problem);
        }
    }

    fn finish(&self, state: &mut State, number: u64, delivered: Delivered) {
        let told = state.queue.first().filter(|(n, _)| *n == number);
        // It was dropped meanwhile because the queue was full.
        let Some(n) = told.map(|(_, n)| n.clone()) else {
            return;
        };
        state.queue.done(number);
        self.say(&n, &delivered);
    }

    fn say(&self, n: &Notification, d: &Delivered) {
        let f = &n.main().finding;
        let a = &d.attempt;
        let detail = match a.output.as_str() {
            "" => a.detail.clone(),
            output => format!("{}: {output}", a.detail),
        };
        match a.outcome {
            Outcome::Ok => tracing::debug!("hook {}: {detail}", self.label),
            _ => tracing::warn!("hook {}: {detail}", self.label),
        }
        self.board.change(|s| {
            s.count(a.outcome);
            s.failed_attempts = 0;
            s.last = Some(super::status::LastResult {
                at: super::notification::rfc3339(wall_now()),
                outcome: a.outcome.name().to_owned(),
                detail: detail.clone(),
                finding: f.id.clone(),
                attempts: d.attempts,
            });
        });
        let facts = json!({
            "state": n.state,
            "findings": n.alerts.len(),
            "attempts": d.attempts,
            "took_ns": u64::try_from(d.took.as_nanos()).unwrap_or(u64::MAX),
            "exit_code": a.exit_code,
            "detail": detail,
        });
        self.world.stream.push(Said::Action(Box::new(Action {
            at: clock::now(),
            service: Some(f.service.clone()),
            what: ActionKind::Hook,
            subject: Some(self.label.clone()),
            cause: Some(f.id.clone()),
            outcome: a.outcome,
            summary: format!(
                "hook {} was told that {} is {}: {}",
                self.label,
                f.kind.name(),
                n.state.name(),
                a.detail
            ),
            facts: fields(facts),
        })));
    }

    fn say_dropped(&self, count: u64) {
        let summary = format!(
            "hook {} is too slow: {count} of {} notifications that waited were dropped",
            self.label,
            super::queue::MAX_WAITING
        );
        tracing::error!("{}", report::plain(&summary));
        self.world.stream.push(Said::Action(Box::new(Action {
            at: clock::now(),
            service: None,
            what: ActionKind::Hook,
            subject: Some(self.label.clone()),
            cause: None,
            outcome: Outcome::Dropped,
            summary,
            facts: fields(json!({ "count": count })),
        })));
    }

    /// What is being told may end; what waits is told after the next start.
    async fn stop(&self, state: &mut State) {
        let until = Instant::now() + STOP_WITHIN;
        if let Some(delivery) = state.delivery.take()
            && let Ok((number, delivered)) = tokio::time::timeout_at(until, delivery).await
        {
            self.finish(state, number, delivered);
        }
        let changes = state.queue.take_changes();
        _ = timeout(STOP_WITHIN, self.keep(changes)).await;
    }
}

async fn delivered(delivery: &mut Option<Delivery>) -> (u64, Delivered) {
    match delivery {
        Some(delivery) => delivery.await,
        None => std::future::pending().await,
    }
}

fn wall_now() -> i64 {
    let now = i64::try_from(clock::now().0).unwrap_or(i64::MAX);
    now.saturating_add(clock::wall_offset())
}

fn fields(value: serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map,
        _ => serde_json::Map::new(),
    }
}

/// A hook's task, and how to end it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) handle: JoinHandle<()>,
}
