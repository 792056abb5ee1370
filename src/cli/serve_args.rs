//! The options of `daypass serve`. Each has an environment variable: `DAYPASS_` and the option's name.

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::TimeDelta;
use clap::Args;
use ipnet::IpNet;

use super::gateway_args::GatewayArgs;
use super::values::{data_plane_id, https_host, https_url};
use crate::domain::access_token::TokenRules;
use crate::observability::logs::LogFormat;

/// The options of `daypass serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Id of this data plane, which is part of every URL
    #[arg(long, env = "DAYPASS_DATA_PLANE_ID", value_parser = data_plane_id)]
    pub data_plane_id: String,
    /// Base URL at which users reach Daypass
    #[arg(long, env = "DAYPASS_PUBLIC_URL", value_parser = https_url)]
    pub public_url: url::Url,
    /// A host of the gateway's own, for tools that lose the path of a URL: gateway kubeconfigs then point at it
    #[arg(long, env = "DAYPASS_GATEWAY_PUBLIC_URL", value_parser = https_host)]
    pub gateway_public_url: Option<url::Url>,
    /// Which kubeconfigs members get; by default direct with --data-plane-server, else gateway
    #[arg(long, env = "DAYPASS_KUBECONFIG_MODE", value_enum)]
    pub kubeconfig_mode: Option<KubeconfigMode>,
    /// Public URL of the API server, for direct kubeconfigs
    #[arg(long, env = "DAYPASS_DATA_PLANE_SERVER", value_parser = https_url)]
    pub data_plane_server: Option<url::Url>,
    /// CA of the API server for direct kubeconfigs, base64 of PEM; by default the CA that Daypass itself trusts
    #[arg(long, env = "DAYPASS_DATA_PLANE_CA_DATA")]
    pub data_plane_ca_data: Option<String>,
    /// Name in the API server's certificate, if it is not the host of the URL
    #[arg(long, env = "DAYPASS_DATA_PLANE_TLS_SERVER_NAME")]
    pub data_plane_tls_server_name: Option<String>,
    /// Proxy through which kubectl reaches the API server
    #[arg(long, env = "DAYPASS_DATA_PLANE_PROXY_URL")]
    pub data_plane_proxy_url: Option<url::Url>,
    /// Daypass's own namespace; by default the pod's
    #[arg(long, env = "DAYPASS_NAMESPACE")]
    pub namespace: Option<String>,
    /// Address of the API (HTTPS); `[::]` is every IPv4 and IPv6 address
    #[arg(long, env = "DAYPASS_LISTEN", default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Address of probes and metrics (plain HTTP)
    #[arg(long, env = "DAYPASS_ADMIN_LISTEN", default_value = "[::]:8080")]
    pub admin_listen: SocketAddr,
    /// Certificate of the API, PEM; by default Daypass makes a self-signed pair
    #[arg(long, env = "DAYPASS_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the certificate, PEM
    #[arg(long, env = "DAYPASS_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// CA of the certificate, PEM, if callers do not trust it already; handed out with credentials
    #[arg(long, env = "DAYPASS_TLS_CA_FILE", requires = "tls_cert_file")]
    pub tls_ca_file: Option<PathBuf>,
    /// A proxy terminates TLS and encrypts again: callers check its certificate, so Daypass hands out no CA of its own
    #[arg(long, env = "DAYPASS_TLS_AT_PROXY")]
    pub tls_at_proxy: bool,
    /// CA of the proxy's certificate, PEM, if callers do not trust it already; handed out with credentials
    #[arg(long, env = "DAYPASS_PROXY_CA_FILE", requires = "tls_at_proxy")]
    pub proxy_ca_file: Option<PathBuf>,
    /// More names for the self-signed certificate; it always covers the host of the public URL
    #[arg(long, env = "DAYPASS_TLS_DNS_NAME", value_delimiter = ',')]
    pub tls_dns_name: Vec<String>,
    /// Networks of the proxies that may set X-Forwarded-For
    #[arg(long, env = "DAYPASS_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
    /// Audience of callers' tokens
    #[arg(
        long,
        env = "DAYPASS_TOKEN_AUDIENCE",
        default_value = "daypass",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub token_audience: String,
    /// Also accept tokens for the API server itself: anybody who receives one can use it against the cluster
    #[arg(long, env = "DAYPASS_ACCEPT_API_SERVER_AUDIENCE")]
    pub accept_api_server_audience: bool,
    /// How callers may authenticate; without access-token, access tokens do not work and cannot be created
    #[arg(long, env = "DAYPASS_AUTH_METHODS", value_enum, value_delimiter = ',', required = false, num_args = 1..,
          default_values_t = [AuthMethod::Kubernetes, AuthMethod::AccessToken])]
    pub auth_methods: Vec<AuthMethod>,
    /// The issuers whose ID tokens are accepted with --auth-methods oidc: a YAML list, shaped like the chart's
    /// oidc.issuers
    #[arg(long, env = "DAYPASS_OIDC_ISSUERS_FILE")]
    pub oidc_issuers_file: Option<PathBuf>,
    /// Serve the web console at /console/ of the public URL, which must have no path
    #[arg(long, env = "DAYPASS_CONSOLE", default_value_t = true, num_args = 1, action = clap::ArgAction::Set)]
    pub console: bool,
    /// The limits of access tokens
    #[command(flatten)]
    pub tokens: TokenArgs,
    /// The gateway
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// How many refused credentials a client address may send at once, and per minute
    #[arg(
        long,
        env = "DAYPASS_MAX_REFUSED_CREDENTIALS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_refused_credentials: u32,
    /// How many requests a caller may send without the right to them at once, and per minute
    #[arg(
        long,
        env = "DAYPASS_MAX_DENIED_REQUESTS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_denied_requests: u32,
    /// Longest time in seconds from one sweep to the next: with many roles and members the sweep rests longer
    #[arg(
        long,
        env = "DAYPASS_MAX_SWEEP_INTERVAL_SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(30..=3600)
    )]
    pub max_sweep_interval_seconds: u64,
    /// Unique name of this replica in the Lease; by default random
    #[arg(long, env = "DAYPASS_IDENTITY")]
    pub identity: Option<String>,
    /// Seconds to keep accepting requests after SIGTERM, until load balancers notice that this replica is not ready
    #[arg(long, env = "DAYPASS_SHUTDOWN_DELAY_SECONDS", default_value_t = 0)]
    pub shutdown_delay_seconds: u64,
    /// Format of the logs on standard error
    #[arg(long, env = "DAYPASS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Which kubeconfigs members get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KubeconfigMode {
    /// They point at Daypass, which cuts what is open when a member ends
    Gateway,
    /// They point at the API server
    Direct,
    /// Each role says which: annotation daypass.dev/kubeconfig-mode of its namespace, by default gateway
    Both,
}

