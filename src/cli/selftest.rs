//! `daypass selftest`: makes a member of a running Daypass, works with its kubeconfig and ends it, as an owner and an engineer would.
//!
//! `helm test` runs it in a pod. It says what it does and never a secret.

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
use serde::Deserialize;
use serde_json::{Value, json};

use super::rest::{Answer, Authorization, Rest};
use crate::cli::SelftestArgs;
use crate::clock::Entropy;

/// Between two tries of something that is waited for.
const RETRY: Duration = Duration::from_secs(1);
/// The API server remembers a token that it has accepted for 10 s. Longer than that, for one that is slow.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Refusals that may be over in a moment, after which nothing was done.
const LATER: [StatusCode; 3] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];

/// Whatever is said while the test runs.
type Say<'a> = &'a dyn Fn(&str) -> anyhow::Result<()>;

/// A member, as Daypass answers its creation; what is not needed here is left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    id: String,
    expires_at: String,
    credentials: Credentials,
}

#[derive(Deserialize)]
struct Credentials {
    password: SecretString,
}

/// One creation, however often it is tried.
struct Creation {
    key: String,
    /// Whether a try may have made a member that was not answered.
    is_unsure: bool,
}

impl Creation {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { key: format!("selftest-{}", Entropy::default().uuid()?), is_unsure: false })
    }
}

/// What became of a try to make a member.
enum Tried {
    Created(Created),
    /// It may be different in a moment.
    Later(anyhow::Error),
    Refused(anyhow::Error),
}

/// Daypass and the API server behind it, as this process reaches them.
struct Target<'a> {
    args: &'a SelftestArgs,
    daypass: Rest,
    /// The API server from here, without anybody's credentials.
    api_server: Config,
    token: SecretString,
}

/// Runs the test; every step that is done is told to `say`.
///
/// # Errors
/// At the first step that does not do what it should. The member is ended then too.
pub fn run(args: &SelftestArgs, say: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let target = Target::new(args).await?;
        let member = target.create().await?;
        say(&format!("created the member {}, which would end at {}", member.id, member.expires_at))?;
        let used = target.use_kubeconfig(&member, &say).await;
        // Whatever has happened: nobody is to be left with access that was only tried.
        let ended = target.end(&member.id).await;
        if let Err(error) = &ended {
            say(&format!("{} may still be there: {error:#}", member.id))?;
        }
        let kubeconfig = used?;
        ended?;
        say("ended it: Daypass no longer knows it")?;
        target.wait_refused(&kubeconfig).await?;
        say("the API server refuses its kubeconfig")
    })
}

impl<'a> Target<'a> {
    async fn new(args: &'a SelftestArgs) -> anyhow::Result<Self> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        let token = SecretString::from(read(&args.token_file)?.trim().to_owned());
        let ca = read(&args.ca_file)?;
        let daypass = Rest::new(&args.url, &args.data_plane_id, Some(&ca), args.tls_server_name.as_deref())?;
        let mut api_server = Config::infer().await.context("no access to a Kubernetes API server is configured")?;
        api_server.auth_info = AuthInfo::default();
        api_server.default_retry = false;
        Ok(Self { args, daypass, api_server, token })
    }

