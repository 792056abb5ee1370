//! What is in the cluster and in the audit trail, as tests look at it.

use chrono::{DateTime, TimeDelta, Utc};
use daypass::clock::Clock;
use serde_json::{Value, json};

use super::{Created, Daypass, Kubeconfig, Lab, Role, eventually};

/// This machine's time, which is the local control plane's too.
pub fn now() -> DateTime<Utc> {
    Clock::default().local()
}

/// A time as Kubernetes and the REST API write them.
#[track_caller]
pub fn time(text: &Value) -> DateTime<Utc> {
    text.as_str().unwrap().parse().unwrap()
}

/// What is left of one member in its namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Remains {
    pub member: bool,
    pub account: bool,
    pub secrets: usize,
}

impl Remains {
    pub const NOTHING: Self = Self { member: false, account: false, secrets: 0 };
}

impl Lab {
    /// What is there under a member's name.
    #[track_caller]
    pub fn remains(&self, role: &Role, name: &str) -> Remains {
        let list = self.kubectl(&["get", "members,serviceaccounts,secrets", "-n", &role.namespace, "-o", "json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list["items"].as_array().unwrap();
        let is_there = |kind: &str| items.iter().any(|item| item["kind"] == kind && item["metadata"]["name"] == name);
        let is_its = |item: &&Value| {
            item["kind"] == "Secret" && item["metadata"]["name"].as_str().unwrap().starts_with(&format!("{name}."))
        };
        Remains {
            member: is_there("Member"),
            account: is_there("ServiceAccount"),
            secrets: items.iter().filter(is_its).count(),
        }
    }

    /// Waits until nothing is left of a member.
    #[track_caller]
    pub fn wait_gone(&self, role: &Role, name: &str) {
        eventually(&format!("nothing is left of {name}"), || {
            (self.remains(role, name) == Remains::NOTHING).then_some(())
        });
    }

    /// The UID of an object that is there.
    #[track_caller]
    pub fn uid(&self, namespace: &str, kind: &str, name: &str) -> String {
        self.kubectl(&["get", kind, name, "-n", namespace, "-o", "jsonpath={.metadata.uid}"])
    }

    /// `kubectl patch` with a merge patch.
    #[track_caller]
    pub fn patch(&self, namespace: &str, kind: &str, name: &str, patch: &Value) {
        self.kubectl(&["patch", kind, name, "-n", namespace, "--type=merge", "-p", &patch.to_string()]);
    }
}

impl Kubeconfig {
    /// Waits until the API server, which remembers a token for 10 s, refuses it.
    #[track_caller]
    pub fn wait_refused(&self, lab: &Lab) {
        eventually("the kubeconfig is refused", || (!self.is_accepted(lab)).then_some(()));
    }
}

impl Created {
    /// Checks that nobody can do anything with the member through this Daypass, at once.
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

    /// Changes the duration with kubectl so that the member ends so many seconds from now; when that is.
    #[track_caller]
    pub fn end_in(&self, lab: &Lab, role: &Role, seconds: i64) -> DateTime<Utc> {
        let created = time(&self.body["createdAt"]);
        let duration = (now() - created).num_seconds() + seconds;
        lab.patch(&role.namespace, "member", self.name(), &json!({"spec": {"duration": format!("{duration}s")}}));
        created + TimeDelta::seconds(duration)
    }
}

/// Waits until then.
pub fn wait_until(then: DateTime<Utc>) {
    eventually(&format!("it is {then}"), || (now() >= then).then_some(()));
}

impl Daypass {
    /// The kinds of the audit events that it recorded about a member, in order.
    pub fn kinds(&self, member: &str) -> Vec<String> {
        self.audit(member).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it has read what roles can do, as it does when it has begun to lead: from then on it knows them as
    /// they were. (Requests that it has not been sent read it too.)
    pub fn wait_rights_read(&self) {
        let lists = ["list_cluster_role_bindings", "list_role_bindings", "list_cluster_roles", "list_roles"];
        eventually("it has read the roles' rights", || lists.iter().all(|call| self.calls(call) >= 1.0).then_some(()));
    }

    /// Waits for the first audit event of a kind about a member.
    #[track_caller]
    pub fn recorded(&self, member: &str, kind: &str) -> Value {
        eventually(&format!("{kind} of {member} is recorded"), || {
            self.audit(member).into_iter().find(|event| event["event"] == kind)
        })
    }
}
