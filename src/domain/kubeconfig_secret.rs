//! The Secrets behind kubeconfigs, and how they and the Member's records are brought together.
//!
//! Version 0.1.0 keeps a kubeconfig's record on its Secret, and its controller deletes a Secret without one. During an
//! upgrade both versions run. So a Secret carries from its creation what 0.1.0 expects: an id for the `jti`, and the
//! latest possible end. It also has a mark which says that the Member's status decides about it. The records of
//! Secrets without the mark are taken over into the status.
//!
//! That end is not changed when the member is extended: a leader of version 0.1.0 then deletes the Secret of a gateway
//! kubeconfig at the old end, and its user downloads it again. An upgrade from 0.1.0 keeps direct kubeconfigs, so only
//! an operator who chooses the gateway in the same upgrade sees this.

use chrono::{DateTime, TimeDelta, Utc};

use super::kubeconfig::{KubeconfigRecord, MAX_KUBECONFIGS, RecordedToken, is_of_credential, slot_name};
use super::member::Member;

/// How long a Secret may wait for its record. By then, the request that created it has been answered or has failed.
const PENDING: TimeDelta = TimeDelta::minutes(2);

/// The Secret of a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigSecret {
    /// Its name, [`slot_name`].
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The name of the member in its label.
    pub member: Option<String>,
    /// The UID of that member.
    pub member_uid: Option<String>,
    /// The fingerprint of the credential that it was created for.
    pub credential: Option<String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the Member's status decides about it. Not so for a Secret of version 0.1.0.
    pub in_status: bool,
    /// The token as the Secret tells it: what version 0.1.0 reads and writes.
    pub token: Option<SecretToken>,
}

/// What a Secret tells about its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretToken {
    /// The token's id. With [`KubeconfigSecret::in_status`], the slot's name ([`placeholder`]) of a direct kubeconfig,
    /// and the record's id of a gateway kubeconfig.
    pub jti: String,
    /// The token's `exp`. With [`KubeconfigSecret::in_status`], the latest that it can have.
    pub expires_at: DateTime<Utc>,
    /// The client address it was issued to.
    pub from: Option<String>,
}

/// What stands for the `jti` on a Secret, which is older than its token.
pub fn placeholder(slot: u8) -> String {
    format!("slot-{slot}")
}

impl KubeconfigSecret {
    /// Whether this is a Secret of `member`.
    pub fn belongs_to(&self, member: &Member) -> bool {
        member.owns(self.member_uid.as_deref())
    }

    /// The record that it holds itself, for a member without records in its status. A gateway kubeconfig has none: the
    /// hash of its token was in the status alone.
    pub fn record(&self, member: &Member) -> Option<KubeconfigRecord> {
        let token = self.token.as_ref()?;
        let slot = (0..MAX_KUBECONFIGS).find(|slot| slot_name(&member.id, *slot) == self.name)?;
        if self.in_status && token.jti != placeholder(slot) {
            return None;
        }
        Some(KubeconfigRecord {
            slot,
            id: token.jti.clone(),
            secret_uid: self.uid.clone(),
            credential: self.credential.clone()?,
            from: token.from.clone(),
            issued_at: self.created_at,
            last_used_at: None,
            token: RecordedToken::Direct { expires_at: token.expires_at },
        })
    }

    fn is_pending(&self, now: DateTime<Utc>) -> bool {
        now < self.created_at + PENDING
    }
}

/// What to do about the kubeconfigs of a live member.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// The records to write into the status, if they differ from those in it.
    pub records: Option<Vec<KubeconfigRecord>>,
    /// Secrets of version 0.1.0 whose records are in the status now: mark them.
    pub mark: Vec<KubeconfigSecret>,
    /// Secrets to delete.
    pub delete: Vec<KubeconfigSecret>,
}

