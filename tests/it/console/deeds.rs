//! What the scripts cannot do in a browser or over REST.

use std::path::Path;

use chrono::TimeDelta;
use daypass_local::{Component, Shutdown};
use serde_json::{Value, json};

use crate::support::tokens::AccessToken;
use crate::support::{Cluster, Daypass, Role, now, time};

/// The cluster and the Daypass of one script.
pub(crate) struct Deeds<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) daypass: &'a Daypass,
    pub(crate) role: &'a Role,
}

impl Deeds<'_> {
    /// Does what a script asks for.
    #[track_caller]
    pub(super) fn answer(&self, asked: &Value) -> Value {
        let text = |field: &str| asked[field].as_str().unwrap_or_else(|| panic!("{field} in {asked}"));
        match text("deed") {
            "end member" => self.end_member(text("id"), asked["seconds"].as_i64().unwrap()),
            "end token" => self.end_token(text("id"), asked["seconds"].as_i64().unwrap()),
            "kubectl" => self.kubectl(Path::new(text("file")), &asked["args"]),
            "audit" => json!(self.daypass.event_kinds(text("member"))),
            "leaks" => self.leaks(&asked["secrets"]),
            "caller" => self.caller(asked),
            "role" => json!(self.cluster.role_of(&asked["values"]).id),
            "rules" => json!(self.cluster.apply(&self.cluster.render_role(&self.role.id, &asked["values"]))),
            "object" => self.cluster.object(text("namespace"), text("kind"), text("name")).unwrap_or_default(),
            "apply member" => {
                self.cluster.apply_member(self.role, text("name"), &asked["spec"]);
                Value::Null
            }
            "stop API server" => {
                self.cluster.plane.stop_component(Component::ApiServer, Shutdown::Kill).unwrap();
                Value::Null
            }
            "start API server" => {
                self.cluster.plane.start_component(Component::ApiServer).unwrap();
                Value::Null
            }
            "probe" => json!(self.daypass.probe(text("path")).0),
            other => panic!("{other} is no deed"),
        }
    }

    /// Changes a member's duration so that it ends in this many seconds. Returns its end.
    fn end_member(&self, id: &str, seconds: i64) -> Value {
        let body = self.daypass.owner.get(&format!("/members/{id}")).expect(200).json();
        let created = time(&body["createdAt"]);
        let duration = ((now() - created).num_seconds() + seconds).max(1);
        let (_, name) = id.split_once('.').unwrap();
        let patch = json!({"spec": {"duration": format!("{duration}s")}});
        self.cluster.patch(&self.role.namespace, "member", name, &patch);
        json!(created + TimeDelta::seconds(duration))
    }

    /// Lets an access token or a session end in this many seconds.
    fn end_token(&self, id: &str, seconds: i64) -> Value {
        let end = now() + TimeDelta::seconds(seconds);
        let http = self.daypass.owner.clone();
        self.cluster
            .write_token_end(&AccessToken { id: id.to_owned(), secret: String::new(), body: Value::Null, http }, end);
        json!(end)
    }

    /// Runs kubectl with a downloaded kubeconfig.
    fn kubectl(&self, file: &Path, args: &Value) -> Value {
        let args: Vec<&str> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        let output = self.cluster.kubectl_with(file, &args);
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        json!({"status": output.status.code(), "output": text})
    }

    /// How many of these secrets are in the log, the audit trail or the metrics.
    fn leaks(&self, secrets: &Value) -> Value {
        let audit = self.daypass.audit_events().iter().map(Value::to_string).collect::<String>();
        let written = [self.daypass.log(), audit, self.daypass.metrics()];
        let secrets = secrets.as_array().unwrap().iter().map(|secret| secret.as_str().unwrap());
        json!(secrets.filter(|secret| written.iter().any(|text| text.contains(secret))).count())
    }

    /// A caller with these verbs on members in the role, and perhaps a privilege on access tokens.
    fn caller(&self, asked: &Value) -> Value {
        let strings = |field: &str| -> Vec<&str> {
            asked[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
        };
        let caller = self.cluster.caller(self.daypass, &strings("verbs"), &strings("resources"), Some(self.role));
        let caller = match asked["privilege"].as_str() {
            Some(privilege) => self.cluster.with_privilege(caller, privilege),
            None => caller,
        };
        json!(caller.token())
    }
}
