//! Waits until a service is ready, or stopped: `probe wait`.
//!
//! Nothing is asked again and again. First the daemon's stream is listened to, then the state is read, so that no change can
//! fall between the two; then each line of the stream leads to one more look at the state.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    api::types::{ListenerState, OneService, ProcessRef, ServiceStatus, V, Verdict},
    client::{Client, ClientError, Follow, Told, escape},
};

/// How long a daemon that has too much to do is left alone.
const BUSY: Duration = Duration::from_millis(200);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The main process lives, nobody has asked it to stop, and every declared address is served by it.
    Ready,
    /// No process of the service lives.
    Stopped,
}

/// How the waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Reached,
    /// It will not come to it: whoever restarts the service has stopped trying.
    GaveUp,
    TimedOut,
}

/// What `probe wait --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub v: u32,
    /// `wait`.
    pub r#type: AnswerType,
    pub service: String,
    pub wanted: Wanted,
    pub outcome: Outcome,
    /// As it was in the end; 0: no life of it was ever seen.
    pub generation: u64,
    pub main: Option<ProcessRef>,
    /// How long was waited.
    pub waited_ns: u64,
    /// One sentence for a person.
    pub summary: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerType {
    Wait,
}

/// One wait.
#[derive(Debug)]
pub struct Wait {
    pub service: String,
    pub wanted: Wanted,
    /// Only lives after this one count.
    pub after: Option<u64>,
    /// The state as it was last seen.
    pub last: Option<ServiceStatus>,
}

impl Wait {
    pub fn new(service: &str, wanted: Wanted, after: Option<u64>) -> Self {
        Self {
            service: service.to_owned(),
            wanted,
            after,
            last: None,
        }
    }

    /// Waits, without an end of its own: the caller has the limit. A daemon that goes away meanwhile is waited for too.
    ///
    /// # Errors
    /// When there is no daemon at the beginning, or it does not answer in time, or does not know the service.
    pub async fn run(&mut self, client: &Client) -> Result<Outcome, ClientError> {
        let mut stream = Follow::new(client.clone(), vec![("service", self.service.clone())], None);
        stream.begin().await?;
        let path = format!("/v1/services/{}", escape(&self.service));
        loop {
            match client.get::<OneService>(&path).await {
                Ok(answer) => {
                    let outcome = self.outcome(&answer.service);
                    self.last = Some(answer.service);
                    if let Some(outcome) = outcome {
                        return Ok(outcome);
                    }
                    tracing::info!("{}", self.summary(Outcome::TimedOut));
                }
                // The stream ends too, and says when it is back.
                Err(e) if e.is_absence() => tracing::debug!("{e}"),
                Err(e) if e.is_busy() => {
                    sleep(BUSY).await;
                    continue;
                }
                Err(e) => return Err(e),
            }
            loop {
                match stream.next().await? {
                    Told::Line(_) | Told::Back => break,
                    Told::Gone(why) => tracing::warn!("{why}; waiting for the daemon"),
                }
            }
            // One look is enough for what is here already.
            while stream.try_next().is_some() {}
        }
    }

    /// `None`: it is still to be waited for.
    pub fn outcome(&self, s: &ServiceStatus) -> Option<Outcome> {
        let reached = s.verdict != Verdict::Unknown
            && self.after.is_none_or(|n| s.generation > n)
            && match self.wanted {
                Wanted::Ready => is_ready(s),
                Wanted::Stopped => s.main.is_none() && s.members == 0,
            };
        if reached {
            return Some(Outcome::Reached);
        }
        let never = s.gave_up && s.main.is_none() && self.wanted == Wanted::Ready;
        never.then_some(Outcome::GaveUp)
    }

    /// What is said of the end.
    pub fn answer(&self, outcome: Outcome, waited_ns: u64) -> Answer {
        let last = self.last.as_ref();
        Answer {
            v: V,
            r#type: AnswerType::Wait,
            service: self.service.clone(),
            wanted: self.wanted,
            outcome,
            generation: last.map_or(0, |s| s.generation),
            main: last.and_then(|s| s.main.clone()),
            waited_ns,
            summary: self.summary(outcome),
        }
    }

    fn summary(&self, outcome: Outcome) -> String {
        let name = &self.service;
        let Some(s) = &self.last else {
            return format!("nothing is known of {name}");
        };
        let main = s.main.as_ref().map(|m| format!("{} ({})", m.comm, m.pid));
        match (outcome, self.wanted) {
            (Outcome::Reached, Wanted::Ready) => format!(
                "{name} is ready: {}, generation {}",
                main.unwrap_or_default(),
                s.generation
            ),
            (Outcome::Reached, Wanted::Stopped) => match &s.last_end {
                Some(end) => format!(
                    "{name} is stopped: {} ({}) {}",
                    end.process.comm, end.process.pid, end.how
                ),
                None => format!("{name} is stopped"),
            },
            (Outcome::GaveUp, _) => {
                let why = s
                    .findings
                    .iter()
                    .find(|f| f.facts.get("gave_up").is_some_and(|g| g == true));
                let why = why.map_or(String::new(), |f| format!(": {}", f.summary));
                format!("{name} will not be ready: whoever restarts it gave up{why}")
            }
            (Outcome::TimedOut, wanted) => format!("{name} is not {} yet: {}", wanted.name(), self.lacks(s)),
        }
    }

    fn lacks(&self, s: &ServiceStatus) -> String {
        if s.verdict == Verdict::Unknown {
            return "its state is unknown".to_owned();
        }
        if let Some(n) = self.after.filter(|n| s.generation <= *n) {
            return format!(
                "generation {} is the last one, and it has to come after {n}",
                s.generation
            );
        }
        let Some(main) = &s.main else {
            return match self.wanted {
                Wanted::Ready => "no process of it runs".to_owned(),
                Wanted::Stopped => format!("{} processes of it live on", s.members),
            };
        };
        let main = format!("{} ({}), generation {},", main.comm, main.pid, s.generation);
        if let Some(stop) = &s.stopping {
            return format!("{main} is being stopped {}", stop.asked);
        }
        let missing = s.listeners.iter().find(|l| l.state != ListenerState::Listening);
        match (self.wanted, missing) {
            (Wanted::Ready, Some(l)) => format!("{main} does not serve {}", l.address),
            (Wanted::Ready, None) => format!("{main} does not serve its addresses itself"),
            (Wanted::Stopped, _) => format!("{main} runs"),
        }
    }
}

impl Wanted {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Stopped => "stopped",
        }
    }
}

/// A process that was asked to stop, or whose predecessor still answers in its place, is not.
fn is_ready(s: &ServiceStatus) -> bool {
    s.main.is_some()
        && s.ready
        && s.stopping.is_none()
        && s.listeners.iter().all(|l| l.state == ListenerState::Listening)
}

#[cfg(test)]
mod tests;
