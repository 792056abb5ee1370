//! Reads, lists and watches RBAC objects, as far as they tell what roles can do.

use std::collections::{BTreeMap, BTreeSet};

use futures::Stream;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role as RbacRole, RoleBinding, RoleRef, Subject,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::objects::Objects;
use super::watch::{WatchCalls, WatchEvent};
use super::{Cluster, Error};
use crate::crd::Object;
use crate::domain::grants::{Binding, Grants, RbacName, Rules, SHARED_GROUPS, reaches_members};
use crate::domain::rights::Rule;
use crate::domain::role::{NAMESPACE_PREFIX, RoleId};
use crate::domain::walls::OwnAccount;

/// The label of the default bindings that the API server creates at every start.
const BOOTSTRAP_LABEL: &str = "kubernetes.io/bootstrapping";

/// A kind of RBAC objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum RbacKind {
    ClusterRoleBindings,
    RoleBindings,
    ClusterRoles,
    Roles,
}

impl RbacKind {
    /// All kinds, bindings first.
    pub const ALL: [Self; 4] = [Self::ClusterRoleBindings, Self::RoleBindings, Self::ClusterRoles, Self::Roles];

    /// The kind that a manifest names.
    pub fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "ClusterRoleBinding" => Self::ClusterRoleBindings,
            "RoleBinding" => Self::RoleBindings,
            "ClusterRole" => Self::ClusterRoles,
            "Role" => Self::Roles,
            _ => return None,
        })
    }

    /// Whether these are bindings, not roles.
    pub fn are_bindings(self) -> bool {
        matches!(self, Self::ClusterRoleBindings | Self::RoleBindings)
    }

    /// Whether these objects have a namespace.
    pub fn are_namespaced(self) -> bool {
        matches!(self, Self::RoleBindings | Self::Roles)
    }

    fn calls(self) -> WatchCalls {
        let (list, watch) = match self {
            Self::ClusterRoleBindings => ("list_cluster_role_bindings", "watch_cluster_role_bindings"),
            Self::RoleBindings => ("list_role_bindings", "watch_role_bindings"),
            Self::ClusterRoles => ("list_cluster_roles", "watch_cluster_roles"),
            Self::Roles => ("list_roles", "watch_roles"),
        };
        WatchCalls { list, watch }
    }
}

/// What an RBAC object contributes to what roles can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RbacObject {
    /// A binding that reaches members.
    Binding(Binding),
    /// A binding that reaches no member.
    OtherBinding,
    /// A Role or ClusterRole.
    Rules(Rules),
}

impl RbacObject {
    /// Reads an object; `None` if it is not among those that `is_held` names and tells nothing about members.
    pub fn read(kind: RbacKind, object: &Object, is_held: impl Fn(&RbacName) -> bool) -> Option<(RbacName, Self)> {
        let name = name(object);
        if !kind.are_bindings() {
            return is_held(&name).then(|| (name, Self::Rules(read_rules(object))));
        }
        match read_binding(object) {
            Some(binding) => Some((name, Self::Binding(binding))),
            None => is_held(&name).then_some((name, Self::OtherBinding)),
        }
    }
}

/// The RBAC of a cluster, or of a set of manifests, as far as it concerns members.
#[derive(Debug, Default)]
pub struct Rbac {
    bindings: Vec<Binding>,
    roles: BTreeMap<RbacName, Rules>,
    /// Daypass's own account, by role namespace.
    own_accounts: BTreeMap<String, OwnAccount>,
    /// Whether more may exist, as when manifests are read without the cluster that they are for.
    is_partial: bool,
}

