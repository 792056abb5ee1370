//! Ending a member: the Member first, which makes the decision durable, then its account and Secrets.
//!
//! The calls of an expiry: DELETE Member, DELETE service account, DELETE each Secret. An early end marks the status
//! first, so that the deletion can be told from somebody else's.

use chrono::{DateTime, Utc};

use super::{CONFLICT_RETRIES, Membership, status};
use crate::cluster::{Error, Lookup};
use crate::domain::kubeconfig::{KubeconfigRecord, slot_name};
use crate::domain::member::{Member, Phase};
use crate::domain::member_id::MemberId;
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

/// A Member whose end is durable.
struct Ended {
    /// Its last version, which names all its kubeconfigs.
    last: Member,
    /// Whether the object could be deleted.
    deleted: Result<(), Error>,
}

impl Membership {
    /// Ends a member. Every step can be repeated, and the sweep repeats those that failed.
    ///
    /// # Errors
    /// A conflict if it was extended: it lives on, and so do its objects.
    pub async fn end(&self, member: &Member, reason: EndReason, cause: Cause<'_>) -> Result<(), Error> {
        let ended = match reason {
            EndReason::Expired if !member.deleting => self.expire(member, cause).await?,
            _ => self.mark_and_delete(member, reason, cause).await?,
        };
        // Deleting either one ends the member's tokens, so a failure of one must not prevent the other.
        let account = self.delete_own_account(&ended.last).await;
        let secrets = self.delete_all_kubeconfigs(&ended.last).await;
        ended.deleted.and(account).and(secrets)
    }

    /// Reports the end of a member.
    pub fn report_end(&self, member: &Member, reason: EndReason, cause: Cause<'_>) {
        let kind = match reason {
            EndReason::Expired => Kind::Expired,
            EndReason::Revoked => Kind::Revoked,
        };
        self.report(kind, member, cause, None);
    }

    /// Deletes a Member whose time is over, in exactly the version that says so. If several replicas do so at the same
    /// time, the one whose call is accepted reports the end.
    async fn expire(&self, member: &Member, cause: Cause<'_>) -> Result<Ended, Error> {
        let mut last = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            match self.cluster.delete_member_version(&last).await {
                Ok(false) => {
                    self.report_end(&last, EndReason::Expired, cause);
                    return Ok(Ended { last, deleted: Ok(()) });
                }
                // The object stays. The mark keeps its end from being reported again.
                Ok(true) => return self.mark_and_delete(&last, EndReason::Expired, cause).await,
                Err(error) if error.is_gone() => return Ok(Ended { last, deleted: Ok(()) }),
                Err(error) if error.is_conflict() => match self.cluster.member(&member.id).await? {
                    Lookup::Found(newer) if newer.uid != member.uid => return Ok(Ended { last, deleted: Ok(()) }),
                    Lookup::Found(newer) if newer.is_live(self.clock.now()) => {
                        self.seen(*newer);
                        return Err(error);
                    }
                    Lookup::Found(newer) if newer.deleting => {
                        return self.mark_and_delete(&newer, EndReason::Expired, cause).await;
                    }
                    Lookup::Found(newer) => last = *newer,
                    Lookup::Missing => return Ok(Ended { last, deleted: Ok(()) }),
                    Lookup::Unreadable(_) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Err(Error::changed_too_often("delete_member", &member.id.to_string()))
    }

    /// Marks the Member as ended and deletes it.
    async fn mark_and_delete(&self, member: &Member, reason: EndReason, cause: Cause<'_>) -> Result<Ended, Error> {
        let (last, marked) = self.mark_ended(member, reason, cause).await;
        match (marked, self.cluster.delete_member(&last).await) {
            // Neither recorded nor deleted: the member lives on, so it keeps its account.
            (false, Err(error)) => Err(error),
            (false, Ok(())) => {
                self.report_end(&last, reason, cause);
                Ok(Ended { last, deleted: Ok(()) })
            }
            (true, deleted) => Ok(Ended { last, deleted }),
        }
    }

    /// Records in the status that the member has ended. If several replicas do so at the same time, the one that
    /// succeeds reports the end. Returns the last version and whether it is marked or gone; if not, the caller reports
    /// the end after deleting it.
    async fn mark_ended(&self, member: &Member, reason: EndReason, cause: Cause<'_>) -> (Member, bool) {
        let mut last = member.clone();
        for _ in 0..CONFLICT_RETRIES {
            if last.status.phase == Some(Phase::Terminating) {
                return (last, true);
            }
            match self.cluster.write_status(&last, &status::terminating(reason, self.clock.now())).await {
                Ok(marked) => {
                    let marked = self.seen(marked);
                    self.report_end(&last, reason, cause);
                    return (marked, true);
                }
                Err(error) if error.is_gone() => return (last, true),
                Err(error) if error.is_conflict() => match self.cluster.member(&member.id).await {
                    Ok(Lookup::Found(newer)) if newer.uid == member.uid => last = *newer,
                    Ok(Lookup::Found(_) | Lookup::Missing) => return (last, true),
                    _ => break,
                },
                Err(error) => {
                    tracing::warn!(%error, "could not record the end of a member; ending it anyway");
                    break;
                }
            }
        }
        (last, false)
    }

    async fn delete_own_account(&self, member: &Member) -> Result<(), Error> {
        let (role, name) = (&member.id.role, member.id.name());
        if let Some(uid) = &member.status.account_uid {
            match self.cluster.delete_account_uid(role, name, uid).await {
                Err(error) if error.is_gone() => return Ok(()),
                // The account was made again, and that is not recorded yet.
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        match self.cluster.account(&member.id).await? {
            Some(own) if own.belongs_to(member) => self.cluster.delete_account(role, &own).await,
            _ => Ok(()),
        }
    }

    async fn delete_all_kubeconfigs(&self, member: &Member) -> Result<(), Error> {
        let records = self.kubeconfigs_of(member).await?;
        self.delete_kubeconfigs(&member.id, &records).await
    }

    /// Deletes the Secrets of these kubeconfigs.
    pub(super) async fn delete_kubeconfigs(&self, id: &MemberId, records: &[KubeconfigRecord]) -> Result<(), Error> {
        // If one cannot be deleted, still delete the others.
        let mut deleted = Ok(());
        for record in records {
            let name = slot_name(id, record.slot);
            deleted = deleted.and(self.cluster.delete_secret(&id.role, &name, &record.secret_uid).await);
        }
        deleted
    }
}