/// A way to authenticate as a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMethod {
    /// Kubernetes tokens
    Kubernetes,
    /// Access tokens and their sessions
    AccessToken,
    /// ID tokens of people, of the issuers in --oidc-issuers-file
    Oidc,
}

/// The options of `daypass serve` about access tokens.
#[derive(Debug, Clone, Copy, Args)]
pub struct TokenArgs {
    /// Longest lifetime of an access token, in days
    #[arg(
        long,
        env = "DAYPASS_TOKEN_MAX_DAYS",
        default_value_t = 365,
        value_parser = clap::value_parser!(u16).range(1..=3650)
    )]
    pub token_max_days: u16,
    /// Days without use after which an access token expires
    #[arg(
        long,
        env = "DAYPASS_TOKEN_MAX_IDLE_DAYS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u16).range(1..=3650)
    )]
    pub token_max_idle_days: u16,
    /// How many live access tokens an owner may have
    #[arg(
        long,
        env = "DAYPASS_TOKEN_MAX_PER_OWNER",
        default_value_t = 104,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub token_max_per_owner: u16,
    /// Let users who are not service accounts own access tokens; a token keeps the groups of its owner at creation
    #[arg(long, env = "DAYPASS_USER_TOKENS")]
    pub user_tokens: bool,
    /// Longest lifetime of an access token that a user owns, in days
    #[arg(
        long,
        env = "DAYPASS_USER_TOKEN_MAX_DAYS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u16).range(1..=3650)
    )]
    pub user_token_max_days: u16,
}

impl TokenArgs {
    /// The rules that these options set.
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
