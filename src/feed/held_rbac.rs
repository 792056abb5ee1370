//! The RBAC objects that tell what roles can do, kept up to date by four watches. No I/O.
//!
//! It holds the bindings that reach members and the rules of the roles that these name, and nothing of other RBAC. So
//! the watches of roles skip a role until a held binding names it. Then its rules are unknown until the next event
//! about it, or until a GET sent after that has answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cluster::{RbacKind, RbacObject, WatchEvent};
use crate::domain::grants::{Binding, Grants, RbacName, Rules};
use crate::domain::role::RoleId;

/// The held objects.
#[derive(Debug, Default)]
pub(super) struct HeldRbac {
    bindings: BTreeMap<RbacName, Binding>,
    roles: BTreeMap<RbacName, HeldRole>,
    /// The names in each list that is not complete yet.
    lists: BTreeMap<RbacKind, BTreeSet<RbacName>>,
    /// The kinds that have been listed at least once.
    listed: BTreeSet<RbacKind>,
    /// The last number in [`HeldRole::awaited`].
    last_get: u64,
    /// The fingerprints computed since the last change.
    hashes: HashMap<RoleId, Option<String>>,
}

#[derive(Debug)]
struct HeldRole {
    rules: Rules,
    /// How many held bindings name it.
    bindings: usize,
    /// The number of the GET that will tell its rules. An event of the watch comes first: it makes the GET outdated.
    awaited: Option<u64>,
}

impl HeldRbac {
    /// Whether it holds an object. Of roles it holds those that a binding names, even if they do not exist.
    pub(super) fn holds(&self, kind: RbacKind, name: &RbacName) -> bool {
        if kind.are_bindings() { self.bindings.contains_key(name) } else { self.roles.contains_key(name) }
    }

    /// Whether this kind has been listed at least once.
    pub(super) fn is_listed(&self, kind: RbacKind) -> bool {
        self.listed.contains(&kind)
    }

    /// How many held objects are unreadable.
    pub(super) fn unreadable(&self) -> usize {
        let roles = self.roles.values().filter(|role| role.rules == Rules::Unknown && role.awaited.is_none());
        self.bindings.values().filter(|binding| binding.role.is_none()).count() + roles.count()
    }

    /// Takes in an event of the watch of this kind.
    pub(super) fn apply(&mut self, kind: RbacKind, event: WatchEvent<(RbacName, RbacObject)>) {
        self.hashes.clear();
        match event {
            WatchEvent::Restarted => drop(self.lists.insert(kind, BTreeSet::new())),
            WatchEvent::Present((name, object)) => {
                if let Some(list) = self.lists.get_mut(&kind) {
                    list.insert(name.clone());
                }
                match object {
                    RbacObject::Binding(binding) => self.put_binding(name, binding),
                    RbacObject::OtherBinding => self.remove_binding(&name),
                    RbacObject::Rules(rules) => self.put_rules(&name, rules),
                }
            }
            WatchEvent::Deleted((name, _)) if kind.are_bindings() => self.remove_binding(&name),
            WatchEvent::Deleted((name, _)) => self.put_rules(&name, Rules::Missing),
            WatchEvent::Listed => self.end_list(kind),
            WatchEvent::Interrupted => {}
        }
    }

    /// The roles that need a GET, each with its number. None before the list that may contain it is complete.
    pub(super) fn awaited(&self) -> Vec<(RbacName, u64)> {
        let awaited = self.roles.iter().filter_map(|(name, role)| Some((name, role.awaited?)));
        let is_listed = |name: &RbacName| self.listed.contains(&kind_of_role(name));
        awaited.filter(|(name, _)| is_listed(name)).map(|(name, number)| (name.clone(), number)).collect()
    }

    /// Takes in the answer to the GET of this number.
    pub(super) fn answer(&mut self, name: &RbacName, number: u64, rules: Rules) {
        if self.roles.get(name).is_some_and(|role| role.awaited == Some(number)) {
            self.hashes.clear();
            self.put_rules(name, rules);
        }
    }

    /// What a role is granted; `None` until everything has been listed once.
    pub(super) fn grants(&self, role: &RoleId) -> Option<Grants> {
        let is_known = self.listed.len() == RbacKind::ALL.len();
        let rules = |name: &RbacName| self.roles.get(name).map_or(&Rules::Unknown, |role| &role.rules);
        is_known.then(|| Grants::of(role, self.bindings.values(), rules))
    }

    /// The fingerprint of what a role is granted; `None` if that is not known in full.
    pub(super) fn role_hash(&mut self, role: &RoleId) -> Option<String> {
        if let Some(hash) = self.hashes.get(role) {
            return hash.clone();
        }
        let hash = self.grants(role).and_then(|grants| grants.fingerprint());
        self.hashes.insert(role.clone(), hash.clone());
        hash
    }

    fn put_binding(&mut self, name: RbacName, binding: Binding) {
        if let Some(role) = &binding.role {
            self.last_get += 1;
            let awaited = Some(self.last_get);
            let role = self.roles.entry(role.clone());
            role.or_insert(HeldRole { rules: Rules::Unknown, bindings: 0, awaited }).bindings += 1;
        }
        if let Some(before) = self.bindings.insert(name, binding) {
            self.release(&before);
        }
    }

    fn remove_binding(&mut self, name: &RbacName) {
        if let Some(before) = self.bindings.remove(name) {
            self.release(&before);
        }
    }

    /// Drops the role that a binding named, if no other names it.
    fn release(&mut self, binding: &Binding) {
        let Some(name) = &binding.role else { return };
        if let Some(role) = self.roles.get_mut(name) {
            role.bindings -= 1;
            if role.bindings == 0 {
                self.roles.remove(name);
            }
        }
    }

    fn put_rules(&mut self, name: &RbacName, rules: Rules) {
        if let Some(role) = self.roles.get_mut(name) {
            role.rules = rules;
            role.awaited = None;
        }
    }

    /// Compares what is held with the list that is complete now.
    fn end_list(&mut self, kind: RbacKind) {
        let list = self.lists.remove(&kind).unwrap_or_default();
        self.listed.insert(kind);
        if kind.are_bindings() {
            let is_of_kind = |name: &RbacName| name.namespace.is_some() == kind.are_namespaced();
            let gone = |name: &&RbacName| is_of_kind(name) && !list.contains(name);
            let gone: Vec<RbacName> = self.bindings.keys().filter(gone).cloned().collect();
            gone.iter().for_each(|name| self.remove_binding(name));
            return;
        }
        // A role that is missing in the list is gone, or no binding named it yet when it was listed.
        for (_, role) in self.roles.iter_mut().filter(|(name, _)| kind_of_role(name) == kind && !list.contains(name)) {
            self.last_get += 1;
            *role = HeldRole { rules: Rules::Unknown, awaited: Some(self.last_get), ..*role };
        }
    }
}

fn kind_of_role(name: &RbacName) -> RbacKind {
    if name.namespace.is_some() { RbacKind::Roles } else { RbacKind::ClusterRoles }
}

#[cfg(test)]
mod tests;
