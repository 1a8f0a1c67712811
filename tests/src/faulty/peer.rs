//! Somebody whom the daemon depends on, over TCP.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result};

/// The connection, once there is one.
#[derive(Debug, Default)]
pub(super) struct Peer(Option<TcpStream>);

impl Peer {
    pub(super) fn connect(&mut self, address: &str) -> Result<()> {
        let ip = address.strip_prefix("tcp:").context("expected tcp:IP:PORT")?;
        self.0 = Some(TcpStream::connect(ip).with_context(|| format!("connect to {ip}"))?);
        Ok(())
    }

    /// Sends a question and waits for the answer, for ever.
    pub(super) fn ask(&mut self) -> Result<()> {
        let stream = self.0.as_mut().context("not connected")?;
        stream.write_all(b"is anybody there?")?;
        stream.read_exact(&mut [0])?;
        Ok(())
    }
}
