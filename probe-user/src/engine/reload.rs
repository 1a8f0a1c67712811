//! Another configuration takes the place of the present one, and what an earlier run of probe knew is taken over.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use crate::{
    config::{Config, Service},
    event::{FileId, ProcId, SnapshotReason},
};

use super::{Due, Effect, Engine, finding::FindingState, ledger::Sightings, state::ServiceState};

impl Engine {
    /// Services whose processes and addresses are declared as before keep their state, whatever else has changed about
    /// them. Of the others the findings end, and they are judged anew. What is known of an address stays known.
    pub(super) fn on_reload(&mut self, config: Config, exes: &BTreeMap<String, FileId>) {
        let mut new = Self::new(config, exes);
        let now = self.now;
        let mut stays = BTreeMap::new();
        for (i, service) in new.services.iter_mut().enumerate() {
            let Some(&old_i) = self.by_name.get(&service.decl.name) else {
                continue;
            };
            let old = &mut self.services[old_i];
            if selects_the_same(&old.decl, &service.decl)
                && self.addresses.sites_of(&old.places) == new.addresses.sites_of(&service.places)
            {
                let fresh = ServiceState::new(old.decl.clone(), old.places.clone());
                let (decl, places) = (service.decl.clone(), mem::take(&mut service.places));
                *service = mem::replace(old, fresh);
                (service.decl, service.places) = (decl, places);
                stays.insert(old_i, i);
            } else {
                service.go_on_counting(old);
            }
        }
        for s in 0..self.services.len() {
            let why = match new.by_name.contains_key(&self.services[s].decl.name) {
                true => "the service is declared in another way now, and is judged anew",
                false => "the service is no longer declared",
            };
            self.end_findings(s, why);
        }
        for (site, ledger) in new.addresses.iter_mut() {
            let known = self.addresses.place_of(site);
            if let Some(known) = known.and_then(|place| self.addresses.get_mut(place)) {
                mem::swap(known, ledger);
                mem::swap(&mut known.services, &mut ledger.services);
            }
        }
        for (i, service) in new.services.iter().enumerate() {
            for id in service.members.keys() {
                new.member_of.join(*id, i);
            }
        }
        for (i, service) in new.services.iter().enumerate() {
            for refused in service.refused.values() {
                new.refused.entry(refused.process.id).or_default().insert(i);
            }
        }
        for id in self.member_of.ids() {
            if !new.member_of.contains(&id) {
                self.effects.push(Effect::Forget(id));
            }
        }
        for (at, due) in mem::take(&mut self.timers) {
            match due {
                Due::Service(s) => {
                    if let Some(i) = stays.get(&s) {
                        new.set_timer(Due::Service(*i), at);
                    }
                }
                Due::Address(place) => {
                    let site = self.addresses.site(place);
                    if let Some(place) = site.and_then(|site| new.addresses.place_of(site)) {
                        new.set_timer(Due::Address(place), at);
                    }
                }
                // It may be due sooner now.
                Due::Resync => new.set_timer(Due::Resync, at.min(now + new.config.probe.settle_every)),
            }
        }
        new.touched = (0..new.services.len()).collect::<BTreeSet<_>>();
        mem::swap(&mut new.ended, &mut self.ended);
        new.sightings = Sightings::of(&new.addresses);
        new.over = mem::take(&mut self.over);
        new.joined = self.joined;
        new.blind = self.blind.take();
        new.blind_open = self.blind_open.take();
        new.seq = self.seq;
        new.sleeps = mem::take(&mut self.sleeps);
        new.now = now;
        new.at = self.at;
        new.time_source = self.time_source;
        new.effects = mem::take(&mut self.effects);
        // Who else belongs to a service now, and what it left behind, is found by looking.
        new.effects.push(Effect::Resync(SnapshotReason::Interval));
        *self = new;
    }

    pub(super) fn on_remembered(&mut self, service: &str, generation: u64, main: Option<ProcId>) {
        let Some(&s) = self.by_name.get(service) else {
            return;
        };
        let service = &mut self.services[s];
        if service.generation == 0 {
            service.generation = generation;
            service.remembered = main.filter(|_| generation > 0);
        }
    }

    fn end_findings(&mut self, s: usize, why: &str) {
        let name = self.services[s].decl.name.clone();
        let open = mem::take(&mut self.services[s].open);
        let ended = open.into_values().map(|o| {
            let f = self.finding(
                &name,
                &o.condition,
                &o.id,
                FindingState::Resolved,
                Some(why.to_owned()),
            );
            Effect::Find(Box::new(f))
        });
        let ended: Vec<Effect> = ended.collect();
        self.effects.extend(ended);
    }
}

impl ServiceState {
    /// It is judged anew, and it is still the same service: its lives go on being counted.
    fn go_on_counting(&mut self, old: &Self) {
        self.generation = old.generation;
        self.remembered = old.main.as_ref().map(|m| m.id).or(old.remembered);
    }
}

/// Whether the same processes and addresses are meant; limits and whatever else is judged by may differ.
fn selects_the_same(old: &Service, new: &Service) -> bool {
    let meant = |s: &Service| {
        let mut meant = Service::named(&s.name);
        meant.unit.clone_from(&s.unit);
        meant.user.clone_from(&s.user);
        meant.exe.clone_from(&s.exe);
        meant.script.clone_from(&s.script);
        meant.argument.clone_from(&s.argument);
        meant.pid_file.clone_from(&s.pid_file);
        meant.pid = s.pid;
        meant.listen.clone_from(&s.listen);
        meant.netns.clone_from(&s.netns);
        meant
    };
    meant(old) == meant(new)
}
