//! Compares what a role's namespace holds with the Members that the feed knows, one object at a time: pure code.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::cluster::Account;
use crate::domain::kubeconfig::KubeconfigRecord;
use crate::domain::kubeconfig_secret::{KubeconfigSecret, is_missing, needs_review};
use crate::domain::member::{Member, Phase};
use crate::domain::member_id::MemberId;

/// Finds the members for whom a plan would have steps, without holding their objects. Takes in each service account
/// and each Secret of the namespace once, in any order.
pub(super) struct Comparison<'a> {
    now: DateTime<Utc>,
    live: HashMap<&'a MemberId, &'a Member>,
    /// The live members whose service account has not come by.
    without_account: HashSet<&'a MemberId>,
    /// Their records whose Secret has not come by.
    without_secret: HashMap<&'a MemberId, Vec<&'a KubeconfigRecord>>,
    due: BTreeSet<MemberId>,
}

impl<'a> Comparison<'a> {
    /// Starts with the Members of the role.
    pub(super) fn new(members: &'a [Arc<Member>], clock_skewed: bool, now: DateTime<Utc>) -> Self {
        let (live, ended): (Vec<_>, Vec<_>) = members.iter().map(|it| &**it).partition(|member| member.is_live(now));
        // The rest of one that is marked and being deleted is somebody else's finalizer.
        let is_ending = |member: &&Member| !(member.deleting && member.status.phase == Some(Phase::Terminating));
        let unclaimed = live.iter().filter(|member| !member.is_claimed(now));
        let unrecorded = unclaimed.clone().filter(|member| !member.is_recorded(clock_skewed)).copied();
        let due = ended.into_iter().filter(is_ending).chain(unrecorded).map(|member| member.id.clone()).collect();
        let without_account = unclaimed.map(|member| &member.id).collect();
        let live = live.into_iter().map(|member| (&member.id, member)).collect();
        let mut comparison = Self { now, live, without_account, without_secret: HashMap::new(), due };
        comparison.expect_secrets();
        comparison
    }

    fn expect_secrets(&mut self) {
        for (id, member) in &self.live {
            for record in member.status.kubeconfigs.iter().flatten() {
                if record.is_wanted(member, self.now) {
                    self.without_secret.entry(id).or_default().push(record);
                } else {
                    self.due.insert((*id).clone());
                }
            }
        }
    }

    /// Takes in the service account with this member's name.
    pub(super) fn account(&mut self, id: MemberId, account: &Account) {
        if account.deleting {
            return;
        }
        let Some(member) = self.live.get(&id).filter(|member| account.belongs_to(member)) else {
            self.due.insert(id);
            return;
        };
        if member.status.account_uid.as_ref().is_none_or(|uid| *uid == account.uid) {
            self.without_account.remove(&id);
        }
    }

    /// Takes in a Secret that names this member.
    pub(super) fn secret(&mut self, id: MemberId, secret: &KubeconfigSecret) {
        let records = self.without_secret.get_mut(&id).filter(|_| !secret.deleting);
        if let Some(records) = records {
            records.retain(|record| record.secret_uid != secret.uid);
        }
        let is_due = match self.live.get(&id) {
            Some(member) => needs_review(member, secret, self.now),
            None => !secret.deleting,
        };
        if is_due {
            self.due.insert(id);
        }
    }

