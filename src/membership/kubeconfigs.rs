//! Issuing, listing and revoking kubeconfigs.
//!
//! Issuing creates a Secret and a token bound to it, and records both in the Member's status. The calls: POST Secret,
//! POST token, PATCH status. For a member that version 0.1.0 left, LIST Secrets comes first.

use chrono::TimeDelta;
use secrecy::{ExposeSecret as _, SecretString};

use super::{CONFLICT_RETRIES, Membership};
use crate::cluster::{Error, ErrorKind, Slot};
use crate::domain::kubeconfig::{
    KubeconfigRecord, MAX_KUBECONFIGS, TokenWindow, retry_margin, slot_name, token_window,
};
use crate::domain::kubeconfig_secret::KubeconfigSecret;
use crate::domain::member::{Credential, Member};
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

/// A token, before it is recorded.
enum Minted {
    /// It ends before the member.
    InTime(IssuedKubeconfig),
    /// It would end this much too late.
    Late(TimeDelta),
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
            let (slot, secret) = self.take_slot(member, credential, window, cause).await?;
            let issued = self.issue_on(member, credential, (slot, &secret), window, cause).await;
            if !matches!(issued, Ok(Minted::InTime(_))) {
                // Nobody has received the token, and this revokes it.
                self.cluster.delete_secret(&member.id.role, &secret.name, &secret.uid).await?;
            }
            match issued? {
                Minted::InTime(issued) => {
                    self.report(Kind::KubeconfigIssued, member, cause, Some(&issued.claims.jti));
                    return Ok(issued);
                }
                Minted::Late(late) => margin += retry_margin(late),
            }
        }
        Err(Error::new(
            "create_token",
            &member.id.to_string(),
            ErrorKind::Server,
            "every token would have outlived the member",
        )
        .into())
    }

    /// Creates a Secret in a free slot.
    async fn take_slot(
        &self,
        member: &Member,
        credential: &Credential,
        window: TokenWindow,
        cause: Cause<'_>,
    ) -> Result<(u8, KubeconfigSecret), IssueError> {
        let (records, now) = (self.kubeconfigs_of(member).await?, self.clock.now());
        let hash = credential.hash();
        let recorded = |slot: u8| records.iter().find(|record| record.slot == slot);
        // Free ones first: a dead kubeconfig's costs a deletion.
        let mut slots: Vec<u8> = (0..MAX_KUBECONFIGS).collect();
        slots.sort_by_key(|slot| recorded(*slot).is_some());
        for slot in slots {
            match recorded(slot) {
                Some(record) if record.is_wanted(member, now) => continue,
                Some(dead) => {
                    let name = slot_name(&member.id, slot);
                    self.cluster.delete_secret(&member.id.role, &name, &dead.secret_uid).await?;
                }
                None => {}
            }
            let from = cause.origin.address.as_deref();
            let slot = Slot { slot, credential: &hash, latest_exp: window.latest_exp, from };
            match self.cluster.create_kubeconfig_secret(member, &slot).await {
                // Another request was faster, or the sweep has not removed a former Secret yet.
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                created => return Ok((slot.slot, created?)),
            }
        }
        Err(IssueError::TooMany)
    }

    /// Requests a token bound to `secret` and records it.
    async fn issue_on(
        &self,
        member: &Member,
        credential: &Credential,
        (slot, secret): (u8, &KubeconfigSecret),
        window: TokenWindow,
        cause: Cause<'_>,
    ) -> Result<Minted, IssueError> {
        let token = self.cluster.request_token(&member.id, secret, window.lifetime).await?;
        let unreadable = || {
            Error::new("create_token", &member.id.to_string(), ErrorKind::UnreadableAnswer, "no JWT with exp and jti")
        };
        // Use the token's own `exp`: it can be later than the expiry in the answer.
        let claims = decode_claims(token.expose_secret()).ok_or_else(unreadable)?;
        if claims.exp > window.latest_exp {
            return Ok(Minted::Late(claims.exp - window.latest_exp));
        }
        let record = KubeconfigRecord {
            slot,
            id: claims.jti.clone(),
            secret_uid: secret.uid.clone(),
            credential: credential.hash().fingerprint().to_owned(),
            from: cause.origin.address.clone(),
            issued_at: secret.created_at,
            expires_at: claims.exp,
        };
        self.record(member, credential, record).await?;
        Ok(Minted::InTime(IssuedKubeconfig { token, claims }))
    }

    /// Adds a record to the Member's status, if the member may still have the kubeconfig.
    ///
    /// Every revocation changes the Member first and deletes Secrets after that. So either this write, which names the
    /// version that it replaces, sees the change, or the revocation sees the record.
    async fn record(
        &self,
        member: &Member,
        credential: &Credential,
        record: KubeconfigRecord,
    ) -> Result<(), IssueError> {
        let mut current = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            let now = self.clock.now();
            if !record.is_wanted(&current, now) {
                return Err(IssueError::Ended);
            }
            let mut records = self.kubeconfigs_of(&current).await?;
            // So there are never more than there are slots.
            records.retain(|other| other.slot != record.slot && other.is_wanted(&current, now));
            records.push(record.clone());
            match self.cluster.write_kubeconfigs(&current, &records).await {
                Ok(recorded) => {
                    self.seen(recorded);
                    return Ok(());
                }
                Err(error) if error.is_gone() => return Err(IssueError::Ended),
                Err(error) if error.is_conflict() => {
                    let newer = self.authenticate(credential).await?.filter(|newer| newer.uid == member.uid);
                    current = newer.ok_or(IssueError::Ended)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(IssueError::Cluster(changed_too_often(member)))
    }

    /// The records of a member's kubeconfigs, dead ones included.
    pub(super) async fn kubeconfigs_of(&self, member: &Member) -> Result<Vec<KubeconfigRecord>, Error> {
        match &member.status.kubeconfigs {
            Some(records) => Ok(records.clone()),
            None if member.status.credential.is_none() => Ok(Vec::new()),
            // Version 0.1.0 has them on the Secrets, and the controller has not taken them over yet.
            None => {
                let secrets = self.cluster.list_kubeconfigs(&member.id).await?;
                let own = secrets.into_iter().filter(|secret| !secret.deleting && secret.belongs_to(member));
                Ok(own.filter_map(|secret| secret.record(member)).collect())
            }
        }
    }

    /// Lists a member's live kubeconfigs, oldest first.
    pub async fn live_kubeconfigs(&self, member: &Member) -> Result<Vec<KubeconfigRecord>, Error> {
        let mut records = self.kubeconfigs_of(member).await?;
        records.retain(|record| record.is_wanted(member, self.clock.now()));
        records.sort_by_key(|record| record.issued_at);
        Ok(records)
    }

    /// Revokes the kubeconfig with this id; `false` if there is none.
    pub async fn revoke_kubeconfig(&self, member: &Member, id: &str, cause: Cause<'_>) -> Result<bool, Error> {
        let mut current = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            let mut records = self.live_kubeconfigs(&current).await?;
            let Some(at) = records.iter().position(|record| record.id == id) else {
                return Ok(false);
            };
            let revoked = records.remove(at);
            match self.cluster.write_kubeconfigs(&current, &records).await {
                Ok(recorded) => {
                    self.seen(recorded);
                    self.report(Kind::KubeconfigRevoked, member, cause, Some(id));
                    self.delete_kubeconfigs(&member.id, &[revoked]).await?;
                    return Ok(true);
                }
                Err(error) if error.is_conflict() => current = self.reread(&current).await?,
                Err(error) => return Err(error),
            }
        }
        Err(changed_too_often(member))
    }
}

fn changed_too_often(member: &Member) -> Error {
    Error::changed_too_often("patch_member_status", &member.id.to_string())
}
