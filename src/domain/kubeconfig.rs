//! The rules of kubeconfigs: the record of each, whether it is alive, and how long a direct one's token may live.

use chrono::{DateTime, TimeDelta, Utc};

use super::member::Member;
use super::member_id::MemberId;
use super::secret::SecretHash;

/// How long before the member a token must end. The API server accepts a token for 60 s after its `exp` (the JWT
/// leeway of go-jose, which Kubernetes uses) and caches a success for 10 s.
pub const TOKEN_LEEWAY: TimeDelta = TimeDelta::seconds(70);

/// The shortest lifetime that TokenRequest accepts (Kubernetes' API validation: `expirationSeconds` of at least 600).
pub const MIN_TOKEN_LIFETIME: TimeDelta = TimeDelta::seconds(600);

/// How long a recorded use stands for later ones.
const USE_AGE: TimeDelta = TimeDelta::minutes(10);

/// The most live kubeconfigs of a member.
pub const MAX_KUBECONFIGS: u8 = 10;

/// Where a kubeconfig points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At Daypass's gateway.
    Gateway,
    /// At the API server.
    Direct,
}

/// A kubeconfig as the Member's status records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigRecord {
    /// Its slot, below [`MAX_KUBECONFIGS`]. No two records of a member have the same.
    pub slot: u8,
    /// Its id: of a direct one, the `jti` of its token.
    pub id: String,
    /// The UID of its Secret.
    pub secret_uid: String,
    /// The fingerprint of the credential that it was issued for.
    pub credential: String,
    /// The client address that it was issued to.
    pub from: Option<String>,
    /// When it was issued, by the API server's clock.
    pub issued_at: DateTime<Utc>,
    /// When it was last used, to about ten minutes. Daypass sees no use of a direct one.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The token in it.
    pub token: RecordedToken,
}

/// What Daypass knows of the token in a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedToken {
    /// A service account's token, which the API server checks. Daypass only knows its end.
    Direct {
        /// Its `exp`. The API server accepts it for [`TOKEN_LEEWAY`] longer.
        expires_at: DateTime<Utc>,
    },
    /// A token of Daypass's own, which the gateway checks. It ends with the record, at the latest with the member.
    Gateway {
        /// Its hash.
        hash: SecretHash,
    },
}

impl KubeconfigRecord {
    /// Whether `member` still holds it: the API server may accept the token, or the gateway does. This is the one
    /// place that decides when a kubeconfig is dead.
    pub fn is_alive(&self, member: &Member, now: DateTime<Utc>) -> bool {
        match &self.token {
            // A date beyond the calendar never comes.
            RecordedToken::Direct { expires_at } => dead_at(*expires_at).is_none_or(|dead| now < dead),
            RecordedToken::Gateway { .. } => member.is_live(now),
        }
    }

    /// Whether the API server may still accept the token at `end`.
    pub fn outlives(&self, end: DateTime<Utc>) -> bool {
        match &self.token {
            RecordedToken::Direct { expires_at } => !dies_in_time(*expires_at, end),
            RecordedToken::Gateway { .. } => false,
        }
    }

    /// Whether the member may have it: it was issued for the present credential, is alive and dies in time.
    pub fn is_wanted(&self, member: &Member, now: DateTime<Utc>) -> bool {
        is_of_credential(member, Some(&self.credential))
            && self.is_alive(member, now)
            && !self.outlives(member.expires_at())
    }

    /// Whether to record a use: none is recorded of the last ten minutes.
    pub fn is_use_due(&self, now: DateTime<Utc>) -> bool {
        self.last_used_at.is_none_or(|last| now >= last + USE_AGE)
    }

    /// Where it points.
    pub fn mode(&self) -> Mode {
        match &self.token {
            RecordedToken::Direct { .. } => Mode::Direct,
            RecordedToken::Gateway { .. } => Mode::Gateway,
        }
    }

