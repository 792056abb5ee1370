//! `daypass token`: access tokens from the shell, with an administrator's kubeconfig. It goes through the REST API like everybody: it has
//! Kubernetes make a short token of a service account and calls as that.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded::byte_serialize;

use super::rest::{Answer, Authorization, Rest};
use crate::cli::{AccountName, TokenCommand, TokenTarget};
use crate::domain::access_token::{Scope, service_account};
use crate::domain::lifetime::rfc3339;

/// The shortest that TokenRequest grants.
const TOKEN_SECONDS: i64 = 600;
/// Of the whole command: a few calls.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the command prints.
#[derive(Debug, Default)]
pub struct Output {
    /// The result, for a pipe.
    pub result: String,
    /// What a person should know besides.
    pub remark: String,
}

#[derive(Deserialize)]
struct Owner {
    username: String,
}

/// An access token as Daypass answers it, as far as it is shown.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    id: String,
    name: String,
    owner: Owner,
    scopes: Vec<Scope>,
    expires_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    status: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Token>,
}

/// A service account that calls Daypass.
struct Caller {
    account: AccountName,
    token: SecretString,
    rest: Rest,
}

/// Runs the command.
///
/// # Errors
/// When a right is missing, which is named, or something cannot be reached.
pub fn run(command: &TokenCommand) -> anyhow::Result<Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = async {
        match command {
            TokenCommand::Create { name, scopes, expires_in_days, owner, target } => {
                let caller = Caller::new(target, owner.as_ref()).await?;
                // Each by the name that Daypass knows it by; whose token it is needs to be said only where it is another's.
                let other = owner.as_ref().filter(|owner| **owner != caller.account);
                let mut body = json!({ "name": name, "scopes": scopes, "expiresInDays": expires_in_days });
                if let Some(other) = other {
                    body["owner"] = other.username().into();
                }
                let answer = caller.send(Method::POST, "/tokens", Some(&body)).await?;
                created(caller.expect(answer, StatusCode::CREATED)?.json()?)
            }
            TokenCommand::List { all, target } => {
                let caller = Caller::new(target, None).await?;
                let query = if *all { "&owner=*" } else { "" };
                let answer = caller.send(Method::GET, &format!("/tokens?limit=1000{query}"), None).await?;
                let page: Page = caller.expect(answer, StatusCode::OK)?.json()?;
                Ok(Output { result: table(&page.items), remark: String::new() })
            }
            TokenCommand::Revoke { id, target } => {
                let caller = Caller::new(target, None).await?;
                let id: String = byte_serialize(id.as_bytes()).collect();
                let answer = caller.send(Method::DELETE, &format!("/tokens/{id}"), None).await?;
                caller.expect(answer, StatusCode::NO_CONTENT)?;
                Ok(Output { result: String::new(), remark: format!("revoked {id}\n") })
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, done).await.context("there is no answer")? })
}

impl Caller {
    /// The service account to call as: the one that is named, else the kubeconfig's own user, else the owner of the token to be made.
    async fn new(target: &TokenTarget, owner: Option<&AccountName>) -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context("no access to a Kubernetes API server is configured")?;
        // kube's retries would go on for minutes.
        config.default_retry = false;
        let client = Client::try_from(config)?;
        let account = match &target.service_account {
            Some(account) => account.clone(),
            None => own_account(&client, owner).await?,
        };
        let token = mint(&client, &account, &target.token_audience).await?;
        let read = |path: &std::path::PathBuf| fs::read_to_string(path).with_context(|| path.display().to_string());
        let ca = target.ca_file.as_ref().map(read).transpose()?;
        let rest = Rest::new(&target.url, &target.data_plane_id, ca.as_deref(), target.tls_server_name.as_deref())?;
        Ok(Self { account, token, rest })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> anyhow::Result<Answer> {
        self.rest.send(&Authorization::Bearer(&self.token), method, path, body).await
    }

    /// A refusal says who was refused, and how it is given what it lacks.
    fn expect(&self, answer: Answer, status: StatusCode) -> anyhow::Result<Answer> {
        let forbidden = answer.status == StatusCode::FORBIDDEN;
        let AccountName { namespace, name } = &self.account;
        answer.expect(status).with_context(|| {
            let mut context = format!("calling as the service account {namespace}/{name}");
            if forbidden {
                let grant = "the ClusterRoles daypass-tokens-generate and daypass-tokens-manage, bound in Daypass's namespace, give the rights";
                // Infallible into a String.
                let _ = write!(context, " ({grant})");
            }
            context
        })
    }
}

async fn own_account(client: &Client, owner: Option<&AccountName>) -> anyhow::Result<AccountName> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let user = review.context("asking the API server who the kubeconfig's user is")?.status.and_then(|it| it.user_info);
    let username = user.and_then(|user| user.username).unwrap_or_default();
    match (service_account(&username), owner) {
        (Some((namespace, name)), _) => Ok(AccountName { namespace: namespace.to_owned(), name: name.to_owned() }),
        (None, Some(owner)) => Ok(owner.clone()),
        (None, None) => bail!(
            "the kubeconfig's user {username} is no service account, and Kubernetes makes tokens of service accounts only: name one with --service-account NAMESPACE/NAME"
        ),
    }
}

/// A token of ten minutes for Daypass alone. It is held in memory and shown to nobody else.
async fn mint(client: &Client, account: &AccountName, audience: &str) -> anyhow::Result<SecretString> {
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
            "the kubeconfig's user may not make a token of {namespace}/{name}: it needs the right to create serviceaccounts/token in the namespace {namespace} ({})",
            status.message
        ),
        answer => answer.with_context(|| format!("making a token of the service account {namespace}/{name}"))?,
    };
    answer.status.map(|status| status.token.into()).context("Kubernetes made no token")
}

fn created(token: Token) -> anyhow::Result<Output> {
    let secret = token.token.as_deref().context("the answer of Daypass has no token")?;
    Ok(Output {
        result: format!("{secret}\n"),
        remark: format!(
            "access token {} ({}) of {}, {}, until {}; it is shown only here\n",
            token.id,
            token.name,
            token.owner.username,
            scopes(&token.scopes),
            rfc3339(token.expires_at),
        ),
    })
}

fn table(tokens: &[Token]) -> String {
    let header = ["ID", "NAME", "OWNER", "SCOPES", "EXPIRES", "LAST USED", "STATUS"].map(str::to_owned);
    let row = |token: &Token| {
        [
            token.id.clone(),
            token.name.clone(),
            token.owner.username.clone(),
            scopes(&token.scopes),
            rfc3339(token.expires_at),
            token.last_used_at.map_or("never".to_owned(), rfc3339),
            token.status.clone(),
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
