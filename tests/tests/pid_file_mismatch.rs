//! A PID file that names a live member which is not the one that holds the addresses.

use probe_tests::{Daemon, Sandbox, Watch};

#[test]
fn it_names_the_other_one() {
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let pid_file = sandbox.path("annad.pid");
    let holder = Daemon::at(&exe).tcp(0).start();
    let more = format!(
        "listen = [\"tcp:127.0.0.1:{}\"]\npid_file = {pid_file:?}\nmax_instances = 2",
        holder.port()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &more));

    let named = Daemon::at(&exe).pid_file(&pid_file).start();

    let mismatch = watch.expect("pid-file-mismatch", "annad");
    mismatch.says(named.pid()).says(holder.pid());
    assert_eq!(mismatch.severity, "warning");
    sandbox.write("annad.pid", &format!("{}\n", holder.pid()));
    watch.expect_resolved("pid-file-mismatch", "annad");
    watch.stop();
}
