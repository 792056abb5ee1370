//! Ending a member: deletes the Member first, which makes the decision durable, then its account and Secrets.

use chrono::{DateTime, Utc};

use super::{CONFLICT_RETRIES, Membership, status};
use crate::cluster::{Error, Lookup};
use crate::domain::member::{Member, Phase};
use crate::domain::secret::SecretHash;
use crate::observability::audit::{Cause, Kind};

/// Why a membership ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its time is over.
    Expired,
    /// Somebody ended it early.
    Revoked,
}

impl EndReason {
    /// Expired once its time is over, else revoked.
    pub fn of(member: &Member, now: DateTime<Utc>) -> Self {
        if member.is_expired(now) { Self::Expired } else { Self::Revoked }
    }
}

impl Membership {
    /// Ends a member. Every step can be repeated, and the sweep repeats those that failed.
    pub async fn end(&self, member: &Member, reason: EndReason, cause: Cause<'_>) -> Result<(), Error> {
        let unmarked = self.mark_ended(member, reason, cause).await;
        let deleted = match (unmarked, self.cluster.delete_member(member).await) {
            // Neither recorded nor deleted: the member lives on, so it keeps its account.
            (Some(_), Err(error)) => return Err(error),
            (Some(member), Ok(())) => {
                self.report_end(&member, reason, cause);
                Ok(())
            }
            (None, deleted) => deleted,
        };
        // Deleting either one ends the member's tokens, so a failure of one must not prevent the other.
        let account = self.delete_own_account(member).await;
        let secrets = self.delete_kubeconfigs(member, None).await;
        deleted.and(account).and(secrets)
    }

    /// Reports the end of a member.
    pub fn report_end(&self, member: &Member, reason: EndReason, cause: Cause<'_>) {
        let kind = match reason {
            EndReason::Expired => Kind::Expired,
            EndReason::Revoked => Kind::Revoked,
        };
        self.report(kind, member, cause, None);
    }

    /// Records in the status that the member has ended. If several replicas do so at the same time, the one that
    /// succeeds reports the end. If the record cannot be written, returns the member: the caller reports the end after
    /// deleting it.
    async fn mark_ended(&self, member: &Member, reason: EndReason, cause: Cause<'_>) -> Option<Member> {
        let mut current = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            if current.uid != member.uid || current.status.phase == Some(Phase::Terminating) {
                return None;
            }
            match self.cluster.write_status(&current, &status::terminating(reason, self.clock.now())).await {
                Ok(ended) => {
                    self.seen(ended);
                    self.report_end(&current, reason, cause);
                    return None;
                }
                Err(error) if error.is_gone() => return None,
                Err(error) if error.is_conflict() => match self.cluster.member(&member.id).await {
                    Ok(Lookup::Found(newer)) => current = *newer,
                    Ok(Lookup::Missing) => return None,
                    _ => break,
                },
                Err(error) => {
                    tracing::warn!(%error, "could not record the end of a member; ending it anyway");
                    break;
                }
            }
        }
        Some(current)
    }

    async fn delete_own_account(&self, member: &Member) -> Result<(), Error> {
        match self.cluster.account(&member.id).await? {
            Some(own) if own.belongs_to(member) => self.cluster.delete_account(&member.id.role, &own).await,
            _ => Ok(()),
        }
    }

    /// Deletes all Secrets of a member; with `keep`, all but those of that credential.
    pub(super) async fn delete_kubeconfigs(&self, member: &Member, keep: Option<&SecretHash>) -> Result<(), Error> {
        let Err(error) = self.cluster.delete_secrets(member, keep).await else { return Ok(()) };
        // The API server stopped at the first Secret that it could not delete; try each of the others.
        for secret in self.cluster.list_kubeconfigs(&member.id).await? {
            let is_kept = keep.is_some_and(|hash| secret.credential.as_deref() == Some(hash.fingerprint()));
            if !is_kept && secret.belongs_to(member) {
                // This returns the first error, and the sweep retries.
                let _ = self.cluster.delete_secret(&member.id.role, &secret).await;
            }
        }
        Err(error)
    }
}