impl Cluster {
    fn rbac_objects(&self, kind: RbacKind) -> Objects<'_> {
        match kind {
            RbacKind::ClusterRoleBindings => self.objects::<ClusterRoleBinding>(None),
            RbacKind::RoleBindings => self.objects::<RoleBinding>(None),
            RbacKind::ClusterRoles => self.objects::<ClusterRole>(None),
            RbacKind::Roles => self.objects::<RbacRole>(None),
        }
    }

    /// Lists all RBAC objects of the cluster.
    pub async fn rbac(&self) -> Result<Rbac, Error> {
        let read = |object: Object| (read_binding(&object), own_account(&object));
        let list = |kind: RbacKind| self.list_rbac(kind, read);
        let (cluster_wide, namespaced) =
            tokio::try_join!(list(RbacKind::ClusterRoleBindings), list(RbacKind::RoleBindings))?;
        let (bindings, accounts): (Vec<_>, Vec<_>) = cluster_wide.into_iter().chain(namespaced).unzip();
        let bindings: Vec<Binding> = bindings.into_iter().flatten().collect();

        let named: BTreeSet<&RbacName> = bindings.iter().filter_map(|binding| binding.role.as_ref()).collect();
        let read = |object: Object| {
            let name = name(&object);
            named.contains(&name).then(|| (name, read_rules(&object)))
        };
        let list = |kind: RbacKind| self.list_rbac(kind, read);
        let (cluster_roles, roles) = tokio::try_join!(list(RbacKind::ClusterRoles), list(RbacKind::Roles))?;
        Ok(Rbac {
            roles: cluster_roles.into_iter().chain(roles).flatten().collect(),
            bindings,
            own_accounts: accounts.into_iter().flatten().collect(),
            is_partial: false,
        })
    }

    async fn list_rbac<T>(&self, kind: RbacKind, read: impl Fn(Object) -> T) -> Result<Vec<T>, Error> {
        self.rbac_objects(kind).list(kind.calls().list, "-", None, read).await
    }

    /// Lists all objects of a kind, then streams each change, as [`RbacObject::read`] reads them.
    pub fn watch_rbac<F: Fn(&RbacName) -> bool>(
        &self,
        kind: RbacKind,
        is_held: F,
    ) -> impl Stream<Item = WatchEvent<(RbacName, RbacObject)>> + use<F> {
        self.rbac_objects(kind).watch(kind.calls(), move |object| RbacObject::read(kind, object, &is_held))
    }

    /// Reads the rules of a Role or ClusterRole from the API server.
    pub async fn rbac_rules(&self, role: &RbacName) -> Result<Rules, Error> {
        let (call, roles) = match &role.namespace {
            None => ("get_cluster_role", self.objects::<ClusterRole>(None)),
            Some(namespace) => ("get_role", self.objects::<RbacRole>(Some(namespace))),
        };
        let found = roles.get(call, &role.to_string(), &path_segment(&role.name)).await?;
        Ok(found.map_or(Rules::Missing, |object| read_rules(&object)))
    }
}

impl Rbac {
    /// An empty set of manifests, which need not be complete.
    pub fn of_manifests() -> Self {
        Self { is_partial: true, ..Self::default() }
    }

    /// Adds a manifest. Returns `false` if it is unreadable.
    pub fn add(&mut self, kind: RbacKind, manifest: &Value) -> bool {
        let Ok(object) = Object::parse(&manifest.to_string()) else { return false };
        if kind.are_bindings() {
            let binding = read_binding(&object);
            let is_readable = binding.as_ref().is_none_or(|binding| binding.role.is_some());
            self.bindings.extend(binding);
            self.own_accounts.extend(own_account(&object));
            return is_readable;
        }
        let rules = read_rules(&object);
        let is_readable = rules != Rules::Unknown;
        // A controller fills in the rules of an aggregated ClusterRole, so a manifest does not contain them.
        let is_aggregated = !manifest["aggregationRule"].is_null();
        self.roles.insert(name(&object), if is_aggregated { Rules::Unknown } else { rules });
        is_readable
    }

    /// Daypass's own account: the subject of the chart's `daypass` RoleBinding in this role's namespace.
    pub fn own_account(&self, role: &RoleId) -> Option<OwnAccount> {
        self.own_accounts.get(&role.namespace()).cloned()
    }

    /// Computes what this role is granted.
    pub fn grants(&self, role: &RoleId) -> Grants {
        let missing = if self.is_partial { &Rules::Unknown } else { &Rules::Missing };
        Grants::of(role, &self.bindings, |name| self.roles.get(name).unwrap_or(missing))
    }
}

fn name(object: &Object) -> RbacName {
    RbacName { namespace: object.namespace(), name: object.name() }
}

/// The account that the `daypass` RoleBinding of a role namespace binds, by that namespace.
fn own_account(binding: &Object) -> Option<(String, OwnAccount)> {
    let namespace = binding.namespace().filter(|namespace| namespace.starts_with(NAMESPACE_PREFIX))?;
    let subjects: Vec<Subject> = (binding.name() == "daypass").then(|| binding.part("subjects").ok())??;
    let account = subjects.into_iter().find(|subject| subject.kind == "ServiceAccount")?;
    Some((namespace, OwnAccount { namespace: account.namespace?, name: account.name }))
}

