//! `daypass token`: manages access tokens from the shell, with a kubeconfig.
//!
//! It uses the REST API like every other client: it requests a short-lived token of a service account from Kubernetes
//! and calls Daypass with that.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use url::form_urlencoded::byte_serialize;

use super::rest::{Answer, Authorization, Rest};
use crate::api::wire::{IssuedToken, TokenPage, TokenView};
use crate::cli::{AccountName, TokenCommand, TokenTarget, kubernetes_config};
use crate::domain::access_token::{Scope, service_account};
use crate::domain::lifetime::rfc3339;
use crate::domain::text::escape_hidden;

/// The shortest lifetime that a TokenRequest grants, in seconds.
const TOKEN_SECONDS: i64 = 600;
/// The timeout of the whole command, which takes a few calls.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the command prints.
#[derive(Default)]
pub struct Output {
    /// For standard output. May be the new access token.
    pub result: SecretString,
    /// For people, on standard error.
    pub remark: String,
}

/// A client that calls Daypass as a service account.
struct Caller {
    account: AccountName,
    token: SecretString,
    rest: Rest,
}

/// Runs the command.
///
/// # Errors
/// When a right is missing (the error names it), or a server cannot be reached.
pub fn run(command: &TokenCommand) -> anyhow::Result<Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = async {
        match command {
            TokenCommand::Create { name, scopes, expires_in_days, owner, target } => {
                let caller = Caller::new(target, owner.as_ref()).await?;
                // Without an owner in the request, the token belongs to the caller.
                let other = owner.as_ref().filter(|owner| **owner != caller.account);
                let mut body = json!({ "name": name, "scopes": scopes, "expiresInDays": expires_in_days });
                if let Some(other) = other {
                    body["owner"] = other.username().into();
                }
                let answer = caller.send(Method::POST, "/tokens", Some(&body)).await?;
                Ok(created(&caller.expect(answer, StatusCode::CREATED)?.json()?))
            }
            TokenCommand::List { all, target } => {
                let caller = Caller::new(target, None).await?;
                let query = if *all { "&owner=*" } else { "" };
                let answer = caller.send(Method::GET, &format!("/tokens?limit=1000{query}"), None).await?;
                let page: TokenPage = caller.expect(answer, StatusCode::OK)?.json()?;
                Ok(Output { result: table(&page.items).into(), remark: String::new() })
            }
            TokenCommand::Revoke { id, target } => {
                let caller = Caller::new(target, None).await?;
                let id: String = byte_serialize(id.as_bytes()).collect();
                let answer = caller.send(Method::DELETE, &format!("/tokens/{id}"), None).await?;
                caller.expect(answer, StatusCode::NO_CONTENT)?;
                Ok(Output { result: SecretString::default(), remark: format!("revoked {id}\n") })
            }
        }
    };
    let timed_out = || format!("no answer within {} s", TIMEOUT.as_secs());
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, done).await.with_context(timed_out)? })
}

impl Caller {
    /// Picks the service account to call as: the one in `target`, else the kubeconfig's user, else `owner`, which owns
    /// the token to be created.
    async fn new(target: &TokenTarget, owner: Option<&AccountName>) -> anyhow::Result<Self> {
        let mut config = kubernetes_config().await?;
        // kube's own retries take minutes.
        config.default_retry = false;
        let client = Client::try_from(config)?;
        let account = match &target.service_account {
            Some(account) => account.clone(),
            None => own_account(&client, owner).await?,
        };
        let token = request_token(&client, &account, &target.token_audience).await?;
        let read = |path: &std::path::PathBuf| fs::read_to_string(path).with_context(|| path.display().to_string());
        let ca = target.ca_file.as_ref().map(read).transpose()?;
        let rest = Rest::new(&target.url, &target.data_plane_id, ca.as_deref(), target.tls_server_name.as_deref())?;
        Ok(Self { account, token, rest })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> anyhow::Result<Answer> {
        self.rest.send(&Authorization::Bearer(&self.token), method, path, body).await
    }

    /// Returns this answer if it has this status. The error names the caller and how to grant a missing right.
    fn expect(&self, answer: Answer, status: StatusCode) -> anyhow::Result<Answer> {
        let forbidden = answer.status == StatusCode::FORBIDDEN;
        let AccountName { namespace, name } = &self.account;
        let grant = "bind the ClusterRole daypass-tokens-generate or daypass-tokens-manage in Daypass's namespace";
        answer.expect(status).with_context(|| {
            let hint = if forbidden { format!(" (to grant the right, {grant})") } else { String::new() };
            format!("request as the service account {namespace}/{name} failed{hint}")
        })
    }
}

async fn own_account(client: &Client, owner: Option<&AccountName>) -> anyhow::Result<AccountName> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.context("could not ask the API server for the kubeconfig's user")?;
    let user = review.status.and_then(|status| status.user_info);
    let username = user.and_then(|user| user.username).unwrap_or_default();
    match (service_account(&username), owner) {
        (Some((namespace, name)), _) => Ok(AccountName { namespace: namespace.to_owned(), name: name.to_owned() }),
        (None, Some(owner)) => Ok(owner.clone()),
        (None, None) => bail!(
            "the kubeconfig's user {username} is not a service account, and Kubernetes issues tokens only for service \
             accounts: name one with --service-account NAMESPACE/NAME"
        ),
    }
}

/// Requests a ten-minute token for Daypass's audience. It stays in memory and goes only to Daypass.
async fn request_token(client: &Client, account: &AccountName, audience: &str) -> anyhow::Result<SecretString> {
    let AccountName { namespace, name } = account;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        expiration_seconds: Some(TOKEN_SECONDS),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = match accounts.create_token_request(name, &PostParams::default(), &request).await {
        Err(kube::Error::Api(status)) if status.code == 403 => bail!(
            "the kubeconfig's user may not request a token for {namespace}/{name}: it needs the right to create \
             serviceaccounts/token in the namespace {namespace} ({})",
            status.message
        ),
        answer => {
            answer.with_context(|| format!("could not get a token for the service account {namespace}/{name}"))?
        }
    };
    answer.status.map(|status| status.token.into()).context("Kubernetes returned no token")
}

fn created(issued: &IssuedToken) -> Output {
    let token = &issued.view;
    Output {
        result: format!("{}\n", issued.token.expose_secret()).into(),
        remark: format!(
            "created access token {} ({}) of {} with scopes {}, expires {}; the token is not shown again\n",
            token.id,
            token.name,
            token.owner.username,
            scopes(&token.scopes),
            rfc3339(token.expires_at),
        ),
    }
}

fn table(tokens: &[TokenView]) -> String {
    let header = ["ID", "NAME", "OWNER", "SCOPES", "EXPIRES", "LAST USED", "STATUS"].map(str::to_owned);
    let row = |token: &TokenView| {
        [
            token.id.clone(),
            escape_hidden(&token.name),
            escape_hidden(&token.owner.username),
            scopes(&token.scopes),
            rfc3339(token.expires_at),
            token.last_used_at.map_or("never".to_owned(), rfc3339),
            token.status.as_str().to_owned(),
        ]
    };
    let rows: Vec<[String; 7]> = std::iter::once(header).chain(tokens.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn scopes(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}
