//! Creating a member: the Member, its service account, its status, in this order.
//!
//! The calls: POST Member, GET and POST service account, PATCH status.

use std::time::Duration;

use chrono::TimeDelta;

use super::{CONFLICT_RETRIES, EndReason, Membership, status};
use crate::cluster::{Error, ErrorKind, Lookup};
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
        match self.provision(&member, Some(&credential.hash()), cause).await {
            Ok(member) => Ok(member),
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

    /// Makes sure that a live member has its service account and a current status; `credential` becomes its new
    /// credential. Reports a creation or a new duration that the status had not recorded.
    pub async fn provision(
        &self,
        member: &Member,
        credential: Option<&SecretHash>,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        self.ensure_account(member).await?;
        // What this replica has seen of the role. If that is unknown, the next check of the roles records it.
        let role_hash = match &member.status.role_hash {
            Some(_) => None,
            None => self.feed.rights.role_hash(&member.id.role),
        };
        let mut member = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            let skewed = self.clock.is_skewed();
            if credential.is_none() && member.is_recorded(skewed) {
                return Ok(member);
            }
            let update = status::active(&member, credential, role_hash.as_deref(), skewed, self.clock.now());
            match self.cluster.write_status(&member, &update).await {
                Ok(recorded) => {
                    self.report_transition(&member, cause);
                    return Ok(self.seen(recorded));
                }
                Err(error) if error.is_conflict() => member = self.reread(&member).await?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::new("patch_member_status", &member.id.to_string(), ErrorKind::Conflict, "changed too often"))
    }

    /// Makes sure that the member's service account exists and is its own.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the account belongs to another Member. It is never adopted: the controller removes
    /// it first.
    async fn ensure_account(&self, member: &Member) -> Result<(), Error> {
        // Read first: each attempt to create counts against the namespace's quota until Kubernetes recounts.
        let mut found = self.cluster.account(&member.id).await?;
        if found.is_none() {
            match self.cluster.create_account(member).await {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {
                    found = self.cluster.account(&member.id).await?;
                }
                result => return result,
            }
        }
        if found.is_some_and(|account| account.belongs_to(member) && !account.deleting) {
            return Ok(());
        }
        let id = member.id.to_string();
        Err(Error::new("create_service_account", &id, ErrorKind::Conflict, "the account belongs to another Member"))
    }

    /// The current version of the member, if it is still the same one and live.
    async fn reread(&self, member: &Member) -> Result<Member, Error> {
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
