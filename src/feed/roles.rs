//! The role namespaces.

use std::collections::BTreeMap;
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
    /// The namespaces that are roles, or only look like one, by name: what they are, and the list that had them.
    known: BTreeMap<String, (RoleNamespace, u64)>,
    /// The number of the current list, or of the last one.
    list: u64,
}

impl Roles {
    /// Takes in an event of the watch.
    pub fn apply(&self, event: WatchEvent<SeenNamespace>) {
        let mut state = self.lock();
        match event {
            WatchEvent::Restarted => state.list += 1,
            WatchEvent::Interrupted => {}
            WatchEvent::Present(SeenNamespace { name, kind: RoleNamespace::Other })
            | WatchEvent::Deleted(SeenNamespace { name, .. }) => drop(state.known.remove(&name)),
            WatchEvent::Present(SeenNamespace { name, kind }) => {
                let list = state.list;
                state.known.insert(name, (kind, list));
            }
            WatchEvent::Listed => {
                let current = state.list;
                state.known.retain(|_, (_, list)| *list == current);
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
        match self.lock().known.get(&id.namespace()) {
            Some((RoleNamespace::Role(role), _)) => Some(role.clone()),
            _ => None,
        }
    }

    /// All roles, by id.
    pub fn all(&self) -> Vec<Role> {
        let state = self.lock();
        let roles = state.known.values().filter_map(|(kind, _)| match kind {
            RoleNamespace::Role(role) => Some(role.clone()),
            _ => None,
        });
        roles.collect()
    }

    /// The names of namespaces that have only the name or only the label of a role.
    pub fn ignored(&self) -> Vec<String> {
        let state = self.lock();
        let ignored = state.known.iter().filter(|(_, (kind, _))| matches!(kind, RoleNamespace::Ignored));
        ignored.map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic under the lock leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::kubeconfig::Mode;

    fn role(id: &str, name: &str) -> RoleNamespace {
        RoleNamespace::Role(Role {
            id: RoleId::parse(id).unwrap(),
            name: name.into(),
            description: String::new(),
            kubeconfig_mode: Mode::Gateway,
            max_duration: None,
        })
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
