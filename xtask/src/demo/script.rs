//! What happens in the demo, in order.

use super::{Stage, daemon::Daemon};

/// One thing that happens, and the findings that `probe` must report then.
pub(super) struct Step {
    pub(super) caption: &'static str,
    pub(super) findings: &'static [&'static str],
    pub(super) act: fn(&Stage<'_>, &mut Company) -> anyhow::Result<()>,
}

/// The daemons that are on stage.
#[derive(Default)]
pub(super) struct Company {
    first: Option<Daemon>,
    second: Option<Daemon>,
}

pub(super) const STEPS: &[Step] = &[
    Step {
        caption: "1. A healthy daemon starts, with a socket and a PID file",
        findings: &[],
        act: |stage, company| {
            company.first = Some(Daemon::start(stage)?);
            Ok(())
        },
    },
    Step {
        caption: "2. kill -9: its socket and its PID file stay behind, and nobody answers there any more",
        findings: &["crashed", "stale-socket", "stale-pid-file"],
        act: |_, company| end(&mut company.first, "KILL"),
    },
    Step {
        caption: "3. It starts again and cleans up after itself: what was wrong is resolved",
        findings: &[],
        act: |stage, company| {
            company.first = Some(Daemon::start(stage)?);
            Ok(())
        },
    },
    Step {
        caption: "4. A second copy is started by mistake and takes the socket's path: the first one listens, unreachable",
        findings: &["orphaned-listener", "duplicate-instance"],
        act: |stage, company| {
            company.second = Some(Daemon::start(stage)?);
            Ok(())
        },
    },
    Step {
        caption: "5. The first copy is asked to stop (kill -TERM), and stops: nothing is wrong with that",
        findings: &[],
        act: |_, company| end(&mut company.first, "TERM"),
    },
    Step {
        caption: "6. kill -USR1, for which it has no handler: the signal's default action ends it",
        findings: &["unhandled-signal"],
        act: |_, company| end(&mut company.second, "USR1"),
    },
];

/// Sends a signal as an administrator does and waits until the daemon is gone.
fn end(daemon: &mut Option<Daemon>, signal: &str) -> anyhow::Result<()> {
    daemon.take().map_or(Ok(()), |daemon| daemon.end(signal))
}
