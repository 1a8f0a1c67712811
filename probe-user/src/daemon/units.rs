//! Hands the engine what systemd says of declared units, which is waited for here.

use std::sync::Arc;

use tokio::sync::watch;

use super::engine::Handle;
use crate::config::Config;

#[cfg(feature = "systemd")]
pub(super) async fn follow(engine: Handle, mut configs: watch::Receiver<Arc<Config>>) {
    use crate::sources::{process, systemd::Units};

    let declared = |c: &Config| -> Vec<_> {
        let units = c.services.iter().filter(|s| s.unit.is_some());
        units
            .map(|s| {
                (
                    s.name.clone(),
                    s.unit.clone(),
                    s.user.clone(),
                    s.heartbeat.clone(),
                )
            })
            .collect()
    };
    loop {
        let config = configs.borrow_and_update().clone();
        let connected = Units::connect(&config, None, |pid| process::read(pid).ok().flatten());
        for (service, why) in &connected.cannot_see {
            tracing::warn!("the unit of {service} is known by its cgroup only: {why}");
        }
        let mut units = connected.units;
        let next = async |units: &mut Option<Units>| match units {
            Some(units) => units.next().await,
            None => std::future::pending().await,
        };
        loop {
            tokio::select! {
                event = next(&mut units) => engine.tell(event).await,
                changed = configs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = configs.borrow().clone();
                    if declared(&now) != declared(&config) {
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(not(feature = "systemd"))]
pub(super) async fn follow(_: Handle, _: watch::Receiver<Arc<Config>>) {}
