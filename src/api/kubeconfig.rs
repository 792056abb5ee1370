//! The kubeconfig that a member downloads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::settings::Settings;
use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::membership::IssuedKubeconfig;

/// How much of the token's id to show in names. Enough to tell the ten kubeconfigs of a member apart.
const JTI_DIGITS: usize = 8;

/// A kubeconfig to render. It holds a token.
pub(super) struct Kubeconfig<'a> {
    settings: &'a Settings,
    member: &'a Member,
    issued: &'a IssuedKubeconfig,
    streams_outlive_member: bool,
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
    cluster: ClusterInfo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterInfo<'a> {
    server: &'a str,
    certificate_authority_data: String,
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
    pub(super) fn new(
        settings: &'a Settings,
        member: &'a Member,
        issued: &'a IssuedKubeconfig,
        streams_outlive_member: bool,
    ) -> Self {
        Self { settings, member, issued, streams_outlive_member }
    }

    /// The file name to save it under.
    pub(super) fn file_name(&self) -> String {
        self.settings.file_name(&self.member.id, "kubeconfig")
    }

    /// The name of its cluster, user and context, which no other kubeconfig has. kubectl merges several files by name
    /// and keeps the first, so with `KUBECONFIG=old:new` an expired one would replace this one under the same name.
    fn name(&self) -> String {
        let jti: String = self.issued.claims.jti.chars().take(JTI_DIGITS).collect();
        format!("{}-{}-{jti}", self.settings.data_plane_id, self.member.id)
    }

    /// The file: comments for its reader, then YAML.
    pub(super) fn render(&self) -> Result<String, serde_yaml::ser::Error> {
        let name = self.name();
        let target = &self.settings.kubeconfig;
        let document = Document {
            api_version: "v1",
            kind: "Config",
            clusters: [Named {
                name: &name,
                entry: ClusterEntry {
                    cluster: ClusterInfo {
                        server: &target.server,
                        certificate_authority_data: STANDARD.encode(&target.ca_certificate),
                        tls_server_name: target.tls_server_name.as_deref(),
                        proxy_url: target.proxy_url.as_deref(),
                    },
                },
            }],
            users: [Named {
                name: &name,
                entry: UserEntry { user: UserInfo { token: self.issued.token.expose_secret() } },
            }],
            contexts: [Named {
                name: &name,
                entry: ContextEntry { context: ContextInfo { cluster: &name, user: &name } },
            }],
            current_context: &name,
        };
        // One line per value: tools that grep or template a kubeconfig do not join folded lines.
        let plain = serde_yaml::ser_options! { prefer_block_scalars: false };
        Ok(format!("{}{}", self.comments(), serde_yaml::to_string_with_options(&document, plain)?))
    }

    fn comments(&self) -> String {
        let member_end = self.member.expires_at();
        let token_end = self.issued.claims.exp;
        let mut text = format!(
            "# Access to data plane {} as member {}, issued by Daypass.\n\
             # The membership ends at {}.\n\
             # The token in this file expires at {}{}.\n\
             # Until the membership ends, download this file again to renew the token: {}\n",
            self.settings.data_plane_id,
            self.member.id,
            rfc3339(member_end),
            rfc3339(token_end),
            if member_end - token_end > chrono::TimeDelta::minutes(5) {
                " (the longest lifetime that the cluster grants)"
            } else {
                ""
            },
            self.settings.kubeconfig_url(&self.member.id),
        );
        if self.streams_outlive_member {
            text.push_str(
                "# The API server does not close watches, followed logs and shells that are open then: \
                 close them yourself.\n",
            );
        }
        text
    }
}
