//! An OpenID Connect provider for API servers with structured authentication.

use std::sync::Arc;
use std::thread;

use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::cluster::Cluster;

/// A provider whose ID tokens bear the signature of the control plane's own key. It runs until the tests end.
pub struct IdentityProvider {
    /// Its URL, the `iss` of its tokens.
    pub issuer: String,
    /// Its self-signed certificate, as PEM.
    pub certificate: String,
}

impl IdentityProvider {
    /// Starts one for this cluster.
    pub fn start(cluster: &Cluster) -> Self {
        let keys: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/openid/v1/jwks"])).unwrap();
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let issuer = format!("https://{}", listener.local_addr().unwrap());
        let discovery = json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/keys"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        });
        let answer = |body: Value| get(move || async move { Json(body).into_response() });
        let router =
            Router::new().route("/.well-known/openid-configuration", answer(discovery)).route("/keys", answer(keys));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut connections = JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
                    connections.spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let server = auto::Builder::new(TokioExecutor::new());
                            let _ = server.serve_connection(TokioIo::new(stream), service).await;
                        }
                    });
                }
            });
        });
        Self { issuer, certificate: pair.cert.pem() }
    }

    /// An ID token for this audience with these claims, valid for an hour.
    pub fn id_token(&self, cluster: &Cluster, audience: &str, claims: &Value) -> String {
        let token = cluster.token("default", "owner", "daypass");
        cluster.resign(&token, |all| {
            let (iat, exp) = (all["iat"].clone(), all["exp"].clone());
            *all = json!({"iss": self.issuer, "aud": audience, "iat": iat, "exp": exp});
            all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        })
    }
}
