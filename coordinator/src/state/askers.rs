//! Requests for work that wait: found by worker, by how much the worker holds, and by the end of their wait, so that
//! nothing that happens has to look at all of them. Who is given what is decided in [`super::assign`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use starlift_common::ids::WorkerId;

use super::event::Ticket;
use crate::clock::Millis;

/// A request for work that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    pub(super) worker: WorkerId,
    pub(super) free_slots: u32,
    pub(super) until: Millis,
    /// Tasks that the worker holds.
    load: u32,
}

/// Where a request stands in the order of service: the worker that holds the fewest tasks first, then who asked first.
pub(super) type Place = (u32, Ticket);

/// All requests that wait. A worker may have several, when it has repeated one whose answer it no longer expects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Askers {
    by_ticket: BTreeMap<Ticket, Asker>,
    by_place: BTreeSet<Place>,
    by_end: BTreeSet<(Millis, Ticket)>,
    by_worker: BTreeMap<WorkerId, BTreeSet<Ticket>>,
}

impl Askers {
    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty()
    }

    /// Adds a request of a worker that holds `load` tasks.
    pub(super) fn add(
        &mut self,
        ticket: Ticket,
        worker: WorkerId,
        free_slots: u32,
        until: Millis,
        load: u32,
    ) {
        self.by_place.insert((load, ticket));
        self.by_end.insert((until, ticket));
        self.by_worker.entry(worker.clone()).or_default().insert(ticket);
        self.by_ticket.insert(ticket, Asker { worker, free_slots, until, load });
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Asker> {
        self.by_ticket.get(&ticket)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        let Some(asker) = self.by_ticket.remove(&ticket) else { return };
        self.by_place.remove(&(asker.load, ticket));
        self.by_end.remove(&(asker.until, ticket));
        if let Some(tickets) = self.by_worker.get_mut(&asker.worker) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_worker.remove(&asker.worker);
            }
        }
    }

    /// The next request in the order of service, behind `last`.
    pub(super) fn next(&self, last: Option<Place>) -> Option<Place> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_place.range((behind, Bound::Unbounded)).next().copied()
    }

    /// Whether a worker other than this one waits for work.
    pub(super) fn others_wait(&self, worker: &WorkerId) -> bool {
        self.by_worker.len() > usize::from(self.by_worker.contains_key(worker))
    }

    /// The worker now holds so many tasks.
    pub(super) fn set_load(&mut self, worker: &WorkerId, load: u32) {
        for ticket in self.by_worker.get(worker).into_iter().flatten() {
            let Some(asker) = self.by_ticket.get_mut(ticket) else { continue };
            if self.by_place.remove(&(asker.load, *ticket)) {
                self.by_place.insert((load, *ticket));
            }
            asker.load = load;
        }
    }

    /// The request gets nothing more in this round; it still counts as one that waits.
    pub(super) fn is_served(&mut self, ticket: Ticket) {
        if let Some(asker) = self.by_ticket.get(&ticket) {
            self.by_place.remove(&(asker.load, ticket));
        }
    }

    /// Takes a request out, whichever it is.
    pub(super) fn take_first(&mut self) -> Option<Ticket> {
        let ticket = *self.by_ticket.first_key_value()?.0;
        self.remove(ticket);
        Some(ticket)
    }

    /// Takes a request out that has waited long enough.
    pub(super) fn take_ended(&mut self, now: Millis) -> Option<Ticket> {
        let ticket = self.by_end.first().filter(|(until, _)| *until <= now)?.1;
        self.remove(ticket);
        Some(ticket)
    }

    /// Takes all requests of a worker out.
    pub(super) fn take_of(&mut self, worker: &WorkerId) -> BTreeSet<Ticket> {
        let tickets = self.by_worker.get(worker).cloned().unwrap_or_default();
        for ticket in &tickets {
            self.remove(*ticket);
        }
        tickets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> WorkerId {
        WorkerId(name.into())
    }

    fn three() -> Askers {
        let mut askers = Askers::default();
        askers.add(Ticket(1), worker("a"), 2, Millis(30), 1);
        askers.add(Ticket(2), worker("b"), 1, Millis(10), 0);
        askers.add(Ticket(3), worker("a"), 1, Millis(20), 1);
        askers
    }

    fn order(askers: &Askers) -> Vec<u64> {
        let mut last = None;
        std::iter::from_fn(|| {
            last = askers.next(last);
            last.map(|(_, ticket)| ticket.0)
        })
        .collect()
    }

    #[test]
    fn whoever_holds_the_fewest_comes_first_and_then_whoever_asked_first() {
        let mut askers = three();
        assert_eq!(order(&askers), [2, 1, 3]);
        askers.set_load(&worker("b"), 2);
        assert_eq!(order(&askers), [1, 3, 2]);
        askers.is_served(Ticket(1));
        askers.set_load(&worker("a"), 3);
        assert_eq!(order(&askers), [2, 3]);
        assert_eq!(askers.len(), 3, "who is served waits until the answer");
    }

    #[test]
    fn a_wait_ends_in_its_time_and_leaves_nothing_behind() {
        let mut askers = three();
        assert_eq!(askers.take_ended(Millis(9)), None);
        assert_eq!(askers.take_ended(Millis(20)), Some(Ticket(2)));
        assert_eq!(askers.take_ended(Millis(20)), Some(Ticket(3)));
        assert_eq!(askers.take_ended(Millis(20)), None);
        assert!(askers.others_wait(&worker("b")) && !askers.others_wait(&worker("a")));
        askers.remove(Ticket(1));
        askers.remove(Ticket(1));
        assert_eq!(askers, Askers::default());
    }

    #[test]
    fn a_worker_that_leaves_takes_all_its_requests_with_it() {
        let mut askers = three();
        assert_eq!(askers.take_of(&worker("a")), [Ticket(1), Ticket(3)].into());
        assert_eq!(order(&askers), [2]);
        assert!(askers.take_of(&worker("a")).is_empty());
    }
}
