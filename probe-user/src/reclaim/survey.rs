//! Who is there: instances of the service, and strangers at its addresses. Nothing is done here.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Failure,
    guard::{Guard, Mistake},
    pid_file::PidFile,
};
use crate::{
    address::Site,
    clock,
    config::{Config, Service},
    engine::membership::{self, Selection},
    event::{AddressState, FileId, PathState, PidFileContent, ProcId, Process, Socket},
    sources::{
        observer::Observer,
        path, process,
        view::{View, Views},
    },
    tree::{Handle, Links, cgroup::Cgroup},
};

/// An instance of the service that lives.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) handle: Handle,
    /// Why it is one.
    pub(super) because: String,
    /// Nothing but the service is in there.
    pub(super) cgroup: Option<Cgroup>,
    /// The PID file names it, or it holds an address: it keeps another one from starting.
    pub(super) blocks: bool,
}

/// Somebody else at a declared address.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) handle: Handle,
    pub(super) address: String,
    /// It must not be ended.
    pub(super) mistake: Option<Mistake>,
}

/// Somebody who looks like the service, and nothing proves it.
#[derive(Debug)]
pub(super) struct Doubtful {
    pub(super) process: Process,
    pub(super) why: String,
    pub(super) refused: bool,
}

#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) instances: Vec<Instance>,
    pub(super) strangers: Vec<Stranger>,
    pub(super) doubtful: Vec<Doubtful>,
    /// What the PID file says, and the live process that it means; why it counts or not.
    pub(super) named: Option<Named>,
    pub(super) view: View,
    /// In the order of the declaration.
    pub(super) addresses: Vec<AddressState>,
}

/// The process that the PID file names.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) pid: u32,
    pub(super) says: String,
}

/// Looks at the addresses of a service.
pub(crate) fn addresses(observer: &mut Observer, service: &Service, view: &View) -> Vec<AddressState> {
    if service.listen.is_empty() {
        return Vec::new();
    }
    let sites: Vec<Site> = service.listen.iter().cloned().map(Site::from).collect();
    observer.sites(&sites, view)
}

/// What the service means by its names, as far as a live process of it tells.
pub(crate) fn view(service: &Service) -> View {
    let config = Config {
        services: vec![service.clone()],
        ..Config::default()
    };
    let mut views = Views::new(&config);
    if service.has_selector() {
        views.guess(&config, || process::all().unwrap_or_default());
    }
    views.service(0).clone()
}

/// Sockets that keep the address from being bound. A socket whose file is gone or replaced does not.
pub(crate) fn blocking(state: &AddressState) -> impl Iterator<Item = &Socket> {
    let file = match &state.path {
        Some(PathState::Socket(file)) => Some(*file),
        _ => None,
    };
    let is_path = state.address.path().is_some();
    state
        .sockets
        .iter()
        .filter(move |s| !is_path || s.file.is_some() && s.file == file)
}

/// Everybody who holds a socket, by pidfd, with the descriptor seen after that was opened.
pub(super) fn holders(socket: &Socket) -> Result<Vec<Handle>, Failure> {
    let mut found = Vec::new();
    let mut met = BTreeSet::new();
    for holder in &socket.holders {
        if met.insert(holder.process)
            && let Some(handle) = Handle::open_as(holder.process)?
            && handle.holds_socket(socket.inode)
        {
            found.push(handle);
        }
    }
    if found.is_empty() {
        // Where only a first thread has ended, the descriptors are those of the others.
        let all = Links::all().map_err(Failure::Processes)?;
        for links in all.iter().filter(|l| l.is_led_by_a_zombie()) {
            if let Some(handle) = Handle::open_as(links.id)?
                && handle.holds_socket(socket.inode)
            {
                found.push(handle);
            }
        }
    }
    Ok(found)
}

impl Survey {
    pub(super) fn take(
        service: &Service,
        guard: &Guard,
        observer: &mut Observer,
        view: View,
        pid_file: Option<&PidFile>,
        trust_pid_file: bool,
    ) -> Result<Self, Failure> {
        let mut survey = Self {
            addresses: addresses(observer, service, &view),
            view,
            ..Self::default()
        };
        let exe_id = service
            .exe
            .as_deref()
            .and_then(|e| path::file_id(e.as_ref()).ok());
        let held = survey.held()?;
        let mut met: BTreeMap<ProcId, Instance> = BTreeMap::new();
        survey.read_pid_file(service, guard, exe_id, pid_file, trust_pid_file, &mut met)?;
        survey.find_selected(service, guard, exe_id, &held, &mut met)?;
        let all: BTreeSet<ProcId> = met.keys().copied().collect();
        // Workers are ended with their master, and are no instances of their own.
        met.retain(|id, _| !descends(*id, &all));
        survey.instances = met.into_values().collect();
        survey.find_strangers(service, guard, exe_id, &all)?;
        Ok(survey)
    }

