//! Decides what to do about a member, from its objects alone: pure code, without a hint about what changed.

use chrono::{DateTime, Utc};

use crate::cluster::{Account, Lookup};
use crate::domain::kubeconfig::KubeconfigRecord;
use crate::domain::kubeconfig_secret::{KubeconfigSecret, review};
use crate::domain::member::{Member, Phase};
use crate::membership::EndReason;

/// The objects of one member name. Read the Member last: otherwise the account and Secrets of one created in between
/// look like orphans.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) member: Lookup,
    pub(super) account: Option<Account>,
    pub(super) secrets: Vec<KubeconfigSecret>,
    pub(super) clock_skewed: bool,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// End the member and delete its service account and Secrets.
    End(EndReason),
    /// Delete a service account that belongs to no live member.
    DeleteAccount(Account),
    /// Delete a Secret that belongs to no valid kubeconfig.
    DeleteSecret(KubeconfigSecret),
    /// Write these records of kubeconfigs into the status.
    Record(Vec<KubeconfigRecord>),
    /// Mark a Secret whose record is in the status.
    Mark(KubeconfigSecret),
    /// Create the service account and record the status.
    Provision,
}

impl Observed {
    /// The actions to take now.
    pub(super) fn plan(&self, now: DateTime<Utc>) -> Vec<Step> {
        match &self.member {
            Lookup::Found(member) if member.is_live(now) => self.keep(member, now),
            Lookup::Found(member) => self.end(member, now).collect(),
            Lookup::Unreadable(_) | Lookup::Missing => self.remove_all().collect(),
        }
    }

    fn keep(&self, member: &Member, now: DateTime<Utc>) -> Vec<Step> {
        let foreign = self.account.iter().filter(|account| !account.deleting && !account.belongs_to(member));
        let kubeconfigs = review(member, &self.secrets, now);
        let deletions = kubeconfigs.delete.into_iter().map(Step::DeleteSecret);
        let marks = kubeconfigs.mark.into_iter().map(Step::Mark);
        let mut steps: Vec<Step> = foreign.cloned().map(Step::DeleteAccount).chain(deletions).chain(marks).collect();
        let own = self.account.as_ref().filter(|account| account.belongs_to(member) && !account.deleting);
        let recorded = member.status.account_uid.as_ref();
        let is_ready = own.is_some_and(|own| recorded.is_none_or(|uid| *uid == own.uid));
        if !is_ready || !member.is_recorded(self.clock_skewed) {
            if !member.is_claimed(now) {
                steps.push(Step::Provision);
            }
        } else {
            // Each writes the status of the version that was read, so only one of them at a time.
            steps.extend(kubeconfigs.records.map(Step::Record));
        }
        steps
    }

    /// Ends the member, unless that is done and only somebody else's finalizer keeps the object.
    fn end(&self, member: &Member, now: DateTime<Utc>) -> impl Iterator<Item = Step> {
        let done = member.deleting && member.status.phase == Some(Phase::Terminating);
        (!done).then_some(Step::End(EndReason::of(member, now))).into_iter().chain(self.remove_all())
    }

    fn remove_all(&self) -> impl Iterator<Item = Step> {
        let account = self.account.iter().filter(|account| !account.deleting).cloned().map(Step::DeleteAccount);
        let secrets = self.secrets.iter().filter(|secret| !secret.deleting).cloned().map(Step::DeleteSecret);
        account.chain(secrets)
    }
}

