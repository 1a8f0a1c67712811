//! Texts and tables.

use std::path::PathBuf;

use crate::{
    clock::Nanos,
    config::{Config, load},
    engine::Engine,
    event::PidFileContent,
    kernel::btf::Btf,
    report, run, sources,
};

/// Longer ones only take longer.
const TEXT: usize = 64 * 1024;

pub(super) fn pid_file(bytes: &[u8]) {
    match sources::pid_file::parse(bytes) {
        PidFileContent::Pid(pid) => {
            assert!((1..=1 << 22).contains(&pid), "{pid} is no pid");
            // Whoever wrote it meant this number, in whatever way it was written.
            let text = String::from_utf8_lossy(bytes);
            assert!(
                text.contains(&pid.to_string()),
                "{pid} does not stand in {text:?}"
            );
        }
        PidFileContent::Garbage(shown) => assert!(shown.chars().count() <= 40),
        _ => {}
    }
}

pub(super) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.len() > TEXT {
        return;
    }
    let (config, problems) = load::parse(&[(PathBuf::from("probe.toml"), text.to_owned())], true);
    for problem in &problems {
        let shown = report::plain(&problem.to_string());
        assert!(!shown.chars().any(char::is_control) && !shown.is_empty());
    }
    if !problems.is_empty() {
        return;
    }
    // As the header of a recording keeps it.
    let json = serde_json::to_string(&config).unwrap_or_default();
    let again = serde_json::from_str::<Config>(&json);
    assert!(
        again.as_ref().is_ok_and(|again| *again == config),
        "a recording would read another configuration: {json}, {again:?}"
    );
    let mut engine = Engine::new(config, &Default::default());
    _ = engine.apply(super::trace::begin(), Nanos(1_000_000_000));
    _ = engine.deadline();
}

pub(super) fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for path in ["a", "b", "c|a", "next.next.a", "inner.b"] {
        if let Some(member) = btf.member("outer", path) {
            _ = btf.is_array(member);
        }
    }
    _ = btf.struct_size("outer");
    _ = btf.function("f");
    _ = btf.tracepoint_takes_pointer("t");
}

pub(super) fn netlink(bytes: &[u8]) {
    let (unix, inet) = sources::sock_diag::answer(bytes);
    for socket in unix {
        if let sources::sock_diag::UnixName::Abstract(name) = socket.name {
            assert!(!name.chars().any(char::is_control), "{name:?}");
        }
    }
    // Each is of some family and thus of some length: no more than fit can be told.
    assert!(inet.len() <= bytes.len() / 72 * 2);
}

pub(super) fn proc(bytes: &[u8]) {
    use sources::{path, process, process_state};

    if let Some(stat) = process::Stat::parse(bytes) {
        assert!(stat.comm.len() <= 3 * bytes.len());
    }
    let argv = process::split_argv(bytes);
    assert!(argv.iter().map(String::len).sum::<usize>() <= 3 * process::ARGV_BYTES);
    process_state::read_text(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Some(unit) = process::cgroup_path(&text).and_then(process::unit_of_cgroup) {
        assert!(!unit.contains('/'), "{unit:?}");
    }
    for line in text.lines() {
        _ = path::mount_line(line);
    }
}

pub(super) fn notify(bytes: &[u8]) {
    for (line, word) in run::notify::read(bytes) {
        assert!(!line.contains('\n'), "two lines in one: {line:?}");
        // The main process is probe, whatever the child says.
        assert!(!line.starts_with("MAINPID"), "{line:?}");
        assert!(word != run::notify::Word::Ready || line == "READY=1");
    }
}

pub(super) fn journal(bytes: &[u8]) {
    let now = Nanos(1 << 60);
    let at = sources::heartbeat::read_journal_entry(bytes, "alive", now);
    assert!(at.is_none_or(|at| at <= now), "a beat of the future: {at:?}");
}