    /// Who holds which address, also under names that are gone.
    fn held(&self) -> Result<BTreeMap<ProcId, String>, Failure> {
        let mut held = BTreeMap::new();
        for state in &self.addresses {
            for socket in &state.sockets {
                for handle in holders(socket)? {
                    held.entry(handle.id())
                        .or_insert_with(|| state.address.to_string());
                }
            }
        }
        Ok(held)
    }

    fn read_pid_file(
        &mut self,
        service: &Service,
        guard: &Guard,
        exe_id: Option<FileId>,
        file: Option<&PidFile>,
        trust: bool,
        met: &mut BTreeMap<ProcId, Instance>,
    ) -> Result<(), Failure> {
        let Some(file) = file else { return Ok(()) };
        let PidFileContent::Pid(written) = file.content else {
            return Ok(());
        };
        let mut named = |pid, says: String| self.named = Some(Named { pid, says });
        // In another pid namespace the number means another process.
        let translated = service
            .pid_file
            .as_deref()
            .filter(|_| self.view.foreign_pids)
            .map(|path| crate::sources::pid_file::read(path.as_ref(), None, &self.view).process);
        let handle = match translated {
            Some(Some(process)) => Handle::open_as(process.id)?,
            Some(None) => None,
            None => Handle::open(written)?,
        };
        let Some(handle) = handle else {
            named(written, "no process has this pid".into());
            return Ok(());
        };
        let p = handle.process();
        let who = super::step::name(p);
        if let Some(mistake) = guard.mistake(p) {
            let says = format!("it names {who}, and {}", mistake.says());
            named(written, says);
            self.doubtful.push(Doubtful {
                process: p.clone(),
                why: mistake.says().into(),
                refused: true,
            });
            return Ok(());
        }
        let selected = selected(service, exe_id, &handle);
        let counts = match (selected.is_some() || !service.has_selector(), file.distrust()) {
            (false, _) => Err(format!("{who} is another program")),
            // What the declaration selects needs no file to say so.
            (true, Some(why)) if !trust => Err(why),
            (true, _) if selected.is_some() => Ok(()),
            (true, _) => file.is_about(p),
        };
        match counts {
            Ok(()) => {
                named(written, format!("it names {who}"));
                met.insert(
                    handle.id(),
                    Instance {
                        because: format!(
                            "the PID file {} names it",
                            service.pid_file.as_deref().unwrap_or("")
                        ),
                        cgroup: selected.and_then(|s| s.cgroup),
                        blocks: true,
                        handle,
                    },
                );
            }
            Err(why) => {
                named(written, format!("it names {who}: {why}"));
                self.doubtful.push(Doubtful {
                    process: p.clone(),
                    why: format!("the PID file names it, but {why}"),
                    refused: false,
                });
            }
        }
        Ok(())
    }

    fn find_selected(
        &mut self,
        service: &Service,
        guard: &Guard,
        exe_id: Option<FileId>,
        held: &BTreeMap<ProcId, String>,
        met: &mut BTreeMap<ProcId, Instance>,
    ) -> Result<(), Failure> {
        if !service.has_selector() {
            return Ok(());
        }
        for process in process::all().map_err(Failure::Processes)? {
            if met.contains_key(&process.id) || !membership::selects(service, exe_id, &process) {
                continue;
            }
            let Some(handle) = Handle::open_as(process.id)? else {
                continue;
            };
            let p = handle.process();
            // Who starts us may well look like the service, and is what is being started.
            if guard.mistake(p).is_some() {
                continue;
            }
            let Some(selected) = selected(service, exe_id, &handle) else {
                continue;
            };
            match evidence(service, &selected, p, held.get(&p.id)) {
                Ok(because) => {
                    let instance = Instance {
                        because,
                        cgroup: selected.cgroup,
                        blocks: held.contains_key(&p.id),
                        handle,
                    };
                    met.insert(instance.handle.id(), instance);
                }
                Err(why) => self.doubtful.push(Doubtful {
                    process: p.clone(),
                    why,
                    refused: false,
                }),
            }
        }
        // A child of an instance is told with it.
        let ids: BTreeSet<ProcId> = met.keys().copied().collect();
        self.doubtful
            .retain(|d| d.refused || !descends(d.process.id, &ids));
        Ok(())
    }

