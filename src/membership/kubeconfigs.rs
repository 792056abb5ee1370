//! Issuing, listing and revoking kubeconfigs.
//!
//! Issuing a direct one creates a Secret and a token bound to it, and records both in the Member's status. The calls:
//! POST Secret, POST token, PATCH status. A gateway kubeconfig has a token of Daypass's own, so POST token falls away.
//! For a member that version 0.1.0 left, LIST Secrets comes first.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use secrecy::{ExposeSecret as _, SecretString};

use super::{CONFLICT_RETRIES, Membership};
use crate::clock::NoEntropy;
use crate::cluster::{Error, ErrorKind, Slot};
use crate::domain::gateway_token::{GatewayToken, KubeconfigRef};
use crate::domain::kubeconfig::{
    KubeconfigRecord, MAX_KUBECONFIGS, RecordedToken, TOKEN_LEEWAY, TokenWindow, retry_margin, slot_name, token_window,
};
use crate::domain::kubeconfig_secret::KubeconfigSecret;
use crate::domain::member::Member;
use crate::domain::secret::SecretHash;
use crate::domain::token::{TokenClaims, decode_claims};
use crate::observability::audit::{Cause, Kind};

/// How often to request a token. The API server counts the lifetime from when it handles the request, so a token from
/// a slow API server can expire too late.
const TOKEN_TRIES: usize = 3;

/// A gateway kubeconfig's token.
#[derive(Debug)]
pub struct IssuedGatewayKubeconfig {
    /// The token.
    pub token: GatewayToken,
    /// The id of its record.
    pub id: String,
}

/// A direct kubeconfig's token.
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
    /// The operating system has no random bits.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
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
    /// Issues a gateway kubeconfig of `member`, which the credential of this hash, or a session of it, has
    /// authenticated. However little is left of the membership, the kubeconfig works until its end, and beyond it
    /// after an extension.
    pub async fn issue_gateway_kubeconfig(
        &self,
        member: &Member,
        credential: &SecretHash,
        cause: Cause<'_>,
    ) -> Result<IssuedGatewayKubeconfig, IssueError> {
        let (id, random) = (self.entropy.uuid()?.to_string(), self.entropy.bytes()?);
        let end = member.expires_at();
        // A leader of version 0.1.0 keeps a Secret with this end.
        let latest_exp = end.checked_sub_signed(TOKEN_LEEWAY).unwrap_or(end);
        let (slot, secret) = self.take_slot(member, credential, (Some(&id), latest_exp), cause).await?;
        let token = GatewayToken::new(KubeconfigRef { member: member.id.clone(), slot }, &random);
        let recorded = RecordedToken::Gateway { hash: token.hash() };
        let record = new_record((slot, &secret), id.clone(), credential, recorded, cause);
        if let Err(error) = self.record(member, credential, record).await {
            self.cluster.delete_secret(&member.id.role, &secret.name, &secret.uid).await?;
            return Err(error);
        }
        self.report(Kind::KubeconfigIssued, member, cause, Some(&id));
        Ok(IssuedGatewayKubeconfig { token, id })
    }

    /// Issues a token for a direct kubeconfig of `member`, which the credential of this hash, or a session of it, has
    /// authenticated.
    ///
    /// If a token would outlive the member, revokes it by deleting its Secret and requests a shorter one.
    pub async fn issue_kubeconfig(
        &self,
        member: &Member,
        credential: &SecretHash,
        cause: Cause<'_>,
    ) -> Result<IssuedKubeconfig, IssueError> {
        let mut margin = TimeDelta::zero();
        for _ in 0..TOKEN_TRIES {
            let window =
                token_window(member.expires_at(), self.clock.now() + margin).map_err(|_| IssueError::TooLate)?;
            let (slot, secret) = self.take_slot(member, credential, (None, window.latest_exp), cause).await?;
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

    /// Creates a Secret in a free slot. `id` and `latest_exp` are for version 0.1.0.
    async fn take_slot(
        &self,
        member: &Member,
        credential: &SecretHash,
        (id, latest_exp): (Option<&str>, DateTime<Utc>),
        cause: Cause<'_>,
    ) -> Result<(u8, KubeconfigSecret), IssueError> {
        let (records, now) = (self.kubeconfigs_of(member).await?, self.clock.now());
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
            let slot = Slot { slot, id, credential, latest_exp, from };
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
        credential: &SecretHash,
        (slot, secret): (u8, &KubeconfigSecret),
        window: TokenWindow,
        cause: Cause<'_>,
    ) -> Result<Minted, IssueError> {
        let token = self.cluster.request_token(&member.id, (&secret.name, &secret.uid), window.lifetime).await?;
        let unreadable = || {
            Error::new("create_token", &member.id.to_string(), ErrorKind::UnreadableAnswer, "no JWT with exp and jti")
        };
        // Use the token's own `exp`: it can be later than the expiry in the answer.
        let claims = decode_claims(token.expose_secret()).ok_or_else(unreadable)?;
        if claims.exp > window.latest_exp {
            return Ok(Minted::Late(claims.exp - window.latest_exp));
        }
        let recorded = RecordedToken::Direct { expires_at: claims.exp };
        let record = new_record((slot, secret), claims.jti.clone(), credential, recorded, cause);
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
        credential: &SecretHash,
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
            match self.cluster.write_kubeconfigs(&current, &records, Some(credential)).await {
                Ok(recorded) => {
                    self.seen(recorded);
                    return Ok(());
                }
                Err(error) if error.is_gone() => return Err(IssueError::Ended),
                Err(error) if error.is_conflict() => {
                    let is_same = |newer: &Member| {
                        newer.uid == member.uid && newer.status.credential.as_ref() == Some(credential)
                    };
                    current = self.living(&member.id).await?.filter(is_same).ok_or(IssueError::Ended)?;
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

    /// Records that the kubeconfig with this id is in use, unless a use in the last ten minutes is recorded. After a
    /// conflict, the next use does this.
    pub async fn record_use(&self, member: &Member, id: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let mut records = member.status.kubeconfigs.clone().unwrap_or_default();
        match records.iter_mut().find(|record| record.id == id && record.is_use_due(now)) {
            Some(record) => record.last_used_at = Some(now.trunc_subsecs(0)),
            None => return Ok(()),
        }
        self.record_kubeconfigs(member, &records).await
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
            match self.cluster.write_kubeconfigs(&current, &records, None).await {
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

/// The record of a new kubeconfig.
fn new_record(
    (slot, secret): (u8, &KubeconfigSecret),
    id: String,
    credential: &SecretHash,
    token: RecordedToken,
    cause: Cause<'_>,
) -> KubeconfigRecord {
    KubeconfigRecord {
        slot,
        id,
        secret_uid: secret.uid.clone(),
        credential: credential.fingerprint().to_owned(),
        from: cause.origin.address.clone(),
        issued_at: secret.created_at,
        last_used_at: None,
        token,
    }
}

fn changed_too_often(member: &Member) -> Error {
    Error::changed_too_often("patch_member_status", &member.id.to_string())
}
