//! Creating a member: the Member, its service account, its status, in this order.
//!
//! The calls: POST Member, GET and POST service account, four LISTs of RBAC for the role's fingerprint, PATCH status.

use std::time::Duration;

use chrono::TimeDelta;

use super::{CONFLICT_RETRIES, EndReason, Membership, status};
use crate::cluster::{Error, ErrorKind, Lookup};
use crate::crd::MemberSpec;
use crate::domain::id::MemberId;
use crate::domain::member::Credential;
use crate::domain::member::Member;
use crate::domain::rights::fingerprint;
use crate::domain::role::RoleId;
use crate::domain::secret::SecretHash;
use crate::observability::audit::{Cause, Kind};

/// How long a request claims the member that it is changing. Meanwhile the controller leaves it alone.
pub(super) const CLAIM: TimeDelta = TimeDelta::seconds(10);

/// How often, and how long apart, a creation is retried because the quota had not been counted.
const QUOTA_RETRIES: usize = 5;
const QUOTA_PAUSE: Duration = Duration::from_millis(500);

impl Membership {
    /// Creates a member with its credential. If a step fails, the member is ended; if the process is killed, it stays
    /// as a member without a credential.
    pub async fn create(
        &self,
        id: &MemberId,
        spec: &MemberSpec,
        credential: &Credential,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let member = self.create_counted(id, spec).await?;
        match self.provision(&member, Some(&credential.hash()), cause).await {
            Ok(member) => Ok(member),
            Err(error) => {
                if let Err(error) = self.end(&member, EndReason::Revoked, cause).await {
                    tracing::warn!(%error, "a half-created member could not be removed; the sweep retries");
                }
                Err(error)
            }
        }
    }

    /// Creates the Member, and has the role's quota counted first where Kubernetes has not done so yet.
    async fn create_counted(&self, id: &MemberId, spec: &MemberSpec) -> Result<Member, Error> {
        for _ in 0..QUOTA_RETRIES {
            match self.cluster.create_member(id, spec, self.clock.now() + CLAIM).await {
                Err(error) if error.kind == ErrorKind::QuotaUnknown => self.cluster.nudge_quota(&id.role).await?,
                result => return result,
            }
            tokio::time::sleep(QUOTA_PAUSE).await;
        }
        self.cluster.create_member(id, spec, self.clock.now() + CLAIM).await
    }

    /// Makes sure that a live member has its service account and that its status is recorded; with `credential`, as its
    /// new credential. Reports what the record shows to be new.
    pub async fn provision(
        &self,
        member: &Member,
        credential: Option<&SecretHash>,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        self.ensure_account(member).await?;
        let role_hash = match &member.status.role_hash {
            Some(_) => None,
            None => self.role_hash(&member.id.role).await,
        };
        let mut member = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            let skewed = self.clock_skewed();
            if credential.is_none() && member.is_recorded(skewed) {
                return Ok(member);
            }
            let update = status::active(&member, credential, role_hash.as_deref(), skewed, self.clock.now());
            match self.cluster.write_status(&member, &update).await {
                Ok(recorded) => {
                    self.report_transition(&member, cause);
                    return Ok(recorded);
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
        // Read first: the namespace's quota counts every attempt to create until Kubernetes counts again.
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

    /// The fingerprint of what a role can do now. `None` if it cannot be read: that delays no member, and the next
    /// sweep records it.
    async fn role_hash(&self, role: &RoleId) -> Option<String> {
        match self.cluster.rbac().await {
            Ok(rbac) => Some(fingerprint(&rbac.grants(role).rules)),
            Err(error) => {
                tracing::warn!(%error, "the rights of a role cannot be read");
                None
            }
        }
    }

    /// The member as it is now, if it is still the same one and live.
    async fn reread(&self, member: &Member) -> Result<Member, Error> {
        match self.cluster.member(&member.id).await? {
            Lookup::Found(now) if now.uid == member.uid && now.is_live(self.clock.now()) => Ok(*now),
            _ => Err(Error::new("get_member", &member.id.to_string(), ErrorKind::NotFound, "it has ended meanwhile")),
        }
    }

    /// Reports what the status did not record before.
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
