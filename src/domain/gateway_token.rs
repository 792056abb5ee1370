//! The tokens of gateway kubeconfigs, and the decision whether one is admitted.

use std::fmt;

use chrono::{DateTime, Utc};

use super::kubeconfig::{KubeconfigRecord, MAX_KUBECONFIGS, RecordedToken, is_of_credential};
use super::lifetime::rfc3339;
use super::member::{Member, Phase};
use super::member_id::MemberId;
use super::secret::{GATEWAY_PREFIX, Secret, SecretHash, SecretSubject};

/// The token in a gateway kubeconfig.
pub type GatewayToken = Secret<KubeconfigRef>;

/// Names a kubeconfig: `<member id>.<slot>`. A slot may have had another kubeconfig before; the token's hash tells
/// them apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KubeconfigRef {
    /// The member.
    pub member: MemberId,
    /// The slot, below [`MAX_KUBECONFIGS`].
    pub slot: u8,
}

impl SecretSubject for KubeconfigRef {
    const PREFIX: &'static str = GATEWAY_PREFIX;

    fn parse(text: &str) -> Option<Self> {
        let (member, number) = text.rsplit_once('.')?;
        let slot = (0..MAX_KUBECONFIGS).find(|slot| slot.to_string() == number)?;
        Some(Self { member: MemberId::parse(member)?, slot })
    }
}

impl fmt::Display for KubeconfigRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.member, self.slot)
    }
}

/// Why a gateway kubeconfig is refused, in words for its user: what happened, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The member's time is over.
    #[error("this membership ended at {}; if you still need access, ask for a new one", rfc3339(*.0))]
    Ended(DateTime<Utc>),
    /// The member was ended early.
    #[error("this membership was ended early; if you still need access, ask for a new one")]
    Revoked,
    /// The member has a new credential.
    #[error("the member's credential was replaced; download the kubeconfig again with the new one")]
    Replaced,
    /// This one kubeconfig was revoked.
    #[error("this kubeconfig was revoked; download a new one with the member's credential")]
    KubeconfigRevoked,
    /// No kubeconfig has this token, or it ended too long ago to tell why.
    #[error("Daypass does not know this kubeconfig: its membership has ended, or it was revoked; download a new one")]
    Unknown,
}

/// What an open stream remembers of the kubeconfig that admitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The member's UID.
    pub member_uid: String,
    /// The kubeconfig's slot.
    pub slot: u8,
    /// The hash of its token.
    pub hash: SecretHash,
    /// The fingerprint of the credential that it was issued for.
    pub credential: String,
    /// The id of its record.
    pub id: String,
    /// The UID of its Secret.
    pub secret_uid: String,
}

impl Pass {
    /// The pass for a kubeconfig of `member`; `None` for a direct one.
    pub fn of(member: &Member, record: &KubeconfigRecord) -> Option<Self> {
        let RecordedToken::Gateway { hash } = &record.token else { return None };
        Some(Self {
            member_uid: member.uid.clone(),
            slot: record.slot,
            hash: hash.clone(),
            credential: record.credential.clone(),
            id: record.id.clone(),
            secret_uid: record.secret_uid.clone(),
        })
    }
}

/// Whether `token` is that of a gateway kubeconfig which `member` has. A stranger to whom no record matches learns
/// nothing about the member.
///
/// # Errors
/// [`Refusal`], and [`Refusal::Unknown`] unless a record matches.
pub fn admit<'a>(
    member: &'a Member,
    token: &GatewayToken,
    now: DateTime<Utc>,
) -> Result<&'a KubeconfigRecord, Refusal> {
    let matches = |record: &&KubeconfigRecord| {
        let hash = match &record.token {
            RecordedToken::Gateway { hash } => hash,
            RecordedToken::Direct { .. } => return false,
        };
        record.slot == token.subject().slot && hash.matches(token)
    };
    let record = records(member).iter().find(matches).ok_or(Refusal::Unknown)?;
    require(member, &record.credential, now).map(|()| record)
}

