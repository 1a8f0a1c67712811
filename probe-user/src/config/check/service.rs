//! One service, by itself.

use super::Check;
use crate::{
    config::{Heartbeat, Service},
    signal::Signal,
};

pub(super) fn check(c: &mut Check, s: &Service, complete: bool) {
    if s.name.is_empty()
        || s.name.starts_with('-')
        || s.name.contains(|ch: char| ch == '/' || ch.is_control())
    {
        c.key(
            "name",
            format!(
                "{:?} is no name: it must not be empty, begin with `-`, or contain `/`",
                s.name
            ),
        );
    }
    if complete && !s.has_selector() && s.pid_file.is_none() && s.listen.is_empty() {
        c.here(format!(
            "service {:?} declares nothing to recognise it by; give it `listen`, `pid_file`, `exe` or `unit`",
            s.name
        ));
    }
    if complete && s.user.is_some() && s.unit.is_none() {
        c.key(
            "user",
            "`user` says whose `unit` is meant, and there is no `unit`",
        );
    }
    c.absolute("exe", s.exe.as_deref());
    c.absolute("pid_file", s.pid_file.as_deref());
    if s.max_instances == 0 {
        c.key(
            "max_instances",
            "`max_instances` must be at least 1; a service that need not run has `expected = false`",
        );
    }
    if s.singleton && s.max_instances > 1 {
        c.key(
            "singleton",
            format!("`singleton` means `max_instances = 1`, not {}", s.max_instances),
        );
    }
    for (key, d) in [
        ("overlap", s.overlap),
        ("ready_within", s.ready_within),
        ("accept_within", s.accept_within),
        ("signal_within", s.signal_within),
        ("stop_within", s.stop_within),
        ("relisten_within", s.relisten_within),
    ] {
        c.duration(key, d);
    }
    c.within("signals", |c| {
        c.each("handled", &s.signals.handled, |c, signal| {
            if [Signal::KILL, Signal::STOP].contains(signal) {
                c.here(format!("no process can handle SIG{signal}"));
            }
        });
    });
    if let Some(h) = &s.heartbeat {
        c.within("heartbeat", |c| heartbeat(c, h, complete));
    }
    c.within("crash_loop", |c| {
        c.duration("window", s.crash_loop.window);
        if s.crash_loop.restarts == 0 {
            c.key("restarts", "`restarts` must be at least 1");
        }
    });
    if let Some(heal) = &s.heal {
        c.within("heal", |c| {
            c.program("restart", heal.restart.as_ref());
            if heal.give_up_after == Some(0) {
                c.key(
                    "give_up_after",
                    "`give_up_after` must be at least 1; leave it out for never",
                );
            }
        });
    }
}

fn heartbeat(c: &mut Check, h: &Heartbeat, complete: bool) {
    let ways = [
        ("file", h.file.is_some()),
        ("notify", h.notify.is_some()),
        ("connect", h.connect.is_some()),
        ("log", h.log.is_some()),
        ("journal", h.journal.is_some()),
    ];
    let mut given = ways.iter().filter(|(_, given)| *given).map(|(way, _)| *way);
    match (given.next(), given.next()) {
        (None, _) if complete => {
            c.here("a heartbeat needs one of `file`, `notify`, `connect`, `log`, `journal`")
        }
        (Some(one), Some(two)) => c.key(
            two,
            format!("a heartbeat has one way, this has `{one}` and `{two}`"),
        ),
        _ => {}
    }
    c.absolute("file", h.file.as_deref());
    c.absolute("log", h.log.as_deref());
    c.duration("stale_after", h.stale_after);
    for (key, d) in [("every", h.every), ("timeout", h.timeout)] {
        if let Some(d) = d {
            c.duration(key, d.0);
        }
    }
    if h.notify == Some(false) {
        c.key(
            "notify",
            "`notify = false` is no heartbeat; leave `heartbeat` out",
        );
    }
    let only_with = [
        ("send", h.send.is_some(), "connect", h.connect.is_some()),
        ("expect", h.expect.is_some(), "connect", h.connect.is_some()),
        ("every", h.every.is_some(), "connect", h.connect.is_some()),
        ("timeout", h.timeout.is_some(), "connect", h.connect.is_some()),
        ("contains", h.contains.is_some(), "log", h.log.is_some()),
    ];
    for (key, _, other, _) in only_with
        .iter()
        .filter(|(_, given, _, other)| complete && *given && !other)
    {
        c.key(key, format!("`{key}` belongs to `{other}`, which is not there"));
    }
}
