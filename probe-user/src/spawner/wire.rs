//! What daemon and spawner say to each other: JSON behind its length.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::hooks::exec::Run;

/// Far more than a finding with its evidence takes.
const MOST: usize = 4 << 20;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// To its end; what came of it is answered.
    Run {
        /// Programs of one runner are run one at a time, as [`crate::hooks::exec::Runner`] has it.
        runner: u64,
        run: Run,
    },
    /// What it writes goes into the socket, until either side closes that.
    Follow { argv: Vec<String> },
}

pub(super) fn framed(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len())
        .ok()
        .filter(|l| *l as usize <= MOST)
        .ok_or_else(|| io::Error::other(format!("a message of {} bytes, more than {MOST}", text.len())))?;
    Ok([&length.to_le_bytes()[..], &text].concat())
}

pub(super) async fn send(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    stream.write_all(&framed(what)?).await
}

pub(super) async fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let length = stream.read_u32_le().await? as usize;
    if length > MOST {
        return Err(io::Error::other(format!(
            "a message of {length} bytes, more than {MOST}"
        )));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}