/// Compares the records of a live member with its Secrets, which were listed before the Member was read.
pub fn review(member: &Member, secrets: &[KubeconfigSecret], now: DateTime<Utc>) -> Review {
    let recorded = member.status.kubeconfigs.as_deref();
    let old = recorded.unwrap_or_default();
    let keeps = |record: &&KubeconfigRecord| record.is_wanted(member, now) && !is_lost(record, secrets, now);
    let mut records: Vec<KubeconfigRecord> = old.iter().filter(keeps).cloned().collect();
    let mut review = Review::default();
    for secret in secrets.iter().filter(|secret| !secret.deleting) {
        let is_known = |records: &[KubeconfigRecord]| records.iter().any(|record| record.secret_uid == secret.uid);
        let is_decided = secret.in_status && recorded.is_some();
        if !secret.belongs_to(member) || !is_of_credential(member, secret.credential.as_deref()) {
            review.delete.push(secret.clone());
        } else if is_known(&records) {
            if !secret.in_status {
                review.mark.push(secret.clone());
            }
        } else if is_known(old) {
            review.delete.push(secret.clone());
        } else if let Some(record) = secret.record(member).filter(|_| !is_decided) {
            if !record.is_wanted(member, now) {
                review.delete.push(secret.clone());
            } else if records.iter().all(|other| other.slot != record.slot) {
                records.push(record);
            }
        } else if !secret.is_pending(now) {
            review.delete.push(secret.clone());
        }
    }
    // A member that has no records yet gets some only if there are any.
    if old != records {
        review.records = Some(records);
    }
    review
}

/// Whether [`review`] would find something to do about this Secret of a live member.
pub fn needs_review(member: &Member, secret: &KubeconfigSecret, now: DateTime<Utc>) -> bool {
    let recorded = member.status.kubeconfigs.as_deref();
    let records = recorded.unwrap_or_default();
    let own = records.iter().find(|record| record.secret_uid == secret.uid);
    if secret.deleting {
        return own.is_some();
    }
    if !secret.belongs_to(member) || !is_of_credential(member, secret.credential.as_deref()) {
        return true;
    }
    if let Some(record) = own {
        return !secret.in_status || !record.is_wanted(member, now);
    }
    let is_decided = secret.in_status && recorded.is_some();
    match secret.record(member).filter(|_| !is_decided) {
        Some(record) => !record.is_wanted(member, now) || records.iter().all(|other| other.slot != record.slot),
        None => !secret.is_pending(now),
    }
}

/// Whether a record without a Secret has lost it. A younger one may have been created after the list was read.
pub fn is_missing(record: &KubeconfigRecord, now: DateTime<Utc>) -> bool {
    now >= record.issued_at + PENDING
}

