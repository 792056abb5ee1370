//! People sign in with ID tokens of a real OpenID provider.

mod access_tokens;
mod agreement;
mod console_sign_in;
mod keys;
mod people;
mod rules;
mod sessions;

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Http, Launch, OpenIdProvider, Role, eventually, oidc_args};

/// A cluster whose API server and Daypass trust the same provider, with the same mapping, for other audiences. The
/// group `platform` manages members of one role and makes access tokens.
struct Sso {
    provider: OpenIdProvider,
    cluster: Cluster,
    daypass: Daypass,
    role: Role,
}

/// The audience of the API server.
const KUBERNETES: &str = "kubernetes";

impl Sso {
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Sso> = OnceLock::new();
        SHARED.get_or_init(|| {
            let (provider, cluster) = (OpenIdProvider::start(), Cluster::own());
            provider.trusted_by_api_server(&cluster, KUBERNETES);
            let role = cluster.reader();
            cluster.kubectl(&[
                "create",
                "rolebinding",
                "platform",
                "--clusterrole=daypass-engines-manage",
                "--group=corp:platform",
                "-n",
                &role.namespace,
            ]);
            cluster.let_group_create_tokens("corp:platform");
            let args = oidc_args(&cluster, &[provider.settings(&json!({}))]);
            let daypass = Daypass::start(&cluster, &Launch { args, ..Launch::default() });
            let sso = Self { provider, cluster, daypass, role };
            let ada = sso.person(&json!({}));
            eventually("the group has its rights", || {
                let answer = ada.get(&format!("/self?roleId={}", sso.role.id));
                // The provider has five seconds to tell its keys, and is asked again after thirty.
                let rights = (answer.status != 503).then(|| answer.expect(200).json())?;
                let all = [&rights["role"]["createMembers"], &rights["privileges"]["generateAccessTokens"]];
                all.iter().all(|right| **right == json!(true)).then_some(())
            });
            // The API server reads the provider's keys in the background.
            eventually("the API server trusts the provider", || {
                let token = sso.provider.token(&json!({"aud": KUBERNETES}));
                sso.cluster.api.accepts(&token).then_some(())
            });
            sso
        })
    }

    /// A client with an ID token of these claims.
    #[track_caller]
    fn person(&self, changes: &Value) -> Http {
        self.daypass.owner.with_token(&self.provider.token(changes))
    }

    /// Another Daypass in the same cluster, with these issuers and options.
    fn daypass(&self, issuers: &[Value], more: &[&str]) -> Daypass {
        let mut args = oidc_args(&self.cluster, issuers);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        Daypass::start(&self.cluster, &Launch { args, ..Launch::default() })
    }
}
