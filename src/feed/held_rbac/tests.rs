//! Any order of events, relists and GETs leads to what one list of the final objects gives.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::cluster::Rbac;
use crate::crd::Object;

type Event = WatchEvent<(RbacName, RbacObject)>;

/// A cluster, and what a replica holds of its RBAC.
#[derive(Default)]
struct World {
    objects: BTreeMap<(RbacKind, RbacName), Value>,
    /// Every change so far, with the object's last state, and whether it was deleted.
    changes: BTreeMap<RbacKind, Vec<(Value, bool)>>,
    /// How many of the changes each watch has delivered; missing before its first list.
    delivered: BTreeMap<RbacKind, usize>,
    /// Lists that have been read and not been taken in yet.
    lists: BTreeMap<RbacKind, VecDeque<Event>>,
    /// The GETs in flight, with their answers.
    gets: VecDeque<(RbacName, u64, Rules)>,
    held: HeldRbac,
}

impl World {
    /// Creates, changes or deletes an object.
    fn write(&mut self, kind: RbacKind, name: &RbacName, content: Option<&Value>) {
        let key = (kind, name.clone());
        let before = self.objects.remove(&key);
        let mut object = match (content, before) {
            (Some(content), _) => content.clone(),
            (None, Some(before)) => before,
            (None, None) => return,
        };
        object["metadata"] = json!({"name": name.name, "namespace": name.namespace});
        self.changes.entry(kind).or_default().push((object.clone(), content.is_none()));
        if content.is_some() {
            self.objects.insert(key, object);
        }
    }

    fn read(&self, kind: RbacKind, object: &Value) -> Option<(RbacName, RbacObject)> {
        let object = Object::parse(&object.to_string()).unwrap();
        RbacObject::read(kind, &object, |name| self.held.holds(kind, name))
    }

    /// The watch starts again, even in the middle of a list.
    fn restart(&mut self, kind: RbacKind) {
        let objects = self.objects.iter().filter(|((of, _), _)| *of == kind);
        let listed = objects.filter_map(|(_, object)| self.read(kind, object)).map(WatchEvent::Present);
        let list = [WatchEvent::Interrupted, WatchEvent::Restarted].into_iter().chain(listed);
        let list = list.chain([WatchEvent::Listed]).collect();
        self.lists.insert(kind, list);
        self.delivered.insert(kind, self.changes.get(&kind).map_or(0, Vec::len));
    }

    /// The watch delivers its next event. Returns whether there was one.
    fn deliver(&mut self, kind: RbacKind) -> bool {
        if !self.delivered.contains_key(&kind) {
            self.restart(kind);
        }
        if let Some(event) = self.lists.get_mut(&kind).and_then(VecDeque::pop_front) {
            self.held.apply(kind, event);
            return true;
        }
        let delivered = self.delivered[&kind];
        let Some((object, deleted)) = self.changes.get(&kind).and_then(|changes| changes.get(delivered)) else {
            return false;
        };
        let event = if *deleted { WatchEvent::Deleted } else { WatchEvent::Present };
        if let Some(read) = self.read(kind, object) {
            self.held.apply(kind, event(read));
        }
        self.delivered.insert(kind, delivered + 1);
        true
    }

    /// The replica sends the GETs that it waits for; the API server reads the objects.
    fn send_gets(&mut self) {
        for (name, number) in self.held.awaited() {
            let kind = kind_of_role(&name);
            let rules = self.objects.get(&(kind, name.clone())).map_or(Rules::Missing, |object| {
                match self.read(kind, object) {
                    Some((_, RbacObject::Rules(rules))) => rules,
                    other => panic!("{other:?}"),
                }
            });
            self.gets.push_back((name, number, rules));
        }
    }

    fn answer_get(&mut self) {
        if let Some((name, number, rules)) = self.gets.pop_front() {
            self.held.answer(&name, number, rules);
        }
    }

    /// Everything in flight arrives.
    fn settle(&mut self) {
        for kind in RbacKind::ALL {
            while self.deliver(kind) {}
        }
        while !self.gets.is_empty() {
            self.answer_get();
        }
        self.send_gets();
        while !self.gets.is_empty() {
            self.answer_get();
        }
    }

