//! Which declared names mean the same, and which mean something else to each service.

use std::collections::BTreeMap;

use super::{Config, Netns, Service};
use crate::address::{Address, Site};

impl Config {
    /// The addresses of each service, in the order of the configuration.
    ///
    /// A port or an abstract name is one for all services that leave it in the host's network namespace. A path is
    /// looked up through the main process's root directory, so it is one for all only where one service declares it.
    pub fn sites(&self) -> Vec<Vec<Site>> {
        let mut paths: BTreeMap<&Address, usize> = BTreeMap::new();
        for address in self.services.iter().flat_map(|s| &s.listen) {
            *paths.entry(address).or_default() += 1;
        }
        let site = |service: &Service, address: &Address| {
            let shared = match address {
                Address::Unix(_) => paths.get(address).is_none_or(|n| *n == 1),
                Address::Abstract(_) | Address::Tcp(_) | Address::Udp(_) => service.netns == Netns::Host,
            };
            Site {
                address: address.clone(),
                of: (!shared).then(|| service.name.clone()),
            }
        };
        self.services
            .iter()
            .map(|s| s.listen.iter().map(|a| site(s, a)).collect())
            .collect()
    }

    /// The PID file of each service that declares one, by the service's place in the configuration, and whose it is
    /// where several declare the same path.
    pub fn pid_files(&self) -> Vec<(usize, &str, Option<&str>)> {
        let mut declared: BTreeMap<&str, usize> = BTreeMap::new();
        for path in self.services.iter().filter_map(|s| s.pid_file.as_deref()) {
            *declared.entry(path).or_default() += 1;
        }
        let all = self.services.iter().enumerate();
        all.filter_map(|(i, s)| {
            let path = s.pid_file.as_deref()?;
            let shared = declared.get(path).is_some_and(|n| *n > 1);
            Some((i, path, shared.then_some(s.name.as_str())))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shared_only_where_it_means_the_same() {
        let service = |name: &str, netns: Netns, listen: &[&str]| Service {
            netns,
            listen: listen.iter().map(|a| a.parse().unwrap()).collect(),
            pid_file: Some("/run/x.pid".into()),
            ..Service::named(name)
        };
        let config = Config {
            services: vec![
                service("a", Netns::Host, &["tcp:80", "unix:/run/x", "unix:/run/y"]),
                service("b", Netns::Host, &["tcp:80", "unix:/run/x"]),
                service("c", Netns::Main, &["tcp:80", "unix:@c", "unix:/run/z"]),
            ],
            ..Config::default()
        };
        let of: Vec<Vec<Option<String>>> = config
            .sites()
            .into_iter()
            .map(|sites| sites.into_iter().map(|s| s.of).collect())
            .collect();
        let own = |name: &str| Some(name.to_owned());
        assert_eq!(of[0], [None, own("a"), None]);
        assert_eq!(of[1], [None, own("b")]);
        assert_eq!(of[2], [own("c"), own("c"), None]);
        assert_eq!(
            config.pid_files()[1],
            (1, "/run/x.pid", Some("b")),
            "each may mean another file"
        );
    }
}