    /// When it stops working by itself.
    pub fn expires_at(&self, member: &Member) -> DateTime<Utc> {
        match &self.token {
            RecordedToken::Direct { expires_at } => *expires_at,
            RecordedToken::Gateway { .. } => member.expires_at(),
        }
    }
}

/// Whether this is the fingerprint of the member's present credential.
pub(super) fn is_of_credential(member: &Member, fingerprint: Option<&str>) -> bool {
    let present = member.status.credential.as_ref().map(|hash| hash.fingerprint());
    present.is_some() && present == fingerprint
}

/// The name of the Secret in this slot. The API server creates a name only once, so two requests never share a slot.
pub fn slot_name(id: &MemberId, slot: u8) -> String {
    format!("{}.{slot}", id.name())
}

/// When a token with this `exp` is dead, leeway and cache included; `None` beyond the calendar.
fn dead_at(exp: DateTime<Utc>) -> Option<DateTime<Utc>> {
    exp.checked_add_signed(TOKEN_LEEWAY)
}

/// Whether a token with this `exp` is dead, leeway and cache included, when the member ends.
fn dies_in_time(exp: DateTime<Utc>, member_end: DateTime<Utc>) -> bool {
    dead_at(exp).is_some_and(|dead| dead <= member_end)
}

/// How long a token may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenWindow {
    /// The latest `exp`.
    pub latest_exp: DateTime<Utc>,
    /// The time from now until then.
    pub lifetime: TimeDelta,
}

/// Too little of the membership is left for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a kubeconfig needs at least {} seconds of membership; extend the membership",
    (MIN_TOKEN_LIFETIME + TOKEN_LEEWAY).num_seconds()
)]
pub struct MembershipTooShort;

/// The window of a token for a member that ends at `member_end`.
///
/// # Errors
/// [`MembershipTooShort`] if less than 670 s of the membership is left.
pub fn token_window(member_end: DateTime<Utc>, now: DateTime<Utc>) -> Result<TokenWindow, MembershipTooShort> {
    let latest_exp = member_end.checked_sub_signed(TOKEN_LEEWAY).ok_or(MembershipTooShort)?;
    let lifetime = latest_exp.signed_duration_since(now);
    if lifetime < MIN_TOKEN_LIFETIME {
        return Err(MembershipTooShort);
    }
    Ok(TokenWindow { latest_exp, lifetime })
}

