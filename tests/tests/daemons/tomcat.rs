//! Tomcat with its own scripts: `startup.sh`, and `shutdown.sh`, which runs a second Java with the same arguments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use probe_tests::{Proc, free_port, kill, until};

use crate::site::{Site, background, tool, until_reaped, until_tcp};

const CREATE: &str = "/usr/bin/tomcat10-instance-create";
const JAVA: &str = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";

struct Tomcat {
    site: Site,
    base: PathBuf,
    pid_file: PathBuf,
    port: u16,
}

impl Tomcat {
    fn new() -> Option<Self> {
        let mut site = Site::new("tomcat", &[CREATE, JAVA])?;
        let base = site.sandbox.path("tomcat10");
        let argument = |base: &str| format!("-Djava.util.logging.config.file={base}/conf/logging.properties");
        let (theirs, ours) = (
            argument("/var/lib/tomcat10"),
            argument(&base.display().to_string()),
        );
        site.replace(&theirs, &ours);
        let (pid_file, port) = (site.path("/run/tomcat10/tomcat.pid"), site.port("tcp:8080"));
        let control = free_port().to_string();
        tool(
            Command::new(CREATE)
                .args(["-p", &port.to_string(), "-c", &control])
                .arg(&base),
        );
        let server = base.join("conf/server.xml");
        let text = fs::read_to_string(&server).expect("its configuration");
        let connector = format!("<Connector port=\"{port}\"");
        assert!(text.contains(&connector), "{text}");
        let local = format!("{connector} address=\"127.0.0.1\"");
        fs::write(&server, text.replace(&connector, &local)).expect("its configuration");
        Some(Self {
            site,
            base,
            pid_file,
            port,
        })
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.base.join("bin").join(name));
        command
            .env("CATALINA_PID", &self.pid_file)
            .env(
                "JAVA_HOME",
                Path::new(JAVA).ancestors().nth(2).expect("three names"),
            )
            .env("JAVA_OPTS", "-Xmx64m -XX:TieredStopAtLevel=1 -Xshare:auto");
        command
    }

    fn start(&self) -> Proc {
        // Debian's scripts give up silently over the one that their own stop leaves behind.
        let _ = fs::remove_file(&self.pid_file);
        let running = background(&mut self.script("startup.sh"), &self.pid_file);
        until_tcp(self.port);
        running
    }
}

#[test]
fn start_thread_dump_shutdown_by_command_and_restart_give_no_finding() {
    let Some(tomcat) = Tomcat::new() else { return };
    let first = tomcat.start();
    let watch = tomcat.site.watch();

    kill("QUIT", first.pid());
    let log = tomcat.base.join("logs/catalina.out");
    until("it has printed its threads", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("Full thread dump"))
    });
    tool(&mut tomcat.script("shutdown.sh"));
    until_reaped(&first);
    let second = tomcat.start();
    kill("TERM", second.pid());
    second.wait_gone();

    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_killed_java_leaves_its_pid_file() {
    let Some(tomcat) = Tomcat::new() else { return };
    let running = tomcat.start();
    let watch = tomcat.site.watch();

    let killer = kill("KILL", running.pid());

    watch.expect("crashed", "tomcat").by(killer).says(running.pid());
    watch.expect_exactly(&["crashed", "not-running", "stale-pid-file"].map(|kind| (kind, "tomcat")));
    watch.stop();
}