/// Whether what was opened with `pass` may stay open. `member` is the Member of the same id as it is now.
///
/// # Errors
/// [`Refusal`], except [`Refusal::Unknown`].
pub fn still_admits(member: &Member, pass: &Pass, now: DateTime<Utc>) -> Result<(), Refusal> {
    if !member.owns(Some(&pass.member_uid)) {
        return Err(Refusal::Revoked);
    }
    require(member, &pass.credential, now)?;
    let is_it = |record: &KubeconfigRecord| Pass::of(member, record).is_some_and(|present| present == *pass);
    if records(member).iter().any(is_it) { Ok(()) } else { Err(Refusal::KubeconfigRevoked) }
}

/// Requires a live member with this credential.
fn require(member: &Member, credential: &str, now: DateTime<Utc>) -> Result<(), Refusal> {
    if member.is_expired(now) {
        Err(Refusal::Ended(member.expires_at()))
    } else if member.deleting || member.status.phase == Some(Phase::Terminating) {
        Err(Refusal::Revoked)
    } else if !is_of_credential(member, Some(credential)) {
        Err(Refusal::Replaced)
    } else {
        Ok(())
    }
}

fn records(member: &Member) -> &[KubeconfigRecord] {
    member.status.kubeconfigs.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::examples::{HOUR, at, gateway_kubeconfig, gateway_token, hash, kubeconfig, member};
    use crate::domain::lifetime::MembershipDuration;

    fn with(records: &[KubeconfigRecord]) -> Member {
        let mut member = member();
        member.status.kubeconfigs = Some(records.to_vec());
        member
    }

    fn pass(slot: u8) -> Pass {
        Pass::of(&member(), &gateway_kubeconfig(slot)).unwrap()
    }

    #[test]
    fn token_names_member_and_slot() {
        let id = MemberId::parse("projects-view.k7f3x9qm").unwrap();
        let token = GatewayToken::new(KubeconfigRef { member: id.clone(), slot: 3 }, &[7; 32]);
        assert!(token.expose().starts_with("dpg_projects-view.k7f3x9qm.3_"));
        let parsed = GatewayToken::parse(token.expose()).unwrap();
        assert_eq!(*parsed.subject(), KubeconfigRef { member: id, slot: 3 });
        for text in ["", "a.b", "a.b.", "a.b.10", "a.b.00", "a.b.+1", "a.b.-1", "a.b.c", "a.0", ".b.0", "a.b.c.0"] {
            assert_eq!(<KubeconfigRef as SecretSubject>::parse(text), None, "{text}");
        }
    }

    #[test]
    fn kubeconfig_works_until_the_last_second_and_through_an_extension() {
        let mut member = with(&[kubeconfig(0, HOUR - 70), gateway_kubeconfig(1)]);
        let admitted = |member: &Member, now| {
            let by_pass = still_admits(member, &pass(1), at(now));
            let by_token = admit(member, &gateway_token(1), at(now)).map(|record| assert_eq!(record.slot, 1));
            assert_eq!(by_pass, by_token);
            by_token
        };
        assert_eq!(admitted(&member, HOUR - 1), Ok(()));
        assert_eq!(admitted(&member, HOUR), Err(Refusal::Ended(at(HOUR))));
        member.duration = MembershipDuration::hours(2).unwrap();
        assert_eq!(admitted(&member, HOUR), Ok(()));
    }

    #[test]
    fn refusal_tells_what_happened() {
        let live = with(&[gateway_kubeconfig(0), gateway_kubeconfig(1)]);
        let still = |member: &Member, now| still_admits(member, &pass(1), at(now));
        let admit = |member: &Member, now| admit(member, &gateway_token(1), at(now)).map(|_| ());

        let deleting = Member { deleting: true, ..live.clone() };
        let mut ended = live.clone();
        ended.status.phase = Some(Phase::Terminating);
        for gone in [&deleting, &ended] {
            assert_eq!((still(gone, 5), admit(gone, 5)), (Err(Refusal::Revoked), Err(Refusal::Revoked)));
            assert_eq!(still(gone, HOUR), Err(Refusal::Ended(at(HOUR))), "it would be over anyway");
        }
        let again = Member { uid: "m2".into(), ..live.clone() };
        assert_eq!(still(&again, 5), Err(Refusal::Revoked));

        // Renewing the credential takes the records out in the same write.
        let mut renewed = with(&[]);
        renewed.status.credential = Some(hash(2));
        assert_eq!((still(&renewed, 5), admit(&renewed, 5)), (Err(Refusal::Replaced), Err(Refusal::Unknown)));
        renewed.status.kubeconfigs = live.status.kubeconfigs.clone();
        assert_eq!((still(&renewed, 5), admit(&renewed, 5)), (Err(Refusal::Replaced), Err(Refusal::Replaced)));

        for revoked in [with(&[gateway_kubeconfig(0)]), with(&[kubeconfig(1, HOUR - 70)])] {
            assert_eq!(still(&revoked, 5), Err(Refusal::KubeconfigRevoked));
            assert_eq!(admit(&revoked, 5), Err(Refusal::Unknown));
        }
        let mut none = member();
        none.status.kubeconfigs = None;
        assert_eq!((still(&none, 5), admit(&none, 5)), (Err(Refusal::KubeconfigRevoked), Err(Refusal::Unknown)));
        let text = Refusal::Ended(at(0)).to_string();
        assert!(text.starts_with("this membership ended at 2027-01-15T08:00:00Z; "), "{text}");
    }

    #[test]
    fn kubeconfig_that_took_the_slot_does_not_admit_the_former_one() {
        let later = RecordedToken::Gateway { hash: gateway_token(2).hash() };
        let later = KubeconfigRecord { token: later, id: "later".into(), ..gateway_kubeconfig(1) };
        assert_eq!(
            still_admits(&with(std::slice::from_ref(&later)), &pass(1), at(5)),
            Err(Refusal::KubeconfigRevoked)
        );
        assert_eq!(admit(&with(&[later]), &gateway_token(1), at(5)).err(), Some(Refusal::Unknown));
    }

    #[test]
    fn debug_shows_no_hash_and_direct_kubeconfig_has_no_pass() {
        let shown = format!("{:?} {:?}", pass(0), gateway_kubeconfig(0));
        assert!(!shown.contains(gateway_token(0).hash().as_hex()), "{shown}");
        assert_eq!(Pass::of(&member(), &kubeconfig(0, 100)), None);
    }

    fn members() -> impl Strategy<Value = Member> {
        let slots = proptest::collection::btree_map(0..10u8, (0..3u8, 1..3u8), 0..10);
        (slots, any::<bool>(), any::<bool>(), 1..3u8).prop_map(|(slots, deleting, terminating, credential)| {
            let record = |(slot, (kind, credential)): (u8, (u8, u8))| KubeconfigRecord {
                credential: hash(credential).fingerprint().into(),
                ..match kind {
                    0 => kubeconfig(slot, HOUR - 70),
                    1 => gateway_kubeconfig(slot),
                    _ => KubeconfigRecord { slot, ..gateway_kubeconfig(slot + 10) },
                }
            };
            let mut member = Member { deleting, ..with(&slots.into_iter().map(record).collect::<Vec<_>>()) };
            member.status.credential = Some(hash(credential));
            if terminating {
                member.status.phase = Some(Phase::Terminating);
            }
            member
        })
    }

    proptest! {
        /// Admitted is exactly who has the token of a wanted record, and what was admitted stays so.
        #[test]
        fn only_the_token_of_a_wanted_record_is_admitted(member in members(), slot in 0..10u8, now in -5..2 * HOUR) {
            let (token, now) = (gateway_token(slot), at(now));
            let hash = RecordedToken::Gateway { hash: token.hash() };
            let record = records(&member).iter().find(|record| record.slot == slot && record.token == hash);
            let wanted = record.filter(|record| record.is_wanted(&member, now));
            let admitted = admit(&member, &token, now);
            prop_assert_eq!(admitted.ok(), wanted);
            if record.is_none() {
                prop_assert_eq!(admitted, Err(Refusal::Unknown));
            }
            for record in records(&member) {
                let pass = Pass::of(&member, record);
                let stays = pass.is_some_and(|pass| still_admits(&member, &pass, now).is_ok());
                let is_direct = matches!(record.token, RecordedToken::Direct { .. });
                prop_assert_eq!(stays, !is_direct && record.is_wanted(&member, now));
            }
        }

        #[test]
        fn parsed_reference_displays_as_its_text(text in "\\PC{0,20}|[a-z0-9.-]{1,20}\\.[0-9]{1,2}") {
            if let Some(parsed) = <KubeconfigRef as SecretSubject>::parse(&text) {
                prop_assert_eq!(parsed.to_string(), text);
            }
        }
    }
}
