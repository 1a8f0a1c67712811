//! Dovecot with its own tools: `doveadm reload`, `doveadm stop`.

use std::{fs, path::PathBuf, process::Command};

use probe_tests::Proc;

use crate::site::{Site, background, tool, until_tcp, until_unix};

struct Dovecot {
    site: Site,
    exe: PathBuf,
    pid_file: PathBuf,
    auth: PathBuf,
    config: PathBuf,
    port: u16,
}

impl Dovecot {
    fn new() -> Option<Self> {
        let mut site = Site::new(
            "dovecot",
            &[
                "/usr/sbin/dovecot",
                "/usr/bin/doveadm",
                "/usr/lib/dovecot/imap-login",
            ],
        )?;
        let (exe, port) = (site.exe("/usr/sbin/dovecot"), site.port("tcp:143"));
        let run = site.sandbox.path("run");
        let at = |name: &str| run.join(name);
        for name in ["master.pid", "auth-client", "anvil"] {
            site.replace(&format!("/run/dovecot/{name}"), &at(name).display().to_string());
        }
        let dir = site.dir().display();
        let text = format!(
            "base_dir = {}\nstate_dir = {dir}/state\nlog_path = {dir}/dovecot.log\nprotocols = imap\nlisten = 127.0.0.1\nssl = no\n\
             mail_location = maildir:{dir}/mail\nservice imap-login {{\n  inet_listener imap {{\n    port = {port}\n  }}\n\
             \x20 inet_listener imaps {{\n    port = 0\n  }}\n}}\npassdb {{\n  driver = static\n  args = password=secret\n}}\n\
             userdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={dir}/mail\n}}\n",
            run.display()
        );
        let config = site.write("dovecot.conf", &text);
        fs::create_dir(site.sandbox.path("state")).expect("its state directory");
        Some(Self {
            pid_file: at("master.pid"),
            auth: at("auth-client"),
            site,
            exe,
            config,
            port,
        })
    }

    fn start(&self) -> Proc {
        let master = background(
            Command::new(&self.exe).arg("-c").arg(&self.config),
            &self.pid_file,
        );
        self.until_ready();
        master
    }

    fn until_ready(&self) {
        until_tcp(self.port);
        until_unix(&self.auth);
    }

    fn doveadm(&self, what: &str) {
        tool(
            Command::new("/usr/bin/doveadm")
                .arg("-c")
                .arg(&self.config)
                .arg(what),
        );
    }
}

#[test]
fn start_reload_stop_and_restart_give_no_finding() {
    let Some(dovecot) = Dovecot::new() else { return };
    let first = dovecot.start();
    let watch = dovecot.site.watch();

    dovecot.doveadm("reload");
    dovecot.until_ready();
    dovecot.doveadm("stop");
    first.wait_gone();
    let second = dovecot.start();

    watch.expect_nothing();
    dovecot.doveadm("stop");
    second.wait_gone();
    watch.expect_nothing();
    watch.stop();
}

#[test]
fn a_removed_socket_of_one_process_of_many_orphans_it() {
    let Some(dovecot) = Dovecot::new() else { return };
    let master = dovecot.start();
    let watch = dovecot.site.watch();

    tool(Command::new("rm").arg(&dovecot.auth));

    watch
        .expect("orphaned-listener", "dovecot")
        .says(dovecot.auth.display());
    watch.expect_exactly(&[("orphaned-listener", "dovecot")]);
    watch.stop();
    dovecot.doveadm("stop");
    master.wait_gone();
}
