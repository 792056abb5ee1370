//! What a role can do, in words.

use std::collections::BTreeSet;

use crate::api::members::{RoleSummary, RuleView};
use crate::domain::rights::Escape;

/// One rule of a role.
pub(super) struct RuleInWords {
    /// What may be done.
    pub(super) what: String,
    /// Where.
    pub(super) place: String,
}

/// What a role can do.
pub(super) struct RoleInWords {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) read_only: bool,
    /// Its rules; `None` if some cannot be read.
    pub(super) rules: Option<Vec<RuleInWords>>,
}

impl RoleInWords {
    pub(super) fn new(role: &RoleSummary) -> Self {
        Self {
            id: role.id.clone(),
            name: role.name.clone(),
            description: role.description.clone(),
            read_only: role.read_only,
            rules: role.rules.as_ref().map(|rules| rules.iter().map(rule).collect()),
        }
    }
}

fn rule(rule: &RuleView) -> RuleInWords {
    let verbs = verbs(&rule.verbs);
    let mut what = if rule.resources.is_empty() {
        format!("{verbs} the URLs {}", list(&rule.non_resource_urls))
    } else {
        let groups: Vec<&str> = rule.api_groups.iter().map(String::as_str).filter(|group| !group.is_empty()).collect();
        let of = if groups.is_empty() { String::new() } else { format!(" ({})", any(&groups.join(", "))) };
        format!("{verbs} {}{of}", resources(&rule.resources))
    };
    if !rule.resource_names.is_empty() {
        what = format!("{what}, only those named {}", list(&rule.resource_names));
    }
    let place = match &rule.namespaces {
        None => "in the whole cluster".to_owned(),
        Some(names) => format!("in {}", names.join(", ")),
    };
    RuleInWords { what, place }
}

fn verbs(verbs: &BTreeSet<String>) -> String {
    const READ: [&str; 3] = ["get", "list", "watch"];
    if verbs.contains("*") {
        return "do anything with".to_owned();
    }
    let reads = READ.iter().all(|verb| verbs.contains(*verb));
    let others = verbs.iter().map(String::as_str).filter(|verb| !reads || !READ.contains(verb));
    reads.then_some("read").into_iter().chain(others).collect::<Vec<_>>().join(", ")
}

fn resources(names: &BTreeSet<String>) -> String {
    if names.contains("*") { "every kind of object".to_owned() } else { list(names) }
}

fn any(text: &str) -> String {
    if text == "*" { "every API group".to_owned() } else { text.to_owned() }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a role is not contained, as the owner should know before it is given.
pub(super) fn escape(escape: Escape) -> &'static str {
    match escape {
        Escape::Escalate => "may add rights to a role that it lacks",
        Escape::Bind => "may bind a role with rights that it lacks",
        Escape::Impersonate => "may act as somebody else",
        Escape::Rbac => "may change roles and bindings",
        Escape::AdmissionControl => "may change admission policies or webhooks",
        Escape::ApiExtensions => "may answer in place of the API server",
        Escape::FlowControl => "may slow down other clients of the API server",
        Escape::ClusterConfiguration => "may change whom the cluster trusts",
        Escape::Credentials => "may obtain credentials that outlast it",
        Escape::NodesProxy => "may reach every pod of a node, past the API server's checks",
        Escape::ServiceAccountTokens => "may obtain tokens of service accounts, which outlast it",
        Escape::Wildcard => "has a `*` right, which includes everything",
        Escape::NoWalls => "may write, and the walls that keep its writes from outlasting it are missing",
        Escape::Unknown => "has rights that Daypass cannot read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn words(view: &RuleView) -> String {
        let RuleInWords { what, place } = rule(view);
        format!("{what} {place}")
    }

    #[test]
    fn rules_read_as_a_person_would_say_them() {
        let view =
            |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str], places: Option<&[&str]>| RuleView {
                namespaces: places.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
                verbs: set(verbs),
                api_groups: set(groups),
                resources: set(resources),
                resource_names: set(names),
                non_resource_urls: set(&[]),
            };
        let read = view(&["get", "list", "watch"], &["", "apps"], &["deployments", "pods"], &[], Some(&["a", "b"]));
        assert_eq!(words(&read), "read deployments, pods (apps) in a, b");
        let shell = view(&["create", "get", "list", "watch"], &[""], &["pods/exec"], &[], None);
        assert_eq!(words(&shell), "read, create pods/exec in the whole cluster");
        let some = view(&["get"], &[""], &["configmaps"], &["app"], Some(&["a"]));
        assert_eq!(words(&some), "get configmaps, only those named app in a");
        let all = view(&["*"], &["*"], &["*"], &[], None);
        assert_eq!(words(&all), "do anything with every kind of object (every API group) in the whole cluster");
        let urls = RuleView { non_resource_urls: set(&["/healthz"]), ..view(&["get"], &[], &[], &[], None) };
        assert_eq!(words(&urls), "get the URLs /healthz in the whole cluster");
    }
}
