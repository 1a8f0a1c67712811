//! What the daemon answers, over HTTP on a UNIX socket.

pub mod types;
