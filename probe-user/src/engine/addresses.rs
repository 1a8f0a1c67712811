//! The declared addresses, by number: there are many, they are asked for with each event, and words are long to compare.

use std::collections::HashMap;

use crate::address::{Address, Site};

use super::ledger::AddressLedger;

/// The number of a declared address. Numbers have the order of the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

impl Place {
    pub(super) const FIRST: Self = Self(0);
}

#[derive(Debug, Default)]
pub(super) struct Addresses {
    all: Vec<(Site, AddressLedger)>,
    /// Only asked, never walked over.
    places: HashMap<Site, Place>,
}

impl Addresses {
    /// `sites`: those of each service.
    pub(super) fn new(sites: &[Vec<Site>]) -> Self {
        let mut known: Vec<&Site> = sites.iter().flatten().collect();
        known.sort_unstable();
        known.dedup();
        let places = (0..).map(Place).zip(&known);
        let mut addresses = Self {
            places: places.map(|(place, site)| ((*site).clone(), place)).collect(),
            all: known
                .into_iter()
                .map(|site| (site.clone(), AddressLedger::default()))
                .collect(),
        };
        for (service, sites) in sites.iter().enumerate() {
            for place in addresses.places_of(sites) {
                if let Some(ledger) = addresses.get_mut(place) {
                    ledger.services.push(service);
                }
            }
        }
        addresses
    }

    pub(super) fn place(&self, site: &Site) -> Option<Place> {
        self.places.get(site).copied()
    }

    pub(super) fn places_of(&self, sites: &[Site]) -> Vec<Place> {
        sites.iter().filter_map(|site| self.place(site)).collect()
    }

    pub(super) fn get(&self, place: Place) -> Option<&AddressLedger> {
        self.all.get(place.0 as usize).map(|(_, ledger)| ledger)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut AddressLedger> {
        self.all.get_mut(place.0 as usize).map(|(_, ledger)| ledger)
    }

    pub(super) fn site(&self, place: Place) -> Option<&Site> {
        self.all.get(place.0 as usize).map(|(site, _)| site)
    }

    pub(super) fn address(&self, place: Place) -> Option<&Address> {
        self.site(place).map(|site| &site.address)
    }

    pub(super) fn sites_of(&self, places: &[Place]) -> Vec<&Site> {
        places.iter().filter_map(|place| self.site(*place)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Site, &AddressLedger)> {
        let places = (0..).map(Place);
        places.zip(&self.all).map(|(place, (site, ledger))| (place, site, ledger))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Site, &mut AddressLedger)> {
        self.all.iter_mut().map(|(site, ledger)| (&*site, ledger))
    }

    #[cfg(test)]
    pub(super) fn of(&self, site: &str) -> &AddressLedger {
        let site: Site = site.parse().expect("an address");
        let place = self.place(&site).expect("it is declared");
        self.get(place).expect("it has a ledger")
    }
}
