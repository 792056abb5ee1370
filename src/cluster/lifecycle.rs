//! A member's life in the cluster: the order of every step, so that a process killed between two of them leaves nothing that the
//! controller does not finish.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::members::StatusUpdate;
use super::{Cluster, Error, ErrorKind, Lookup};
use crate::audit::{Actor, Event, Kind, Origin};
use crate::clock::SKEW_WARNING;
use crate::crd::MemberSpec;
use crate::domain::id::MemberId;
use crate::domain::member::{Member, Phase};
use crate::domain::rights::fingerprint;
use crate::domain::role::RoleId;
use crate::domain::secret::{Credential, SecretHash};
use crate::domain::token::dies_in_time;

/// How often a write that somebody else's write overtook is tried again on the newer version.
const CONFLICT_RETRIES: usize = 5;

/// How often, and how long apart, a creation is tried again that the quota had not been counted for.
const QUOTA_RETRIES: usize = 5;
const QUOTA_PAUSE: Duration = Duration::from_millis(500);

/// Who causes a change, for the audit trail.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// On whose rights.
    pub owner: Option<&'a str>,
    /// From where.
    pub origin: &'a Origin,
}

/// How a membership ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its time is over.
    Expired,
    /// Somebody ended it early.
    Revoked,
}

impl Ending {
    /// Expired where its time is over, else revoked.
    pub fn of(member: &Member, now: DateTime<Utc>) -> Self {
        if member.is_expired(now) { Self::Expired } else { Self::Revoked }
    }
}

impl Cluster {
    /// Records an event about a member.
    pub fn report(&self, kind: Kind, member: &Member, cause: Cause<'_>, jti: Option<&str>) {
        self.audit.record(&Event {
            owner: cause.owner,
            jti,
            ..Event::about(kind, cause.actor.clone(), cause.origin, member)
        });
    }

    /// Whether the clocks disagree enough to say so.
    pub fn clock_skewed(&self) -> bool {
        self.clock.offset().abs() > SKEW_WARNING
    }

    /// Creates a member with its credential: Member, service account, status, in this order. What fails half-way is ended;
    /// what is killed half-way becomes a member without a credential.
    pub async fn create(
        &self,
        id: &MemberId,
        spec: &MemberSpec,
        credential: &Credential,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let mut created = self.create_member(id, spec).await;
        for _ in 0..QUOTA_RETRIES {
            match &created {
                Err(error) if error.kind == ErrorKind::QuotaUnknown => self.nudge_quota(&id.role).await?,
                _ => break,
            }
            tokio::time::sleep(QUOTA_PAUSE).await;
            created = self.create_member(id, spec).await;
        }
        let member = created?;
        match self.provision(&member, Some(&credential.hash()), cause).await {
            Ok(member) => Ok(member),
            Err(error) => {
                if let Err(error) = self.end(&member, Ending::Revoked, cause).await {
                    tracing::warn!(%error, "a member that could not be created is left to the sweep");
                }
                Err(error)
            }
        }
    }