/// How many steps a member without any other object needs, for `benches/instructions.rs`.
#[doc(hidden)]
pub fn steps_for(member: Member, now: DateTime<Utc>) -> usize {
    let member = Lookup::Found(Box::new(member));
    Observed { member, account: None, secrets: Vec::new(), clock_skewed: false }.plan(now).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crd::Unreadable;
    use crate::domain::examples::{HOUR, at, hash, kubeconfig, kubeconfig_secret as secret, member};
    use crate::domain::kubeconfig_secret::SecretToken;
    use crate::domain::member::RecordedStatus;

    fn account(uid: &str) -> Account {
        Account { name: "a".into(), uid: "s".into(), member_uid: Some(uid.into()), created_at: None, deleting: false }
    }

    fn observed(member: Member, account: Option<Account>, secrets: Vec<KubeconfigSecret>) -> Observed {
        Observed { member: Lookup::Found(Box::new(member)), account, secrets, clock_skewed: false }
    }

    /// The member with the record of a kubeconfig.
    fn with_kubeconfig(exp: i64) -> Member {
        let mut member = member();
        member.status.kubeconfigs = Some(vec![kubeconfig(0, exp)]);
        member
    }

    #[test]
    fn provisioned_member_needs_nothing_until_its_end() {
        let plan = observed(with_kubeconfig(HOUR - 70), Some(account("m1")), vec![secret(0)]).plan(at(5));
        assert_eq!(plan, []);
    }

    #[test]
    fn account_made_again_is_recorded() {
        let again = Account { uid: "later".into(), ..account("m1") };
        assert_eq!(observed(member(), Some(again.clone()), vec![]).plan(at(5)), [Step::Provision]);
        let mut former = member();
        former.status.account_uid = None;
        assert_eq!(observed(former, Some(again), vec![]).plan(at(5)), [], "version 0.1.0 records none");
    }

    #[test]
    fn member_ends_in_the_second_of_its_expiry() {
        let one_before = observed(member(), Some(account("m1")), vec![]).plan(at(HOUR - 1));
        assert_eq!(one_before, []);
        let plan = observed(member(), Some(account("m1")), vec![secret(0)]).plan(at(HOUR));
        assert_eq!(plan[0], Step::End(EndReason::Expired));
        assert_eq!(plan.len(), 3);
    }

    #[test]
    fn member_with_deletion_timestamp_is_revoked_once() {
        let mut held = Member { deleting: true, ..member() };
        let plan = observed(held.clone(), Some(account("m1")), vec![]).plan(at(5));
        assert_eq!(plan, [Step::End(EndReason::Revoked), Step::DeleteAccount(account("m1"))]);
        held.status.phase = Some(Phase::Terminating);
        assert_eq!(observed(held, None, vec![]).plan(at(5)), []);
    }

    #[test]
    fn account_and_secrets_without_readable_member_are_deleted() {
        for lookup in [Lookup::Missing, Lookup::Unreadable(Unreadable::Id)] {
            let observed = Observed {
                member: lookup,
                account: Some(account("m1")),
                secrets: vec![secret(0)],
                clock_skewed: false,
            };
            assert_eq!(observed.plan(at(5)), [Step::DeleteAccount(account("m1")), Step::DeleteSecret(secret(0))]);
        }
    }

    #[test]
    fn account_of_an_earlier_member_is_replaced_and_not_adopted() {
        let plan = observed(member(), Some(account("m0")), vec![]).plan(at(5));
        assert_eq!(plan, [Step::DeleteAccount(account("m0")), Step::Provision]);
    }

    #[test]
    fn dead_kubeconfig_loses_its_secret_and_its_record() {
        let plan = observed(with_kubeconfig(100), Some(account("m1")), vec![secret(0)]).plan(at(170));
        assert_eq!(plan, [Step::DeleteSecret(secret(0)), Step::Record(vec![])]);
    }

    #[test]
    fn kubeconfig_of_version_0_1_0_is_recorded_and_then_marked() {
        let token = SecretToken { jti: "j0".into(), expires_at: at(100), from: None };
        let former = KubeconfigSecret { in_status: false, token: Some(token), ..secret(0) };
        let plan = observed(member(), Some(account("m1")), vec![former.clone()]).plan(at(5));
        assert_eq!(plan, [Step::Record(vec![kubeconfig(0, 100)])]);
        let plan = observed(with_kubeconfig(100), Some(account("m1")), vec![former.clone()]).plan(at(5));
        assert_eq!(plan, [Step::Mark(former)]);
    }

    #[test]
    fn claim_delays_provisioning_but_not_the_end() {
        let mut fresh = Member { status: RecordedStatus::default(), claimed_until: Some(at(10)), ..member() };
        assert_eq!(observed(fresh.clone(), None, vec![]).plan(at(1)), []);
        assert_eq!(observed(fresh.clone(), None, vec![]).plan(at(10)), [Step::Provision]);
        fresh.claimed_until = Some(at(HOUR));
        assert_eq!(observed(fresh.clone(), None, vec![]).plan(at(1)), [Step::Provision], "too long for a claim");
        fresh.claimed_until = Some(at(HOUR + 5));
        assert_eq!(observed(fresh, None, vec![]).plan(at(HOUR)), [Step::End(EndReason::Expired)]);
    }

    fn accounts() -> impl Strategy<Value = Option<Account>> {
        let account = ("m[01]", any::<bool>(), any::<bool>()).prop_map(|(uid, own, deleting)| Account {
            member_uid: own.then_some(uid),
            deleting,
            ..account("m1")
        });
        proptest::option::of(account)
    }

    fn secrets() -> impl Strategy<Value = Vec<KubeconfigSecret>> {
        let fields = (0..10u8, "m[01]", 1..3u8, any::<bool>(), -HOUR..2 * HOUR);
        let secret = fields.prop_map(|(slot, uid, credential, deleting, created_at)| KubeconfigSecret {
            member_uid: Some(uid),
            credential: Some(hash(credential).fingerprint().into()),
            created_at: at(created_at),
            deleting,
            ..secret(slot)
        });
        proptest::collection::vec(secret, 0..10)
    }

    proptest! {
        /// For any objects: a member that is not live is never provisioned and loses all its objects. A live member
        /// keeps exactly its own account and the Secrets that [`review`] leaves it.
        #[test]
        fn plan_deletes_exactly_what_is_not_wanted(
            now in -10i64..2 * HOUR,
            deleting: bool,
            terminating: bool,
            recorded: bool,
            account in accounts(),
            secrets in secrets(),
        ) {
            let mut member = Member { deleting, ..member() };
            if terminating { member.status.phase = Some(Phase::Terminating); }
            if !recorded { member.status.expires_at = None; }
            let (live, now) = (member.is_live(at(now)), at(now));
            let plan = observed(member.clone(), account.clone(), secrets.clone()).plan(now);
            let own = account.as_ref().is_some_and(|account| account.belongs_to(&member) && !account.deleting);
            prop_assert_eq!(plan.contains(&Step::Provision), live && !(own && recorded));
            let ends = plan.iter().any(|step| matches!(step, Step::End(_)));
            let has_ended = deleting && terminating;
            prop_assert_eq!(ends, !live && !has_ended);
            let unwanted = review(&member, &secrets, now).delete;
            for secret in secrets {
                let stays = secret.deleting || (live && !unwanted.contains(&secret));
                prop_assert_eq!(plan.contains(&Step::DeleteSecret(secret)), !stays);
            }
            if let Some(account) = account {
                let stays = account.deleting || (live && own);
                prop_assert_eq!(plan.contains(&Step::DeleteAccount(account)), !stays);
            }
        }
    }
}