/// Reads a binding; `None` if it reaches no member. An unreadable one may bind everyone.
fn read_binding(object: &Object) -> Option<Binding> {
    let (groups, role) = match object.part::<Option<Vec<Subject>>>("subjects") {
        Ok(subjects) => (groups(subjects.unwrap_or_default()), role_of(object)),
        Err(_) => (SHARED_GROUPS.map(str::to_owned).into(), None),
    };
    if groups.is_empty() {
        return None;
    }
    if role.is_none() {
        tracing::warn!(binding = %name(object), "cannot read this binding: what roles can do is unknown");
    }
    let label = object.label(BOOTSTRAP_LABEL);
    Some(Binding {
        namespace: object.namespace(),
        groups: groups.into_iter().collect(),
        role,
        is_labelled_default: label.is_some_and(|value| value == "rbac-defaults"),
    })
}

/// The groups among the subjects that members are in.
fn groups(subjects: Vec<Subject>) -> BTreeSet<String> {
    let groups = subjects.into_iter().filter(|subject| subject.kind == "Group").map(|group| group.name);
    groups.filter(|name| reaches_members(name)).collect()
}

/// The role that a binding names; `None` if that is unreadable.
fn role_of(binding: &Object) -> Option<RbacName> {
    let role: RoleRef = binding.part("roleRef").ok()?;
    let namespace = match role.kind.as_str() {
        "ClusterRole" => None,
        "Role" => binding.namespace(),
        _ => return None,
    };
    Some(RbacName { namespace, name: role.name })
}

fn read_rules(object: &Object) -> Rules {
    let rules = object.part::<Option<Vec<PolicyRule>>>("rules");
    let unreadable = |_: &_| {
        tracing::warn!(role = %name(object), "cannot read the rules of this role: who is bound to it is uncontained");
    };
    rules
        .inspect_err(unreadable)
        .map_or(Rules::Unknown, |rules| Rules::Known(rules.into_iter().flatten().map(read_rule).collect()))
}

fn read_rule(rule: PolicyRule) -> Rule {
    let set = |items: Option<Vec<String>>| items.into_iter().flatten().collect();
    Rule {
        namespace: None,
        verbs: rule.verbs.into_iter().collect(),
        api_groups: set(rule.api_groups),
        resources: set(rule.resources),
        resource_names: set(rule.resource_names),
        urls: set(rule.non_resource_urls),
    }
}

/// Encodes a name for a path (RFC 3986). Names of roles may have characters that names of other objects cannot, such
/// as `?`.
fn path_segment(name: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
    utf8_percent_encode(name, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Object {
        Object::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn only_bindings_that_reach_members_are_read() {
        let bound = |kind: &str, name: &str| {
            read_binding(&object(&json!({
                "metadata": {"name": "a", "namespace": "n"}, "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [{"kind": "Group", "name": "system:masters"}, {"kind": kind, "name": name}],
            })))
        };
        let own = bound("Group", "system:serviceaccounts:daypass-view").unwrap();
        assert_eq!(own.groups, ["system:serviceaccounts:daypass-view"]);
        assert_eq!(own.role.unwrap().to_string(), "n/r");
        assert_eq!(bound("User", "system:authenticated"), None);
        assert_eq!(bound("Group", "system:serviceaccounts:kube-system"), None);
    }

    #[test]
    fn unreadable_binding_counts_for_every_role() {
        let kept = |subjects: Value, role: Value| {
            let metadata = json!({"name": "a"});
            read_binding(&object(&json!({"metadata": metadata, "roleRef": role, "subjects": subjects})))
        };
        let role = json!({"kind": "ClusterRole", "name": "r"});
        let everyone = kept(json!("all"), role).unwrap();
        assert_eq!((everyone.groups.len(), everyone.role), (SHARED_GROUPS.len(), None));
        let own = json!([{"kind": "Group", "name": "system:serviceaccounts:daypass-view"}]);
        for unreadable in [json!(7), Value::Null, json!({"kind": "Other", "name": "r"})] {
            assert_eq!(kept(own.clone(), unreadable.clone()).unwrap().role, None, "{unreadable}");
            assert_eq!(kept(json!([]), unreadable.clone()), None, "{unreadable}");
        }
        assert_eq!(read_rules(&object(&json!({"metadata": {"name": "r"}, "rules": 7}))), Rules::Unknown);
        assert_eq!(read_rules(&object(&json!({"metadata": {"name": "r"}}))), Rules::Known(vec![]));
    }

    #[test]
    fn name_in_a_path_is_encoded() {
        assert_eq!(path_segment("system:basic-user"), "system:basic-user");
        assert_eq!(path_segment("a?b#c d/ä"), "a%3Fb%23c%20d%2F%C3%A4");
    }
}
