//! The API's configuration, and the URLs and texts built from it.

use ipnet::IpNet;

use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;

/// The API's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data plane's id.
    pub data_plane_id: String,
    /// The base URL of Daypass as its users see it, without a trailing slash.
    pub public_url: String,
    /// The part of the configuration that goes into kubeconfigs.
    pub kubeconfig: KubeconfigSettings,
    /// The certificate that callers should trust, as PEM; `None` if they trust it already.
    pub ca_certificate: Option<String>,
    /// The networks of proxies that may set `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpNet>,
}

/// The part of the configuration that goes into kubeconfigs.
#[derive(Debug, Clone)]
pub struct KubeconfigSettings {
    /// The API server's public address.
    pub server: String,
    /// Its CA, as PEM.
    pub ca_certificate: String,
    /// The name to check its certificate against, if not the host of its address.
    pub tls_server_name: Option<String>,
    /// A proxy to reach it through.
    pub proxy_url: Option<String>,
}

impl Settings {
    /// The origin of [`Self::public_url`], as a browser writes it (RFC 6454, section 6.2).
    pub(super) fn origin(&self) -> String {
        url::Url::parse(&self.public_url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
    }

    /// The member's URL.
    pub fn member_url(&self, id: &MemberId) -> String {
        self.url(&format!("members/{id}"))
    }

    /// The URL of a path below the data plane's.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/processing/data-planes/{}/{path}", self.public_url, self.data_plane_id)
    }

    /// The URL from which the member downloads its kubeconfig.
    pub fn kubeconfig_url(&self, id: &MemberId) -> String {
        format!("{}/kubeconfig", self.member_url(id))
    }

    /// The name of a file for the member, safe in a shell and in a header.
    pub(super) fn file_name(&self, id: &MemberId, suffix: &str) -> String {
        format!("{}-{id}.{suffix}", self.data_plane_id)
    }

    /// A text to forward to the engineer. It has no secret: curl asks for the password, which is sent separately.
    pub(super) fn handover(&self, member: &Member) -> String {
        let id = &member.id;
        let kubeconfig = self.file_name(id, "kubeconfig");
        let url = self.kubeconfig_url(id);
        let end = rfc3339(member.expires_at());
        // The kubeconfig opens the cluster, so nobody else may read it. A umask does not change the mode of an
        // existing file, so curl writes a new file, which then replaces the old one. The subshell keeps the engineer's
        // own umask. `--fail` keeps an error from being saved as a kubeconfig.
        let new = format!("{kubeconfig}.new");
        let (prepare, trust) = match &self.ca_certificate {
            None => (format!("rm -f '{new}'"), String::new()),
            Some(pem) => {
                let file = self.file_name(id, "ca.pem");
                let save = format!("rm -f '{new}' '{file}'\ncat > '{file}' <<'EOF'\n{}\nEOF", pem.trim_end());
                (save, format!(" --cacert '{file}'"))
            }
        };
        let steps = format!(
            "( umask 077\n{prepare}\n\
             curl --fail{trust} --user '{id}' --output '{new}' '{url}' && mv -f '{new}' '{kubeconfig}' )"
        );
        format!(
            "Access to the Kubernetes cluster '{}' with the role '{}', until {end}.\n\
             Run this in a shell; it asks for the password, which you get separately:\n\n\
             {steps}\n\n\
             Then:\n\n\
             kubectl --kubeconfig '{kubeconfig}' auth whoami\n\n\
             The access ends automatically at {end}. To end it earlier: curl{trust} --user '{id}' -X DELETE '{}/me'\n",
            self.data_plane_id,
            id.role,
            self.member_url(id),
        )
    }
}
