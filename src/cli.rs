//! The command line. Every option of `serve` is also an environment variable, `DAYPASS_` and its name.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::telemetry::LogFormat;

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
    Crds,
    /// Print the OpenAPI document as JSON
    Openapi,
    /// Look at roles
    #[command(subcommand)]
    Roles(RolesCommand),
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
    /// This replica's name in the Lease, unique; by default random
    #[arg(long, env = "DAYPASS_IDENTITY")]
    pub identity: Option<String>,
    /// The form of the logs on standard error
    #[arg(long, env = "DAYPASS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
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
    fn bad_values_are_refused() {
        for id in ["", "-a", "a/b", "processing", "openapi.json", &"a".repeat(64)] {
            assert!(data_plane_id(id).is_err(), "{id}");
        }
        for url in ["http://a", "https://", "a", "https://u:p@a", "https://a?b"] {
            assert!(https_url(url).is_err(), "{url}");
        }
    }
}
