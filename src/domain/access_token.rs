//! Access tokens: who owns one, what it may be used for, and when it ends.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use super::id::encode;
use super::role::is_dns_label;
use super::secret::{Secret, SecretHash, Subject};

pub use super::scope::Scope;

/// An access token in clear.
pub type TokenSecret = Secret<TokenId>;

/// How exact the record of the last use is: a use within this time of a recorded one is not written down.
pub const USE_PRECISION: TimeDelta = TimeDelta::minutes(10);
/// How long a token that was made under another identity configuration is kept, refused: rolling a mistake back restores it.
pub const STALE_GRACE: TimeDelta = TimeDelta::hours(24);
/// How long a session lasts, if its token does not end before.
pub const SESSION_LIFETIME: TimeDelta = TimeDelta::minutes(30);
/// The most live sessions of a token.
pub const MAX_SESSIONS: usize = 16;
/// How many secrets that a token has had before are remembered, so that one that is presented again is known for what it is.
pub const MAX_ROTATED: usize = 100;
/// The longest name, in characters.
pub const MAX_NAME: usize = 255;

/// 80 bits of the hash of a user name: nobody finds another name with the same.
const OWNER_KEY_LEN: usize = 16;
/// Tells apart the tokens that an object's name was used for, one after the other.
const NONCE_LEN: usize = 6;

/// An access token's id, `<object name>-<nonce>`. The object's name is one of as many as the owner may have tokens,
/// `<key of the owner>-<number>`, and a session's one of as many as its token may have, `<name of the token>-s<number>`: that the API server
/// lets a name be created once is the lock that keeps their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenId(String);

impl TokenId {
    /// The id of the token in this object.
    pub fn new(object_name: &str, nonce: &[u8; NONCE_LEN]) -> Self {
        Self(format!("{object_name}-{}", encode(nonce)))
    }

    /// Whether it is of the owner of this key.
    pub fn is_of(&self, owner_key: &str) -> bool {
        self.0.split('-').next() == Some(owner_key)
    }

    /// The name of the object.
    pub fn object_name(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(name, _)| name)
    }
}

impl Subject for TokenId {
    const PREFIX: &'static str = "dpp_";

    fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts = text.split('-');
        let (key, number, mut nonce) = (parts.next()?, parts.next()?, parts.next()?);
        if nonce.strip_prefix('s').is_some_and(digits) {
            nonce = parts.next()?;
        }
        let lengths = key.len() == OWNER_KEY_LEN && nonce.len() == NONCE_LEN && digits(number);
        (lengths && parts.next().is_none() && is_dns_label(text)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the objects of an owner's tokens begin with; as a label it finds them all.
pub fn owner_key(username: &str) -> String {
    encode(&Sha256::digest(username.as_bytes())[..OWNER_KEY_LEN])
}

/// On whose rights a token acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The Kubernetes user name.
    pub username: String,
    /// A service account's UID: one that was deleted and made again is another.
    pub uid: Option<String>,
    /// The groups of a user that is no service account: Kubernetes cannot be asked for them.
    pub groups: Option<Groups>,
}

/// Groups as they were once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Their names.
    pub names: Vec<String>,
    /// When they were these.
    pub at: DateTime<Utc>,
}

impl Owner {
    /// Namespace and name, where the owner is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        service_account(&self.username)
    }
}

/// Namespace and name in a service account's user name, if they can be ones (RFC 1123 label and subdomain): they become parts of a path.
pub fn service_account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (is_dns_label(namespace) && name.split('.').all(is_dns_label)).then_some((namespace, name))
}

/// Whether Kubernetes keeps this name of a user or a group to itself. A stored one is never believed: `system:masters` may do everything.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("system:")
}

/// What a session was had in exchange for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// The name of the token's object.
    pub token: String,
    /// Its UID.
    pub token_uid: String,
    /// The fingerprint of the secret: the session ends when the token is rotated.
    pub secret: String,
}

/// An access token as the rules see it.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// Its id.
    pub id: TokenId,
    /// The object's UID.
    pub uid: String,
    /// The object's version, for optimistic concurrency.
    pub resource_version: String,
    /// When it was created, by the API server.
    pub created_at: DateTime<Utc>,
    /// Whether it has a deletionTimestamp: then it is dead, whatever finalizer holds it.
    pub deleting: bool,
    /// Name for people.
    pub name: String,
    /// On whose rights it acts.
    pub owner: Owner,
    /// The caller that created it.
    pub created_by: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it ends, used or not.
    pub expires_at: DateTime<Utc>,
    /// The hash of its secret.
    pub hash: SecretHash,
    /// The hashes of the secrets that it had before, the oldest first.
    pub rotated: Vec<SecretHash>,
    /// Names the identity configuration that it was made under.
    pub identity: String,
    /// What it was had in exchange for; `None` for a token, which is no session.
    pub session: Option<SignIn>,
    /// When it was last used, exact to [`USE_PRECISION`].
    pub last_used_at: Option<DateTime<Utc>>,
    /// Since when it is refused for being of another identity configuration.
    pub stale_since: Option<DateTime<Utc>>,
}

