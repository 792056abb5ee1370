//! What is to be done about a member, decided from what is there: pure, and without a hint about what changed.

use chrono::{DateTime, Utc};

use crate::cluster::{Account, Lookup};
use crate::domain::kubeconfig::KubeconfigRecord;
use crate::domain::member::{Member, Phase};
use crate::membership::EndReason;

/// What is there under a member's name. The Member must be read last: then an account or Secret without one has none.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) member: Lookup,
    pub(super) account: Option<Account>,
    pub(super) secrets: Vec<KubeconfigRecord>,
    pub(super) clock_skewed: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// End the member, with all that it may still be used with.
    End(EndReason),
    /// Delete the service account: it is no living member's.
    DeleteAccount(Account),
    /// Delete a Secret: it is no living kubeconfig's.
    DeleteSecret(KubeconfigRecord),
    /// Make the service account, record the status.
    Provision,
}

/// What to do now, and when to look again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) wake: Option<DateTime<Utc>>,
}

impl Observed {
    pub(super) fn plan(&self, now: DateTime<Utc>) -> Plan {
        match &self.member {
            Lookup::Found(member) if member.is_live(now) => self.keep(member, now),
            Lookup::Found(member) => Plan { steps: self.end(member, now).collect(), wake: None },
            Lookup::Unreadable(_) | Lookup::Missing => Plan { steps: self.remove_all().collect(), wake: None },
        }
    }

    fn keep(&self, member: &Member, now: DateTime<Utc>) -> Plan {
        let foreign = self.account.iter().filter(|account| !account.deleting && !account.belongs_to(member));
        let dead = self.secrets.iter().filter(|secret| !secret.deleting && !secret.is_wanted(member, now));
        let mut plan = Plan {
            steps: foreign.cloned().map(Step::DeleteAccount).chain(dead.cloned().map(Step::DeleteSecret)).collect(),
            wake: Some(member.expires_at()),
        };
        let own = self.account.as_ref().is_some_and(|account| account.belongs_to(member) && !account.deleting);
        if !own || !member.is_recorded(self.clock_skewed) {
            if member.is_claimed(now) {
                plan.wake = member.claimed_until.into_iter().chain(plan.wake).min();
            } else {
                plan.steps.push(Step::Provision);
            }
        }
        plan
    }

    /// Ends it, unless all is done and only a foreign finalizer still holds the object.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::Unreadable;
    use crate::domain::id::MemberId;
    use crate::domain::kubeconfig::RecordedToken;
    use crate::domain::lifetime::MembershipDuration;
    use crate::domain::member::{Credential, RecordedStatus};
    use crate::domain::secret::SecretHash;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn hash(byte: u8) -> SecretHash {
        Credential::new(MemberId::parse("view.a").unwrap(), &[byte; 32]).hash()
    }

    /// Created at zero, for an hour, recorded, with a credential.
    fn member() -> Member {
        Member {
            id: MemberId::parse("view.a").unwrap(),
            uid: "m1".into(),
            resource_version: "1".into(),
            generation: 1,
            created_at: at(0),
            deleting: false,
            duration: MembershipDuration::hours(1).unwrap(),
            not_after: None,
            username: None,
            description: None,
            created_by: None,
            claimed_until: None,
            status: RecordedStatus {
                credential: Some(hash(1)),
                expires_at: Some(at(HOUR)),
                phase: Some(Phase::Active),
                observed_generation: Some(1),
                ready_since: None,
                clock_skewed: false,
                role_hash: None,
                role_widened: None,
            },
        }
    }

    fn account(uid: &str) -> Account {
        Account { name: "a".into(), uid: "s".into(), member_uid: Some(uid.into()), created_at: None, deleting: false }
    }

    fn secret(exp: Option<i64>) -> KubeconfigRecord {
        KubeconfigRecord {
            name: "a.0".into(),
            uid: "k".into(),
            member: Some("a".into()),
            member_uid: Some("m1".into()),
            credential: Some(hash(1).fingerprint().into()),
            created_at: at(0),
            deleting: false,
            issued: exp.map(|exp| RecordedToken { jti: "j".into(), expires_at: at(exp), from: None }),
        }
    }

    fn observed(member: Member, account: Option<Account>, secrets: Vec<KubeconfigRecord>) -> Observed {
        Observed { member: Lookup::Found(Box::new(member)), account, secrets, clock_skewed: false }
    }

    #[test]
    fn a_member_in_order_needs_nothing_until_its_end() {
        let plan = observed(member(), Some(account("m1")), vec![secret(Some(HOUR - 70))]).plan(at(5));
        assert_eq!(plan, Plan { steps: vec![], wake: Some(at(HOUR)) });
    }

    #[test]
    fn the_end_has_no_grace() {
        let one_before = observed(member(), Some(account("m1")), vec![]).plan(at(HOUR - 1));
        assert_eq!(one_before.steps, []);
        let plan = observed(member(), Some(account("m1")), vec![secret(Some(9))]).plan(at(HOUR));
        assert_eq!(plan.steps[0], Step::End(EndReason::Expired));
        assert_eq!(plan.steps.len(), 3);
    }

