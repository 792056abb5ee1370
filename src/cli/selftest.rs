//! `daypass selftest`: creates a member of a running Daypass, uses its kubeconfig and ends it, as an owner and an
//! engineer would.
//!
//! `helm test` runs it in a pod. It prints each step, and never a secret.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Api, Client, Config};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::rest::{Answer, Authorization, Rest};
use crate::api::wire::CreatedMember;
use crate::cli::{SelftestArgs, kubernetes_config};
use crate::clock::Entropy;
use crate::cluster::pem;
use crate::domain::lifetime::rfc3339;
use crate::domain::secret::GATEWAY_PREFIX;

/// The delay between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// How long a revoked token may still be accepted. The API server caches an accepted one for 10 s; the rest is for
/// slow servers.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Refusals that may be temporary, after which Daypass has done nothing.
const TEMPORARY: [StatusCode; 3] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];

/// Prints a step.
type Say<'a> = &'a dyn Fn(&str) -> anyhow::Result<()>;

/// One creation, over all its attempts.
struct Creation {
    key: String,
    /// Whether an attempt may have created a member without an answer.
    is_unsure: bool,
}

impl Creation {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { key: format!("selftest-{}", Entropy::default().uuid()?), is_unsure: false })
    }
}

/// The outcome of an attempt to create a member.
enum Attempt {
    Created(Box<CreatedMember>),
    /// Another attempt may succeed.
    Retry(anyhow::Error),
    Refused(anyhow::Error),
}

/// The Daypass under test and the API server behind it.
struct Target<'a> {
    args: &'a SelftestArgs,
    daypass: Rest,
    /// How to reach the API server from here, without credentials.
    api_server: Config,
    /// How to reach the gateway from here, without credentials.
    gateway: Config,
    token: SecretString,
}

/// Runs the test, and calls `say` after each step.
///
/// # Errors
/// The first step that fails. The member is ended anyway, once it exists.
pub fn run(args: &SelftestArgs, say: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let target = Target::new(args).await?;
        let created = target.create().await?;
        let member = &created.member;
        say(&format!("created the member {}, which expires at {}", member.id, rfc3339(member.expires_at)))?;
        let used = target.use_kubeconfig(&created, &say).await;
        // Even after a failure: the test must leave no access behind.
        let ended = target.end(&member.id).await;
        if let Err(error) = &ended {
            say(&format!("{} may still exist: {error:#}", member.id))?;
        }
        let kubeconfig = used?;
        ended?;
        say("ended it: Daypass no longer knows it")?;
        target.wait_refused(&kubeconfig).await?;
        let server = if is_of_gateway(&kubeconfig) { "gateway" } else { "API server" };
        say(&format!("the {server} refuses its kubeconfig"))
    })
}

impl<'a> Target<'a> {
    async fn new(args: &'a SelftestArgs) -> anyhow::Result<Self> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        let token = SecretString::from(read(&args.token_file)?.trim().to_owned());
        let ca = read(&args.ca_file)?;
        let daypass = Rest::new(&args.url, &args.data_plane_id, Some(&ca), args.tls_server_name.as_deref())?;
        let mut api_server = kubernetes_config().await?;
        api_server.auth_info = AuthInfo::default();
        api_server.default_retry = false;
        let url = format!("{}/{}/gateway", args.url.as_str().trim_end_matches('/'), args.data_plane_id);
        let mut gateway = Config::new(url.parse().context("invalid URL of Daypass")?);
        gateway.root_cert = Some(pem::certificates(&ca)?);
        gateway.tls_server_name.clone_from(&args.tls_server_name);
        gateway.default_retry = false;
        Ok(Self { args, daypass, api_server, gateway, token })
    }

