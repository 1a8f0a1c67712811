//! Which of several instances stay, and the end of the others.

use std::time::Duration;

use crate::{
    config::{KeepInstance, Service},
    engine::view::InstanceView,
    event::{ProcId, Process},
    reclaim::{guard::Guard, stop_signal},
    tree::{Handle, Limits, Tree},
};

/// How long SIGKILL may take.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// Who stays, in words, and who goes. `lives`: the oldest first.
///
/// # Errors
/// Why that can't be said: then nobody goes.
pub(super) fn choose(decl: &Service, lives: &[InstanceView]) -> Result<(String, Vec<ProcId>), String> {
    let mut order: Vec<&InstanceView> = lives.iter().collect();
    match decl.keep_instance {
        KeepInstance::Report => return Err("`keep_instance` does not say which one stays".into()),
        KeepInstance::Oldest => {}
        KeepInstance::Newest => order.reverse(),
        KeepInstance::PidFile => {
            let named: Vec<_> = order.iter().filter(|i| i.is_named_by_pid_file).collect();
            if named.len() != 1 {
                return Err("the PID file names none of them".into());
            }
            order.sort_by_key(|i| !i.is_named_by_pid_file);
        }
    }
    let max = decl.max_instances.max(1) as usize;
    if order.len() <= max {
        return Err("there are no more than declared now".into());
    }
    let kept: Vec<String> = order[..max].iter().map(|i| name(&i.lead)).collect();
    let surplus = order[max..].iter().map(|i| i.lead.id).collect();
    Ok((kept.join(" and "), surplus))
}

/// Ends these and all that descends from them. Returns whom. Blocks.
///
/// # Errors
/// Why somebody lives on.
pub(super) fn end(decl: &Service, surplus: &[ProcId]) -> Result<Vec<String>, String> {
    let guard = Guard::new().ok_or("this process is not in /proc")?;
    let mut ended = Vec::new();
    for id in surplus {
        let Some(handle) = Handle::open_as(*id).map_err(|e| e.to_string())? else {
            // It has ended by itself.
            continue;
        };
        if let Some(mistake) = guard.mistake(handle.process()) {
            return Err(format!(
                "{} is spared: {}",
                name(handle.process()),
                mistake.says()
            ));
        }
        let who = name(handle.process());
        let mut tree = Tree::new(vec![handle]);
        tree.spared = guard.spared();
        let limits = Limits {
            signal: stop_signal(decl),
            stop_within: decl.stop_within,
            kill_within: KILL_WITHIN,
        };
        let end = tree.end(&limits, &mut |_| {}).map_err(|e| e.to_string())?;
        if let Some(left) = end.left.first() {
            return Err(format!("{} lives on: {}", name(&left.process), left.why));
        }
        ended.push(who);
    }
    if ended.is_empty() {
        ended.push("nobody: they had ended by themselves".into());
    }
    Ok(ended)
}

fn name(p: &Process) -> String {
    format!("process {} ({})", p.id.pid, p.exe.as_deref().unwrap_or(&p.comm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Nanos;

    fn lives(named: Option<u32>) -> Vec<InstanceView> {
        let instance = |pid: u32| InstanceView {
            lead: Process {
                id: ProcId {
                    pid,
                    start_ticks: pid.into(),
                },
                start: Nanos(pid.into()),
                parent: None,
                comm: "d".into(),
                uid: Some(0),
                exe: None,
                exe_deleted: false,
                exe_id: None,
                argv: Vec::new(),
                unit: None,
            },
            is_named_by_pid_file: named == Some(pid),
        };
        [10, 20, 30].map(instance).into()
    }

    fn go(keep: KeepInstance, max: u32, named: Option<u32>) -> Result<Vec<u32>, String> {
        let decl = Service {
            keep_instance: keep,
            max_instances: max,
            ..Service::named("d")
        };
        let (_, surplus) = choose(&decl, &lives(named))?;
        Ok(surplus.iter().map(|id| id.pid).collect())
    }

    #[test]
    fn who_stays_is_declared() {
        assert_eq!(go(KeepInstance::Oldest, 1, None).unwrap(), [20, 30]);
        assert_eq!(go(KeepInstance::Newest, 1, None).unwrap(), [20, 10]);
        assert_eq!(go(KeepInstance::Newest, 2, None).unwrap(), [10]);
        assert_eq!(go(KeepInstance::PidFile, 1, Some(20)).unwrap(), [10, 30]);
        assert_eq!(go(KeepInstance::PidFile, 2, Some(30)).unwrap(), [20]);
    }

    #[test]
    fn nobody_goes_where_that_is_not_said() {
        assert!(go(KeepInstance::Report, 1, Some(10)).is_err());
        assert!(go(KeepInstance::PidFile, 1, None).is_err());
        assert!(go(KeepInstance::Oldest, 3, None).is_err());
    }
}
