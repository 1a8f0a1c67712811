//! The answer of `probe who`, for people.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    escape,
    look::{self, DIM, GREEN, Look, RED, YELLOW},
};
use crate::{
    clock::Nanos,
    who::{Answer, Holder, Socket, SocketState, State},
};

/// Writes some lines, the first of which says it all.
///
/// # Errors
/// None on a vector.
pub fn who(out: &mut Vec<u8>, look: &Look, answer: &Answer) -> io::Result<()> {
    escape::text(out, &answer.address.to_string())?;
    out.extend_from_slice(b": ");
    look.painted(out, color(answer.state), word(answer.state));
    out.extend_from_slice(b": ");
    escape::text(out, &answer.summary)?;
    out.push(b'\n');
    if let Some(path) = &answer.path {
        if let Some(target) = &path.links_to {
            out.extend_from_slice(b"  link to ");
            escape::text(out, target)?;
            out.push(b'\n');
        }
        if let Some(file) = path.file {
            write!(out, "  file {}, a socket", number(file))?;
            let made = path.made_boot_ns.map(|at| Nanos(answer.boot_ns).since(Nanos(at)));
            if let Some(age) = made {
                write!(out, ", made {} ago", look::span(age))?;
            }
            out.push(b'\n');
        }
    }
    for s in &answer.sockets {
        socket(out, look, answer, s)?;
    }
    for what in &answer.cannot_see {
        look.paint(out, YELLOW);
        out.extend_from_slice(b"  not seen: ");
        look.painted(out, YELLOW, what);
        out.push(b'\n');
    }
    Ok(())
}

fn word(state: State) -> &'static str {
    match state {
        State::ShutDown => "shut down",
        State::NotASocket => "not a socket",
        state => state.name(),
    }
}

fn color(state: State) -> &'static str {
    match state {
        State::Live => GREEN,
        State::Stale | State::Orphaned | State::ShutDown | State::NotASocket => RED,
        State::Bound | State::Unknown => YELLOW,
        State::Free => DIM,
    }
}

fn number(file: crate::who::File) -> String {
    format!("{}:{} inode {}", file.dev >> 20, file.dev & 0xf_ffff, file.inode)
}

fn socket(out: &mut Vec<u8>, look: &Look, answer: &Answer, s: &Socket) -> io::Result<()> {
    write!(out, "  socket {} ", s.inode)?;
    let lost = s.reachable == Some(false);
    let (state, code) = match (s.state, lost) {
        (SocketState::Listening, true) => ("listening, orphaned", RED),
        (SocketState::Listening, false) => ("listening", GREEN),
        (SocketState::Bound, _) => ("bound, not listening", YELLOW),
        (SocketState::ShutDown, _) => ("shut down", RED),
    };
    look.painted(out, code, state);
    if let Some(ip) = s.ip {
        write!(out, " on {ip}")?;
    }
    if let (Some(queue), Some(limit)) = (s.queue, s.limit) {
        write!(out, ", queue {queue} of {limit}")?;
    }
    if let (true, Some(file)) = (lost, s.file) {
        write!(
            out,
            ", bound to file {}, which the path does not lead to",
            number(file)
        )?;
    }
    out.push(b'\n');
    for h in &s.holders {
        holder(out, look, Nanos(answer.boot_ns), h)?;
    }
    if s.holders.is_empty() {
        let nobody = if s.holders_complete {
            "    no process: it is on its way between two\n"
        } else {
            "    by processes that could not be seen\n"
        };
        out.extend_from_slice(nobody.as_bytes());
    }
    Ok(())
}

fn holder(out: &mut Vec<u8>, look: &Look, now: Nanos, h: &Holder) -> io::Result<()> {
    out.extend_from_slice(b"    ");
    escape::text(out, &h.describe())?;
    let mut fact = |text: &str| -> io::Result<()> {
        out.extend_from_slice(b"  ");
        escape::text(out, text)
    };
    if let Some(exe) = &h.exe {
        let deleted = if h.exe_deleted { " (deleted)" } else { "" };
        fact(&format!("{exe}{deleted}"))?;
    }
    if let Some(unit) = &h.unit {
        fact(unit)?;
    }
    if let Some(uid) = h.uid {
        fact(&format!("uid {uid}"))?;
    }
    if !h.fds.is_empty() {
        let fds: Vec<String> = h.fds.iter().map(i32::to_string).collect();
        fact(&format!("fd {}", fds.join(",")))?;
    }
    let since = Nanos(h.since_boot_ns);
    let age: Duration = now.since(since);
    out.extend_from_slice(b"  ");
    look.painted(out, DIM, &format!("for {}", look::span(age)));
    out.push(b'\n');
    Ok(())
}
