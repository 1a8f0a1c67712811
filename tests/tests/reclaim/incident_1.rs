//! Incident 1's script without a service manager: what `rm -f` and `sleep 1` did is done by `probe reclaim`.

use probe_tests::Restarts;
use rustix::process::Signal;

use crate::Site;

#[test]
fn twenty_restarts_half_of_them_by_kill_9() {
    let site = Site::new("");
    let mut restarts = Restarts::default();
    let mut daemon = site.start();
    for n in 1..=Restarts::COUNT {
        // It handles neither: both leave everything behind.
        let (signal, how) = match n % 2 {
            0 => (Signal::KILL, "kill -9"),
            _ => (Signal::TERM, "kill"),
        };
        daemon.process().signal(signal);
        daemon.wait_gone();

        let reclaimed = site.reclaim(&[]);

        reclaimed
            .is_clear()
            .ended(0)
            .removed(&[&site.socket, &site.pid_file]);
        daemon = site.start();
        restarts.ask(how, &site.socket, || {
            daemon.tell(&format!("accept unix:{}", site.socket.display()));
        });
    }
    restarts.judge();
}
