//! Objects in the cluster and events in the audit trail.

use chrono::{DateTime, TimeDelta, Utc};
use daypass::clock::Clock;
use serde_json::{Value, json};

use super::api::collection;
use super::{Cluster, Daypass, Kubeconfig, NewMember, Role, eventually};

/// This machine's time, which is the local control plane's too.
pub fn now() -> DateTime<Utc> {
    Clock::default().local()
}

/// A time as Kubernetes and the REST API write them.
#[track_caller]
pub fn time(text: &Value) -> DateTime<Utc> {
    text.as_str().unwrap().parse().unwrap()
}

/// The objects of a member that exist.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers {
    pub member: bool,
    pub account: bool,
    pub secrets: usize,
}

impl Leftovers {
    pub const NOTHING: Self = Self { member: false, account: false, secrets: 0 };
}

impl Cluster {
    /// The objects of a member of this name that exist.
    #[track_caller]
    pub fn leftovers(&self, role: &Role, name: &str) -> Leftovers {
        let names = |kind: &str| -> Vec<String> {
            let objects = self.list(&role.namespace, kind);
            objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
        };
        let is_there = |kind: &str| names(kind).iter().any(|it| it == name);
        let prefix = format!("{name}.");
        Leftovers {
            member: is_there("member"),
            account: is_there("serviceaccount"),
            secrets: names("secret").iter().filter(|name| name.starts_with(&prefix)).count(),
        }
    }

    /// Waits until nothing is left of a member.
    #[track_caller]
    pub fn wait_gone(&self, role: &Role, name: &str) {
        eventually(&format!("nothing is left of {name}"), || {
            (self.leftovers(role, name) == Leftovers::NOTHING).then_some(())
        });
    }

    /// The UID of an existing object.
    #[track_caller]
    pub fn uid(&self, namespace: &str, kind: &str, name: &str) -> String {
        let object = self.object(namespace, kind, name).unwrap_or_else(|| panic!("no {kind} {name}"));
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Applies a merge patch (RFC 7386).
    #[track_caller]
    pub fn patch(&self, namespace: &str, kind: &str, name: &str, patch: &Value) {
        self.api.patch(&format!("{}/{name}", collection(namespace, kind)), patch).expect(200);
    }
}

impl Kubeconfig {
    /// Waits until the API server refuses it, which caches an accepted token for 10 s.
    #[track_caller]
    pub fn wait_refused(&self, cluster: &Cluster) {
        eventually("the kubeconfig is refused", || (!self.is_accepted(cluster)).then_some(()));
    }
}

impl NewMember {
    /// Checks that this Daypass refuses everything for the member.
    #[track_caller]
    pub fn assert_dead(&self, daypass: &Daypass) {
        let owner = &daypass.owner;
        owner.get(&self.path("")).problem(404, "DP_ERR_NOT_FOUND");
        owner.patch(&self.path(""), &json!({"duration": 4})).problem(404, "DP_ERR_NOT_FOUND");
        owner.post(&self.path("/credentials"), &json!({})).problem(404, "DP_ERR_NOT_FOUND");
        owner.delete(&self.path("")).problem(404, "DP_ERR_NOT_FOUND");
        let engineer = owner.with_basic(&self.id, &self.password);
        engineer.get(&self.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        engineer.get(&self.path("/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }

    /// Changes the duration so that the member ends in this many seconds. Returns that time.
    #[track_caller]
    pub fn end_in_seconds(&self, cluster: &Cluster, role: &Role, seconds: i64) -> DateTime<Utc> {
        let created = time(&self.body["createdAt"]);
        let duration = (now() - created).num_seconds() + seconds;
        cluster.patch(&role.namespace, "member", self.name(), &json!({"spec": {"duration": format!("{duration}s")}}));
        created + TimeDelta::seconds(duration)
    }
}

/// Waits until a time has come.
pub fn wait_until(then: DateTime<Utc>) {
    eventually(&format!("it is {then}"), || (now() >= then).then_some(()));
}

impl Daypass {
    /// The kinds of the audit events that it recorded about a member, in order.
    pub fn event_kinds(&self, member: &str) -> Vec<String> {
        self.audit(member).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it has compared what the roles can do with what their members were given, as a leader does after
    /// its first sweep. It knows the roles as they were then.
    pub fn wait_roles_compared(&self) {
        eventually("Daypass has compared the roles", || {
            self.log().contains("compared what roles can do").then_some(())
        });
    }

    /// Waits for the first audit event of a kind about a member.
    #[track_caller]
    pub fn wait_event(&self, member: &str, kind: &str) -> Value {
        eventually(&format!("{kind} of {member} is recorded"), || {
            self.audit(member).into_iter().find(|event| event["event"] == kind)
        })
    }
}