    /// Creates a member for one hour. Retries while Daypass cannot be reached, answers 503, or does not know the
    /// caller's rights yet (`helm test` creates them just before). Ends a member when its answer was lost, because the
    /// credential is lost with it.
    async fn create(&self) -> anyhow::Result<CreatedMember> {
        let mut creation = Creation::new()?;
        let mut last = anyhow::anyhow!("no attempt was made");
        let created = async {
            loop {
                match self.try_create(&mut creation).await {
                    Ok(Attempt::Created(created)) => return Ok(*created),
                    Ok(Attempt::Refused(refusal)) => return Err(refusal),
                    Ok(Attempt::Retry(refusal)) => last = refusal,
                    Err(error) => last = error,
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(self.args.wait_seconds), created).await;
        let created = match waited {
            Ok(created) => created,
            Err(_) if creation.is_unsure => Err(self.undo(&mut creation).await.err().unwrap_or(last)),
            Err(_) => Err(last),
        };
        created.context("creating a member")
    }

    async fn try_create(&self, creation: &mut Creation) -> anyhow::Result<Attempt> {
        let member = json!({
            "duration": 1,
            "roleId": self.args.role,
            "username": "daypass selftest",
            "description": "A test of this installation",
        });
        let caller = Authorization::Bearer(&self.token);
        // Until an answer tells whether the member was created.
        let was_unsure = std::mem::replace(&mut creation.is_unsure, true);
        let answer = self.daypass.post_once(&caller, "/members", &member, &creation.key).await?;
        match (answer.status, &answer.location) {
            (StatusCode::CREATED, _) => Ok(Attempt::Created(answer.json()?)),
            (StatusCode::CONFLICT, Some(location)) => {
                let id = location.rsplit('/').next().unwrap_or_default();
                self.end(id).await.context("could not end the member of an earlier attempt")?;
                *creation = Creation::new()?;
                Ok(Attempt::Retry(answer.refusal()))
            }
            // Without a location, Daypass is still undoing an earlier attempt.
            (StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE, _) => Ok(Attempt::Retry(answer.refusal())),
            (status, _) => {
                creation.is_unsure = was_unsure;
                let refusal = answer.refusal();
                Ok(if TEMPORARY.contains(&status) { Attempt::Retry(refusal) } else { Attempt::Refused(refusal) })
            }
        }
    }

    /// Ends the member that an attempt without an answer may have created. Repeats the attempt to find the member.
    async fn undo(&self, creation: &mut Creation) -> anyhow::Result<()> {
        let lost = "a member may have been created; it expires by itself after an hour";
        match self.try_create(creation).await.context(lost)? {
            Attempt::Created(created) => self.end(&created.member.id).await.context(lost),
            Attempt::Retry(_) if !creation.is_unsure => Ok(()),
            Attempt::Retry(refusal) | Attempt::Refused(refusal) => Err(refusal).context(lost),
        }
    }

    /// Downloads the member's kubeconfig and checks that the API server knows the member by it.
    async fn use_kubeconfig(&self, created: &CreatedMember, say: Say<'_>) -> anyhow::Result<SecretString> {
        let CreatedMember { member, credentials } = created;
        let engineer = Authorization::Basic(&credentials.username, &credentials.password);
        let path = format!("/members/{}/kubeconfig", member.id);
        let answer = self.daypass.send(&engineer, Method::GET, &path, None).await;
        let answer = answer.and_then(|answer| answer.expect(StatusCode::OK)).context("downloading the kubeconfig")?;
        let (server, token) = read_kubeconfig(answer.body())?;
        say(&format!("downloaded its kubeconfig, for {server}"))?;
        let expected = match member.id.split_once('.') {
            Some((role, name)) => format!("system:serviceaccount:daypass-{role}:{name}"),
            None => bail!("{} is not a member's id", member.id),
        };
        let who = self.who_am_i(&token).await.context("calling the API server with the kubeconfig's token")?;
        ensure!(who == expected, "the API server knows the user of {} as {who}, not {expected}", member.id);
        say(&format!("the API server knows its user as {who}"))?;
        Ok(token)
    }

    /// Ends a member and checks that Daypass no longer knows it.
    async fn end(&self, id: &str) -> anyhow::Result<()> {
        let path = format!("/members/{id}");
        let ended = self.as_caller(Method::DELETE, &path, None).await;
        ended.and_then(|answer| answer.expect(StatusCode::NO_CONTENT)).context("ending the member")?;
        let gone = self.as_caller(Method::GET, &path, None).await;
        gone.and_then(|answer| answer.expect(StatusCode::NOT_FOUND)).context("checking that the member has ended")?;
        Ok(())
    }

    /// Waits until the API server refuses a token.
    async fn wait_refused(&self, token: &SecretString) -> anyhow::Result<()> {
        let refused = async {
            loop {
                match self.who_am_i(token).await {
                    Err(kube::Error::Api(status)) if status.code == 401 => return,
                    _ => tokio::time::sleep(RETRY).await,
                }
            }
        };
        let waited = tokio::time::timeout(REFUSAL_TIMEOUT, refused).await;
        let timeout = REFUSAL_TIMEOUT.as_secs();
        waited.with_context(|| format!("the kubeconfig is still accepted after {timeout} s"))
    }

    /// The API server's user name for a token. Uses the addresses that this process knows: the one in the kubeconfig
    /// may work only outside the cluster.
    async fn who_am_i(&self, token: &SecretString) -> Result<String, kube::Error> {
        let mut config = if is_of_gateway(token) { &self.gateway } else { &self.api_server }.clone();
        config.auth_info.token = Some(token.expose_secret().to_owned().into());
        let reviews: Api<SelfSubjectReview> = Api::all(Client::try_from(config)?);
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        Ok(review.status.and_then(|status| status.user_info?.username).unwrap_or_default())
    }

    async fn as_caller(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        self.daypass.send(&Authorization::Bearer(&self.token), method, path, body).await
    }
}

fn is_of_gateway(token: &SecretString) -> bool {
    token.expose_secret().starts_with(GATEWAY_PREFIX)
}

/// The server and the token of a kubeconfig.
fn read_kubeconfig(text: &[u8]) -> anyhow::Result<(String, SecretString)> {
    // Omit the decoder's message, which could quote the token.
    let config = std::str::from_utf8(text).ok().and_then(|text| Kubeconfig::from_yaml(text).ok());
    let config = config.context("could not read the kubeconfig")?;
    let server = config.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
    let token = config.auth_infos.first().and_then(|named| named.auth_info.as_ref()?.token.as_ref());
    let token = token.context("the kubeconfig has no token")?.expose_secret().to_owned();
    Ok((server.context("the kubeconfig has no server")?, token.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeconfig_without_a_token_is_refused() {
        let of = |user: &str| {
            read_kubeconfig(
                format!(
                    "clusters: [{{name: a, cluster: {{server: 'https://a'}}}}]\nusers: [{{name: a, user: {user}}}]"
                )
                .as_bytes(),
            )
        };
        let (server, token) = of("{token: t}").unwrap();
        assert_eq!((&*server, token.expose_secret()), ("https://a", "t"));
        assert!(of("{}").is_err() && read_kubeconfig(b"\xff").is_err() && read_kubeconfig(b"token: [").is_err());
    }
}