    fn find_strangers(
        &mut self,
        service: &Service,
        guard: &Guard,
        exe_id: Option<FileId>,
        instances: &BTreeSet<ProcId>,
    ) -> Result<(), Failure> {
        let mut met = BTreeSet::new();
        for state in &self.addresses {
            for socket in blocking(state) {
                for handle in holders(socket)? {
                    let id = handle.id();
                    let is_ours = instances.contains(&id)
                        || descends(id, instances)
                        || selected(service, exe_id, &handle).is_some()
                            && guard.mistake(handle.process()).is_none();
                    if !is_ours && met.insert(id) {
                        self.strangers.push(Stranger {
                            address: state.address.to_string(),
                            mistake: guard.mistake(handle.process()),
                            handle,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// By what the declaration selects a process, asked behind its pidfd.
struct Selected {
    by: Selection,
    cgroup: Option<Cgroup>,
}

fn selected(service: &Service, exe_id: Option<FileId>, handle: &Handle) -> Option<Selected> {
    let by = membership::selection(service, exe_id, handle.process());
    // The name of a unit is not enough: anybody may run a unit of that name in a service manager of his own.
    let cgroup = service.unit.as_deref().and_then(|unit| {
        let user = match &service.user {
            None => None,
            Some(name) => Some(nix::unistd::User::from_name(name).ok()??.uid.as_raw()),
        };
        handle.read(|proc| Cgroup::of_unit(proc, unit, user))
    });
    let by = match by {
        Some(Selection::Unit) if cgroup.is_none() => {
            let rest = Service {
                unit: None,
                ..service.clone()
            };
            membership::selection(&rest, exe_id, handle.process())
        }
        by => by,
    };
    by.map(|by| Selected { by, cgroup })
}

/// Why a selected process is an instance, or why it may be none: the same executable is run as a tool too.
fn evidence(
    service: &Service,
    selected: &Selected,
    p: &Process,
    held: Option<&String>,
) -> Result<String, String> {
    if let Some(address) = held {
        return Ok(format!("it holds {address}"));
    }
    let unit = service.unit.as_deref().unwrap_or("");
    match selected.by {
        Selection::Pid => Ok("it was named by its pid".into()),
        Selection::Unit if is_of_our_start(p) => Err("it was started together with this reclaim".into()),
        Selection::Unit => Ok(format!("it is in the control group of {unit}")),
        Selection::Argument => Ok("its arguments are those of the service".into()),
        Selection::Exe if membership::is_interpreter(p) => {
            Err("it runs the interpreter, and nothing tells for whom".into())
        }
        Selection::Exe if !service.listen.is_empty() || service.pid_file.is_some() => {
            Err("it runs the executable, but holds no declared address, and no PID file names it".into())
        }
        Selection::Exe if clock::now().since(p.start) < service.ready_within => Err(format!(
            "it runs the executable, but not for longer than {} yet",
            humantime::format_duration(service.ready_within)
        )),
        Selection::Exe => Ok("it runs the executable".into()),
    }
}

/// In the session that the service manager made for this very start: `ExecStartPre=/bin/sh -c 'probe reclaim a | logger'`.
fn is_of_our_start(p: &Process) -> bool {
    let session = |pid: Option<nix::unistd::Pid>| nix::unistd::getsid(pid).ok();
    let theirs = i32::try_from(p.id.pid).ok().map(nix::unistd::Pid::from_raw);
    theirs.is_some() && session(theirs) == session(None)
}

/// Whether one of `ancestors`, other than itself, is above it.
pub(crate) fn descends(id: ProcId, ancestors: &BTreeSet<ProcId>) -> bool {
    let mut next = process::parent(id);
    for _ in 0..64 {
        let Some(parent) = next else { return false };
        if ancestors.contains(&parent) {
            return true;
        }
        next = process::parent(parent);
    }
    false
}
