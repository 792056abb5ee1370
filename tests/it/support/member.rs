//! A member as its owner makes it and as it uses its kubeconfigs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::http::{Answer, Http};
use super::jwt::claims;
use super::lab::{Lab, Role};
use super::{Daypass, eventually};

/// A member that was made over REST, or given a credential over it.
pub struct Created {
    pub id: String,
    /// What was answered.
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
    /// The token's claims.
    pub claims: Value,
}

impl Created {
    /// A member for so many hours.
    #[track_caller]
    pub fn new(caller: &Http, role: &Role, hours: u8) -> Self {
        let body = caller.post("/members", &json!({"duration": hours, "roleId": role.id})).expect(201).json();
        Self::of(caller, &body["credentials"], body.clone())
    }

    /// A member made with kubectl, of this spec, which then got a credential.
    #[track_caller]
    pub fn applied(lab: &Lab, daypass: &Daypass, role: &Role, name: &str, spec: &Value) -> Self {
        lab.apply_member(role, name, spec);
        Self::with_credential(daypass, role, name)
    }

    /// A Member that is there, as soon as it is active, with a new credential.
    #[track_caller]
    pub fn with_credential(daypass: &Daypass, role: &Role, name: &str) -> Self {
        let path = format!("/members/{}.{name}", role.id);
        let body = eventually("the Member is a member", || {
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

    /// A path of the member's.
    pub fn path(&self, rest: &str) -> String {
        format!("/members/{}{rest}", self.id)
    }

    /// The name of the Member and its service account.
    pub fn name(&self) -> &str {
        self.id.split_once('.').unwrap().1
    }

    /// Downloads a kubeconfig.
    #[track_caller]
    pub fn kubeconfig(&self, lab: &Lab) -> Kubeconfig {
        Kubeconfig::new(lab, &self.engineer.get(&self.path("/kubeconfig")).expect(200))
    }

    /// The ids of the kubeconfigs that are listed, as the caller sees them.
    #[track_caller]
    pub fn listed(&self, client: &Http) -> Vec<String> {
        let list = client.get(&self.path("/kubeconfigs")).expect(200).json();
        list["items"].as_array().unwrap().iter().map(|item| item["jti"].as_str().unwrap().to_owned()).collect()
    }
}

impl Kubeconfig {
    pub fn new(lab: &Lab, answer: &Answer) -> Self {
        let text = answer.text.clone();
        let parsed: Value = serde_yaml::from_str(&text).unwrap();
        let token = parsed["users"][0]["user"]["token"].as_str().unwrap().to_owned();
        Self { file: lab.save(&text), claims: claims(&token), text, token }
    }

    /// The token's own id.
    pub fn jti(&self) -> &str {
        self.claims["jti"].as_str().unwrap()
    }

    /// When the token ends, in seconds since 1970.
    pub fn exp(&self) -> i64 {
        self.claims["exp"].as_i64().unwrap()
    }

    /// Whether the API server takes it (`true`) or refuses it as nobody's (`false`).
    #[track_caller]
    pub fn is_accepted(&self, lab: &Lab) -> bool {
        let output = lab.kubectl_with(&self.file, &["auth", "whoami"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || error.contains("Unauthorized"), "{error}");
        output.status.success()
    }
}

impl Lab {
    /// Makes a Member with kubectl.
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