    /// The members to reconcile, once all objects have come by.
    pub(super) fn due(self) -> BTreeSet<MemberId> {
        let is_due = |records: &Vec<&KubeconfigRecord>| records.iter().any(|record| is_missing(record, self.now));
        let missing = self.without_secret.into_iter().filter(|(_, records)| is_due(records)).map(|(id, _)| id);
        let missing = missing.chain(self.without_account);
        self.due.into_iter().chain(missing.cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::Lookup;
    use crate::controller::plan::Observed;
    use crate::domain::examples::{self, HOUR, at, hash, kubeconfig, kubeconfig_secret, member};
    use crate::domain::kubeconfig_secret::SecretToken;

    fn account(uid: &str, member_uid: Option<&str>, deleting: bool) -> Account {
        let (name, member_uid) = ("a".into(), member_uid.map(str::to_owned));
        Account { name, uid: uid.into(), member_uid, created_at: None, deleting }
    }

    fn is_due(member: Option<&Member>, account: Option<&Account>, secrets: &[KubeconfigSecret], now: i64) -> bool {
        let id = examples::member().id;
        let members: Vec<_> = member.cloned().map(Arc::new).into_iter().collect();
        let mut comparison = Comparison::new(&members, false, at(now));
        if let Some(account) = account {
            comparison.account(id.clone(), account);
        }
        secrets.iter().for_each(|secret| comparison.secret(id.clone(), secret));
        let due = comparison.due();
        assert!(due.iter().all(|it| *it == id));
        !due.is_empty()
    }

    #[test]
    fn member_with_its_objects_needs_nothing() {
        let mut whole = member();
        whole.status.kubeconfigs = Some(vec![kubeconfig(0, HOUR - 70)]);
        let own = account("s", Some("m1"), false);
        assert!(!is_due(Some(&whole), Some(&own), &[kubeconfig_secret(0)], 300));
        assert!(is_due(Some(&whole), None, &[kubeconfig_secret(0)], 300), "its account is missing");
        assert!(is_due(Some(&whole), Some(&own), &[], 300), "its Secret is missing");
        assert!(!is_due(Some(&whole), Some(&own), &[], 100), "its Secret may have been created after the list");
        assert!(
            is_due(Some(&whole), Some(&own), &[kubeconfig_secret(0), kubeconfig_secret(1)], 300),
            "a Secret too many"
        );
        assert!(is_due(Some(&whole), Some(&account("later", Some("m1"), false)), &[kubeconfig_secret(0)], 300));
    }

    #[test]
    fn objects_without_a_member_are_due() {
        assert!(is_due(None, Some(&account("s", Some("m1"), false)), &[], 5));
        assert!(is_due(None, None, &[kubeconfig_secret(0)], 5));
        let going = KubeconfigSecret { deleting: true, ..kubeconfig_secret(0) };
        assert!(!is_due(None, Some(&account("s", None, true)), &[going], 5), "they are going already");
    }

    /// At most one Secret in each slot, as the API server has them.
    fn secrets() -> impl Strategy<Value = Vec<KubeconfigSecret>> {
        type Fields = ([bool; 6], i64, i64);
        let fields = (any::<[bool; 6]>(), -300..HOUR, -HOUR..2 * HOUR);
        proptest::collection::btree_map(0..4u8, fields, 0..4).prop_map(|slots| {
            let any =
                |(slot, ([later, other, deleting, in_status, foreign, pending], created_at, exp)): (u8, Fields)| {
                    let token = SecretToken { jti: format!("j{slot}"), expires_at: at(exp), from: None };
                    KubeconfigSecret {
                        uid: format!("k{slot}{}", if later { "-later" } else { "" }),
                        credential: Some(hash(if other && later { 2 } else { 1 }).fingerprint().into()),
                        member_uid: Some(if foreign && other { "m0" } else { "m1" }.into()),
                        created_at: at(created_at),
                        deleting: deleting && foreign,
                        in_status,
                        token: Some(token).filter(|_| in_status || !pending),
                        ..kubeconfig_secret(slot)
                    }
                };
            slots.into_iter().map(any).collect()
        })
    }

    fn records() -> impl Strategy<Value = Option<Vec<KubeconfigRecord>>> {
        let records = proptest::collection::btree_map(0..4u8, -HOUR..2 * HOUR, 0..4);
        proptest::option::of(records.prop_map(|of| of.into_iter().map(|(slot, exp)| kubeconfig(slot, exp)).collect()))
    }

    fn accounts() -> impl Strategy<Value = Option<Account>> {
        let account = ("s|later", proptest::option::of("m[01]"), any::<bool>())
            .prop_map(|(uid, member_uid, deleting)| account(&uid, member_uid.as_deref(), deleting));
        proptest::option::of(account)
    }

    proptest! {
        /// For any objects: one at a time, they tell whether the plan of all of them has steps.
        #[test]
        fn comparison_finds_whether_the_plan_has_steps(
            now in -10i64..2 * HOUR,
            [exists, deleting, terminating, recorded]: [bool; 4],
            account in accounts(),
            secrets in secrets(),
            records in records(),
        ) {
            let mut member = Member { deleting, ..member() };
            member.status.kubeconfigs = records;
            if terminating { member.status.phase = Some(Phase::Terminating); }
            if !recorded { member.status.expires_at = None; }
            let member = Some(member).filter(|_| exists);
            let found = is_due(member.as_ref(), account.as_ref(), &secrets, now);
            let lookup = member.map_or(Lookup::Missing, |member| Lookup::Found(Box::new(member)));
            let plan = Observed { member: lookup, account, secrets, clock_skewed: false }.plan(at(now));
            prop_assert_eq!(found, !plan.is_empty(), "{:?}", plan);
        }
    }
}