    #[test]
    fn a_deletion_timestamp_means_dead_whatever_holds_the_object() {
        let mut held = Member { deleting: true, ..member() };
        let plan = observed(held.clone(), Some(account("m1")), vec![]).plan(at(5));
        assert_eq!(plan.steps, [Step::End(EndReason::Revoked), Step::DeleteAccount(account("m1"))]);
        held.status.phase = Some(Phase::Terminating);
        assert_eq!(observed(held, None, vec![]).plan(at(5)).steps, []);
    }

    #[test]
    fn nothing_lives_without_a_readable_member() {
        for lookup in [Lookup::Missing, Lookup::Unreadable(Unreadable::Id)] {
            let observed = Observed {
                member: lookup,
                account: Some(account("m1")),
                secrets: vec![secret(None)],
                clock_skewed: false,
            };
            assert_eq!(
                observed.plan(at(5)).steps,
                [Step::DeleteAccount(account("m1")), Step::DeleteSecret(secret(None))]
            );
        }
    }

    #[test]
    fn an_account_of_an_earlier_member_of_the_name_is_never_adopted() {
        let plan = observed(member(), Some(account("m0")), vec![]).plan(at(5));
        assert_eq!(plan.steps, [Step::DeleteAccount(account("m0")), Step::Provision]);
    }

    #[test]
    fn a_kubeconfig_must_be_of_the_present_credential_and_die_in_time() {
        let other = KubeconfigRecord { credential: Some(hash(2).fingerprint().into()), ..secret(Some(100)) };
        let stranger = KubeconfigRecord { member_uid: Some("m0".into()), ..secret(Some(100)) };
        for (dead, now) in
            [(other, 5), (stranger, 5), (secret(Some(HOUR - 69)), 5), (secret(Some(100)), 170), (secret(None), 120)]
        {
            let plan = observed(member(), Some(account("m1")), vec![dead.clone()]).plan(at(now));
            assert_eq!(plan.steps, [Step::DeleteSecret(dead)]);
        }
        for (alive, now) in [(secret(Some(100)), 169), (secret(None), 119)] {
            assert_eq!(observed(member(), Some(account("m1")), vec![alive]).plan(at(now)).steps, []);
        }
    }

    #[test]
    fn a_request_at_work_is_not_overtaken_but_holds_no_end_up() {
        let mut fresh = Member { status: RecordedStatus::default(), claimed_until: Some(at(10)), ..member() };
        assert_eq!(observed(fresh.clone(), None, vec![]).plan(at(1)), Plan { steps: vec![], wake: Some(at(10)) });
        assert_eq!(observed(fresh.clone(), None, vec![]).plan(at(10)).steps, [Step::Provision]);
        fresh.claimed_until = Some(at(HOUR));
        assert_eq!(observed(fresh.clone(), None, vec![]).plan(at(1)).steps, [Step::Provision], "no claim is that long");
        fresh.claimed_until = Some(at(HOUR + 5));
        assert_eq!(observed(fresh, None, vec![]).plan(at(HOUR)).steps, [Step::End(EndReason::Expired)]);
    }

    fn accounts() -> impl Strategy<Value = Option<Account>> {
        let account = ("m[01]", any::<bool>(), any::<bool>()).prop_map(|(uid, own, deleting)| Account {
            member_uid: own.then_some(uid),
            deleting,
            ..account("m1")
        });
        proptest::option::of(account)
    }

    fn secrets() -> impl Strategy<Value = Vec<KubeconfigRecord>> {
        let fields = (0..10u8, "m[01]", 1..3u8, any::<bool>(), -HOUR..2 * HOUR, proptest::option::of(-HOUR..2 * HOUR));
        let secret = fields.prop_map(|(slot, uid, credential, deleting, created_at, exp)| KubeconfigRecord {
            name: format!("a.{slot}"),
            uid: format!("k{slot}"),
            member_uid: Some(uid),
            credential: Some(hash(credential).fingerprint().into()),
            created_at: at(created_at),
            deleting,
            ..secret(exp)
        });
        proptest::collection::vec(secret, 0..10)
    }

    proptest! {
        /// Whatever exists: a member that is not live is never provisioned, and nothing of it stays. Of a live member
        /// stays exactly what is wanted.
        #[test]
        fn nothing_stays_that_is_not_wanted(
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
            prop_assert_eq!(plan.wake, live.then(|| member.expires_at()));
            let own = account.as_ref().is_some_and(|account| account.belongs_to(&member) && !account.deleting);
            prop_assert_eq!(plan.steps.contains(&Step::Provision), live && !(own && recorded));
            let ends = plan.steps.iter().any(|step| matches!(step, Step::End(_)));
            prop_assert_eq!(ends, !live && !(deleting && terminating));
            for secret in secrets {
                let stays = secret.deleting || (live && secret.is_wanted(&member, now));
                prop_assert_eq!(plan.steps.contains(&Step::DeleteSecret(secret)), !stays);
            }
            if let Some(account) = account {
                let stays = account.deleting || (live && own);
                prop_assert_eq!(plan.steps.contains(&Step::DeleteAccount(account)), !stays);
            }
        }
    }
}
