//! Which services an event may be about, without asking each of ten thousand.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{address::Address, config::Service, event::FileId};

use super::{
    addresses::{Addresses, Place},
    roster::Quick,
    selectors::Selectors,
};

/// What is looked up by words is only asked, never walked over.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) selectors: Selectors,
    by_pid_file: Quick<String, Vec<usize>>,
    names: Quick<String, usize>,
    /// Declared TCP and UDP addresses, and of each port all of them.
    by_inet: Quick<(Port, Option<IpAddr>), Vec<Place>>,
    by_port: Quick<Port, Vec<Place>>,
    /// The others.
    by_name: Quick<Address, Vec<Place>>,
}

type Port = (Transport, u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Transport {
    Tcp,
    Udp,
}

fn port(address: &Address) -> Option<(Port, Option<IpAddr>)> {
    let transport = match address {
        Address::Tcp(_) => Transport::Tcp,
        Address::Udp(_) => Transport::Udp,
        Address::Unix(_) | Address::Abstract(_) => return None,
    };
    let inet = address.inet()?;
    Some(((transport, inet.port), inet.ip))
}

impl Index {
    pub(super) fn new(services: &[Service], addresses: &Addresses, exes: &BTreeMap<String, FileId>) -> Self {
        let mut index = Self {
            selectors: Selectors::new(services, |path| exes.get(path).copied()),
            ..Self::default()
        };
        for (i, s) in services.iter().enumerate() {
            index.names.insert(s.name.clone(), i);
            if let Some(path) = &s.pid_file {
                index.by_pid_file.entry(path.clone()).or_default().push(i);
            }
        }
        for (place, site, _) in addresses.iter() {
            let Some((port, ip)) = port(&site.address) else {
                index.by_name.entry(site.address.clone()).or_default().push(place);
                continue;
            };
            index.by_port.entry(port).or_default().push(place);
            index.by_inet.entry((port, ip)).or_default().push(place);
        }
        index
    }

    /// The declared addresses that a socket at this one may serve.
    pub(super) fn alike(&self, address: &Address) -> Vec<Place> {
        let Some((port, ip)) = port(address) else {
            return self.by_name.get(address).cloned().unwrap_or_default();
        };
        // One of all addresses serves whatever is declared of its port.
        let Some(ip) = ip.filter(|ip| !ip.is_unspecified()) else {
            return self.by_port.get(&port).cloned().unwrap_or_default();
        };
        let declared = [Some(ip), None].map(|ip| self.by_inet.get(&(port, ip)));
        let mut alike: Vec<Place> = declared.into_iter().flatten().flatten().copied().collect();
        alike.sort_unstable();
        alike
    }

    /// Services that declare this PID file; of them the one that it is about, where one is named.
    pub(super) fn of_pid_file(&self, path: &str, of: Option<&str>) -> Vec<usize> {
        let all = self.by_pid_file.get(path).map_or(&[][..], Vec::as_slice);
        let one = of.map(|name| self.names.get(name));
        all.iter()
            .filter(|i| one.is_none_or(|one| one == Some(i)))
            .copied()
            .collect()
    }
}
