//! A stream that tells when what was written to it has been taken by the kernel, to the last byte.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::Notify,
};

pub(super) struct Sent {
    stream: UnixStream,
    /// Something was written since the last flush.
    pending: bool,
    written: Arc<Notify>,
}

/// Whether the question is on its way.
pub(super) struct Written(Arc<Notify>);

impl Written {
    /// Returns once for each question that was written whole.
    pub(super) async fn wait(&mut self) {
        self.0.notified().await;
    }
}

impl Sent {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            pending: false,
            written: Arc::default(),
        }
    }

    pub(super) fn written(&self) -> Written {
        Written(Arc::clone(&self.written))
    }
}

impl AsyncRead for Sent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// hyper flushes the stream once its own buffer is empty, and not before.
impl AsyncWrite for Sent {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pending = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() && std::mem::take(&mut self.pending) {
            self.written.notify_one();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
