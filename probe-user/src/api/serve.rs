//! Takes connections, a bounded number of them, and serves each as a task of its own.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    runtime::{Builder, Runtime},
    sync::{Semaphore, oneshot, watch},
    task::JoinSet,
};

use super::{Api, Listeners, guard::Guard, peer::Peer, routes, socket_file::SocketFile, turn};
use crate::daemon::sandbox;

/// Connections at a time. Each can hold on to some 200 KB of lines that were not yet read.
const CLIENTS: usize = 256;
/// How long a client may take for the head of a question, and rest between two.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const HEADERS: usize = 64;
/// Bytes that are kept for one connection in each direction.
const BUFFER: usize = 64 * 1024;
/// Threads that looks leave behind end after this time.
const KEEP_THREADS: Duration = Duration::from_secs(1);
/// After the process has run out of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
content-length: 65\r\n\r\n{\"v\":1,\"error\":\"too many clients are connected: ask again later\"}";

/// The API, being served in a thread of its own: whoever follows the stream is told at once, whatever else the daemon does.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Begins to serve. `realtime`: the thread has a real-time priority while it hands out lines.
    ///
    /// # Errors
    /// If the sockets cannot be waited on, or there is no thread to be had.
    pub fn start(api: Api, listeners: Listeners, realtime: bool) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (tell_begun, begun) = mpsc::channel();
        let (tell_ended, ended) = oneshot::channel();
        thread::Builder::new().name("probe-api".into()).spawn(move || {
            let serving = || -> io::Result<Runtime> {
                Builder::new_current_thread()
                    .enable_all()
                    .thread_name("probe-blocking")
                    .thread_keep_alive(KEEP_THREADS)
                    .on_thread_park(turn::rest)
                    .on_thread_unpark(turn::begin)
                    .build()
            };
            let tokio = match serving() {
                Ok(tokio) => tokio,
                Err(e) => {
                    _ = tell_begun.send(Err(e));
                    return;
                }
            };
            tokio.block_on(async {
                match accept(api, listeners, stopped) {
                    Ok((tasks, _listeners)) => {
                        if realtime {
                            turn::prefer_this_thread();
                        }
                        sandbox::reduce_this_thread();
                        _ = tell_begun.send(Ok(()));
                        tasks.join_all().await;
                    }
                    Err(e) => _ = tell_begun.send(Err(e)),
                }
            });
            // A look that has not come to its end is left to it.
            tokio.shutdown_background();
            _ = tell_ended.send(());
        })?;
        begun
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(Self { stop, ended })
    }

    /// Takes no more connections, lets each finish its answer, and waits until all have ended or `limit` is over.
    /// `false`: some had not.
    pub async fn stop(self, limit: Duration) -> bool {
        self.stop.send_replace(true);
        tokio::time::timeout(limit, self.ended).await.is_ok()
    }
}

/// Takes connections, until it is told to stop. The rest of the listeners is to be kept for as long.
fn accept(
    api: Api,
    mut listeners: Listeners,
    stopped: watch::Receiver<bool>,
) -> io::Result<(JoinSet<()>, Listeners)> {
    let router = routes::router(
        api,
        Guard {
            group: listeners.group,
        },
    );
    let clients = Arc::new(Semaphore::new(CLIENTS));
    let mut tasks = JoinSet::new();
    let accepting = |router: &Router| Accepting {
        router: router.clone(),
        clients: Arc::clone(&clients),
        stopped: stopped.clone(),
    };
    if let Some(unix) = listeners.unix.take() {
        unix.set_nonblocking(true)?;
        let unix = UnixListener::from_std(unix)?;
        let file = listeners
            .take_own()
            .map(|own| SocketFile::new(own, listeners.group));
        tasks.spawn(accepting(&router).unix(unix, file));
    }
    if let Some(tcp) = listeners.tcp.take() {
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        tasks.spawn(accepting(&router).tcp(tcp));
    }
    Ok((tasks, listeners))
}

struct Accepting {
    router: Router,
    clients: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Accepting {
    /// `file`: the listener's, where it is ours and not the service manager's.
    async fn unix(self, mut listener: UnixListener, mut file: Option<SocketFile>) {
        let mut connections = JoinSet::new();
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                () = told(&mut stopped) => break,
                Some(_) = connections.join_next() => {}
                again = made_again(&mut file) => match UnixListener::from_std(again) {
                    Ok(again) => listener = again,
                    Err(e) => tracing::error!("nobody can connect any more: {e}"),
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => match Peer::of(&stream) {
                        Ok(peer) => self.serve(&mut connections, stream, peer),
                        Err(e) => tracing::warn!("a connection is dropped, nobody knows whose it is: {e}"),
                    },
                    Err(e) => rest(&e).await,
                },
            }
        }
        drop(listener);
        drop(file);
        while connections.join_next().await.is_some() {}
    }

    async fn tcp(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                () = told(&mut stopped) => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => self.serve(&mut connections, stream, Peer::Tcp(address)),
                    Err(e) => rest(&e).await,
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn serve<S>(&self, connections: &mut JoinSet<()>, mut stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.clients).try_acquire_owned() else {
            tracing::warn!("{peer} is turned away: {CLIENTS} clients are connected");
            connections.spawn(async move {
                // Whoever does not read it is not waited for.
                _ = tokio::time::timeout(PAUSE, stream.write_all(FULL)).await;
            });
            return;
        };
        let router = self.router.clone();
        let mut stopped = self.stopped.clone();
        connections.spawn(async move {
            let connection = connection(router, stream, peer);
            tokio::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = told(&mut stopped) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(e) = result {
                tracing::debug!("a connection ended: {e}");
            }
            drop(permit);
        });
    }
}

async fn made_again(file: &mut Option<SocketFile>) -> std::os::unix::net::UnixListener {
    match file {
        Some(file) => file.made_again().await,
        None => std::future::pending().await,
    }
}

/// One connection, to be awaited until its end.
pub(super) fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    router: Router,
    stream: S,
    peer: Peer,
) -> http1::Connection<TokioIo<S>, impl HttpService<Incoming, ResBody = Body, Future: Send>> {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        // Questions are answered with an ordinary priority, whatever they cost.
        turn::demote();
        request.extensions_mut().insert(peer.clone());
        hyper::service::Service::call(&service, request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // Whoever could tell is gone: that is an end, too.
    _ = stop.wait_for(|stop| *stop).await;
}

/// The client has gone again, or there are no descriptors left: nothing tells when there are some again.
async fn rest(e: &io::Error) {
    tracing::warn!("a connection cannot be taken: {e}");
    if !matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_too_many_is_as_long_as_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
