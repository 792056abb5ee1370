//! The role namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cluster::{RoleNamespace, SeenNamespace, WatchEvent};
use crate::domain::role::{Role, RoleId};

/// The roles that a replica knows.
#[derive(Default)]
pub struct Roles {
    state: Mutex<State>,
    is_complete: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    roles: BTreeMap<RoleId, Role>,
    /// The names of namespaces that only look like a role's.
    ignored: BTreeSet<String>,
    /// The namespaces of the list that is under way.
    listed: Option<BTreeSet<String>>,
}

impl Roles {
    /// Takes in an event of the watch.
    pub fn apply(&self, event: WatchEvent<SeenNamespace>) {
        let mut state = self.lock();
        match event {
            WatchEvent::Restarted => state.listed = Some(BTreeSet::new()),
            WatchEvent::Interrupted => {}
            WatchEvent::Present(SeenNamespace { name, kind }) => state.put(name, kind),
            WatchEvent::Deleted(SeenNamespace { name, .. }) => state.remove(&name),
            WatchEvent::Listed => {
                let listed = state.listed.take().unwrap_or_default();
                state.roles.retain(|id, _| listed.contains(&id.namespace()));
                state.ignored.retain(|name| listed.contains(name));
                self.is_complete.send_replace(true);
            }
        }
    }

    /// Whether a list was completed since the start.
    pub fn is_complete(&self) -> watch::Receiver<bool> {
        self.is_complete.subscribe()
    }

    /// The role of this id, if it is known.
    pub fn get(&self, id: &RoleId) -> Option<Role> {
        self.lock().roles.get(id).cloned()
    }

    /// All roles, by id.
    pub fn all(&self) -> Vec<Role> {
        self.lock().roles.values().cloned().collect()
    }

    /// The names of namespaces that have only the name or only the label of a role.
    pub fn ignored(&self) -> Vec<String> {
        self.lock().ignored.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic under the lock leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, name: String, kind: RoleNamespace) {
        self.remove(&name);
        let keep = match kind {
            RoleNamespace::Role(role) => self.roles.insert(role.id.clone(), role).is_none(),
            RoleNamespace::Ignored => self.ignored.insert(name.clone()),
            RoleNamespace::Other => false,
        };
        if let Some(listed) = self.listed.as_mut().filter(|_| keep) {
            listed.insert(name);
        }
    }

    fn remove(&mut self, name: &str) {
        self.roles.retain(|id, _| id.namespace() != name);
        self.ignored.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(id: &str, name: &str) -> RoleNamespace {
        RoleNamespace::Role(Role { id: RoleId::parse(id).unwrap(), name: name.into(), description: String::new() })
    }

    fn present(name: &str, kind: RoleNamespace) -> WatchEvent<SeenNamespace> {
        WatchEvent::Present(SeenNamespace { name: name.into(), kind })
    }

    fn names(roles: &Roles) -> Vec<String> {
        roles.all().into_iter().map(|role| role.name).collect()
    }

    #[test]
    fn namespace_is_a_role_as_long_as_it_looks_like_one() {
        let roles = Roles::default();
        roles.apply(WatchEvent::Restarted);
        roles.apply(present("daypass-view", role("view", "View")));
        roles.apply(present("daypass-odd", RoleNamespace::Ignored));
        roles.apply(present("default", RoleNamespace::Other));
        assert!(!*roles.is_complete().borrow());
        roles.apply(WatchEvent::Listed);
        assert!(*roles.is_complete().borrow());
        assert_eq!((names(&roles), roles.ignored()), (vec!["View".to_owned()], vec!["daypass-odd".to_owned()]));

        roles.apply(present("daypass-view", role("view", "Renamed")));
        assert_eq!(names(&roles), ["Renamed"]);
        roles.apply(present("daypass-view", RoleNamespace::Ignored));
        assert_eq!((names(&roles).len(), roles.ignored().len()), (0, 2), "it has lost its label");
        roles.apply(present("daypass-view", role("view", "View")));
        roles.apply(present("daypass-odd", RoleNamespace::Other));
        assert_eq!((names(&roles).len(), roles.ignored().len()), (1, 0));
        let last = SeenNamespace { name: "daypass-view".into(), kind: role("view", "View") };
        roles.apply(WatchEvent::Deleted(last));
        assert_eq!(names(&roles).len(), 0);
    }

    #[test]
    fn role_that_vanished_is_removed_once_the_list_is_complete() {
        let roles = Roles::default();
        for kept in [true, false] {
            roles.apply(WatchEvent::Restarted);
            if kept {
                roles.apply(present("daypass-view", role("view", "View")));
            }
            assert_eq!(names(&roles).len(), 1, "until the list is complete");
            roles.apply(WatchEvent::Listed);
            assert_eq!(names(&roles).len(), usize::from(kept));
        }
    }
}