/// Whether a record's Secret no longer exists.
fn is_lost(record: &KubeconfigRecord, secrets: &[KubeconfigSecret], now: DateTime<Utc>) -> bool {
    match secrets.iter().find(|secret| secret.uid == record.secret_uid) {
        Some(secret) => secret.deleting,
        None => is_missing(record, now),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::examples::{
        HOUR, at, gateway_kubeconfig, hash, kubeconfig, kubeconfig_secret as secret, member,
    };

    /// The member with these records.
    fn with(records: &[KubeconfigRecord]) -> Member {
        let mut member = member();
        member.status.kubeconfigs = Some(records.to_vec());
        member
    }

    /// The member as version 0.1.0 leaves it.
    fn without() -> Member {
        let mut member = member();
        member.status.kubeconfigs = None;
        member
    }

    /// A Secret of version 0.1.0, whose token has this `exp`.
    fn former(slot: u8, exp: i64) -> KubeconfigSecret {
        let token = SecretToken { jti: format!("j{slot}"), expires_at: at(exp), from: None };
        KubeconfigSecret { in_status: false, token: Some(token), ..secret(slot) }
    }

    fn deletes(member: &Member, secret: KubeconfigSecret, now: i64) {
        let expected = Review { delete: vec![secret.clone()], ..Review::default() };
        assert_eq!(review(member, &[secret], at(now)), expected);
    }

    fn keeps(member: &Member, secret: KubeconfigSecret, now: i64) {
        assert_eq!(review(member, &[secret], at(now)), Review::default());
    }

    #[test]
    fn recorded_kubeconfig_stays() {
        keeps(&with(&[kubeconfig(0, HOUR - 70)]), secret(0), 300);
    }

    #[test]
    fn kubeconfig_of_another_member_or_credential_is_deleted() {
        let member = with(&[kubeconfig(0, 100)]);
        let stranger = KubeconfigSecret { member_uid: Some("m0".into()), uid: "x".into(), ..secret(1) };
        let unnamed = KubeconfigSecret { member_uid: None, ..stranger.clone() };
        let other = KubeconfigSecret { credential: Some(hash(2).fingerprint().into()), ..stranger.clone() };
        let none = KubeconfigSecret { credential: None, ..stranger.clone() };
        for other in [stranger, unnamed, other, none] {
            deletes(&member, other, 5);
        }
    }

    #[test]
    fn dead_or_outliving_kubeconfig_loses_record_and_secret() {
        for (exp, now) in [(100, 170), (HOUR - 69, 5)] {
            let review = review(&with(&[kubeconfig(0, exp)]), &[secret(0)], at(now));
            assert_eq!((review.records, review.delete), (Some(vec![]), vec![secret(0)]));
        }
    }

    #[test]
    fn gateway_kubeconfig_needs_its_secret_until_the_member_ends() {
        let member = with(&[gateway_kubeconfig(0)]);
        keeps(&member, secret(0), HOUR - 1);
        let lost = review(&member, &[], at(120));
        assert_eq!(lost.records, Some(vec![]), "nothing binds the gateway's tokens to it");
        let mut renewed = member.clone();
        renewed.status.credential = Some(hash(2));
        let dropped = review(&renewed, &[secret(0)], at(5));
        assert_eq!((dropped.records, dropped.delete), (Some(vec![]), vec![secret(0)]));
    }

    #[test]
    fn secret_of_a_gateway_kubeconfig_without_its_hash_is_deleted() {
        // After a rollback to a schema without records.
        let token = SecretToken { jti: "an id".into(), expires_at: at(HOUR - 70), from: None };
        let orphan = KubeconfigSecret { token: Some(token), ..secret(0) };
        keeps(&without(), orphan.clone(), 119);
        deletes(&without(), orphan, 120);
    }

    #[test]
    fn secret_waits_two_minutes_for_its_record() {
        keeps(&with(&[]), secret(0), 119);
        deletes(&with(&[]), secret(0), 120);
        let pending = KubeconfigSecret { token: None, ..former(0, 0) };
        for member in [with(&[]), without()] {
            keeps(&member, pending.clone(), 119);
            deletes(&member, pending.clone(), 120);
        }
    }

    #[test]
    fn record_waits_two_minutes_for_its_secret() {
        let member = with(&[kubeconfig(0, 1000)]);
        assert_eq!(review(&member, &[], at(119)), Review::default());
        assert_eq!(review(&member, &[], at(120)).records, Some(vec![]));
        let deleting = KubeconfigSecret { deleting: true, ..secret(0) };
        assert_eq!(review(&member, &[deleting], at(5)).records, Some(vec![]), "its token is dead already");
        let replaced = KubeconfigSecret { uid: "later".into(), ..secret(0) };
        assert_eq!(review(&member, &[replaced], at(5)).records, None, "the list may be older than the record");
    }

    #[test]
    fn record_of_an_old_secret_is_taken_over_and_the_secret_marked() {
        let record = kubeconfig(3, 1000);
        for member in [without(), with(&[]), with(&[kubeconfig(1, 1000)])] {
            let mut expected = member.status.kubeconfigs.clone().unwrap_or_default();
            expected.push(record.clone());
            let found = review(&member, &[former(3, 1000)], at(5));
            assert_eq!(found, Review { records: Some(expected.clone()), ..Review::default() });
            let found = review(&with(&expected), &[former(3, 1000)], at(5));
            assert_eq!(found, Review { mark: vec![former(3, 1000)], ..Review::default() });
        }
        deletes(&without(), former(0, HOUR - 69), 5);
        deletes(&with(&[]), former(0, 100), 170);
        let nameless = KubeconfigSecret { name: "a.10".into(), ..former(0, 1000) };
        deletes(&without(), nameless, 120);
    }

    #[test]
    fn old_secret_waits_for_its_slot() {
        let member = with(&[kubeconfig(0, 1000)]);
        let replacement = KubeconfigSecret { uid: "later".into(), ..former(0, 1000) };
        keeps(&member, replacement.clone(), 119);
        let record = KubeconfigRecord { secret_uid: "later".into(), ..kubeconfig(0, 1000) };
        assert_eq!(review(&member, &[replacement], at(120)).records, Some(vec![record]));
    }

    #[test]
    fn status_without_records_revokes_nothing() {
        // A rollback brings back a schema without them.
        let record = KubeconfigRecord { id: "slot-0".into(), ..kubeconfig(0, HOUR - 70) };
        let expected = Review { records: Some(vec![record]), ..Review::default() };
        assert_eq!(review(&without(), &[secret(0)], at(300)), expected);
        assert_eq!(review(&without(), &[], at(300)), Review::default());
    }

    /// At most one Secret in each slot, as the API server has them.
    fn secrets() -> impl Strategy<Value = Vec<KubeconfigSecret>> {
        type Fields = ([bool; 5], i64, i64);
        let fields = (any::<[bool; 5]>(), -300..HOUR, -HOUR..2 * HOUR);
        proptest::collection::btree_map(0..10u8, fields, 0..10).prop_map(|slots| {
            let any = |(slot, ([later, other, deleting, in_status, pending], created_at, exp)): (u8, Fields)| {
                KubeconfigSecret {
                    uid: format!("k{slot}{}", if later { "-later" } else { "" }),
                    credential: Some(hash(if later && other { 2 } else { 1 }).fingerprint().into()),
                    created_at: at(created_at),
                    deleting,
                    in_status,
                    token: former(slot, exp).token.filter(|_| in_status || !pending),
                    ..secret(slot)
                }
            };
            slots.into_iter().map(any).collect()
        })
    }

    fn records() -> impl Strategy<Value = Option<Vec<KubeconfigRecord>>> {
        let record = |(slot, (gateway, exp))| if gateway { gateway_kubeconfig(slot) } else { kubeconfig(slot, exp) };
        let records = proptest::collection::btree_map(0..10u8, (any::<bool>(), -HOUR..2 * HOUR), 0..10);
        proptest::option::of(records.prop_map(move |of| of.into_iter().map(record).collect()))
    }

    proptest! {
        /// For any objects: the records are wanted and have a slot each, a wanted record with its Secret keeps both,
        /// and a second look finds nothing more to record or to delete.
        #[test]
        fn review_settles(now in 0..2 * HOUR, secrets in secrets(), records in records()) {
            let (mut member, now) = (member(), at(now));
            member.status.kubeconfigs = records.clone();
            let first = review(&member, &secrets, now);
            let old = records.unwrap_or_default();
            let after = first.records.clone().unwrap_or_else(|| old.clone());
            prop_assert!(after.iter().all(|record| record.is_wanted(&member, now)));
            let slots: std::collections::BTreeSet<u8> = after.iter().map(|record| record.slot).collect();
            prop_assert_eq!(slots.len(), after.len());
            for record in old.iter().filter(|record| record.is_wanted(&member, now)) {
                if secrets.iter().any(|secret| secret.uid == record.secret_uid && !secret.deleting) {
                    prop_assert!(after.contains(record));
                    prop_assert!(first.delete.iter().all(|secret| secret.uid != record.secret_uid));
                }
            }
            let rest: Vec<_> = secrets.iter().filter(|secret| !first.delete.contains(secret)).cloned().collect();
            if first.records.is_some() {
                member.status.kubeconfigs = first.records;
            }
            let second = review(&member, &rest, now);
            prop_assert_eq!((second.records, second.delete), (None, vec![]));
        }
    }
}