/// How much less to ask for after a token whose `exp` was too late by `late`.
///
/// At most what a slow answer can explain, so that a token that is late for another reason does not use up the
/// membership.
pub fn retry_margin(late: TimeDelta) -> TimeDelta {
    late.clamp(TimeDelta::zero(), TimeDelta::seconds(10)) + TimeDelta::seconds(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::examples::{HOUR, at, gateway_kubeconfig, hash, kubeconfig, member};
    use crate::domain::member::{Phase, RecordedStatus};

    #[test]
    fn token_is_alive_until_70_seconds_after_its_exp() {
        assert!(kubeconfig(0, 100).is_alive(&member(), at(169)));
        assert!(!kubeconfig(0, 100).is_alive(&member(), at(170)));
    }

    #[test]
    fn token_with_an_exp_beyond_the_calendar_never_dies() {
        let token = RecordedToken::Direct { expires_at: DateTime::<Utc>::MAX_UTC };
        let record = KubeconfigRecord { token, ..kubeconfig(0, 0) };
        assert!(record.is_alive(&member(), DateTime::<Utc>::MAX_UTC) && record.outlives(DateTime::<Utc>::MAX_UTC));
    }

    #[test]
    fn gateway_kubeconfig_lives_as_long_as_its_member_and_credential() {
        let record = gateway_kubeconfig(0);
        let mut member = member();
        assert!(record.is_wanted(&member, at(HOUR - 1)));
        assert!(!record.is_wanted(&member, at(HOUR)));
        member.duration = crate::domain::lifetime::MembershipDuration::hours(2).unwrap();
        assert!(record.is_wanted(&member, at(2 * HOUR - 1)), "an extension needs no new one");
        assert_eq!(record.expires_at(&member), at(2 * HOUR));
        assert!(!record.outlives(at(-HOUR)));
        assert!(
            !KubeconfigRecord { credential: hash(2).fingerprint().into(), ..record.clone() }.is_wanted(&member, at(5))
        );
        assert!(!record.is_wanted(&Member { deleting: true, ..member.clone() }, at(5)));
        member.status.phase = Some(Phase::Terminating);
        assert!(!record.is_wanted(&member, at(5)));
    }

    #[test]
    fn use_is_recorded_once_in_ten_minutes() {
        let mut record = gateway_kubeconfig(0);
        assert!(record.is_use_due(at(0)));
        record.last_used_at = Some(at(0));
        assert!(!record.is_use_due(at(599)) && record.is_use_due(at(600)));
    }

    #[test]
    fn only_a_kubeconfig_of_the_present_credential_is_wanted() {
        let wanted = |record: KubeconfigRecord| record.is_wanted(&member(), at(5));
        assert!(wanted(kubeconfig(0, HOUR - 70)));
        assert!(!wanted(kubeconfig(0, HOUR - 69)), "outlives the member");
        assert!(!wanted(kubeconfig(0, -65)), "is dead");
        assert!(!wanted(KubeconfigRecord { credential: hash(2).fingerprint().into(), ..kubeconfig(0, 100) }));
        let none = Member { status: RecordedStatus::default(), ..member() };
        assert!(!kubeconfig(0, 100).is_wanted(&none, at(5)));
        assert!(!is_of_credential(&none, None));
    }

    #[test]
    fn token_needs_670_seconds_of_membership() {
        assert_eq!(token_window(at(669), at(0)), Err(MembershipTooShort));
        let window = token_window(at(670), at(0)).unwrap();
        assert_eq!((window.latest_exp, window.lifetime), (at(600), TimeDelta::seconds(600)));
        assert_eq!(token_window(at(0), at(10)), Err(MembershipTooShort));
        assert_eq!(token_window(DateTime::<Utc>::MIN_UTC, at(0)), Err(MembershipTooShort));
    }

    #[test]
    fn retry_margin_is_at_most_11_seconds() {
        assert_eq!(retry_margin(TimeDelta::days(365)), TimeDelta::seconds(11));
        assert_eq!(retry_margin(TimeDelta::seconds(2)), TimeDelta::seconds(3));
        assert_eq!(retry_margin(TimeDelta::seconds(-5)), TimeDelta::seconds(1));
    }

    #[test]
    fn token_must_end_70_seconds_before_the_member() {
        assert!(dies_in_time(at(30), at(100)));
        assert!(!dies_in_time(at(31), at(100)));
        assert!(!dies_in_time(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC));
    }

    proptest! {
        #[test]
        fn wanted_kubeconfig_is_dead_when_its_member_ends(exp in -HOUR..2 * HOUR, now in 0..2 * HOUR) {
            let (record, end) = (kubeconfig(0, exp), member().expires_at());
            if record.is_wanted(&member(), at(now)) {
                prop_assert!(record.is_alive(&member(), at(now)) && !record.is_alive(&member(), end));
            }
            prop_assert_eq!(record.outlives(end), record.is_alive(&member(), end));
        }

        #[test]
        fn token_of_a_window_dies_in_time(end in -HOUR..48 * HOUR, now in 0..48 * HOUR) {
            match token_window(at(end), at(now)) {
                Ok(window) => {
                    prop_assert!(dies_in_time(at(now) + window.lifetime, at(end)));
                    prop_assert!(window.lifetime >= MIN_TOKEN_LIFETIME);
                }
                Err(MembershipTooShort) => prop_assert!(end - now < 670),
            }
        }
    }
}