    /// Makes sure that a live member has its service account and that its status is recorded, with a new credential where one
    /// is given. Reports what the record shows to be new.
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
            let update = StatusUpdate {
                phase: "Active",
                credential,
                role_hash: role_hash.as_deref(),
                conditions: self.ready(&member, skewed),
            };
            match self.write_status(&member, &update).await {
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

    /// The member as it is now, if it is still the same and alive.
    async fn reread(&self, member: &Member) -> Result<Member, Error> {
        match self.member(&member.id).await? {
            Lookup::Found(now) if now.uid == member.uid && now.is_live(self.clock.now()) => Ok(*now),
            _ => Err(Error::new("get_member", &member.id.to_string(), ErrorKind::NotFound, "it has ended meanwhile")),
        }
    }

    /// Names what a role can do now; `None` when that cannot be read, which holds no member up: the next sweep writes it.
    async fn role_hash(&self, role: &RoleId) -> Option<String> {
        match self.rbac().await {
            Ok(rbac) => Some(fingerprint(&rbac.grants(role).rules)),
            Err(error) => {
                tracing::warn!(%error, "the rights of a role cannot be read");
                None
            }
        }
    }

    /// Records that the role of a living member can do something else now. Somebody else's write meanwhile leaves it to the next
    /// sweep.
    pub async fn record_role_change(
        &self,
        member: &Member,
        hash: &str,
        widened: bool,
        cause: Cause<'_>,
    ) -> Result<(), Error> {
        let mut changed = member.clone();
        if widened {
            changed.status.role_widened = Some(self.clock.now());
        }
        let conditions = self.ready(&changed, self.clock_skewed());
        let update = StatusUpdate { phase: "Active", credential: None, role_hash: Some(hash), conditions };
        match self.write_status(member, &update).await {
            Ok(_) if widened => self.report(Kind::RoleWidened, member, cause, None),
            Err(error) if !error.is_conflict() && !error.is_gone() => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Reports what was not recorded in the status before.
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

    /// Gives a member a new credential; the old one, and every kubeconfig it was exchanged for, dies.
    pub async fn renew_credential(
        &self,
        member: &Member,
        credential: &Credential,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let hash = credential.hash();
        let renewed = self.provision(member, Some(&hash), cause).await?;
        self.delete_kubeconfigs(&renewed, Some(&hash)).await?;
        self.report(Kind::CredentialIssued, &renewed, cause, None);
        Ok(renewed)
    }

    /// Changes the duration of exactly this version of a member; every kubeconfig that would outlive the new end is dead
    /// when this returns.
    pub async fn change_duration(
        &self,
        member: &Member,
        duration: TimeDelta,
        cause: Cause<'_>,
    ) -> Result<Member, Error> {
        let changed = self.set_duration(member, duration).await?;
        // One that cannot be deleted keeps none of the others alive.
        let mut deleted = Ok(());
        for secret in self.list_kubeconfigs(&changed.id).await? {
            let outlives =
                secret.issued.as_ref().is_some_and(|issued| !dies_in_time(issued.expires_at, changed.expires_at()));
            if outlives && secret.member_uid.as_ref() == Some(&changed.uid) {
                deleted = deleted.and(self.delete_secret(&changed.id.role, &secret).await);
            }
        }
        deleted?;
        self.provision(&changed, None, cause).await
    }

    /// Ends a member: the Member first, which is the durable decision, then what it may still be used with. Every step can be
    /// repeated; the sweep repeats what is missing.
    pub async fn end(&self, member: &Member, ending: Ending, cause: Cause<'_>) -> Result<(), Error> {
        let unmarked = self.mark_ended(member, ending, cause).await;
        self.delete_member(member).await?;
        if let Some(member) = unmarked {
            self.report_end(&member, ending, cause);
        }
        self.delete_remains(member).await
    }

    /// The service account and the Secrets of exactly this member. Each alone ends its tokens, so one that fails does not keep the
    /// other.
    async fn delete_remains(&self, member: &Member) -> Result<(), Error> {
        let account = self.delete_own_account(member).await;
        let secrets = self.delete_kubeconfigs(member, None).await;
        account.and(secrets)
    }

    async fn delete_own_account(&self, member: &Member) -> Result<(), Error> {
        match self.account(&member.id).await? {
            Some(account) if account.member_uid.as_ref() == Some(&member.uid) => {
                self.delete_account(&member.id.role, &account).await
            }
            _ => Ok(()),
        }
    }

    /// Says in the status that the member has ended. Of all that end it at the same time, the one whose mark is written reports
    /// it. A mark that cannot be written holds nothing up: the member is given back, to be reported when it is deleted, and not
    /// with every try of that.
    async fn mark_ended(&self, member: &Member, ending: Ending, cause: Cause<'_>) -> Option<Member> {
        let mut current = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            if current.uid != member.uid || current.status.phase == Some(Phase::Terminating) {
                return None;
            }
            let conditions = vec![self.condition("Ready", "False", reason(ending), self.clock.now())];
            let update = StatusUpdate { phase: "Terminating", credential: None, role_hash: None, conditions };
            match self.write_status(&current, &update).await {
                Ok(_) => {
                    self.report_end(&current, ending, cause);
                    return None;
                }
                Err(error) if error.is_gone() => return None,
                Err(error) if error.is_conflict() => match self.member(&member.id).await {
                    Ok(Lookup::Found(newer)) => current = *newer,
                    Ok(Lookup::Missing) => return None,
                    _ => break,
                },
                Err(error) => {
                    tracing::warn!(%error, "the end of a member could not be marked; it is ended all the same");
                    break;
                }
            }
        }
        Some(current)
    }

    /// Reports the end of a member.
    pub fn report_end(&self, member: &Member, ending: Ending, cause: Cause<'_>) {
        let kind = match ending {
            Ending::Expired => Kind::Expired,
            Ending::Revoked => Kind::Revoked,
        };
        self.report(kind, member, cause, None);
    }

    fn ready(&self, member: &Member, skewed: bool) -> Vec<Condition> {
        let now = self.clock.now();
        let mut conditions =
            vec![self.condition("Ready", "True", "Provisioned", member.status.ready_since.unwrap_or(now))];
        if let Some(since) = member.status.role_widened {
            conditions.push(self.condition("RoleWidened", "True", "RightsAdded", since));
        }
        if skewed {
            conditions.push(self.condition("ClockSkewed", "True", "OffsetOverFiveSeconds", now));
        }
        conditions
    }

    fn condition(&self, kind: &str, status: &str, reason: &str, since: DateTime<Utc>) -> Condition {
        let message = match reason {
            "Provisioned" => "The service account exists",
            "Expired" => "The membership's time is over",
            "Revoked" => "The membership was ended early",
            "RightsAdded" => "The role can do more than when it was given",
            _ => "The clocks of Daypass and the API server disagree by over 5 s",
        };
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(Timestamp::from_second(since.timestamp()).unwrap_or_default()),
            observed_generation: None,
        }
    }
}

fn reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Expired => "Expired",
        Ending::Revoked => "Revoked",
    }
}
