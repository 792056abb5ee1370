//! Admission policies of the cluster's owner, as Kyverno or Gatekeeper have them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use axum::extract::Path;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Cluster, eventually};

/// In the message of every refusal. Only Daypass's log may have it.
pub const REASON: &str = "the reason of the policy";

/// Operations on resources, named as in RBAC.
#[derive(Clone, Copy)]
pub struct Writes {
    pub operation: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
}

/// Policies that the API server enforces until they are dropped.
pub struct ForeignPolicies<'a> {
    cluster: &'a Cluster,
    name: String,
    kind: &'static str,
    count: usize,
}

impl<'a> ForeignPolicies<'a> {
    /// Admission webhooks. Each refuses what fits its CEL condition, with this `code` and `reason`.
    pub fn webhooks(cluster: &'a Cluster, writes: &[Writes], refusals: &[(String, Value)]) -> Self {
        let (server, ca) = webhook_server();
        let url = |status: &Value| format!("{server}/{}", URL_SAFE_NO_PAD.encode(status.to_string()));
        let hooks = refusals.iter().map(|(condition, status)| (condition.clone(), url(status), ca.clone()));
        Self::configure_webhooks(cluster, writes, hooks)
    }

    /// An admission webhook without a server, which fails every write that fits its CEL condition.
    pub fn dead_webhook(cluster: &'a Cluster, writes: &[Writes], condition: &str) -> Self {
        let hook = (condition.to_owned(), "https://127.0.0.1:1/x".to_owned(), webhook_server().1.clone());
        Self::configure_webhooks(cluster, writes, [hook].into_iter())
    }

    fn configure_webhooks(
        cluster: &'a Cluster,
        writes: &[Writes],
        hooks: impl Iterator<Item = (String, String, String)>,
    ) -> Self {
        let name = fresh_name();
        let hooks: Vec<Value> = hooks
            .enumerate()
            .map(|(n, (condition, url, ca))| {
                json!({
                    "name": format!("{name}-{n}.example.com"), "admissionReviewVersions": ["v1"],
                    "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 30,
                    "clientConfig": {"url": url, "caBundle": ca}, "rules": rules(writes),
                    "matchConditions": conditions(&format!("{name}-{n}"), &condition),
                })
            })
            .collect();
        let policies = Self { cluster, name, kind: "validatingwebhookconfiguration", count: hooks.len() };
        cluster.apply(
            &json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": policies.name}, "webhooks": hooks,
            })
            .to_string(),
        );
        policies.wait(true);
        policies
    }

    /// ValidatingAdmissionPolicies. Each refuses what fits its CEL condition, with this `reason`, if any.
    pub fn admission(cluster: &'a Cluster, writes: &[Writes], refusals: &[(String, Option<&str>)]) -> Self {
        let policies = Self { cluster, name: fresh_name(), kind: "validatingadmissionpolicy", count: refusals.len() };
        let version = "admissionregistration.k8s.io/v1";
        let mut items = Vec::new();
        for (n, (condition, reason)) in refusals.iter().enumerate() {
            let name = policies.of(n);
            items.push(json!({
                "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {"resourceRules": rules(writes)},
                    "matchConditions": conditions(&name, condition),
                    "validations": [{"expression": "false", "message": REASON, "reason": reason}],
                },
            }));
            items.push(json!({
                "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            }));
        }
        // A new API server takes long to describe its API, which kubectl would ask for.
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let applied = cluster.try_apply(&["--validate=false"], &list);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        policies.wait(true);
        policies
    }

    /// The name of one of them.
    pub fn of(&self, n: usize) -> String {
        format!("{}-{n}", self.name)
    }

    /// Waits until the API server enforces all of them, or none.
    fn wait(&self, enforced: bool) {
        for n in 0..self.count {
            let probe = ["create", "configmap", &self.of(n), "-n", "default", "--dry-run=server"];
            eventually("the policy is in force, or gone", || {
                (self.cluster.try_kubectl(&probe).status.success() != enforced).then_some(())
            });
        }
    }
}

impl Drop for ForeignPolicies<'_> {
    fn drop(&mut self) {
        for n in 0..self.count {
            let name = if self.kind == "validatingadmissionpolicy" { self.of(n) } else { self.name.clone() };
            self.cluster.try_kubectl(&["delete", self.kind, &name, "--ignore-not-found"]);
        }
        if self.kind == "validatingadmissionpolicy" {
            for n in 0..self.count {
                self.cluster.try_kubectl(&["delete", "validatingadmissionpolicybinding", &self.of(n)]);
            }
        }
        if !thread::panicking() {
            self.wait(false);
        }
    }
}

fn fresh_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("owners-policy-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Rules for these writes, and for the ConfigMap that shows whether a policy is in force.
fn rules(writes: &[Writes]) -> Vec<Value> {
    let probe = Writes { operation: "CREATE", group: "", resource: "configmaps" };
    let rule = |of: &Writes| {
        let (groups, resources, operations) = ([of.group], [of.resource], [of.operation]);
        json!({"apiGroups": groups, "apiVersions": ["*"], "operations": operations, "resources": resources})
    };
    writes.iter().chain([&probe]).map(rule).collect()
}

/// Match conditions: this one, and the ConfigMap of the policy's name.
fn conditions(name: &str, condition: &str) -> Value {
    let probe = format!("request.name == '{name}'");
    let expression = format!("request.resource.resource == 'configmaps' ? {probe} : {condition}");
    json!([{"name": "x", "expression": expression}])
}

/// The URL of a webhook that answers with the Status in its path, and its certificate in base64.
fn webhook_server() -> &'static (String, String) {
    static SERVER: OnceLock<(String, String)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = Tls {
                    listener: TcpListener::from_std(listener).unwrap(),
                    acceptor: TlsAcceptor::from(std::sync::Arc::new(config)),
                };
                axum::serve(listener, Router::new().route("/{status}", post(refuse))).await.unwrap();
            });
        });
        (url, STANDARD.encode(pair.cert.pem()))
    })
}

async fn refuse(Path(status): Path<String>, Json(review): Json<Value>) -> Json<Value> {
    let mut status: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(status).unwrap()).unwrap();
    status["message"] = REASON.into();
    let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": status});
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
