//! The kubeconfig that a member downloads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::settings::{DirectSettings, Settings};
use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::membership::{IssuedGatewayKubeconfig, IssuedKubeconfig};

/// How much of its id to show in names. Enough to tell the ten kubeconfigs of a member apart.
const ID_DIGITS: usize = 8;

/// A kubeconfig to render. It holds a token.
pub(super) struct Kubeconfig<'a> {
    settings: &'a Settings,
    member: &'a Member,
    cluster: ClusterInfo<'a>,
    token: SecretString,
    id: String,
    comments: String,
}

/// The fields of client-go's `Config` (`k8s.io/client-go/tools/clientcmd/api/v1`) that Daypass sets.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    clusters: [Named<'a, ClusterEntry<'a>>; 1],
    users: [Named<'a, UserEntry<'a>>; 1],
    contexts: [Named<'a, ContextEntry<'a>>; 1],
    current_context: &'a str,
}

#[derive(Serialize)]
struct Named<'a, T> {
    name: &'a str,
    #[serde(flatten)]
    entry: T,
}

#[derive(Serialize)]
struct ClusterEntry<'a> {
    cluster: &'a ClusterInfo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterInfo<'a> {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_url: Option<&'a str>,
}

#[derive(Serialize)]
struct UserEntry<'a> {
    user: UserInfo<'a>,
}

#[derive(Serialize)]
struct UserInfo<'a> {
    token: &'a str,
}

#[derive(Serialize)]
struct ContextEntry<'a> {
    context: ContextInfo<'a>,
}

#[derive(Serialize)]
struct ContextInfo<'a> {
    cluster: &'a str,
    user: &'a str,
}

impl<'a> Kubeconfig<'a> {
    /// One that points at the API server.
    pub(super) fn direct(
        settings: &'a Settings,
        target: &'a DirectSettings,
        member: &'a Member,
        issued: IssuedKubeconfig,
        streams_outlive_member: bool,
    ) -> Self {
        let cluster = ClusterInfo {
            server: target.server.clone(),
            certificate_authority_data: Some(STANDARD.encode(&target.ca_certificate)),
            tls_server_name: target.tls_server_name.as_deref(),
            proxy_url: target.proxy_url.as_deref(),
        };
        let comments = direct_comments(settings, member, issued.claims.exp, streams_outlive_member);
        Self { settings, member, cluster, token: issued.token, id: issued.claims.jti, comments }
    }

    /// One that points at the gateway.
    pub(super) fn gateway(settings: &'a Settings, member: &'a Member, issued: IssuedGatewayKubeconfig) -> Self {
        let cluster = ClusterInfo {
            server: settings.gateway_url(),
            certificate_authority_data: settings.ca_certificate.as_ref().map(|pem| STANDARD.encode(pem)),
            tls_server_name: None,
            proxy_url: None,
        };
        let url = settings.member_url(&member.id);
        let comments = format!(
            "# This file works until the membership ends, at {}.\n\
             # After an extension it works on: there is no need to download it again.\n\
             # To revoke this file alone: DELETE {url}/kubeconfigs/{}\n\
             # To end the membership early: DELETE {url}/me, with the member's password\n",
            rfc3339(member.expires_at()),
            issued.id,
        );
        Self { settings, member, cluster, token: issued.token.expose().to_owned().into(), id: issued.id, comments }
    }

    /// The file name to save it under.
    pub(super) fn file_name(&self) -> String {
        self.settings.file_name(&self.member.id, "kubeconfig")
    }

    /// The name of its cluster, user and context, which no other kubeconfig has. kubectl merges several files by name
    /// and keeps the first, so with `KUBECONFIG=old:new` an expired one would replace this one under the same name.
    fn name(&self) -> String {
        let id: String = self.id.chars().take(ID_DIGITS).collect();
        format!("{}-{}-{id}", self.settings.data_plane_id, self.member.id)
    }

    /// The file: comments for its reader, then YAML.
    pub(super) fn render(&self) -> Result<String, serde_yaml::ser::Error> {
        let name = self.name();
        let document = Document {
            api_version: "v1",
            kind: "Config",
            clusters: [Named { name: &name, entry: ClusterEntry { cluster: &self.cluster } }],
            users: [Named { name: &name, entry: UserEntry { user: UserInfo { token: self.token.expose_secret() } } }],
            contexts: [Named {
                name: &name,
                entry: ContextEntry { context: ContextInfo { cluster: &name, user: &name } },
            }],
            current_context: &name,
        };
        // One line per value: tools that grep or template a kubeconfig do not join folded lines.
        let plain = serde_yaml::ser_options! { prefer_block_scalars: false };
        let head = format!(
            "# Access to data plane {} as member {}, issued by Daypass.\n",
            self.settings.data_plane_id, self.member.id
        );
        Ok(format!("{head}{}{}", self.comments, serde_yaml::to_string_with_options(&document, plain)?))
    }
}

fn direct_comments(
    settings: &Settings,
    member: &Member,
    token_end: DateTime<Utc>,
    streams_outlive_member: bool,
) -> String {
    let member_end = member.expires_at();
    let mut text = format!(
        "# The membership ends at {}.\n\
         # The token in this file expires at {}{}.\n\
         # Until the membership ends, download this file again to renew the token: {}\n",
        rfc3339(member_end),
        rfc3339(token_end),
        if member_end - token_end > TimeDelta::minutes(5) {
            " (the longest lifetime that the cluster grants)"
        } else {
            ""
        },
        settings.kubeconfig_url(&member.id),
    );
    if streams_outlive_member {
        text.push_str(
            "# The API server does not close watches, followed logs and shells that are open then: \
             close them yourself.\n",
        );
    }
    text
}
