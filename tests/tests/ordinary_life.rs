//! Half an hour of ordinary life on a host in a minute: it must raise no finding.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use probe_tests::{
    Daemon, Deadline, Nginx, Proc, Redis, Sandbox, Watch, faulty_binary, kill, run, run_within, until,
};

/// How often everything happens; each round takes some seconds.
const ROUNDS: u32 = 15;
/// No new round begins after this.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn it_raises_no_finding() {
    let sandbox = Sandbox::new();
    let (nginx, redis) = (Nginx::install(&sandbox), Redis::install(&sandbox));
    let exe = Daemon::install(&sandbox, "annad");
    let package = Package::of(&sandbox, &exe);
    let (socket, pid_file) = (sandbox.path("annad.sock"), sandbox.path("annad.pid"));
    let start = || {
        Daemon::at(&exe)
            .unix(&socket)
            .pid_file(&pid_file)
            .on("TERM=clean")
            .on("HUP=catch")
            .on("USR1=catch")
            .start()
    };
    let (mut master, server, mut annad) = (nginx.start(), redis.start(), start());
    let more = format!(
        "pid_file = {pid_file:?}\nlisten = [\"unix:{}\"]\nsignals = {{ handled = [\"TERM\", \"HUP\", \"USR1\"] }}",
        socket.display()
    );
    let config = format!(
        "{}{}{}",
        nginx.service(
            "overlap = \"1500ms\"\nsignals = { handled = [\"TERM\", \"QUIT\", \"HUP\", \"USR1\", \"USR2\"] }"
        ),
        redis.service(),
        Daemon::service("annad", &exe, &more)
    );
    let watch = Watch::start(&sandbox, &config);

    let end = Deadline::after(LIMIT);
    let mut rounds = 0;
    while rounds < ROUNDS && end.left().is_some() {
        rotate_logs(&sandbox, master.pid(), &mut annad);
        master.reload();
        cron(&sandbox);
        compile(&sandbox);
        forks(&sandbox);
        save(&redis);
        if rounds == 2 {
            replace(&nginx.exe);
            master = nginx.upgrade(master);
        }
        if rounds == 1 {
            apt();
        }
        // A package upgrade: the file is replaced under the running daemon, which is then restarted.
        package.upgrade(rounds);
        annad.kill("TERM");
        annad.wait_gone();
        annad = start();
        rounds += 1;
    }
    println!("{rounds} rounds");

    watch.expect_nothing();
    watch.forget();
    // And each of them is still watched.
    let killer = annad.kill("KILL");
    watch.expect("crashed", "annad").by(killer).says(annad.pid());
    let killer = kill("KILL", server.pid());
    watch.expect("crashed", "redis").by(killer).says(server.pid());
    let killer = kill("KILL", master.pid());
    watch.expect("crashed", "nginx").by(killer).says(master.pid());
    watch.stop();
}

/// As logrotate does it: rename, and tell the daemons to open their logs anew.
fn rotate_logs(sandbox: &Sandbox, nginx: u32, annad: &mut Daemon) {
    let log = sandbox.path("nginx.log");
    fs::rename(&log, log.with_extension("log.1")).expect("rotate");
    kill("USR1", nginx);
    until("nginx has opened its log anew", || log.exists());
    for signal in ["HUP", "USR1"] {
        annad.kill(signal);
        annad.caught(signal);
    }
}

/// As a package manager does it: another inode under the old name.
fn replace(exe: &Path) {
    let new = exe.with_extension("new");
    fs::copy(exe, &new).expect("copy");
    fs::rename(&new, exe).expect("rename");
}

/// A real package with nothing but the daemon in it, in a package database of its own.
struct Package {
    tree: PathBuf,
    database: PathBuf,
    root: PathBuf,
}

impl Package {
    fn of(sandbox: &Sandbox, exe: &Path) -> Self {
        let (tree, database) = (sandbox.path("package"), sandbox.path("dpkg"));
        for dir in [
            tree.join("DEBIAN"),
            database.join("info"),
            database.join("updates"),
        ] {
            fs::create_dir_all(dir).expect("a directory");
        }
        fs::write(database.join("status"), "").expect("an empty database");
        fs::copy(exe, tree.join(exe.file_name().expect("a name"))).expect("the daemon's file");
        Self {
            tree,
            database,
            root: sandbox.dir().to_owned(),
        }
    }

    /// Builds the next version and installs it over the one before.
    fn upgrade(&self, version: u32) {
        let control = format!(
            "Package: annad\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
             Description: a daemon\n"
        );
        fs::write(self.tree.join("DEBIAN/control"), control).expect("its description");
        let deb = self.root.join("annad.deb");
        for command in [
            Command::new("dpkg-deb")
                .args(["-Znone", "--root-owner-group", "--build"])
                .args([&self.tree, &deb]),
            Command::new("dpkg")
                .arg("--admindir")
                .arg(&self.database)
                .arg("--instdir")
                .arg(&self.root)
                .arg("--install")
                .arg(&deb),
        ] {
            let output = run(command);
            assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
        }
    }
}

/// What needs no network and no lock, and changes nothing. It reads the lists of all packages, which takes its time.
fn apt() {
    let output = run_within(
        LIMIT,
        Command::new("apt-get").args(["--simulate", "dist-upgrade"]),
    );
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// A shell that runs short programs.
fn cron(sandbox: &Sandbox) {
    let job = "for n in 1 2 3 4 5; do (ls -l \"$0\" | sort | wc -l) >/dev/null; done; kill -TERM $(sleep 60 >/dev/null & echo $!)";
    let output = run(Command::new("/bin/sh").arg("-c").arg(job).arg(sandbox.dir()));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

fn compile(sandbox: &Sandbox) {
    let source = sandbox.write("hello.c", "int main(void) { return 0; }\n");
    let output = run(Command::new("cc")
        .arg("-o")
        .arg(sandbox.path("hello"))
        .arg(source));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// A storm of processes, some of which die of signals and leave sockets behind, as when packages are installed.
fn forks(sandbox: &Sandbox) {
    let mut storm = Proc::spawn(
        Command::new(faulty_binary())
            .args(["storm", "--count", "200", "--dir"])
            .arg(sandbox.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::null()),
    );
    assert!(storm.wait().success());
}

/// redis forks a child that writes the data and exits.
fn save(redis: &Redis) {
    let cli = |command: &str| {
        let output = run(Command::new("/usr/bin/redis-cli")
            .args(["-p", &redis.port.to_string()])
            .arg(command));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stdout
    };
    let before = cli("LASTSAVE");
    cli("BGSAVE");
    // LASTSAVE is in whole seconds.
    until("the data are saved", || {
        cli("LASTSAVE") != before
            || run(Command::new("/usr/bin/redis-cli").args([
                "-p",
                &redis.port.to_string(),
                "INFO",
                "persistence",
            ]))
            .stdout
            .contains("rdb_bgsave_in_progress:0")
    });
}
