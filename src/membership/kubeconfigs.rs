//! Issuing, listing and revoking kubeconfigs. Issuing takes a Secret, a token bound to it, and a last live read.
//!
//! The calls of a download: LIST Secrets, POST Secret, POST token, PATCH Secret, GET Member.

use chrono::TimeDelta;
use secrecy::{ExposeSecret as _, SecretString};

use super::Membership;
use crate::cluster::{Error, ErrorKind, KubeconfigSecret};
use crate::domain::member::Member;
use crate::domain::secret::{Credential, SecretHash};
use crate::domain::token::{MAX_KUBECONFIGS, TOKEN_LEEWAY, TokenClaims, decode_claims, retry_margin, token_window};
use crate::observability::audit::{Cause, Kind};

/// How often a token is asked for again: the API server counts its lifetime from when it handles the request, so a slow answer
/// can end later than asked.
const TOKEN_TRIES: usize = 3;

/// A token for a kubeconfig.
#[derive(Debug)]
pub struct IssuedKubeconfig {
    /// The token.
    pub token: SecretString,
    /// What it says of itself.
    pub claims: TokenClaims,
}

/// Why no kubeconfig was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Less is left of the membership than the shortest token lives.
    #[error("too little is left of the membership")]
    TooLate,
    /// The member has as many as it may have.
    #[error("too many live kubeconfigs")]
    TooMany,
    /// The member has ended, or has another credential now.
    #[error("the credential was taken back meanwhile")]
    Ended,
    /// A call failed.
    #[error(transparent)]
    Cluster(#[from] Error),
}

impl Membership {
    /// Issues a token for a kubeconfig of `member`, which was authenticated by `credential`.
    ///
    /// A token that would outlive the member dies with its Secret and is asked for again, that much shorter.
    pub async fn issue_kubeconfig(
        &self,
        member: &Member,
        credential: &Credential,
        cause: Cause<'_>,
    ) -> Result<IssuedKubeconfig, IssueError> {
        let mut margin = TimeDelta::zero();
        for _ in 0..TOKEN_TRIES {
            let window = token_window(member.expires_at(), self.clock.now() + margin).ok_or(IssueError::TooLate)?;
            let secret = self.take_slot(member, &credential.hash()).await?;
            let issued = self.issue_on(member, credential, &secret, window.lifetime, cause).await;
            let late = match &issued {
                Ok(issued) => issued.claims.exp - window.latest_exp,
                Err(_) => TimeDelta::zero(),
            };
            if issued.is_err() || late > TimeDelta::zero() {
                // Whatever was signed meanwhile was given to nobody, and is dead with this.
                self.cluster.delete_secret(&member.id.role, &secret).await?;
            }
            if late <= TimeDelta::zero() {
                let issued = issued?;
                self.report(Kind::KubeconfigIssued, member, cause, Some(&issued.claims.jti));
                return Ok(issued);
            }
            margin += retry_margin(late);
        }
        Err(Error::new(
            "create_token",
            &member.id.to_string(),
            ErrorKind::Server,
            "every token would have outlived the member",
        )
        .into())
    }

    /// A Secret under one of the ten names that a member's kubeconfigs may have: of two requests that see the same one free, one
    /// gets a conflict and looks again.
    async fn take_slot(&self, member: &Member, credential: &SecretHash) -> Result<KubeconfigSecret, IssueError> {
        for _ in 0..=MAX_KUBECONFIGS {
            let taken = self.cluster.list_kubeconfigs(&member.id).await?;
            let mut names = (0..MAX_KUBECONFIGS).map(|slot| format!("{}.{slot}", member.id.name()));
            let Some(name) = names.find(|name| taken.iter().all(|secret| secret.name != *name)) else {
                // Those whose token is dead are as good as gone, swept or not.
                let now = self.clock.now();
                let is_dead = |secret: &&KubeconfigSecret| {
                    secret.issued.as_ref().is_some_and(|issued| issued.expires_at + TOKEN_LEEWAY <= now)
                };
                let dead = taken.iter().find(is_dead).ok_or(IssueError::TooMany)?;
                self.cluster.delete_secret(&member.id.role, dead).await?;
                continue;
            };
            match self.cluster.create_kubeconfig_secret(member, &name, credential).await {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                result => return Ok(result?),
            }
        }
        Err(IssueError::TooMany)
    }

    async fn issue_on(
        &self,
        member: &Member,
        credential: &Credential,
        secret: &KubeconfigSecret,
        lifetime: TimeDelta,
        cause: Cause<'_>,
    ) -> Result<IssuedKubeconfig, IssueError> {
        let token = self.cluster.request_token(&member.id, secret, lifetime).await?;
        let unreadable = || {
            Error::new("create_token", &member.id.to_string(), ErrorKind::UnreadableAnswer, "no JWT with exp and jti")
        };
        // `exp` is relative to when the server handles the request, and can be later than the answer says.
        let claims = decode_claims(token.expose_secret()).ok_or_else(unreadable)?;
        let from = cause.origin.address.as_deref();
        match self.cluster.record_issued(&member.id.role, secret, &claims, from).await {
            Err(error) if error.is_conflict() || error.is_gone() => return Err(IssueError::Ended),
            result => result?,
        }
        // Everything that takes a kubeconfig back changes the Member first and deletes Secrets after. So either this read sees
        // the change, or the Secret was there with its record to be deleted.
        let still = self.authenticate(credential).await?.ok_or(IssueError::Ended)?;
        if still.uid != member.uid || still.expires_at() < member.expires_at() {
            return Err(IssueError::Ended);
        }
        Ok(IssuedKubeconfig { token, claims })
    }

    /// The kubeconfigs of a member whose tokens are alive.
    pub async fn live_kubeconfigs(&self, member: &Member) -> Result<Vec<KubeconfigSecret>, Error> {
        let now = self.clock.now();
        let mut secrets = self.cluster.list_kubeconfigs(&member.id).await?;
        secrets.retain(|secret| {
            let alive = secret.issued.as_ref().is_some_and(|issued| now < issued.expires_at + TOKEN_LEEWAY);
            alive && !secret.deleting && secret.belongs_to(member)
        });
        secrets.sort_by_key(|secret| secret.created_at);
        Ok(secrets)
    }

    /// Revokes one kubeconfig; whether there was one of this `jti`.
    pub async fn revoke_kubeconfig(&self, member: &Member, jti: &str, cause: Cause<'_>) -> Result<bool, Error> {
        let secrets = self.live_kubeconfigs(member).await?;
        let is_meant = |secret: &&KubeconfigSecret| secret.issued.as_ref().is_some_and(|issued| issued.jti == jti);
        let Some(secret) = secrets.iter().find(is_meant) else {
            return Ok(false);
        };
        self.cluster.delete_secret(&member.id.role, secret).await?;
        self.report(Kind::KubeconfigRevoked, member, cause, Some(jti));
        Ok(true)
    }
}
