//! Requests of members, sorted by time.

use std::collections::{BTreeSet, HashMap};

use crate::domain::member_id::MemberId;

/// One request of each member, by one clock.
pub(super) struct Schedule<T> {
    by_member: HashMap<MemberId, T>,
    by_time: BTreeSet<(T, MemberId)>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { by_member: HashMap::new(), by_time: BTreeSet::new() }
    }
}

impl<T: Copy + Ord> Schedule<T> {
    /// Adds a request. If the member has one for an earlier time, that stands.
    pub(super) fn add(&mut self, id: MemberId, when: T) {
        if self.by_member.get(&id).is_none_or(|planned| *planned > when) {
            self.set(id, when);
        }
    }

    /// Replaces the member's request.
    pub(super) fn set(&mut self, id: MemberId, when: T) {
        self.remove(&id);
        self.by_member.insert(id.clone(), when);
        self.by_time.insert((when, id));
    }

    /// Removes the member's request.
    pub(super) fn remove(&mut self, id: &MemberId) {
        if let Some(when) = self.by_member.remove(id) {
            self.by_time.remove(&(when, id.clone()));
        }
    }

    /// The time of the first request.
    pub(super) fn first(&self) -> Option<T> {
        self.by_time.first().map(|(when, _)| *when)
    }

    /// The member of the first request, if that is due.
    pub(super) fn due(&self, now: T) -> Option<&MemberId> {
        self.by_time.first().filter(|(when, _)| *when <= now).map(|(_, id)| id)
    }
}
