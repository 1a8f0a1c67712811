//! The declared addresses, by number: there are many, they are asked for with each event, and words are long to compare.

use crate::{
    address::{Address, Site},
    clock::Nanos,
};

use super::{ledger::AddressLedger, roster::Quick};

/// The number of a declared address. Numbers have the order of the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(u32);

impl Place {
    pub(super) const FIRST: Self = Self(0);
}

#[derive(Debug, Default)]
pub(super) struct Addresses {
    all: Vec<(Site, AddressLedger)>,
    /// By the print of what was last told of an address and was no news, while nothing has changed of it since; and that print
    /// of each.
    unchanged: Quick<u64, Place>,
    prints: Vec<Option<u64>>,
    /// By address, and who means it so. Only asked, never walked over.
    places: Quick<Address, Vec<(Option<String>, Place)>>,
}

impl Addresses {
    /// `sites`: those of each service.
    pub(super) fn new(sites: &[Vec<Site>]) -> Self {
        let mut known: Vec<&Site> = sites.iter().flatten().collect();
        known.sort_unstable();
        known.dedup();
        let mut addresses = Self::default();
        for (place, site) in (0..).map(Place).zip(known) {
            let alike = addresses.places.entry(site.address.clone()).or_default();
            alike.push((site.of.clone(), place));
            addresses.all.push((site.clone(), AddressLedger::default()));
            addresses.prints.push(None);
        }
        for (service, sites) in sites.iter().enumerate() {
            for place in addresses.places_of(sites) {
                if let Some(ledger) = addresses.get_mut(place) {
                    ledger.services.push(service);
                }
            }
        }
        addresses
    }

    pub(super) fn place(&self, address: &Address, of: Option<&str>) -> Option<Place> {
        let alike = self.places.get(address)?;
        let found = alike.iter().find(|(who, _)| who.as_deref() == of)?;
        Some(found.1)
    }

    pub(super) fn place_of(&self, site: &Site) -> Option<Place> {
        self.place(&site.address, site.of.as_deref())
    }

    pub(super) fn places_of(&self, sites: &[Site]) -> Vec<Place> {
        sites.iter().filter_map(|site| self.place_of(site)).collect()
    }

    pub(super) fn get(&self, place: Place) -> Option<&AddressLedger> {
        self.all.get(place.0 as usize).map(|(_, ledger)| ledger)
    }

    /// Whoever asks for this changes it.
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut AddressLedger> {
        let print = self.prints.get_mut(place.0 as usize).and_then(Option::take);
        if let Some(print) = print {
            self.unchanged.remove(&print);
        }
        self.all.get_mut(place.0 as usize).map(|(_, ledger)| ledger)
    }

    /// What has this print is known of it.
    pub(super) fn remember(&mut self, place: Place, print: u64) {
        if let Some(known) = self.prints.get_mut(place.0 as usize)
            && let Some(old) = known.replace(print)
        {
            self.unchanged.remove(&old);
        }
        self.unchanged.insert(print, place);
    }

    /// What has this print is how one of them still is, `at` this time too. `false`: it is not known, or was seen later.
    pub(super) fn is_as_before(&mut self, print: u64, at: Nanos) -> bool {
        let place = self.unchanged.get(&print);
        let ledger = place.and_then(|p| self.all.get_mut(p.0 as usize));
        let read_at = ledger.map(|(_, ledger)| &mut ledger.read_at);
        let Some(read_at) = read_at.filter(|known| known.is_none_or(|known| known <= at)) else {
            return false;
        };
        *read_at = Some(at);
        true
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
        places
            .zip(&self.all)
            .map(|(place, (site, ledger))| (place, site, ledger))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Site, &mut AddressLedger)> {
        self.unchanged.clear();
        self.prints.fill(None);
        self.all.iter_mut().map(|(site, ledger)| (&*site, ledger))
    }

    #[cfg(test)]
    pub(super) fn of(&self, site: &str) -> &AddressLedger {
        let site: Site = site.parse().expect("an address");
        let place = self.place_of(&site).expect("it is declared");
        self.get(place).expect("it has a ledger")
    }
}
