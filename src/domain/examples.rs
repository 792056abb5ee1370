//! Objects for unit tests: a member, its kubeconfig and an access token. Tests change what they are about.

use chrono::{DateTime, TimeDelta, Utc};

use super::access_token::{AccessToken, Owner, Scope, TokenId, TokenRules, TokenSecret, owner_key};
use super::gateway_token::{GatewayToken, KubeconfigRef};
use super::kubeconfig::{KubeconfigRecord, RecordedToken};
use super::kubeconfig_secret::{KubeconfigSecret, SecretToken, placeholder};
use super::lifetime::MembershipDuration;
use super::member::{Credential, Member, Phase, RecordedStatus};
use super::member_id::MemberId;
use super::secret::SecretHash;

pub(crate) const HOUR: i64 = 3600;

/// So many seconds after everything here was created.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// The hash of a credential of [`member`].
pub(crate) fn hash(byte: u8) -> SecretHash {
    Credential::new(MemberId::parse("view.a").unwrap(), &[byte; 32]).hash()
}

/// A member for one hour, recorded, with the credential of `hash(1)`.
pub(crate) fn member() -> Member {
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
        request_hash: None,
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
            account_uid: Some("s".into()),
            used_credential: None,
            kubeconfigs: Some(vec![]),
        },
    }
}

/// The record of a direct kubeconfig of the member, with a token of this `exp`.
pub(crate) fn kubeconfig(slot: u8, exp: i64) -> KubeconfigRecord {
    KubeconfigRecord {
        slot,
        id: format!("j{slot}"),
        secret_uid: format!("k{slot}"),
        credential: hash(1).fingerprint().into(),
        from: None,
        issued_at: at(0),
        last_used_at: None,
        token: RecordedToken::Direct { expires_at: at(exp) },
    }
}

/// The token of a gateway kubeconfig of the member.
pub(crate) fn gateway_token(slot: u8) -> GatewayToken {
    GatewayToken::new(KubeconfigRef { member: member().id, slot }, &[slot; 32])
}

/// The record of that kubeconfig.
pub(crate) fn gateway_kubeconfig(slot: u8) -> KubeconfigRecord {
    KubeconfigRecord { token: RecordedToken::Gateway { hash: gateway_token(slot).hash() }, ..kubeconfig(slot, 0) }
}

/// The Secret of that kubeconfig.
pub(crate) fn kubeconfig_secret(slot: u8) -> KubeconfigSecret {
    KubeconfigSecret {
        name: format!("a.{slot}"),
        uid: format!("k{slot}"),
        member: Some("a".into()),
        member_uid: Some("m1".into()),
        credential: Some(hash(1).fingerprint().into()),
        created_at: at(0),
        deleting: false,
        in_status: true,
        token: Some(SecretToken { jti: placeholder(slot), expires_at: at(HOUR - 70), from: None }),
    }
}

/// A service account's token for 100 days.
pub(crate) fn token() -> AccessToken {
    let username = "system:serviceaccount:a:b".to_owned();
    let id = TokenId::new(&format!("{}-7", owner_key(&username)), b"abcdef");
    AccessToken {
        hash: TokenSecret::new(id.clone(), &[1; 32]).hash(),
        id,
        uid: "u".into(),
        resource_version: "1".into(),
        created_at: at(0),
        deleting: false,
        ended: false,
        name: "ci".into(),
        owner: Owner { username, uid: Some("v".into()), subject: None, groups: None, extra: None },
        created_by: "alice".into(),
        scopes: vec![Scope::MembersRead],
        expires_at: at(100 * 24 * HOUR),
        rotated_at: None,
        rotated: Some(vec![]),
        identity: "i".into(),
        session: None,
        last_used_at: None,
        stale_since: None,
    }
}

/// The rules that an installation has by default.
pub(crate) fn token_rules() -> TokenRules {
    TokenRules {
        max_lifetime: TimeDelta::days(365),
        max_idle: TimeDelta::days(15),
        max_per_owner: 104,
        max_user_lifetime: None,
    }
}
