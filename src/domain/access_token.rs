//! Access tokens: who owns one, what it may be used for, and when it ends.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::secret::{Secret, SecretHash};

pub use super::owner::{
    Extra, Groups, MAX_EXTRA, MAX_EXTRA_VALUE, MAX_EXTRA_VALUES, Owner, is_reserved, lasting, service_account,
};
pub use super::scope::Scope;
pub use super::token_id::{TokenId, owner_key};

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
    /// Whether Daypass has ended it, and reported that: then only its object is left to be deleted.
    pub ended: bool,
    /// Name for people.
    pub name: String,
    /// On whose rights it acts.
    pub owner: Owner,
    /// The caller that created it.
    pub created_by: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it ends, used or not: as it was asked for, or before that by [`AccessToken::bounded`].
    pub expires_at: DateTime<Utc>,
    /// When it got its present secret, if not at its creation.
    pub rotated_at: Option<DateTime<Utc>>,
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
        // One whose attributes were not kept may be of somebody who may do less.
        owner.extra.as_ref()?;
        let groups_end = owner.groups.as_ref()?.at.checked_add_signed(self.max_user_lifetime?)?;
        Some(latest.min(groups_end))
    }
}

impl AccessToken {
    /// The token as these rules have it: they may have been another operator's when its end was chosen. What is stored
    /// stays as it is, so that longer lives give it back what was taken.
    #[must_use]
    pub fn bounded(mut self, rules: &TokenRules) -> Self {
        let secret_since = self.rotated_at.unwrap_or(self.created_at);
        // None is later than any end.
        let latest = secret_since.checked_add_signed(rules.max_lifetime);
        let groups = self.owner.groups.as_ref().zip(rules.max_user_lifetime);
        let groups_end = groups.and_then(|(groups, most)| groups.at.checked_add_signed(most));
        for end in [latest, groups_end].into_iter().flatten() {
            self.expires_at = self.expires_at.min(end.trunc_subsecs(0));
        }
        self
    }

    /// Whether it is over for good, whatever is left of its object.
    pub fn has_ended(&self, rules: &TokenRules, now: DateTime<Utc>) -> bool {
        self.deleting || self.ended || now >= self.ends_at(rules)
    }

    /// When it ends if it is not used any more. The record of its last use may be older than that by [`USE_PRECISION`].
    pub fn ends_at(&self, rules: &TokenRules) -> DateTime<Utc> {
        if self.session.is_some() {
            return self.expires_at;
        }
        let unused_since = self.last_used_at.unwrap_or(self.created_at);
        let idle_end = unused_since.checked_add_signed(rules.max_idle + USE_PRECISION).unwrap_or(unused_since);
        self.expires_at.min(idle_end)
    }

    /// Whether it counts: neither over nor of an owner who may have none (any more). Whether its owner is still there,
    /// and whether it is of this identity configuration, are other questions.
    pub fn is_live(&self, rules: &TokenRules, now: DateTime<Utc>) -> bool {
        let allowed = self.owner.service_account().is_some()
            || rules.latest_end(&self.owner, now).is_some_and(|latest| now < latest);
        !self.has_ended(rules, now) && allowed
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
            ended: false,
            name: "ci".into(),
            owner: Owner {
                username: "system:serviceaccount:a:b".into(),
                uid: Some("v".into()),
                groups: None,
                extra: None,
            },
            created_by: "alice".into(),
            scopes: vec![Scope::MembersRead],
            expires_at: at(60 * 24 * 100),
            rotated_at: None,
            rotated: vec![],
            identity: "i".into(),
            session: None,
            last_used_at: None,
            stale_since: None,
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
        assert!(!AccessToken { ended: true, ..token() }.is_live(&rules, at(1)));
    }

    #[test]
    fn a_shorter_life_ends_what_there_is_and_a_longer_one_gives_it_back() {
        let days = |days: i64| at(60 * 24 * days);
        let life = |days| TokenRules { max_lifetime: TimeDelta::days(days), ..rules() };
        let end = |token: &AccessToken, rules: &TokenRules| token.clone().bounded(rules).expires_at;
        assert_eq!(end(&token(), &life(7)), days(7));
        assert_eq!(end(&token(), &life(100)), days(100));
        assert_eq!(end(&token(), &life(365)), days(100), "no later than it was asked for");
        let rotated = AccessToken { rotated_at: Some(days(20)), ..token() };
        assert_eq!(end(&rotated, &life(7)), days(27), "from its present secret on");
        assert!(!rotated.bounded(&life(7)).is_live(&life(7), days(27)));
        let eternal = TokenRules { max_lifetime: TimeDelta::MAX, ..rules() };
        assert_eq!(end(&token(), &eternal), days(100));
    }

    #[test]
    fn a_users_groups_age_whatever_is_rotated() {
        let days = |days: i64| at(60 * 24 * days);
        let groups = Groups { names: vec!["staff".into()], at: days(1) };
        let owner = Owner { username: "alice".into(), uid: None, groups: Some(groups), extra: None };
        let token = AccessToken { owner, rotated_at: Some(days(9)), ..token() };
        let users = |most: Option<i64>| TokenRules { max_user_lifetime: most.map(TimeDelta::days), ..rules() };
        assert_eq!(token.clone().bounded(&users(Some(3))).expires_at, days(4));
        assert_eq!(token.clone().bounded(&users(Some(200))).expires_at, days(100));
        // Where users own none, it is refused and comes back with the switch.
        assert_eq!(token.bounded(&users(None)).expires_at, days(100));
    }

    #[test]
    fn users_own_tokens_only_where_that_is_switched_on_and_as_long_as_their_groups_are_fresh() {
        let groups = Groups { names: vec!["staff".into()], at: at(0) };
        let user = Owner { username: "alice".into(), uid: None, groups: Some(groups), extra: Some(Extra::new()) };
        assert_eq!(rules().latest_end(&user, at(0)), None);
        let on = TokenRules { max_user_lifetime: Some(TimeDelta::days(3)), ..rules() };
        assert_eq!(on.latest_end(&user, at(5)), Some(at(0) + TimeDelta::days(3)), "whenever it is asked");
        assert_eq!(on.latest_end(&token().owner, at(5)), Some(at(5) + TimeDelta::days(365)));
        assert_eq!(on.latest_end(&Owner { groups: None, ..user.clone() }, at(5)), None);
        assert_eq!(on.latest_end(&Owner { extra: None, ..user.clone() }, at(5)), None, "it may have been narrowed");
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
}
