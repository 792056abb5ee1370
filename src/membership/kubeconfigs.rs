//! Issuing, listing and revoking kubeconfigs.
//!
//! Issuing creates a Secret and a token bound to it, then reads the Member once more. The calls: LIST Secrets, POST
//! Secret, POST token, PATCH Secret, GET Member.

use chrono::TimeDelta;
use secrecy::{ExposeSecret as _, SecretString};

use super::Membership;
use crate::cluster::{Error, ErrorKind};
use crate::domain::kubeconfig::{KubeconfigRecord, MAX_KUBECONFIGS, retry_margin, slot_names, token_window};
use crate::domain::member::{Credential, Member};
use crate::domain::secret::SecretHash;
use crate::domain::token::{TokenClaims, decode_claims};
use crate::observability::audit::{Cause, Kind};

/// How often to request a token. The API server counts the lifetime from when it handles the request, so a token from
/// a slow API server can expire too late.
const TOKEN_TRIES: usize = 3;

/// A kubeconfig's token.
#[derive(Debug)]
pub struct IssuedKubeconfig {
    /// The token.
    pub token: SecretString,
    /// The token's claims.
    pub claims: TokenClaims,
}

/// Why no kubeconfig was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The membership ends before the shortest possible token would.
    #[error("the membership ends too soon for a token")]
    TooLate,
    /// The member already has the maximum number of kubeconfigs.
    #[error("too many live kubeconfigs")]
    TooMany,
    /// The member has ended or has a new credential.
    #[error("the credential was revoked meanwhile")]
    Ended,
    /// A call failed.
    #[error(transparent)]
    Cluster(#[from] Error),
}

impl Membership {
    /// Issues a token for a kubeconfig of `member`, which `credential` has authenticated.
    ///
    /// If a token would outlive the member, revokes it by deleting its Secret and requests a shorter one.
    pub async fn issue_kubeconfig(
        &self,
        member: &Member,
        credential: &Credential,
        cause: Cause<'_>,
    ) -> Result<IssuedKubeconfig, IssueError> {
        let mut margin = TimeDelta::zero();
        for _ in 0..TOKEN_TRIES {
            let window =
                token_window(member.expires_at(), self.clock.now() + margin).map_err(|_| IssueError::TooLate)?;
            let secret = self.take_slot(member, &credential.hash()).await?;
            let issued = self.issue_on(member, credential, &secret, window.lifetime, cause).await;
            let late = match &issued {
                Ok(issued) => issued.claims.exp - window.latest_exp,
                Err(_) => TimeDelta::zero(),
            };
            if issued.is_err() || late > TimeDelta::zero() {
                // Nobody has received the token, and this revokes it.
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

    /// Creates a Secret in a free slot. If two requests choose the same slot, the second gets a conflict and retries.
    async fn take_slot(&self, member: &Member, credential: &SecretHash) -> Result<KubeconfigRecord, IssueError> {
        for _ in 0..=MAX_KUBECONFIGS {
            let taken = self.cluster.list_kubeconfigs(&member.id).await?;
            let is_free = |name: &String| taken.iter().all(|secret| secret.name != *name);
            let Some(name) = slot_names(&member.id).find(is_free) else {
                // Reuse the slot of a dead kubeconfig that the sweep has not removed yet.
                let dead = taken.iter().find(|secret| secret.is_dead(self.clock.now())).ok_or(IssueError::TooMany)?;
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

    /// Requests a token bound to `secret`, records it there and checks that the member may still have it.
    async fn issue_on(
        &self,
        member: &Member,
        credential: &Credential,
        secret: &KubeconfigRecord,
        lifetime: TimeDelta,
        cause: Cause<'_>,
    ) -> Result<IssuedKubeconfig, IssueError> {
        let token = self.cluster.request_token(&member.id, secret, lifetime).await?;
        let unreadable = || {
            Error::new("create_token", &member.id.to_string(), ErrorKind::UnreadableAnswer, "no JWT with exp and jti")
        };
        // Use the token's own `exp`: it can be later than the expiry in the answer.
        let claims = decode_claims(token.expose_secret()).ok_or_else(unreadable)?;
        let from = cause.origin.address.as_deref();
        match self.cluster.record_issued(&member.id.role, secret, &claims, from).await {
            Err(error) if error.is_conflict() || error.is_gone() => return Err(IssueError::Ended),
            result => result?,
        }
        // Every revocation changes the Member first and deletes Secrets after that. So either this read sees the
        // change, or the revocation finds this Secret, with its record, and deletes it.
        let still = self.authenticate(credential).await?.ok_or(IssueError::Ended)?;
        if still.uid != member.uid || still.expires_at() < member.expires_at() {
            return Err(IssueError::Ended);
        }
        Ok(IssuedKubeconfig { token, claims })
    }

    /// Lists a member's kubeconfigs with live tokens, oldest first.
    pub async fn live_kubeconfigs(&self, member: &Member) -> Result<Vec<KubeconfigRecord>, Error> {
        let now = self.clock.now();
        let mut secrets = self.cluster.list_kubeconfigs(&member.id).await?;
        secrets.retain(|secret| secret.is_alive(now) && secret.belongs_to(member));
        secrets.sort_by_key(|secret| secret.created_at);
        Ok(secrets)
    }

    /// Revokes the kubeconfig with this `jti`; `false` if there is none.
    pub async fn revoke_kubeconfig(&self, member: &Member, jti: &str, cause: Cause<'_>) -> Result<bool, Error> {
        let secrets = self.live_kubeconfigs(member).await?;
        let has_jti = |secret: &&KubeconfigRecord| secret.issued.as_ref().is_some_and(|issued| issued.jti == jti);
        let Some(secret) = secrets.iter().find(has_jti) else {
            return Ok(false);
        };
        self.cluster.delete_secret(&member.id.role, secret).await?;
        self.report(Kind::KubeconfigRevoked, member, cause, Some(jti));
        Ok(true)
    }
}
