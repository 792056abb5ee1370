//! Webhooks that the API server asks for authentication and authorization, as in a cloud.

use std::fs;
use std::sync::Arc;
use std::thread;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::cluster::Cluster;

/// The webhooks' answers.
pub struct Webhooks {
    /// The `user` of a TokenReview for this token, valid for every requested audience.
    pub user_of: fn(&str) -> Option<Value>,
    /// Whether to deny this SubjectAccessReview's `spec`, before RBAC decides.
    pub denies: fn(&Value) -> bool,
}

impl Webhooks {
    /// Starts the webhooks and restarts the API server with them. They run until the tests end.
    pub fn start(self, cluster: &Cluster) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/authenticate", post(authenticate))
            .route("/authorize", post(authorize))
            .with_state(Arc::new(self));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        let folder = cluster.fresh_folder("webhooks");
        let config = |name: &str| {
            let file = folder.join(name);
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
                "clusters": [{"name": "x", "cluster": {"server": format!("{url}/{name}")}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            });
            fs::write(&file, config.to_string()).unwrap();
            file.display().to_string()
        };
        // This version of the file's format is the only one that all supported versions of Kubernetes read.
        let authorizers = json!({
            "apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "AuthorizationConfiguration",
            "authorizers": [{"type": "Webhook", "name": "tests", "webhook": {
                "authorizedTTL": "1ms", "unauthorizedTTL": "1ms", "timeout": "10s", "failurePolicy": "Deny",
                "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": config("authorize")},
            }}, {"type": "RBAC", "name": "rbac"}],
        });
        let file = folder.join("authorizers.yaml");
        fs::write(&file, authorizers.to_string()).unwrap();
        cluster.restart_apiserver(&[
            &format!("--authentication-token-webhook-config-file={}", config("authenticate")),
            "--authentication-token-webhook-version=v1",
            &format!("--authorization-config={}", file.display()),
        ]);
    }
}

async fn authenticate(State(webhooks): State<Arc<Webhooks>>, Json(review): Json<Value>) -> Json<Value> {
    let user = (webhooks.user_of)(review["spec"]["token"].as_str().unwrap());
    let status = match user {
        Some(user) => json!({"authenticated": true, "user": user, "audiences": review["spec"]["audiences"]}),
        None => json!({"authenticated": false}),
    };
    Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
}

async fn authorize(State(webhooks): State<Arc<Webhooks>>, Json(review): Json<Value>) -> Json<Value> {
    let denied = (webhooks.denies)(&review["spec"]);
    let status = json!({"allowed": false, "denied": denied});
    Json(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}))
}