/// What the operator allows tokens to be.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// The longest life.
    pub max_lifetime: TimeDelta,
    /// The longest time without use.
    pub max_idle: TimeDelta,
    /// The most live tokens of an owner.
    pub max_per_owner: usize,
    /// The longest life of a token of a user that is no service account; `None` where such users may own none.
    pub max_user_lifetime: Option<TimeDelta>,
}

impl TokenRules {
    /// The latest end that a token of this owner may be given now, new or rotated; `None` where it may have none at all. The groups of a user
    /// grow old, so no rotation puts their end off.
    pub fn latest_end(&self, owner: &Owner, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let latest = now.checked_add_signed(self.max_lifetime)?;
        if owner.service_account().is_some() {
            return Some(latest);
        }
        let groups_end = owner.groups.as_ref()?.at.checked_add_signed(self.max_user_lifetime?)?;
        Some(latest.min(groups_end))
    }
}

impl AccessToken {
    /// When it ends if it is not used any more. The record of its last use may be older than that by [`USE_PRECISION`].
    pub fn ends_at(&self, rules: &TokenRules) -> DateTime<Utc> {
        if self.session.is_some() {
            return self.expires_at;
        }
        let unused_since = self.last_used_at.unwrap_or(self.created_at);
        let idle_end = unused_since.checked_add_signed(rules.max_idle + USE_PRECISION).unwrap_or(unused_since);
        self.expires_at.min(idle_end)
    }

    /// Whether it counts: neither over, nor being deleted, nor of an owner who may have none (any more). Whether its owner is still there, and
    /// whether it is of this identity configuration, are other questions.
    pub fn is_live(&self, rules: &TokenRules, now: DateTime<Utc>) -> bool {
        let allowed = self.owner.service_account().is_some()
            || rules.latest_end(&self.owner, now).is_some_and(|latest| now < latest);
        !self.deleting && now < self.ends_at(rules) && allowed
    }

    /// Whether its use now is worth writing down.
    pub fn is_use_due(&self, now: DateTime<Utc>) -> bool {
        self.last_used_at.is_none_or(|last| now - last >= USE_PRECISION)
    }

    /// Whether `secret` is one that it had before, in constant time for each.
    pub fn was(&self, secret: &TokenSecret) -> bool {
        self.rotated.iter().any(|hash| hash.matches(secret))
    }

    /// The hashes to remember when its secret is replaced.
    pub fn rotated_with_current(&self) -> Vec<SecretHash> {
        let all: Vec<_> = self.rotated.iter().chain([&self.hash]).cloned().collect();
        all[all.len().saturating_sub(MAX_ROTATED)..].to_vec()
    }

