//! What is told to the service manager that started probe (systemd's `Type=notify`).

use std::time::Duration;

use sd_notify::NotifyState;

use super::engine::Handle;

/// The service manager's queue can be full, and then it is waited for.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// Everything works: the first snapshot is joined.
pub(super) async fn ready(status: &str) {
    tell(vec![
        NotifyState::Ready,
        NotifyState::Custom(&format!("STATUS={status}")),
    ])
    .await;
}

/// The configuration is being read anew; [`ready`] ends it.
pub(super) async fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(stamp) => tell(vec![NotifyState::Reloading, stamp]).await,
        Err(e) => tracing::warn!("the service manager is not told of the reload: {e}"),
    }
}

pub(super) async fn stopping() {
    tell(vec![NotifyState::Stopping]).await;
}

async fn tell(states: Vec<NotifyState<'_>>) {
    // Without a service manager there is nobody to tell.
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let text: Vec<String> = states.iter().map(ToString::to_string).collect();
    let told = tokio::task::spawn_blocking(move || {
        let states: Vec<NotifyState<'_>> = text.iter().map(|t| NotifyState::Custom(t)).collect();
        sd_notify::notify(&states)
    });
    match tokio::time::timeout(TELL_WITHIN, told).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(e))) => tracing::warn!("the service manager cannot be told: {e}"),
        Ok(Err(e)) => tracing::warn!("the service manager cannot be told: {e}"),
        Err(_) => tracing::warn!("the service manager has not listened within {TELL_WITHIN:?}"),
    }
}

/// Tells the service manager's watchdog that probe lives, at a third of its interval, and only when the engine has
/// answered since the last time. Ends at once where there is no watchdog.
pub(super) async fn watchdog(engine: Handle) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    let pause = (interval / 3).max(Duration::from_millis(1));
    tracing::debug!("the watchdog is told every {pause:?} while the engine answers");
    loop {
        match engine.ping(pause).await {
            Ok(()) => tell(vec![NotifyState::Watchdog]).await,
            Err(e) => tracing::error!("the watchdog is not told that probe lives: {e}"),
        }
        tokio::time::sleep(pause).await;
    }
}
