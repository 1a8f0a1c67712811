//! Which services a process belongs to, as the next daemon finds it in the kernel: that of a worker whose parent has ended is
//! known only to whoever has seen it begin.

use probe_abi::{Member, SERVICES};

use crate::{config::Service, event::ProcId};

/// What an earlier daemon knew of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Whose child it was.
    pub parent: Option<ProcId>,
    /// Digests of what the services select by.
    services: [u32; SERVICES],
}

impl Membership {
    /// Of a process that belongs to all of these; what is more than there is room for is left out.
    pub fn new<'s>(parent: Option<ProcId>, of: impl Iterator<Item = &'s Service>) -> Self {
        let mut services = [0; SERVICES];
        for (slot, service) in services.iter_mut().zip(of) {
            *slot = digest(service);
        }
        Self { parent, services }
    }

    /// Whether the process belonged to a service that was declared like this one.
    pub fn is_of(&self, service: &Service) -> bool {
        self.services.contains(&digest(service))
    }

    pub(super) fn read(value: &Member) -> Self {
        Self {
            parent: (value.parent_pid != 0).then_some(ProcId {
                pid: value.parent_pid,
                start_ticks: value.parent_ticks,
            }),
            services: value.services,
        }
    }

    pub(super) fn write(self, id: ProcId) -> Member {
        Member {
            start_ticks: id.start_ticks,
            parent_ticks: self.parent.map_or(0, |p| p.start_ticks),
            parent_pid: self.parent.map_or(0, |p| p.pid),
            services: self.services,
        }
    }
}

/// Of the name and of everything by which it selects: declared in another way, it is judged anew. Never 0.
fn digest(service: &Service) -> u32 {
    let pid = service.pid.map(|pid| pid.to_string());
    let parts = [
        Some(&service.name),
        service.unit.as_ref(),
        service.user.as_ref(),
        service.exe.as_ref(),
        service.script.as_ref(),
        service.argument.as_ref(),
        service.pid_file.as_ref(),
        pid.as_ref(),
    ];
    // FNV-1a, the same in every build.
    let mut digest = 0x811c_9dc5_u32;
    for part in parts {
        let bytes = part.map_or(&[][..], |text| text.as_bytes());
        // No text has such bytes: what is absent is told from what is empty.
        let end = if part.is_some() { 0xfe } else { 0xff };
        for byte in bytes.iter().chain(&[end]) {
            digest = (digest ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
    digest.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_only_of_the_same_declaration() {
        let service = |name: &str, exe: Option<&str>| Service {
            exe: exe.map(str::to_owned),
            ..Service::named(name)
        };
        let (a, b) = (service("a", Some("/bin/a")), service("b", None));
        let id = |pid| ProcId {
            pid,
            start_ticks: u64::from(pid) * 10,
        };
        for parent in [None, Some(id(1))] {
            let written = Membership::new(parent, [&a, &b].into_iter());
            let read = Membership::read(&written.write(id(7)));
            assert_eq!(read, written);
            assert_eq!(read.parent, parent);
            assert!(read.is_of(&a) && read.is_of(&b));
            assert!(!read.is_of(&service("a", Some("/bin/b"))), "another executable");
            assert!(!read.is_of(&service("a", None)));
            assert!(!read.is_of(&service("c", Some("/bin/a"))), "another name");
        }
        let of_none = Membership::new(None, [].into_iter());
        assert!(!of_none.is_of(&a));
        // More than there is room for.
        let many: Vec<Service> = (0..9).map(|n| service(&n.to_string(), None)).collect();
        let first = Membership::new(None, many.iter());
        assert_eq!(many.iter().filter(|s| first.is_of(s)).count(), SERVICES);
    }
}
