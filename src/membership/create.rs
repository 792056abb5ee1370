//! Creating a member: the Member, its service account, its status, in this order.
//!
//! The calls: POST Member, POST service account, PATCH status.

use std::time::Duration;

use chrono::TimeDelta;

use super::{CONFLICT_RETRIES, EndReason, Membership, status};
use crate::cluster::{Account, Error, ErrorKind, Lookup, StatusUpdate};
use crate::crd::MemberSpec;
use crate::domain::member::{Credential, Member};
use crate::domain::member_id::MemberId;
use crate::domain::secret::SecretHash;
use crate::observability::audit::{Cause, Kind};

/// How long a request claims the member that it is changing. Until then, the controller leaves the member alone.
pub(super) const CLAIM: TimeDelta = TimeDelta::seconds(10);

/// The number of retries, and the wait before each, for a creation that fails because Kubernetes has not counted the
/// role's quota yet.
const QUOTA_RETRIES: usize = 5;
const QUOTA_PAUSE: Duration = Duration::from_millis(500);

/// A change of a Member's status.
pub(super) struct Written {
    /// The version that was replaced.
    pub(super) before: Member,
    /// The new version.
    pub(super) after: Member,
}

impl Membership {
    /// Creates a member with its credential, and with the hash of its request if that may be repeated. If a step
    /// fails, ends the member again. If the process is killed in between, or that fails too, a member without a
    /// credential stays until its expiry at the latest.
    pub async fn create(
        &self,
        id: &MemberId,
        spec: &MemberSpec,
        credential: &Credential,
        request_hash: Option<&str>,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let member = self.seen(self.create_counted(id, spec, request_hash).await?);
        let provisioned = match self.create_account(&member).await {
            Ok(account) => self.write(&member, &account, Some(&credential.hash()), cause).await,
            Err(error) => Err(error),
        };
        match provisioned {
            Ok(written) => Ok(written.after),
            Err(error) => {
                if let Err(error) = self.end(&member, EndReason::Revoked, cause).await {
                    tracing::warn!(%error, "could not remove a half-created member; it ends at its expiry");
                }
                Err(error)
            }
        }
    }

    /// Creates the Member. If Kubernetes has not counted the role's quota yet, gets it counted and retries.
    async fn create_counted(
        &self,
        id: &MemberId,
        spec: &MemberSpec,
        request_hash: Option<&str>,
    ) -> Result<Member, Error> {
        let create = || self.cluster.create_member(id, spec, request_hash, self.clock.now() + CLAIM);
        for _ in 0..QUOTA_RETRIES {
            match create().await {
                Err(error) if error.kind == ErrorKind::QuotaUnknown => self.cluster.nudge_quota(&id.role).await?,
                result => return result,
            }
            tokio::time::sleep(QUOTA_PAUSE).await;
        }
        create().await
    }

    /// Makes sure that a live member has a current status; `credential` becomes its new credential. Reports a creation
    /// or a new duration that the status had not recorded. Creates the service account if none is recorded.
    pub(super) async fn provision(
        &self,
        member: &Member,
        credential: Option<&SecretHash>,
        cause: Cause<'_>,
    ) -> Result<Written, Error> {
        let account = match &member.status.account_uid {
            Some(uid) => uid.clone(),
            None => self.ensure_account(member).await?,
        };
        self.write(member, &account, credential, cause).await
    }

    /// Makes sure that a live member has its service account and a current status, whatever is recorded.
    pub async fn repair(&self, member: &Member, cause: Cause<'_>) -> Result<(), Error> {
        let account = self.ensure_account(member).await?;
        self.write(member, &account, None, cause).await.map(drop)
    }

    /// Writes the status of a member with this service account.
    async fn write(
        &self,
        member: &Member,
        account_uid: &str,
        credential: Option<&SecretHash>,
        cause: Cause<'_>,
    ) -> Result<Written, Error> {
        // What this replica has seen of the role. If that is unknown, the next check of the roles records it.
        let role_hash = match &member.status.role_hash {
            Some(_) => None,
            None => self.feed.rights.role_hash(&member.id.role),
        };
        let mut member = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            let skewed = self.clock.is_skewed();
            let is_recorded = member.is_recorded(skewed) && member.status.account_uid.as_deref() == Some(account_uid);
            if credential.is_none() && is_recorded {
                return Ok(Written { before: member.clone(), after: member });
            }
            let update = StatusUpdate {
                account_uid: Some(account_uid),
                ..status::active(&member, credential, role_hash.as_deref(), skewed, self.clock.now())
            };
            match self.cluster.write_status(&member, &update).await {
                Ok(after) => {
                    self.report_transition(&member, cause);
                    return Ok(Written { before: member, after: self.seen(after) });
                }
                Err(error) if error.is_conflict() => member = self.reread(&member).await?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::changed_too_often("patch_member_status", &member.id.to_string()))
    }

    /// Creates the service account of a new member. Returns its UID.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another Member's account has the name. It is never adopted: the controller removes
    /// it first.
    async fn create_account(&self, member: &Member) -> Result<String, Error> {
        match self.cluster.create_account(member).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                own_uid(member, self.cluster.account(&member.id).await?.as_ref())
            }
            created => created.map(|account| account.uid),
        }
    }

    /// Makes sure that the member's service account exists and is its own. Returns its UID.
    ///
    /// # Errors
    /// As [`Self::create_account`].
    async fn ensure_account(&self, member: &Member) -> Result<String, Error> {
        // Read first, since the controller repeats this without end: each attempt to create counts against the
        // namespace's quota until Kubernetes recounts.
        match self.cluster.account(&member.id).await? {
            None => self.create_account(member).await,
            found => own_uid(member, found.as_ref()),
        }
    }

    /// The current version of the member, if it is still the same one and live.
    pub(super) async fn reread(&self, member: &Member) -> Result<Member, Error> {
        match self.cluster.member(&member.id).await? {
            Lookup::Found(now) if now.uid == member.uid && now.is_live(self.clock.now()) => Ok(*now),
            _ => Err(Error::new("get_member", &member.id.to_string(), ErrorKind::NotFound, "the member has ended")),
        }
    }

    /// Reports a creation, extension or shortening that the status had not recorded before.
    fn report_transition(&self, before: &Member, cause: Cause<'_>) {
        let end = before.expires_at();
        let kind = match before.status.expires_at {
            None => Kind::MemberCreated,
            Some(recorded) if recorded < end => Kind::Extended,
            Some(recorded) if recorded > end => Kind::Shortened,
            Some(_) => return,
        };
        self.report(kind, before, cause, None);
    }
}

/// The UID of the account, if it is the member's own.
fn own_uid(member: &Member, account: Option<&Account>) -> Result<String, Error> {
    let own = account.filter(|account| account.belongs_to(member) && !account.deleting);
    own.map(|account| account.uid.clone()).ok_or_else(|| {
        let id = member.id.to_string();
        Error::new("create_service_account", &id, ErrorKind::Conflict, "the account belongs to another Member")
    })
}
