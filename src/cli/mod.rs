//! The command line, and the commands that are clients. Every option of `serve` is also an environment variable, `DAYPASS_` and its name.

pub mod lint;
mod rest;
pub mod selftest;
pub mod token;

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::domain::access_token::{Scope, TokenRules, service_account};
use crate::observability::logs::LogFormat;

/// Day passes to a Kubernetes cluster: temporary members that end by themselves.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API and the controller
    Serve(Box<ServeArgs>),
    /// Print the CustomResourceDefinitions as YAML
    Crds {
        /// Only that of the type of this plural name
        name: Option<String>,
    },
    /// Print the OpenAPI document as JSON
    Openapi,
    /// Make, list and revoke access tokens, with a kubeconfig
    #[command(subcommand)]
    Token(Box<TokenCommand>),
    /// Look at roles
    #[command(subcommand)]
    Roles(RolesCommand),
    /// Make a member of a running Daypass, work with its kubeconfig and end it (`helm test`)
    Selftest(SelftestArgs),
}

/// What can be done about roles.
#[derive(Debug, Subcommand)]
pub enum RolesCommand {
    /// Say what each role can do, and end with 1 when one is not contained
    Lint {
        /// Rendered manifests (`helm template …`; `-` is standard input); the live cluster where there are none
        files: Vec<PathBuf>,
    },
}

/// What can be done about access tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make one and print it, alone, on standard output
    Create {
        /// Its name for people
        name: String,
        /// What it may be used for
        #[arg(long, required = true, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// In how many days it ends
        #[arg(long)]
        expires_in_days: u32,
        /// The service account that owns it, NAMESPACE/NAME; by default the one that calls
        #[arg(long, value_parser = account_name)]
        owner: Option<AccountName>,
        /// Where and as whom
        #[command(flatten)]
        target: TokenTarget,
    },
    /// Print those of the service account that calls
    List {
        /// Those of everybody
        #[arg(long)]
        all: bool,
        /// Where and as whom
        #[command(flatten)]
        target: TokenTarget,
    },
    /// Revoke one now
    Revoke {
        /// Its id
        id: String,
        /// Where and as whom
        #[command(flatten)]
        target: TokenTarget,
    },
}

