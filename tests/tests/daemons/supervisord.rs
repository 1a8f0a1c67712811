//! supervisord as the parent of a daemon, with its own tool `supervisorctl`.

use std::{path::PathBuf, process::Command};

use probe_tests::{Proc, children, kill, until};

use crate::{
    memcached,
    site::{Site, background, tool, until_tcp, until_unix},
};

struct Supervisord {
    site: Site,
    exe: PathBuf,
    script: PathBuf,
    pid_file: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Supervisord {
    fn new() -> Option<Self> {
        let programs = [
            "/usr/bin/python3",
            "/usr/bin/supervisord",
            "/usr/bin/supervisorctl",
            memcached::EXE,
        ];
        let mut site = Site::new("supervisord", &programs)?;
        let (exe, script) = (site.exe("/usr/bin/python3"), site.exe("/usr/bin/supervisord"));
        let (program, port) = (site.exe(memcached::EXE), site.port("tcp:127.0.0.1:11211"));
        let (pid_file, socket) = (
            site.path("/run/supervisord.pid"),
            site.path("/run/supervisor.sock"),
        );
        let text = format!(
            "[unix_http_server]\nfile={socket}\n[supervisord]\npidfile={}\nlogfile={dir}/supervisord.log\nchildlogdir={dir}\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl=unix://{socket}\n\
             [program:memcached]\ncommand={} -u memcache -l 127.0.0.1 -p {port}\n",
            pid_file.display(),
            program.display(),
            socket = socket.display(),
            dir = site.dir().display()
        );
        let config = site.write("supervisord.conf", &text);
        Some(Self {
            site,
            exe,
            script,
            pid_file,
            socket,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let mut command = Command::new(&self.exe);
        command.arg(&self.script).arg("-c").arg(&self.config);
        let running = background(&mut command, &self.pid_file);
        until_unix(&self.socket);
        self.until_started();
        running
    }

    fn until_started(&self) {
        until_tcp(self.port);
        until("the program is called running", || {
            self.says(&["status"]).contains("RUNNING")
        });
    }

    fn says(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("/usr/bin/supervisorctl");
        command.arg("-c").arg(&self.config).args(arguments);
        probe_tests::run(&mut command).stdout
    }

    fn ctl(&self, arguments: &[&str]) {
        tool(
            Command::new("/usr/bin/supervisorctl")
                .arg("-c")
                .arg(&self.config)
                .args(arguments),
        );
    }
}

#[test]
fn start_restart_of_the_program_reload_shutdown_and_start_give_no_finding() {
    let Some(supervisord) = Supervisord::new() else {
        return;
    };
    let first = supervisord.start();
    let watch = supervisord.site.watch();

    supervisord.ctl(&["restart", "memcached"]);
    supervisord.until_started();
    let before = children(first.pid());
    supervisord.ctl(&["reload"]);
    until("it has started the program anew", || {
        let now = children(first.pid());
        now.len() == 1 && now != before
    });
    until_unix(&supervisord.socket);
    supervisord.until_started();
    supervisord.ctl(&["shutdown"]);
    first.wait_gone();
    let second = supervisord.start();

    watch.expect_nothing();
    kill("TERM", second.pid());
    second.wait_gone();
    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_crash_of_the_program_is_the_program_s_alone_and_ends_with_its_next_start() {
    let Some(supervisord) = Supervisord::new() else {
        return;
    };
    let running = supervisord.start();
    let watch = supervisord.site.watch();

    let program = children(running.pid())[0];
    let killer = kill("KILL", program);

    watch.expect("crashed", "memcached").by(killer).says(program);
    watch.expect_resolved("crashed", "memcached");
    watch.expect_exactly(&[("crashed", "memcached"), ("not-running", "memcached")]);
    watch.stop();
    supervisord.ctl(&["shutdown"]);
    running.wait_gone();
}
