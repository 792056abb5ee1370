//! A member: who it is for, which role it has, and when it ends.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::kubeconfig::KubeconfigRecord;
use super::lifetime::{self, InvalidDuration, InvalidEnd, MembershipDuration, NewEnd};
use super::member_id::MemberId;
use super::secret::{Secret, SecretHash};

/// A member's credential.
pub type Credential = Secret<MemberId>;

/// The longest display name, in characters.
pub const MAX_DISPLAY_NAME: usize = 255;
/// The longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1024;

/// The longest time for which a REST request may claim a member. A claim that reaches further is ignored, so that
/// nobody can keep the controller off a member by annotation.
pub const MAX_CLAIM: TimeDelta = TimeDelta::seconds(15);

/// The phase recorded in a member's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The service account exists.
    Active,
    /// The end is decided. What is left of the member is being removed.
    Terminating,
}

/// A Member object, decoded.
#[derive(Debug, Clone)]
pub struct Member {
    /// Role and name.
    pub id: MemberId,
    /// The object's UID. A member that is deleted and created again under the same name is another member.
    pub uid: String,
    /// The object's version, for optimistic concurrency.
    pub resource_version: String,
    /// The generation of the spec.
    pub generation: i64,
    /// When it was created, by the API server's clock.
    pub created_at: DateTime<Utc>,
    /// Whether it has a deletionTimestamp. If so it is dead, even if a finalizer still holds the object.
    pub deleting: bool,
    /// How long it lasts from `created_at`.
    pub duration: MembershipDuration,
    /// A hard end (`notAfter`).
    pub not_after: Option<DateTime<Utc>>,
    /// Display name.
    pub username: Option<String>,
    /// Why the membership exists.
    pub description: Option<String>,
    /// The caller that created it.
    pub created_by: Option<String>,
    /// The hash of the REST request that created it, if that had an `Idempotency-Key`.
    pub request_hash: Option<String>,
    /// Until when a REST request works on it.
    pub claimed_until: Option<DateTime<Utc>>,
    /// The status that Daypass recorded.
    pub status: RecordedStatus,
}

/// The status that Daypass recorded on a member. Empty for a new member, also for one made with kubectl.
#[derive(Debug, Clone, Default)]
pub struct RecordedStatus {
    /// The hash of the credential, once one was issued.
    pub credential: Option<SecretHash>,
    /// The end as last recorded. [`Member::expires_at`] is the end that counts.
    pub expires_at: Option<DateTime<Utc>>,
    /// The recorded phase.
    pub phase: Option<Phase>,
    /// The generation of the spec when the status was recorded.
    pub observed_generation: Option<i64>,
    /// Since when the member has been ready.
    pub ready_since: Option<DateTime<Utc>>,
    /// Whether the status reports that the clocks of Daypass and the API server disagree.
    pub clock_skewed: bool,
    /// The fingerprint of the role's rights.
    pub role_hash: Option<String>,
    /// When Daypass found that the role had gained rights.
    pub role_widened: Option<DateTime<Utc>>,
    /// The UID of the service account.
    pub account_uid: Option<String>,
    /// The [`SecretHash::fingerprint`] of the credential that was used last.
    pub used_credential: Option<String>,
    /// The kubeconfigs; `None` if there are no records: the Secrets tell (version 0.1.0).
    pub kubeconfigs: Option<Vec<KubeconfigRecord>>,
}

impl Member {
    /// When the membership ends, by the API server's clock.
    pub fn expires_at(&self) -> DateTime<Utc> {
        lifetime::expires_at(self.created_at, self.duration.get(), self.not_after)
    }