/// The Daypass that `daypass token` calls, and as whom.
#[derive(Debug, Args)]
pub struct TokenTarget {
    /// The base URL of Daypass
    #[arg(long, env = "DAYPASS_URL", value_parser = https_url)]
    pub url: url::Url,
    /// The id of the data plane
    #[arg(long, env = "DAYPASS_DATA_PLANE", value_parser = data_plane_id)]
    pub data_plane_id: String,
    /// The CA of Daypass's certificate, PEM; by default those of the system
    #[arg(long, env = "DAYPASS_CA")]
    pub ca_file: Option<PathBuf>,
    /// The name to check the certificate against, where it is not that of the URL
    #[arg(long)]
    pub tls_server_name: Option<String>,
    /// The audience of Daypass's callers
    #[arg(long, default_value = "daypass")]
    pub token_audience: String,
    /// The service account to call as, NAMESPACE/NAME; by default the kubeconfig's own user, if it is one, or the owner
    #[arg(long, value_parser = account_name)]
    pub service_account: Option<AccountName>,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kubernetes' own words")]
pub struct AccountName {
    pub namespace: String,
    pub name: String,
}

impl AccountName {
    /// Its Kubernetes user name.
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

fn account_name(text: &str) -> Result<AccountName, String> {
    let parts = service_account(text).or_else(|| text.split_once('/'));
    let valid = |part: &str| !part.is_empty() && !part.contains([':', '/']);
    match parts {
        Some((namespace, name)) if valid(namespace) && valid(name) => {
            Ok(AccountName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("must be NAMESPACE/NAME of a service account".to_owned()),
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| format!("must be one of {}", Scope::ALL.map(Scope::as_str).join(", ")))
}

/// The options of `daypass serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The id of this data plane, as in every URL
    #[arg(long, env = "DAYPASS_DATA_PLANE_ID", value_parser = data_plane_id)]
    pub data_plane_id: String,
    /// The base URL of Daypass as its users see it
    #[arg(long, env = "DAYPASS_PUBLIC_URL", value_parser = https_url)]
    pub public_url: url::Url,
    /// The public URL of the API server, for kubeconfigs
    #[arg(long, env = "DAYPASS_DATA_PLANE_SERVER", value_parser = https_url)]
    pub data_plane_server: url::Url,
    /// The API server's CA for kubeconfigs, base64 of PEM; by default the one that Daypass itself trusts
    #[arg(long, env = "DAYPASS_DATA_PLANE_CA_DATA")]
    pub data_plane_ca_data: Option<String>,
    /// The name to check the API server's certificate against, where it is not that of its URL
    #[arg(long, env = "DAYPASS_DATA_PLANE_TLS_SERVER_NAME")]
    pub data_plane_tls_server_name: Option<String>,
    /// A proxy through which kubectl reaches the API server
    #[arg(long, env = "DAYPASS_DATA_PLANE_PROXY_URL")]
    pub data_plane_proxy_url: Option<url::Url>,
    /// Daypass's own namespace; by default that of the pod
    #[arg(long, env = "DAYPASS_NAMESPACE")]
    pub namespace: Option<String>,
    /// Where the API listens (HTTPS)
    #[arg(long, env = "DAYPASS_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where probes and metrics listen (plain HTTP)
    #[arg(long, env = "DAYPASS_ADMIN_LISTEN", default_value = "0.0.0.0:8080")]
    pub admin_listen: SocketAddr,
    /// The certificate to serve with, PEM; without one Daypass makes a self-signed pair
    #[arg(long, env = "DAYPASS_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, env = "DAYPASS_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// The CA of the certificate, PEM, where callers do not trust it already; handed out with credentials
    #[arg(long, env = "DAYPASS_TLS_CA_FILE", requires = "tls_cert_file")]
    pub tls_ca_file: Option<PathBuf>,
    /// A proxy ends TLS and encrypts again: callers check its certificate, so nothing that vouches for Daypass's own is handed out
    #[arg(long, env = "DAYPASS_TLS_AT_PROXY")]
    pub tls_at_proxy: bool,
    /// The CA of the proxy's certificate, PEM, where callers do not trust it already; handed out with credentials
    #[arg(long, env = "DAYPASS_PROXY_CA_FILE", requires = "tls_at_proxy")]
    pub proxy_ca_file: Option<PathBuf>,
    /// Further names of the self-signed certificate; the host of the public URL is always one
    #[arg(long, env = "DAYPASS_TLS_DNS_NAME", value_delimiter = ',')]
    pub tls_dns_name: Vec<String>,
    /// The networks of the proxies whose X-Forwarded-For is believed
    #[arg(long, env = "DAYPASS_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    /// The audience of callers' tokens
    #[arg(long, env = "DAYPASS_TOKEN_AUDIENCE", default_value = "daypass", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub token_audience: String,
    /// Accept callers' tokens for the API server itself too: whoever is sent one can replay it against the cluster
    #[arg(long, env = "DAYPASS_ACCEPT_API_SERVER_AUDIENCE")]
    pub accept_api_server_audience: bool,
    /// How callers may authenticate; without access-token none is accepted and none is made
    #[arg(long, env = "DAYPASS_AUTH_METHODS", value_enum, value_delimiter = ',', required = false, num_args = 1..,
          default_values_t = [AuthMethod::Kubernetes, AuthMethod::AccessToken])]
    pub auth_methods: Vec<AuthMethod>,
    /// What access tokens may be
    #[command(flatten)]
    pub tokens: TokenArgs,
    /// How many refused credentials an address may send at once, and how many a minute
    #[arg(long, env = "DAYPASS_MAX_REFUSED_CREDENTIALS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_refused_credentials: u32,
    /// How many requests that it has no right to a caller may send at once, and how many a minute
    #[arg(long, env = "DAYPASS_MAX_DENIED_REQUESTS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_denied_requests: u32,
    /// This replica's name in the Lease, unique; by default random
    #[arg(long, env = "DAYPASS_IDENTITY")]
    pub identity: Option<String>,
    /// How long to go on accepting requests after SIGTERM, until whoever sends them has noticed that this replica is not ready
    #[arg(long, env = "DAYPASS_SHUTDOWN_DELAY_SECONDS", default_value_t = 0)]
    pub shutdown_delay_seconds: u64,
    /// The form of the logs on standard error
    #[arg(long, env = "DAYPASS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// A way to authenticate as a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMethod {
    /// Kubernetes tokens
    Kubernetes,
    /// Access tokens, and their sessions
    AccessToken,
}

/// The options of `daypass serve` about access tokens.
#[derive(Debug, Clone, Copy, Args)]
pub struct TokenArgs {
    /// The longest life of an access token, in days
    #[arg(long, env = "DAYPASS_TOKEN_MAX_DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub token_max_days: u16,
    /// After how many days without use an access token ends
    #[arg(long, env = "DAYPASS_TOKEN_MAX_IDLE_DAYS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub token_max_idle_days: u16,
    /// How many live access tokens an owner may have
    #[arg(long, env = "DAYPASS_TOKEN_MAX_PER_OWNER", default_value_t = 104, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub token_max_per_owner: u16,
    /// Let users that are no service accounts own access tokens, with the groups that they had when the token was made
    #[arg(long, env = "DAYPASS_USER_TOKENS")]
    pub user_tokens: bool,
    /// The longest life of such a user's access token, in days
    #[arg(long, env = "DAYPASS_USER_TOKEN_MAX_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub user_token_max_days: u16,
}

impl TokenArgs {
    /// The rules that they make.
    pub fn rules(self) -> TokenRules {
        let days = |days: u16| TimeDelta::days(days.into());
        TokenRules {
            max_lifetime: days(self.token_max_days),
            max_idle: days(self.token_max_idle_days),
            max_per_owner: self.token_max_per_owner.into(),
            max_user_lifetime: self.user_tokens.then(|| days(self.user_token_max_days)),
        }
    }
}

/// The options of `daypass selftest`.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// Where Daypass is, as seen from here
    #[arg(long, value_parser = https_url)]
    pub url: url::Url,
    /// The name to check Daypass's certificate against; by default the host of the URL
    #[arg(long)]
    pub tls_server_name: Option<String>,
    /// The certificates that vouch for Daypass's, PEM
    #[arg(long)]
    pub ca_file: PathBuf,
    /// The caller's Kubernetes token, for Daypass's audience
    #[arg(long)]
    pub token_file: PathBuf,
    /// The id of the data plane
    #[arg(long, value_parser = data_plane_id)]
    pub data_plane_id: String,
    /// The role of the member
    #[arg(long)]
    pub role: String,
    /// How long Daypass may take to become ready, in seconds
    #[arg(long, default_value_t = 240)]
    pub wait_seconds: u64,
}

/// One segment of a path, and part of a file's name.
fn data_plane_id(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let valid =
        bytes.len() <= 63 && outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|&byte| inner(byte));
    // These are paths of the API itself.
    if !valid || ["processing", "openapi.json"].contains(&text) {
        return Err(
            "must be 1 to 63 letters, digits, dashes, dots and underscores, the outermost a letter or digit".to_owned()
        );
    }
    Ok(text.to_owned())
}

fn https_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "https" || url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err("must be an https URL, without a user name or password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must have no query and no fragment".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_service_account_has_two_names() {
        let account = AccountName { namespace: "a".into(), name: "b".into() };
        assert_eq!(account_name("a/b"), Ok(account.clone()));
        assert_eq!(account_name(&account.username()), Ok(account));
        for text in ["", "a", "/b", "a/", "a/b/c", "a:b/c", "system:serviceaccount:a"] {
            assert!(account_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for id in ["", "-a", "a/b", "processing", "openapi.json", &"a".repeat(64)] {
            assert!(data_plane_id(id).is_err(), "{id}");
        }
        for url in ["http://a", "https://", "a", "https://u:p@a", "https://a?b"] {
            assert!(https_url(url).is_err(), "{url}");
        }
    }
}