    /// Whether it is a session of `token` as that is now.
    pub fn is_session_of(&self, token: &Self) -> bool {
        self.session.as_ref().is_some_and(|of| {
            of.token == token.id.object_name() && of.token_uid == token.uid && of.secret == token.hash.fingerprint()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + minutes * 60, 0).unwrap()
    }

    fn rules() -> TokenRules {
        TokenRules {
            max_lifetime: TimeDelta::days(365),
            max_idle: TimeDelta::days(15),
            max_per_owner: 104,
            max_user_lifetime: None,
        }
    }

    fn token() -> AccessToken {
        let id = TokenId::new(&format!("{}-7", owner_key("system:serviceaccount:a:b")), b"abcdef");
        AccessToken {
            hash: TokenSecret::new(id.clone(), &[1; 32]).hash(),
            id,
            uid: "u".into(),
            resource_version: "1".into(),
            created_at: at(0),
            deleting: false,
            name: "ci".into(),
            owner: Owner { username: "system:serviceaccount:a:b".into(), uid: Some("v".into()), groups: None },
            created_by: "alice".into(),
            scopes: vec![Scope::MembersRead],
            expires_at: at(60 * 24 * 100),
            rotated: vec![],
            identity: "i".into(),
            session: None,
            last_used_at: None,
            stale_since: None,
        }
    }

    #[test]
    fn an_id_names_its_object_and_reads_back() {
        let id = token().id;
        assert_eq!(TokenId::parse(&id.to_string()), Some(id.clone()));
        assert_eq!(id.object_name(), format!("{}-7", owner_key("system:serviceaccount:a:b")));
        let session = TokenId::new(&format!("{}-s15", id.object_name()), b"ghijkl");
        assert_eq!(TokenId::parse(&session.to_string()), Some(session.clone()));
        assert_eq!(session.object_name(), format!("{}-s15", id.object_name()));
        let key = owner_key("x");
        for text in [
            "",
            "a",
            &key,
            &format!("{key}-1"),
            &format!("{key}-1-abc"),
            &format!("{key}-x-abcdef"),
            &format!("{key}-12345-abcdef"),
            &format!("{key}-1-abcde_"),
            &format!("{key}-1-ABCDEF"),
            &format!("{key}-1-s1"),
            &format!("{key}-1-s1-abcdef-x"),
            &format!("../{key}-1-abcdef"),
        ] {
            assert_eq!(TokenId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_token_ends_at_its_expiry_or_when_it_was_not_used_whichever_is_first() {
        let rules = rules();
        let days = |days: i64| at(60 * 24 * days);
        let never_used = token();
        assert_eq!(never_used.ends_at(&rules), days(15) + USE_PRECISION);
        let used = AccessToken { last_used_at: Some(days(14)), ..token() };
        assert_eq!(used.ends_at(&rules), days(29) + USE_PRECISION);
        let used_late = AccessToken { last_used_at: Some(days(99)), ..token() };
        assert_eq!(used_late.ends_at(&rules), days(100));
        assert!(used_late.is_live(&rules, days(100) - TimeDelta::seconds(1)));
        assert!(!used_late.is_live(&rules, days(100)), "there is no grace");
        assert!(!AccessToken { deleting: true, ..token() }.is_live(&rules, at(1)));
    }

    #[test]
    fn users_own_tokens_only_where_that_is_switched_on_and_as_long_as_their_groups_are_fresh() {
        let groups = Groups { names: vec!["staff".into()], at: at(0) };
        let user = Owner { username: "alice".into(), uid: None, groups: Some(groups) };
        assert_eq!(rules().latest_end(&user, at(0)), None);
        let on = TokenRules { max_user_lifetime: Some(TimeDelta::days(3)), ..rules() };
        assert_eq!(on.latest_end(&user, at(5)), Some(at(0) + TimeDelta::days(3)), "whenever it is asked");
        assert_eq!(on.latest_end(&token().owner, at(5)), Some(at(5) + TimeDelta::days(365)));
        assert_eq!(on.latest_end(&Owner { groups: None, ..user.clone() }, at(5)), None);
        let of_user = AccessToken { owner: user, ..token() };
        assert!(of_user.is_live(&on, at(1)));
        assert!(!of_user.is_live(&on, at(0) + TimeDelta::days(3)));
        assert!(!of_user.is_live(&rules(), at(1)), "switched off, those that there are are refused");
    }

    #[test]
    fn a_use_is_written_down_once_in_ten_minutes() {
        assert!(token().is_use_due(at(0)));
        let used = AccessToken { last_used_at: Some(at(0)), ..token() };
        assert!(!used.is_use_due(at(10) - TimeDelta::seconds(1)));
        assert!(used.is_use_due(at(10)));
    }

    #[test]
    fn a_session_is_of_one_secret_of_one_token() {
        let of = token();
        let sign_in =
            SignIn { token: of.id.object_name().into(), token_uid: "u".into(), secret: of.hash.fingerprint().into() };
        let session = AccessToken { session: Some(sign_in), expires_at: at(30), ..token() };
        assert!(session.is_session_of(&of));
        assert_eq!(session.ends_at(&rules()), at(30));
        let rotated = AccessToken { hash: TokenSecret::new(of.id.clone(), &[2; 32]).hash(), ..token() };
        assert!(!session.is_session_of(&rotated));
        assert!(!session.is_session_of(&AccessToken { uid: "other".into(), ..token() }));
        assert!(!token().is_session_of(&of));
    }

    #[test]
    fn only_the_last_hundred_secrets_are_remembered() {
        let secret = |n: u8| TokenSecret::new(token().id, &[n; 32]);
        let mut token = token();
        for n in 2..=120 {
            token = AccessToken { rotated: token.rotated_with_current(), hash: secret(n).hash(), ..token };
        }
        assert_eq!(token.rotated.len(), MAX_ROTATED);
        assert!(token.was(&secret(119)) && token.was(&secret(20)));
        assert!(!token.was(&secret(120)), "the current one");
        assert!(!token.was(&secret(19)));
    }

    #[test]
    fn service_accounts_are_told_by_their_names() {
        assert_eq!(service_account("system:serviceaccount:a:b"), Some(("a", "b")));
        assert_eq!(service_account("system:serviceaccount:a:b.c-d"), Some(("a", "b.c-d")));
        for name in [
            "alice",
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:b:c",
            "a:b",
            "system:serviceaccount:a:../b",
            "system:serviceaccount:a/secrets:b",
            "system:serviceaccount:a:b?c",
            "system:serviceaccount:a:.b",
        ] {
            assert_eq!(service_account(name), None, "{name}");
        }
        assert!(is_reserved("system:masters") && !is_reserved("systems"));
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "\\PC{0,40}|[a-z0-9]{16}-[0-9]{1,4}-(s[0-9]{1,3}-)?[a-z0-9]{6}") {
            if let Some(id) = TokenId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
