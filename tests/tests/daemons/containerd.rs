//! containerd: several sockets in a directory of its own.

use std::{fs, path::PathBuf, process::Command};

use probe_tests::{Proc, kill};

use crate::site::{Site, foreground, tool, until_unix};

const EXE: &str = "/usr/bin/containerd";

struct Containerd {
    site: Site,
    exe: PathBuf,
    run: PathBuf,
    config: PathBuf,
}

impl Containerd {
    fn new() -> Option<Self> {
        let mut site = Site::new("containerd", &[EXE, "/usr/bin/ctr"])?;
        let exe = site.exe(EXE);
        let run = site.sandbox.path("run/containerd");
        fs::create_dir_all(&run).expect("its directory");
        for name in ["containerd.sock", "containerd.sock.ttrpc"] {
            site.replace(
                &format!("/run/containerd/{name}"),
                &run.join(name).display().to_string(),
            );
        }
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            site.sandbox.path("root"),
            site.sandbox.path("state"),
            run.join("containerd.sock")
        );
        let config = site.write("config.toml", &text);
        Some(Self {
            site,
            exe,
            run,
            config,
        })
    }

    fn start(&self) -> Proc {
        let running = foreground(
            &self.site.sandbox,
            Command::new(&self.exe).arg("--config").arg(&self.config),
        );
        for name in ["containerd.sock", "containerd.sock.ttrpc"] {
            until_unix(&self.run.join(name));
        }
        tool(
            Command::new("/usr/bin/ctr")
                .arg("-a")
                .arg(self.run.join("containerd.sock"))
                .arg("version"),
        );
        running
    }
}

#[test]
fn start_dump_stop_and_restart_give_no_finding() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let mut running = containerd.start();
    let watch = containerd.site.watch();

    kill("USR1", running.pid());
    for signal in ["TERM", "INT"] {
        kill(signal, running.pid());
        running.wait_gone();
        running = containerd.start();
    }

    watch.expect_nothing();
    watch.stop();
    drop(running);
}

#[test]
fn a_removed_directory_orphans_all_sockets_in_it() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let running = containerd.start();
    let watch = containerd.site.watch();

    tool(Command::new("rm").arg("-r").arg(&containerd.run));

    for name in ["containerd.sock", "containerd.sock.ttrpc"] {
        let subject = format!("unix:{}", containerd.run.join(name).display());
        watch
            .expect_where("orphaned-listener", "containerd", &subject, |f| {
                f.subject == subject
            })
            .says(running.pid());
    }
    watch.expect_exactly(&[("orphaned-listener", "containerd")]);
    watch.stop();
}