    /// What one list of all objects gives.
    fn rbac(&self) -> Rbac {
        let mut rbac = Rbac::default();
        for ((kind, _), object) in &self.objects {
            let _ = rbac.add(*kind, object);
        }
        rbac
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(RbacKind, RbacName, Option<Value>),
    Deliver(RbacKind),
    Restart(RbacKind),
    SendGets,
    AnswerGet,
    Hash,
}

fn any_name(kind: RbacKind) -> impl Strategy<Value = RbacName> {
    let namespaces = if kind.are_namespaced() { vec![Some("x"), Some("y")] } else { vec![None] };
    (select(namespaces), select(vec!["a", "b"]))
        .prop_map(|(namespace, name)| RbacName { namespace: namespace.map(str::to_owned), name: name.to_owned() })
}

fn any_object(kind: RbacKind) -> BoxedStrategy<Value> {
    if kind.are_bindings() {
        let groups = ["system:serviceaccounts:daypass-view", "system:authenticated", "system:masters"];
        let subjects = groups.map(|name| json!([{"kind": "Group", "name": name}])).to_vec();
        let mut roles = vec![("ClusterRole", "a"), ("ClusterRole", "b")];
        if kind.are_namespaced() {
            roles.extend([("Role", "a"), ("Role", "b")]);
        }
        let roles = select(roles).prop_map(|(kind, name)| json!({"kind": kind, "name": name}));
        let subjects = prop_oneof![9 => select(subjects), 1 => Just(json!("unreadable"))];
        let roles = prop_oneof![9 => roles, 1 => Just(json!("unreadable"))];
        (subjects, roles).prop_map(|(subjects, role)| json!({"subjects": subjects, "roleRef": role})).boxed()
    } else {
        let rules = |verb: &str| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]);
        let rules = vec![rules("get"), rules("list"), json!([]), json!("unreadable")];
        select(rules).prop_map(|rules| json!({"rules": rules})).boxed()
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let any_kind = || select(RbacKind::ALL.to_vec());
    let write = any_kind().prop_flat_map(|kind| {
        let content = proptest::option::weighted(0.7, any_object(kind));
        (any_name(kind), content).prop_map(move |(name, content)| Step::Write(kind, name, content))
    });
    prop_oneof![
        4 => write,
        6 => any_kind().prop_map(Step::Deliver),
        1 => any_kind().prop_map(Step::Restart),
        2 => Just(Step::SendGets),
        2 => Just(Step::AnswerGet),
        1 => Just(Step::Hash),
    ]
}

fn roles() -> [RoleId; 2] {
    ["view", "other"].map(|id| RoleId::parse(id).unwrap())
}

fn sorted(mut grants: Grants) -> Grants {
    grants.rules.sort();
    grants
}

proptest! {
    #[test]
    fn any_order_of_events_gives_what_a_list_gives(steps in proptest::collection::vec(any_step(), 0..60)) {
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Write(kind, name, content) => world.write(kind, &name, content.as_ref()),
                Step::Deliver(kind) => drop(world.deliver(kind)),
                Step::Restart(kind) => world.restart(kind),
                Step::SendGets => world.send_gets(),
                Step::AnswerGet => world.answer_get(),
                Step::Hash => drop(roles().map(|role| world.held.role_hash(&role))),
            }
        }
        world.settle();
        prop_assert_eq!(world.held.awaited(), []);
        let rbac = world.rbac();
        for role in roles() {
            let expected = rbac.grants(&role);
            let found = world.held.grants(&role).unwrap();
            prop_assert_eq!(world.held.role_hash(&role), expected.fingerprint());
            prop_assert_eq!(sorted(found), sorted(expected));
        }
        // Nothing else is held.
        let named: BTreeSet<_> = world.held.bindings.values().filter_map(|binding| binding.role.as_ref()).collect();
        prop_assert_eq!(world.held.roles.keys().collect::<BTreeSet<_>>(), named);
        prop_assert!(world.held.lists.is_empty());
    }
}

fn named(namespace: Option<&str>, name: &str) -> RbacName {
    RbacName { namespace: namespace.map(str::to_owned), name: name.to_owned() }
}

fn binding(role: &str) -> Value {
    json!({
        "subjects": [{"kind": "Group", "name": "system:serviceaccounts:daypass-view"}],
        "roleRef": {"kind": "ClusterRole", "name": role},
    })
}

fn rules(verb: &str) -> Value {
    json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]})
}

#[test]
fn rights_are_unknown_until_all_kinds_are_listed() {
    let mut world = World::default();
    let [view, _] = roles();
    for kind in RbacKind::ALL {
        assert_eq!((world.held.grants(&view), world.held.role_hash(&view)), (None, None));
        while world.deliver(kind) {}
    }
    assert_eq!(world.held.grants(&view).unwrap().rules, []);
    assert!(world.held.role_hash(&view).is_some());
}

