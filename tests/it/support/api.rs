//! The Kubernetes API, called directly as the administrator.
//!
//! A call costs a few milliseconds of CPU time on a kept connection; a kubectl process costs a hundred. Use kubectl
//! where the test is about kubectl.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::ControlPlane;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Identity, Method};
use serde_json::{Value, json};

use super::DEADLINE;
use super::http::Answer;

/// A client with the administrator's certificate, and one without credentials.
pub struct Api {
    admin: Client,
    anonymous: Client,
    server: String,
}

impl Api {
    pub fn new(plane: &ControlPlane) -> Self {
        let kubeconfig: Value = serde_yaml::from_str(&fs::read_to_string(plane.kubeconfig()).unwrap()).unwrap();
        let user = &kubeconfig["users"][0]["user"];
        let pem = ["client-certificate-data", "client-key-data"]
            .map(|field| STANDARD.decode(user[field].as_str().unwrap()).unwrap())
            .concat();
        let client = || {
            let ca = reqwest::Certificate::from_pem(plane.ca_pem().as_bytes()).unwrap();
            Client::builder().tls_certs_only([ca]).no_proxy().timeout(DEADLINE)
        };
        let admin = client().identity(Identity::from_pem(&pem).unwrap()).build().unwrap();
        Self { admin, anonymous: client().build().unwrap(), server: plane.server_url() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", &Value::Null)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", body)
    }

    /// A merge patch (RFC 7386).
    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/merge-patch+json", body)
    }

    /// Replaces an object by these bytes, which need not be UTF-8.
    pub fn put(&self, path: &str, body: Vec<u8>) -> Answer {
        let request = self.admin.put(format!("{}{path}", self.server)).header(CONTENT_TYPE, "application/json");
        Answer::of(request.body(body))
    }

    fn send(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Answer {
        let request = || {
            let request = self.admin.request(method.clone(), format!("{}{path}", self.server));
            if body.is_null() { request } else { request.header(CONTENT_TYPE, content_type).body(body.to_string()) }
        };
        // An API server that was restarted has closed the connection that is kept.
        Answer::try_of(request()).or_else(|_| Answer::try_of(request())).unwrap()
    }

    /// Whether the API server accepts a token. Panics unless it answers yes (201) or no (401).
    #[track_caller]
    pub fn accepts(&self, token: &str) -> bool {
        self.self_review(token).status == 201
    }

    /// Who the API server says that a token names: a SelfSubjectReview, or a refusal.
    pub fn self_review(&self, token: &str) -> Answer {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", self.server);
        let request = || -> RequestBuilder { self.anonymous.post(&url).bearer_auth(token).json(&review) };
        let answer = Answer::try_of(request()).or_else(|_| Answer::try_of(request())).unwrap();
        assert!([201, 401].contains(&answer.status), "{} {}", answer.status, answer.text);
        answer
    }

    /// Whether RBAC allows a user something (`resourceAttributes` of a SubjectAccessReview). An empty user is the
    /// administrator.
    pub fn allows(&self, user: &str, attributes: &Value) -> bool {
        let (user, group) = if user.is_empty() { ("admin", "system:masters") } else { (user, "system:authenticated") };
        let mut groups = vec![group.to_owned()];
        if let Some((namespace, _)) = user.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':')) {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        });
        let answer = self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).expect(201);
        answer.json()["status"]["allowed"] == true
    }
}

/// The path of all objects of a kind in a namespace. The kind as kubectl takes it, in singular or plural.
pub fn collection(namespace: &str, kind: &str) -> String {
    let kind = kind.split('.').next().unwrap().to_lowercase();
    let plural = match kind.as_str() {
        "crd" => "customresourcedefinitions".to_owned(),
        kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
        kind if kind.ends_with('s') => kind.to_owned(),
        kind => format!("{kind}s"),
    };
    let (group, is_namespaced) = match plural.as_str() {
        "namespaces" => ("/api/v1", false),
        "configmaps" | "pods" | "resourcequotas" | "secrets" | "serviceaccounts" => ("/api/v1", true),
        "members" | "accesstokens" => ("/apis/daypass.dev/v1alpha1", true),
        "leases" => ("/apis/coordination.k8s.io/v1", true),
        "roles" | "rolebindings" => ("/apis/rbac.authorization.k8s.io/v1", true),
        "clusterroles" | "clusterrolebindings" => ("/apis/rbac.authorization.k8s.io/v1", false),
        "validatingadmissionpolicies" | "validatingadmissionpolicybindings" => {
            ("/apis/admissionregistration.k8s.io/v1", false)
        }
        "customresourcedefinitions" => ("/apis/apiextensions.k8s.io/v1", false),
        "apiservices" => ("/apis/apiregistration.k8s.io/v1", false),
        _ => panic!("add the group of {plural}"),
    };
    if is_namespaced { format!("{group}/namespaces/{namespace}/{plural}") } else { format!("{group}/{plural}") }
}
