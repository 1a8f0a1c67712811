//! What is told to the service manager that started probe (systemd's `Type=notify`).

use std::{
    ffi::OsStr,
    io,
    os::{linux::net::SocketAddrExt, unix::net},
    time::Duration,
};

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
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let text: String = states.iter().map(|s| format!("{s}\n")).collect();
    match tokio::time::timeout(TELL_WITHIN, send(&address, text.as_bytes())).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!("the service manager cannot be told: {e}"),
        Err(_) => tracing::warn!("the service manager has not listened within {TELL_WITHIN:?}"),
    }
}

/// Waits for room in the service manager's queue, and holds nothing any more once nobody waits for this: a thread that waits in
/// the kernel would be one more each time.
async fn send(address: &OsStr, message: &[u8]) -> io::Result<()> {
    let socket = net::UnixDatagram::unbound()?;
    match address.as_encoded_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&net::SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    socket.set_nonblocking(true)?;
    tokio::net::UnixDatagram::from_std(socket)?.send(message).await?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::testing::TempDir;

    #[tokio::test]
    async fn one_that_does_not_listen_is_left_alone_and_told_when_it_does() {
        let dir = TempDir::new("service-manager");
        let path = dir.path().join("notify");
        let manager = net::UnixDatagram::bind(&path).unwrap();
        let mut sent = 0;
        let short = Duration::from_millis(50);
        while let Ok(outcome) = tokio::time::timeout(short, send(path.as_os_str(), b"x")).await {
            outcome.unwrap();
            sent += 1;
        }
        assert!(sent > 0);
        for _ in 0..5 {
            let outcome = tokio::time::timeout(short, send(path.as_os_str(), b"x")).await;
            assert!(outcome.is_err(), "its queue is full");
        }
        let last = async {
            tokio::join!(send(path.as_os_str(), b"last"), async {
                let mut buffer = [0; 8];
                for _ in 0..sent {
                    manager.recv(&mut buffer).unwrap();
                }
            })
        };
        last.await.0.unwrap();
        // Those that were given up are not sent later.
        let mut buffer = [0; 8];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"last");
    }

    #[tokio::test]
    async fn an_abstract_name_is_one() {
        let name = format!("probe-test-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let manager = net::UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), b"READY=1\n").await.unwrap();
        let mut buffer = [0; 16];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1\n");
    }
}