#[test]
fn foreign_rbac_is_not_held() {
    let mut world = World::default();
    let foreign = json!({
        "subjects": [{"kind": "Group", "name": "system:serviceaccounts:team"}, {"kind": "User", "name": "ann"}],
        "roleRef": {"kind": "Role", "name": "own"},
    });
    world.write(RbacKind::ClusterRoles, &named(None, "reader"), Some(&rules("get")));
    world.write(RbacKind::ClusterRoleBindings, &named(None, "view"), Some(&binding("reader")));
    let write_foreign = |world: &mut World, team: usize| {
        let namespace = format!("team-{team}");
        world.write(RbacKind::RoleBindings, &named(Some(&namespace), "own"), Some(&foreign));
        world.write(RbacKind::Roles, &named(Some(&namespace), "own"), Some(&rules("*")));
        world.write(RbacKind::ClusterRoles, &named(None, &namespace), Some(&rules("*")));
        world.write(RbacKind::ClusterRoleBindings, &named(None, &namespace), Some(&foreign));
    };
    // Half of them are listed, and half of them are new.
    (0..300).for_each(|team| write_foreign(&mut world, team));
    world.settle();
    (300..600).for_each(|team| write_foreign(&mut world, team));
    world.settle();
    let HeldRbac { bindings, roles: held_roles, lists, .. } = &world.held;
    assert_eq!((bindings.len(), held_roles.len(), lists.len()), (1, 1, 0));
    assert_eq!(world.held.grants(&roles()[0]).unwrap().rules.len(), 1);
}

#[test]
fn new_binding_of_an_old_role_is_unknown_until_the_get_answers() {
    let mut world = World::default();
    let [view, other] = roles();
    world.write(RbacKind::ClusterRoles, &named(None, "reader"), Some(&rules("get")));
    world.settle();
    world.write(RbacKind::ClusterRoleBindings, &named(None, "view"), Some(&binding("reader")));
    while world.deliver(RbacKind::ClusterRoleBindings) {}
    assert!(world.held.grants(&view).unwrap().unknown);
    assert_eq!(world.held.role_hash(&view), None);
    assert!(world.held.role_hash(&other).is_some(), "others are known");
    assert_eq!(world.held.unreadable(), 0, "it is only not read yet");
    world.send_gets();
    world.answer_get();
    assert_eq!(world.held.grants(&view).unwrap().rules.len(), 1);
}

#[test]
fn late_get_does_not_bring_back_a_deleted_role() {
    let mut world = World::default();
    let reader = named(None, "reader");
    world.write(RbacKind::ClusterRoles, &reader, Some(&rules("get")));
    world.settle();
    world.write(RbacKind::ClusterRoleBindings, &named(None, "view"), Some(&binding("reader")));
    while world.deliver(RbacKind::ClusterRoleBindings) {}
    world.send_gets();
    world.write(RbacKind::ClusterRoles, &reader, None);
    // The watch is down at that time, so the deletion is only seen by a list.
    world.restart(RbacKind::ClusterRoles);
    world.settle();
    let grants = world.held.grants(&roles()[0]).unwrap();
    assert_eq!((grants.rules.len(), grants.unknown), (0, false));
}

#[test]
fn unreadable_objects_are_counted_while_they_exist() {
    let mut world = World::default();
    let [view, other] = roles();
    world.write(RbacKind::ClusterRoles, &named(None, "reader"), Some(&json!({"rules": 7})));
    world.write(RbacKind::ClusterRoleBindings, &named(None, "view"), Some(&binding("reader")));
    world.settle();
    assert!(world.held.grants(&view).unwrap().unknown && !world.held.grants(&other).unwrap().unknown);
    world.write(RbacKind::RoleBindings, &named(Some("x"), "a"), Some(&json!({"subjects": 7})));
    world.settle();
    assert!(world.held.grants(&other).unwrap().unknown);
    assert_eq!(world.held.unreadable(), 2);
    world.write(RbacKind::RoleBindings, &named(Some("x"), "a"), None);
    world.write(RbacKind::ClusterRoles, &named(None, "reader"), Some(&rules("get")));
    world.settle();
    assert!(!world.held.grants(&view).unwrap().unknown && !world.held.grants(&other).unwrap().unknown);
    assert_eq!(world.held.unreadable(), 0);
}