    /// A member for an hour. Waits while Daypass is not there yet, says that it will be (503), or does not know the
    /// caller's rights yet: `helm test` makes them just before. A member whose answer was lost is ended: so is its
    /// credential.
    async fn create(&self) -> anyhow::Result<Created> {
        let mut creation = Creation::new()?;
        let mut last = anyhow::anyhow!("it was not tried");
        let created = async {
            loop {
                match self.try_create(&mut creation).await {
                    Ok(Tried::Created(member)) => return Ok(member),
                    Ok(Tried::Refused(refusal)) => return Err(refusal),
                    Ok(Tried::Later(refusal)) => last = refusal,
                    Err(error) => last = error,
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(self.args.wait_seconds), created).await;
        let created = match waited {
            Ok(created) => created,
            Err(_) if creation.is_unsure => Err(self.take_back(&mut creation).await.err().unwrap_or(last)),
            Err(_) => Err(last),
        };
        created.context("creating a member")
    }

    async fn try_create(&self, creation: &mut Creation) -> anyhow::Result<Tried> {
        let member = json!({
            "duration": 1, "roleId": self.args.role, "username": "daypass selftest", "description": "A test of this installation",
        });
        let caller = Authorization::Bearer(&self.token);
        // Until there is an answer that says what became of it.
        let was_unsure = std::mem::replace(&mut creation.is_unsure, true);
        let answer = self.daypass.post_once(&caller, "/members", &member, &creation.key).await?;
        match (answer.status, &answer.location) {
            (StatusCode::CREATED, _) => Ok(Tried::Created(answer.json()?)),
            (StatusCode::CONFLICT, Some(location)) => {
                let id = location.rsplit('/').next().unwrap_or_default();
                self.end(id).await.context("a member whose answer was lost")?;
                *creation = Creation::new()?;
                Ok(Tried::Later(answer.refusal()))
            }
            // Of an earlier try, which is being taken back.
            (StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE, _) => Ok(Tried::Later(answer.refusal())),
            (status, _) => {
                creation.is_unsure = was_unsure;
                let refusal = answer.refusal();
                Ok(if LATER.contains(&status) { Tried::Later(refusal) } else { Tried::Refused(refusal) })
            }
        }
    }

    /// Ends what a try whose answer was lost may have made: the same try again finds it, or makes it.
    async fn take_back(&self, creation: &mut Creation) -> anyhow::Result<()> {
        let lost = "a member may have been made; it ends by itself after an hour";
        match self.try_create(creation).await.context(lost)? {
            Tried::Created(member) => self.end(&member.id).await.context(lost),
            Tried::Later(_) if !creation.is_unsure => Ok(()),
            Tried::Later(refusal) | Tried::Refused(refusal) => Err(refusal).context(lost),
        }
    }

    /// Downloads the member's kubeconfig and asks the API server who that is.
    async fn use_kubeconfig(&self, member: &Created, say: Say<'_>) -> anyhow::Result<SecretString> {
        let engineer = Authorization::Basic(&member.id, &member.credentials.password);
        let path = format!("/members/{}/kubeconfig", member.id);
        let answer = self.daypass.send(&engineer, Method::GET, &path, None).await;
        let answer = answer.and_then(|answer| answer.expect(StatusCode::OK)).context("downloading the kubeconfig")?;
        let (server, token) = read_kubeconfig(answer.body())?;
        say(&format!("downloaded its kubeconfig, for {server}"))?;
        let expected = match member.id.split_once('.') {
            Some((role, name)) => format!("system:serviceaccount:daypass-{role}:{name}"),
            None => bail!("{} is not the id of a member", member.id),
        };
        let who = self.who_am_i(&token).await.context("asking the API server with the kubeconfig's token")?;
        ensure!(who == expected, "the API server takes {} for {who}", member.id);
        say(&format!("the API server knows its user as {who}"))?;
        Ok(token)
    }

    /// Ends a member; Daypass must not know it afterwards.
    async fn end(&self, id: &str) -> anyhow::Result<()> {
        let path = format!("/members/{id}");
        let ended = self.as_caller(Method::DELETE, &path, None).await;
        ended.and_then(|answer| answer.expect(StatusCode::NO_CONTENT)).context("ending the member")?;
        let gone = self.as_caller(Method::GET, &path, None).await;
        gone.and_then(|answer| answer.expect(StatusCode::NOT_FOUND))
            .context("looking for the member that has ended")?;
        Ok(())
    }

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
        waited.with_context(|| format!("the kubeconfig is still accepted after {} s", REFUSAL_TIMEOUT.as_secs()))
    }

    /// The API server's name for the owner of a token. Its address is this process's own, not the kubeconfig's: that one is for outside.
    async fn who_am_i(&self, token: &SecretString) -> Result<String, kube::Error> {
        let mut config = self.api_server.clone();
        config.auth_info.token = Some(token.expose_secret().to_owned().into());
        let reviews: Api<SelfSubjectReview> = Api::all(Client::try_from(config)?);
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        Ok(review.status.and_then(|status| status.user_info?.username).unwrap_or_default())
    }

    async fn as_caller(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        self.daypass.send(&Authorization::Bearer(&self.token), method, path, body).await
    }
}

/// The server and the token of a kubeconfig.
fn read_kubeconfig(text: &[u8]) -> anyhow::Result<(String, SecretString)> {
    // Not the decoder's text, which could quote the token.
    let config = std::str::from_utf8(text).ok().and_then(|text| Kubeconfig::from_yaml(text).ok());
    let config = config.context("the kubeconfig cannot be read")?;
    let server = config.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
    let token = config.auth_infos.first().and_then(|named| named.auth_info.as_ref()?.token.as_ref());
    let token = token.context("the kubeconfig has no token")?.expose_secret().to_owned();
    Ok((server.context("the kubeconfig has no server")?, token.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_without_a_token_is_refused() {
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
