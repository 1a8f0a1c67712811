//! PostgreSQL with its own tool `pg_ctl`: a PID file of several lines, a socket with a lock file, three ways to stop, and
//! recovery after a crash.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::Command,
};

use probe_tests::{Proc, children, kill, until};

use crate::site::{Site, is_alive, named, tool, until_reaped, until_unix, user};

const BIN: &str = "/usr/lib/postgresql/15/bin";

struct Postgres {
    site: Site,
    exe: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    pid_file: PathBuf,
    owner: (u32, u32),
}

impl Postgres {
    fn new() -> Option<Self> {
        let programs = ["postgres", "initdb", "pg_ctl"].map(|p| format!("{BIN}/{p}"));
        let mut site = Site::new("postgresql", &programs.each_ref().map(String::as_str))?;
        let exe = site.exe(&format!("{BIN}/postgres"));
        let port = site.port("tcp:127.0.0.1:5432");
        let data = site.sandbox.path("main");
        let pid_file = data.join("postmaster.pid");
        site.replace(
            "/var/lib/postgresql/15/main/postmaster.pid",
            &pid_file.display().to_string(),
        );
        let socket = site.sandbox.path(&format!(".s.PGSQL.{port}"));
        site.replace("/run/postgresql/.s.PGSQL.5432", &socket.display().to_string());
        let postgres = Self {
            owner: user("postgres"),
            site,
            exe,
            data,
            socket,
            pid_file,
        };
        fs::create_dir(&postgres.data).expect("the data directory");
        chown(&postgres.data, Some(postgres.owner.0), Some(postgres.owner.1)).expect("its owner");
        tool(
            postgres
                .command("initdb")
                .args(["--no-sync", "-A", "trust", "-D"])
                .arg(&postgres.data),
        );
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n",
            postgres.site.dir().display()
        );
        let file = postgres.data.join("postgresql.auto.conf");
        fs::write(file, settings).expect("its settings");
        Some(postgres)
    }

    /// A tool, run by the owner of the data: root is refused.
    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(format!("{BIN}/{tool}"));
        command
            .uid(self.owner.0)
            .gid(self.owner.1)
            .current_dir(self.site.dir());
        command
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        let mut command = self.command("pg_ctl");
        command
            .arg("-D")
            .arg(&self.data)
            .arg("-p")
            .arg(&self.exe)
            .arg("-w")
            .args(arguments);
        tool(&mut command);
    }

    fn start(&self) -> Proc {
        let log = self.site.sandbox.path("main/log").display().to_string();
        self.pg_ctl(&["start", "-l", &log]);
        until_unix(&self.socket);
        named(&self.pid_file)
    }
}

#[test]
fn start_reload_three_kinds_of_stop_and_restart_give_no_finding() {
    let Some(postgres) = Postgres::new() else { return };
    let mut running = postgres.start();
    let watch = postgres.site.watch();

    postgres.pg_ctl(&["reload"]);
    for mode in ["smart", "fast", "immediate"] {
        postgres.pg_ctl(&["stop", "-m", mode]);
        running.wait_gone();
        running = postgres.start();
    }
    postgres.pg_ctl(&["restart"]);
    running.wait_gone();
    let last = named(&postgres.pid_file);

    watch.expect_nothing();
    watch.stop();
    drop(last);
}

#[test]
fn a_killed_backend_is_recovered_from_and_is_no_crash() {
    let Some(postgres) = Postgres::new() else { return };
    let postmaster = postgres.start();
    let watch = postgres.site.watch();

    let before = children(postmaster.pid());
    kill("KILL", before[0]);
    until("it has started all of its processes anew", || {
        let now = children(postmaster.pid());
        now.len() >= before.len() && now.iter().all(|c| !before.contains(c))
    });

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_crash_leaves_everything_stale_and_the_recovery_clears_it() {
    let Some(postgres) = Postgres::new() else { return };
    let postmaster = postgres.start();
    let watch = postgres.site.watch();

    let helpers = children(postmaster.pid());
    let killer = kill("KILL", postmaster.pid());
    // As long as one of them lives the next start is refused.
    until_reaped(&postmaster);
    until("its helpers have ended", || !helpers.iter().any(|h| is_alive(*h)));
    watch
        .expect("crashed", "postgresql")
        .by(killer)
        .says(postmaster.pid());
    let stale = ["not-running", "stale-pid-file", "stale-socket"];
    for kind in stale {
        watch.expect(kind, "postgresql");
    }
    let next = postgres.start();
    for kind in stale {
        watch.expect_resolved(kind, "postgresql");
    }

    watch.expect_exactly(
        &["crashed", "not-running", "stale-pid-file", "stale-socket"].map(|k| (k, "postgresql")),
    );
    watch.stop();
    drop(next);
}
