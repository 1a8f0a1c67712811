//! What outlives the daemon: the history, and with it generations, silences and notifications that wait.

use std::{collections::BTreeMap, path::PathBuf, pin::Pin};

use super::{DaemonError, engine::Handle};
use crate::{
    config::Probe,
    engine::view::Life,
    history::{Loaded, Remembered, Store, exporter::Lives},
};

/// Opens the history. One that is damaged, or can't be written, is named in the log and in what is loaded, and keeps the
/// daemon from nothing.
pub(super) async fn open(probe: &Probe) -> Result<(Store, Loaded), DaemonError> {
    let (dir, retention) = (PathBuf::from(&probe.state_dir), probe.retention);
    // The check of a large database takes its time.
    tokio::task::spawn_blocking(move || Store::open(&dir, retention))
        .await
        .map_err(|e| DaemonError::System {
            what: "the history cannot be opened",
            error: e.into(),
        })?
        .map_err(DaemonError::History)
}

/// As the engine remembers them.
pub(super) fn lives(kept: &BTreeMap<String, Remembered>) -> BTreeMap<String, Life> {
    let life = |r: &Remembered| Life {
        generation: r.generation,
        main: r.main,
    };
    kept.iter().map(|(name, r)| (name.clone(), life(r))).collect()
}

fn remembered(lives: BTreeMap<String, Life>) -> BTreeMap<String, Remembered> {
    let kept = |life: Life| Remembered {
        generation: life.generation,
        main: life.main,
    };
    lives.into_iter().map(|(name, life)| (name, kept(life))).collect()
}

impl Lives for Handle {
    fn changed(&self) -> Pin<Box<dyn Future<Output = BTreeMap<String, Remembered>> + Send + '_>> {
        Box::pin(async { remembered(self.changed_lives().await) })
    }

    fn take(&self) -> BTreeMap<String, Remembered> {
        remembered(self.take_lives())
    }
}
