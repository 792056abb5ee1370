//! A member and its kubeconfigs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::cluster::{Cluster, Role};
use super::http::{Answer, Http};
use super::jwt::claims;
use super::{Daypass, eventually};

/// A member with a credential from the REST API.
pub struct NewMember {
    pub id: String,
    /// The answer.
    pub body: Value,
    pub password: String,
    /// A client with its credential.
    pub engineer: Http,
}

/// A kubeconfig as a file, and the token in it.
pub struct Kubeconfig {
    pub text: String,
    pub file: PathBuf,
    pub token: String,
    /// The token's claims; null for a gateway kubeconfig.
    pub claims: Value,
}

impl NewMember {
    /// Creates a member for this many hours.
    #[track_caller]
    pub fn new(caller: &Http, role: &Role, hours: u8) -> Self {
        Self::created(caller, &caller.post("/members", &json!({"duration": hours, "roleId": role.id})).expect(201))
    }

    /// The member in the answer to its creation.
    #[track_caller]
    pub fn created(caller: &Http, answer: &Answer) -> Self {
        let body = answer.json();
        Self::of(caller, &body["credentials"], body.clone())
    }

    /// Creates a member with kubectl, then a credential for it.
    #[track_caller]
    pub fn applied(cluster: &Cluster, daypass: &Daypass, role: &Role, name: &str, spec: &Value) -> Self {
        cluster.apply_member(role, name, spec);
        Self::with_credential(daypass, role, name)
    }

    /// Waits until a Member is active and creates a credential for it.
    #[track_caller]
    pub fn with_credential(daypass: &Daypass, role: &Role, name: &str) -> Self {
        let path = format!("/members/{}.{name}", role.id);
        let body = eventually("the member is active", || {
            let answer = daypass.owner.get(&path);
            (answer.status == 200 && answer.json()["status"] == "ACTIVE").then(|| answer.json())
        });
        let credentials = daypass.owner.post(&format!("{path}/credentials"), &json!({})).expect(201).json();
        Self::of(&daypass.owner, &credentials, body)
    }

    fn of(caller: &Http, credentials: &Value, body: Value) -> Self {
        let text = |field: &str| credentials[field].as_str().unwrap().to_owned();
        let (id, password) = (text("username"), text("password"));
        Self { engineer: caller.with_basic(&id, &password), id, password, body }
    }

    /// The same member, at another replica.
    pub fn at(&self, daypass: &Daypass) -> Self {
        let engineer = daypass.owner.with_basic(&self.id, &self.password);
        Self { engineer, id: self.id.clone(), body: self.body.clone(), password: self.password.clone() }
    }

    /// A path below the member's.
    pub fn path(&self, rest: &str) -> String {
        format!("/members/{}{rest}", self.id)
    }

    /// The name of the Member and its service account.
    pub fn name(&self) -> &str {
        self.id.split_once('.').unwrap().1
    }

    /// Downloads a kubeconfig.
    #[track_caller]
    pub fn kubeconfig(&self, cluster: &Cluster) -> Kubeconfig {
        Kubeconfig::new(cluster, &self.engineer.get(&self.path("/kubeconfig")).expect(200))
    }

    /// The ids of its kubeconfigs in a client's list.
    #[track_caller]
    pub fn listed(&self, client: &Http) -> Vec<String> {
        let list = client.get(&self.path("/kubeconfigs")).expect(200).json();
        list["items"].as_array().unwrap().iter().map(|item| item["jti"].as_str().unwrap().to_owned()).collect()
    }
}

impl Kubeconfig {
    pub fn new(cluster: &Cluster, answer: &Answer) -> Self {
        let text = answer.text.clone();
        let parsed: Value = serde_yaml::from_str(&text).unwrap();
        let token = parsed["users"][0]["user"]["token"].as_str().unwrap().to_owned();
        let claims = if token.starts_with("dpg_") { Value::Null } else { claims(&token) };
        Self { file: cluster.save(&text), claims, text, token }
    }

    /// The token's own id.
    pub fn jti(&self) -> &str {
        self.claims["jti"].as_str().unwrap()
    }

    /// When the token ends, in seconds since 1970.
    pub fn exp(&self) -> i64 {
        self.claims["exp"].as_i64().unwrap()
    }

    /// Whether the API server accepts its token.
    #[track_caller]
    pub fn is_accepted(&self, cluster: &Cluster) -> bool {
        cluster.api.accepts(&self.token)
    }
}

impl Cluster {
    /// Creates a Member with kubectl.
    #[track_caller]
    pub fn apply_member(&self, role: &Role, name: &str, spec: &Value) {
        self.apply(
            &json!({
                "apiVersion": "daypass.dev/v1alpha1", "kind": "Member",
                "metadata": {"name": name, "namespace": role.namespace}, "spec": spec,
            })
            .to_string(),
        );
    }
}
