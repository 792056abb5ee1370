//! The API's configuration, and the URLs and texts built from it.

use ipnet::IpNet;

use crate::domain::kubeconfig::Mode;
use crate::domain::lifetime::rfc3339;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::rights::Rights;
use crate::domain::role::Role;

/// The API's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data plane's id.
    pub data_plane_id: String,
    /// The base URL of Daypass as its users see it, without a trailing slash.
    pub public_url: String,
    /// The gateway's base URL as its users see it, without a trailing slash; `None` for a path below the public one.
    pub gateway_public_url: Option<String>,
    /// Which kubeconfigs members get.
    pub kubeconfigs: Kubeconfigs,
    /// The certificate that callers should trust, as PEM; `None` if they trust it already.
    pub ca_certificate: Option<String>,
    /// The networks of proxies that may set `X-Forwarded-For`.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the web console is served.
    pub console: bool,
    /// The fingerprint of the certificate that browsers are shown, if they cannot check it in another way.
    pub fingerprint: Option<String>,
}

/// Which kubeconfigs members get.
#[derive(Debug, Clone)]
pub enum Kubeconfigs {
    /// All get gateway kubeconfigs.
    Gateway,
    /// All get direct kubeconfigs.
    Direct(DirectSettings),
    /// Each role says which.
    Both(DirectSettings),
}

/// What direct kubeconfigs need.
#[derive(Debug, Clone)]
pub struct DirectSettings {
    /// The API server's public address.
    pub server: String,
    /// Its CA, as PEM.
    pub ca_certificate: String,
    /// The name to check its certificate against, if not the host of its address.
    pub tls_server_name: Option<String>,
    /// A proxy to reach it through.
    pub proxy_url: Option<String>,
}

impl Kubeconfigs {
    /// What direct kubeconfigs need, if there are any.
    pub fn direct(&self) -> Option<&DirectSettings> {
        match self {
            Self::Gateway => None,
            Self::Direct(settings) | Self::Both(settings) => Some(settings),
        }
    }

    /// The same for members of this role; `None` if they get gateway kubeconfigs. Where roles may choose, one that can
    /// run commands gets the gateway, and so does one that is unknown or whose rights are.
    pub(super) fn direct_for(&self, role: Option<&Role>, rights: Option<&Rights>) -> Option<&DirectSettings> {
        let is_chosen = || {
            let chooses = role.is_some_and(|role| role.kubeconfig_mode == Mode::Direct);
            chooses && rights.is_some_and(|rights| !rights.executes)
        };
        match self {
            Self::Gateway => None,
            Self::Direct(settings) => Some(settings),
            Self::Both(settings) => is_chosen().then_some(settings),
        }
    }
}

impl Settings {
    /// The origin of [`Self::public_url`], as a browser writes it (RFC 6454, section 6.2).
    pub(crate) fn origin(&self) -> String {
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

    /// The gateway's URL, for kubeconfigs.
    pub fn gateway_url(&self) -> String {
        match &self.gateway_public_url {
            Some(url) => url.clone(),
            None => format!("{}/{}/gateway", self.public_url, self.data_plane_id),
        }
    }

    /// The URL from which the member downloads its kubeconfig.
    pub fn kubeconfig_url(&self, id: &MemberId) -> String {
        format!("{}/kubeconfig", self.member_url(id))
    }

    /// The page on which the member signs in.
    pub(crate) fn sign_in_url(&self, id: &MemberId) -> String {
        format!("{}/console/sign-in?username={id}", self.public_url)
    }

    /// The name of a file for the member, safe in a shell and in a header.
    pub(crate) fn file_name(&self, id: &MemberId, suffix: &str) -> String {
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
        let ways = if self.console {
            let certificate = self.fingerprint.as_ref().map_or_else(String::new, |fingerprint| {
                format!("\nThe browser will not know the certificate. Its SHA-256 fingerprint: {fingerprint}")
            });
            let url = self.sign_in_url(id);
            format!(
                "The password comes separately. In a browser, log on at {url}{certificate}\n\
                 Or run this in a shell; it asks for the password:"
            )
        } else {
            "Run this in a shell; it asks for the password, which you get separately:".to_owned()
        };
        format!(
            "Access to the Kubernetes cluster '{}' with the role '{}', until {end}.\n\
             {ways}\n\n\
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::role::RoleId;

    #[test]
    fn role_gets_direct_kubeconfigs_only_if_it_chooses_them_and_cannot_run_commands() {
        let direct = || DirectSettings {
            server: "https://a".into(),
            ca_certificate: String::new(),
            tls_server_name: None,
            proxy_url: None,
        };
        let role = |kubeconfig_mode| Role {
            id: RoleId::parse("view").unwrap(),
            name: String::new(),
            description: String::new(),
            kubeconfig_mode,
            max_duration: None,
        };
        let (chooses, silent) = (role(Mode::Direct), role(Mode::Gateway));
        let rights = |executes| Rights { executes, ..Rights::of(&[], true) };
        let (reads, executes) = (rights(false), rights(true));
        let is_direct = |kubeconfigs: &Kubeconfigs, role: Option<&Role>, rights: Option<&Rights>| {
            kubeconfigs.direct_for(role, rights).is_some()
        };
        assert!(is_direct(&Kubeconfigs::Direct(direct()), None, None));
        assert!(!is_direct(&Kubeconfigs::Gateway, Some(&chooses), Some(&reads)));
        let both = Kubeconfigs::Both(direct());
        assert!(is_direct(&both, Some(&chooses), Some(&reads)));
        for (role, rights) in [
            (Some(&silent), Some(&reads)),
            (None, Some(&reads)),
            (Some(&chooses), Some(&executes)),
            (Some(&chooses), None),
        ] {
            assert!(!is_direct(&both, role, rights), "{role:?} {rights:?}");
        }
    }
}
