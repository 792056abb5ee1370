//! The command line, and the commands that are clients of a running Daypass.

mod gateway_args;
mod kubernetes;
pub mod lint;
pub mod pages;
mod rest;
pub mod selftest;
mod serve_args;
pub mod token;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::gateway_args::{AuditedRequests, GatewayArgs};
pub(crate) use self::kubernetes::kubernetes_config;
pub use self::serve_args::{AuthMethod, KubeconfigMode, ServeArgs, TokenArgs};
pub use self::values::AccountName;
use self::values::{account_name, data_plane_id, https_url, scope};
use crate::domain::access_token::Scope;

/// Day passes to a Kubernetes cluster: temporary members that expire by themselves.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API and the controller
    Serve(Box<ServeArgs>),
    /// Print the CustomResourceDefinitions as YAML
    Crds {
        /// Print only the type with this plural name
        name: Option<String>,
    },
    /// Print the OpenAPI document as JSON
    Openapi,
    /// Print the page of error codes as Markdown
    #[command(hide = true)]
    Errors,
    /// Print a script that completes this program's commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder, which must exist
        folder: PathBuf,
    },
    /// Create, list and revoke access tokens, with a kubeconfig
    #[command(subcommand)]
    Token(Box<TokenCommand>),
    /// Inspect roles
    #[command(subcommand)]
    Roles(RolesCommand),
    /// Test a running Daypass: create a member, use its kubeconfig, end it (`helm test` runs this)
    Selftest(SelftestArgs),
}

/// The commands about roles.
#[derive(Debug, Subcommand)]
pub enum RolesCommand {
    /// Show what each role can do; exit with 1 if a role is not contained
    Lint {
        /// Rendered manifests (`helm template …`; `-` is standard input); by default the live cluster
        files: Vec<PathBuf>,
    },
}

/// The commands about access tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it, alone, on standard output
    Create {
        /// Display name of the token
        name: String,
        /// What the token may be used for
        #[arg(long, required = true, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// Days until the token expires
        #[arg(long)]
        expires_in_days: u32,
        /// Service account that owns the token, NAMESPACE/NAME; by default the one that calls
        #[arg(long, value_parser = account_name)]
        owner: Option<AccountName>,
        /// Which Daypass to call, and as whom
        #[command(flatten)]
        target: TokenTarget,
    },
    /// List the tokens of the service account that calls
    List {
        /// List everybody's tokens
        #[arg(long)]
        all: bool,
        /// Which Daypass to call, and as whom
        #[command(flatten)]
        target: TokenTarget,
    },
    /// Revoke a token at once
    Revoke {
        /// Id of the token
        id: String,
        /// Which Daypass to call, and as whom
        #[command(flatten)]
        target: TokenTarget,
    },
}

/// The Daypass that `daypass token` calls, and the service account that it calls as.
#[derive(Debug, Args)]
pub struct TokenTarget {
    /// Base URL of Daypass
    #[arg(long, env = "DAYPASS_URL", value_parser = https_url)]
    pub url: url::Url,
    /// Id of the data plane
    #[arg(long, env = "DAYPASS_DATA_PLANE", value_parser = data_plane_id)]
    pub data_plane_id: String,
    /// CA of Daypass's certificate, PEM; by default the CAs of the system
    #[arg(long, env = "DAYPASS_CA")]
    pub ca_file: Option<PathBuf>,
    /// Name in Daypass's certificate, if it is not the host of the URL
    #[arg(long)]
    pub tls_server_name: Option<String>,
    /// Audience of the tokens that Daypass accepts
    #[arg(long, default_value = "daypass")]
    pub token_audience: String,
    /// Service account to call as, NAMESPACE/NAME; by default the kubeconfig's user if it is one, otherwise the owner
    #[arg(long, value_parser = account_name)]
    pub service_account: Option<AccountName>,
}

/// The options of `daypass selftest`.
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// URL of Daypass, as seen from here
    #[arg(long, value_parser = https_url)]
    pub url: url::Url,
    /// Name in Daypass's certificate, if it is not the host of the URL
    #[arg(long)]
    pub tls_server_name: Option<String>,
    /// CA of Daypass's certificate, PEM
    #[arg(long)]
    pub ca_file: PathBuf,
    /// File with the caller's Kubernetes token, for Daypass's audience
    #[arg(long)]
    pub token_file: PathBuf,
    /// Id of the data plane
    #[arg(long, value_parser = data_plane_id)]
    pub data_plane_id: String,
    /// Role of the member to create
    #[arg(long)]
    pub role: String,
    /// Seconds to wait for Daypass to become ready
    #[arg(long, default_value_t = 240)]
    pub wait_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