    /// Whether its time is over. There is no grace period.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        now >= self.expires_at()
    }

    /// Whether a REST request is working on it, so that the controller should wait.
    pub fn is_claimed(&self, now: DateTime<Utc>) -> bool {
        self.claimed_until.is_some_and(|until| now < until && until - now <= MAX_CLAIM)
    }

    /// Whether the recorded status matches the spec.
    pub fn is_recorded(&self, clock_skewed: bool) -> bool {
        self.status.phase == Some(Phase::Active)
            && self.status.expires_at == Some(self.expires_at())
            && self.status.observed_generation == Some(self.generation)
            && self.status.clock_skewed == clock_skewed
    }

    /// Whether the membership is in force: not expired, not deleted, not being ended.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        !self.deleting && self.status.phase != Some(Phase::Terminating) && !self.is_expired(now)
    }

    /// Whether its credential has been used: to download a kubeconfig or to sign in.
    pub fn has_used_credential(&self) -> bool {
        let RecordedStatus { credential, used_credential, .. } = &self.status;
        credential.as_ref().is_some_and(|hash| used_credential.as_deref() == Some(hash.fingerprint()))
    }

    /// Whether an object belongs to this member, given the member UID in the object's label.
    ///
    /// Never match by name or by owner reference: a name can be used again, and `kubectl delete --cascade=orphan`
    /// strips owner references.
    pub fn owns(&self, member_uid: Option<&str>) -> bool {
        member_uid == Some(self.uid.as_str())
    }

    /// The duration that makes the membership end at `end`.
    ///
    /// # Errors
    /// [`InvalidEnd`] if `end` is not in the future, after `notAfter`, or over 48 hours from creation.
    pub fn duration_until(&self, end: NewEnd, now: DateTime<Utc>) -> Result<MembershipDuration, InvalidEnd> {
        let asked = match end {
            NewEnd::After(duration) => duration.get(),
            NewEnd::At(end) => end.trunc_subsecs(0).signed_duration_since(self.created_at),
        };
        let end = self.created_at.checked_add_signed(asked).ok_or(InvalidEnd::TooLong)?;
        if end <= now {
            return Err(InvalidEnd::Past);
        }
        if let Some(bound) = self.not_after.filter(|bound| end > *bound) {
            return Err(InvalidEnd::AfterHardEnd(bound));
        }
        MembershipDuration::new(asked).map_err(|error| match error {
            InvalidDuration::Zero => InvalidEnd::Past,
            InvalidDuration::TooLong | InvalidDuration::Form => InvalidEnd::TooLong,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::examples::{self, HOUR, at};

    fn member(not_after: Option<i64>) -> Member {
        Member { not_after: not_after.map(at), ..examples::member() }
    }

    #[test]
    fn member_ends_without_grace() {
        assert!(member(None).is_live(at(HOUR - 1)));
        assert!(!member(None).is_live(at(HOUR)));
        assert!(!Member { deleting: true, ..member(None) }.is_live(at(0)));
        let status = RecordedStatus { phase: Some(Phase::Terminating), ..RecordedStatus::default() };
        assert!(!Member { status, ..member(None) }.is_live(at(0)));
    }

    #[test]
    fn claim_beyond_15_seconds_is_ignored() {
        let claimed = |until| Member { claimed_until: Some(at(until)), ..member(None) };
        assert!(claimed(15).is_claimed(at(0)));
        assert!(!claimed(16).is_claimed(at(0)));
        assert!(!claimed(0).is_claimed(at(0)));
        assert!(!member(None).is_claimed(at(0)));
    }

    #[test]
    fn object_belongs_to_the_member_of_its_uid_label() {
        assert!(member(None).owns(Some("m1")));
        assert!(!member(None).owns(Some("m0")));
        assert!(!member(None).owns(None));
    }

    #[test]
    fn new_end_must_be_in_the_future() {
        let two_hours_in = |end| member(None).duration_until(end, at(2 * HOUR));
        let after = |hours| NewEnd::After(MembershipDuration::hours(hours).unwrap());
        assert_eq!(two_hours_in(after(1)), Err(InvalidEnd::Past));
        assert_eq!(two_hours_in(after(2)), Err(InvalidEnd::Past));
        assert_eq!(two_hours_in(after(3)), MembershipDuration::hours(3).map_err(|_| InvalidEnd::TooLong));
        assert_eq!(two_hours_in(NewEnd::At(at(-HOUR))), Err(InvalidEnd::Past));
        assert_eq!(two_hours_in(NewEnd::At(at(2 * HOUR))), Err(InvalidEnd::Past));
        assert_eq!(two_hours_in(NewEnd::At(at(2 * HOUR + 1))).unwrap().get(), TimeDelta::seconds(2 * HOUR + 1));
    }

    #[test]
    fn new_end_is_at_most_48_hours_from_creation() {
        let end = |end| member(None).duration_until(NewEnd::At(end), at(HOUR));
        assert_eq!(end(at(48 * HOUR)).unwrap().get(), lifetime::MAX_LIFETIME);
        assert_eq!(end(at(48 * HOUR) + TimeDelta::milliseconds(999)).unwrap().get(), lifetime::MAX_LIFETIME);
        assert_eq!(end(at(48 * HOUR + 1)), Err(InvalidEnd::TooLong));
        assert_eq!(end(DateTime::<Utc>::MAX_UTC), Err(InvalidEnd::TooLong));
        assert_eq!(end(DateTime::<Utc>::MIN_UTC), Err(InvalidEnd::Past));
    }

    #[test]
    fn new_end_is_at_most_the_hard_end() {
        let end = |end| member(Some(2 * HOUR)).duration_until(NewEnd::At(at(end)), at(0));
        assert_eq!(end(2 * HOUR).unwrap().get(), TimeDelta::hours(2));
        let error = end(2 * HOUR + 1).unwrap_err();
        assert_eq!(error, InvalidEnd::AfterHardEnd(at(2 * HOUR)));
        assert_eq!(error.to_string(), "is later than the membership may last: 2027-01-15T10:00:00Z");
        assert_eq!(end(49 * HOUR), Err(InvalidEnd::AfterHardEnd(at(2 * HOUR))));
    }

    proptest! {
        #[test]
        fn accepted_end_is_the_end_asked_for(
            end in -100_000i64..400_000, now in -100_000i64..400_000, not_after in proptest::option::of(0i64..400_000),
        ) {
            let member = member(not_after);
            match member.duration_until(NewEnd::At(at(end)), at(now)) {
                Ok(duration) => {
                    let changed = Member { duration, ..member };
                    prop_assert_eq!(changed.expires_at(), at(end));
                    prop_assert!(changed.is_live(at(now)));
                }
                Err(InvalidEnd::Past) => prop_assert!(end <= now || end <= 0),
                Err(InvalidEnd::AfterHardEnd(bound)) => prop_assert!(at(end) > bound),
                Err(InvalidEnd::TooLong) => prop_assert!(end > 48 * HOUR),
            }
        }
    }
}
