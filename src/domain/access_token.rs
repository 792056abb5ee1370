//! Access tokens and sessions: owner, scopes, and whether one is live, suspended or ended.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::secret::{Secret, SecretHash};
use super::session::SessionOrigin;

pub use super::owner::{
    CREDENTIAL_ID, Extra, Groups, MAX_EXTRA, MAX_EXTRA_VALUE, MAX_EXTRA_VALUES, Owner, Subject, is_reserved, lasting,
    service_account,
};
pub use super::scope::Scope;
pub use super::token_id::{IdForm, NONCE_LEN, TokenId, owner_key};

/// An access token in plain text.
pub type TokenSecret = Secret<TokenId>;

/// The precision of the last use: Daypass skips the write if it recorded a use within this time.
pub const USE_PRECISION: TimeDelta = TimeDelta::minutes(10);
/// How long Daypass keeps a token of another identity configuration before deleting it. It refuses the token
/// meanwhile; rolling back a mistaken configuration makes it work again.
pub const STALE_GRACE: TimeDelta = TimeDelta::hours(24);
/// How many earlier secrets of a token Daypass remembers, to recognize a rotated secret that is used again.
pub const MAX_ROTATED: usize = 100;
/// The longest name, in characters.
pub const MAX_NAME: usize = 255;

/// Whether a token may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    Live,
    /// It is refused because its owner may have no token now, for example because the operator disabled users' tokens.
    /// It works again once the owner may have one.
    Suspended,
    /// It has ended for good.
    Ended,
}

/// An AccessToken object, decoded: a token, or a session.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// Its id.
    pub id: TokenId,
    /// The object's UID.
    pub uid: String,
    /// The object's version, for optimistic concurrency.
    pub resource_version: String,
    /// When it was created, by the API server's clock.
    pub created_at: DateTime<Utc>,
    /// Whether it has a deletionTimestamp. If so it is dead, even if a finalizer still holds the object.
    pub deleting: bool,
    /// Whether Daypass has ended it and reported that. Only the object is left to delete.
    pub ended: bool,
    /// Display name.
    pub name: String,
    /// The identity whose rights it has. A member's session has those of no identity.
    pub owner: Owner,
    /// The caller that created it.
    pub created_by: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it ends, used or not: as requested, or earlier after [`AccessToken::bounded`].
    pub expires_at: DateTime<Utc>,
    /// When it got its present secret; `None` if at creation.
    pub rotated_at: Option<DateTime<Utc>>,
    /// The hash of its secret.
    pub hash: SecretHash,
    /// The hashes of its earlier secrets, oldest first; `None` in a list, which leaves them out: they would be most of
    /// what a token takes.
    pub rotated: Option<Vec<SecretHash>>,
    /// Identifies the identity configuration that it was created under.
    pub identity: String,
    /// For a session, what it was issued for.
    pub session: Option<SessionOrigin>,
    /// When it was last used, to within [`USE_PRECISION`].
    pub last_used_at: Option<DateTime<Utc>>,
    /// Since when it has been refused for its identity configuration.
    pub stale_since: Option<DateTime<Utc>>,
}

/// The limits that the operator sets for tokens.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// The longest lifetime, from creation or the last rotation.
    pub max_lifetime: TimeDelta,
    /// The longest time without use.
    pub max_idle: TimeDelta,
    /// The most live tokens per owner.
    pub max_per_owner: usize,
    /// The longest lifetime of a token owned by a user, from when its groups were read; `None` if only service
    /// accounts may own tokens.
    pub max_user_lifetime: Option<TimeDelta>,
}

impl TokenRules {
    /// The latest end that a new or rotated token of this owner may get now; `None` if the owner may have no token.
    ///
    /// A user's groups are a snapshot that goes stale, so rotating a token does not extend their end.
    pub fn latest_end(&self, owner: &Owner, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let latest = now.checked_add_signed(self.max_lifetime)?;
        if owner.service_account().is_some() {
            return Some(latest);
        }
        // Without its attributes, the token could do more than its owner.
        owner.extra.as_ref()?;
        let groups_end = owner.groups.as_ref()?.at.checked_add_signed(self.max_user_lifetime?)?;
        Some(latest.min(groups_end))
    }
}

impl AccessToken {
    /// Applies these rules to the token's end, because they may have changed since the end was chosen.
    ///
    /// The stored end stays as it is, so raising the limits again gives back what lowering them took away.
    #[must_use]
    pub fn bounded(mut self, rules: &TokenRules) -> Self {
        if self.is_session_without_token() {
            return self;
        }
        let secret_since = self.rotated_at.unwrap_or(self.created_at);
        // `None`, an overflow, is later than any end.
        let latest = secret_since.checked_add_signed(rules.max_lifetime);
        let groups = self.owner.groups.as_ref().zip(rules.max_user_lifetime);
        let groups_end = groups.and_then(|(groups, most)| groups.at.checked_add_signed(most));
        for end in [latest, groups_end].into_iter().flatten() {
            self.expires_at = self.expires_at.min(end.trunc_subsecs(0));
        }
        self
    }

    /// Whether the token may be used at `now`. This is the one place that decides it; [`AccessToken::is_live`] and
    /// [`AccessToken::has_ended`] are short forms.
    ///
    /// Callers that authenticate must also check that the owner still exists and that the identity configuration
    /// matches; for a session, that what it was issued for still stands. None of that can be decided from the token
    /// alone.
    pub fn standing(&self, rules: &TokenRules, now: DateTime<Utc>) -> Standing {
        if self.deleting || self.ended || now >= self.ends_at(rules) {
            return Standing::Ended;
        }
        if self.is_session_without_token() {
            return Standing::Live;
        }
        let allowed = self.owner.service_account().is_some()
            || rules.latest_end(&self.owner, now).is_some_and(|latest| now < latest);
        if allowed { Standing::Live } else { Standing::Suspended }
    }

    /// Whether it has ended for good, even if its object still exists.
    pub fn has_ended(&self, rules: &TokenRules, now: DateTime<Utc>) -> bool {
        self.standing(rules, now) == Standing::Ended
    }

    /// Whether it may be used, as far as the token itself tells.
    pub fn is_live(&self, rules: &TokenRules, now: DateTime<Utc>) -> bool {
        self.standing(rules, now) == Standing::Live
    }

    /// When it ends if nobody uses it again. Allows for a last use that is [`USE_PRECISION`] later than recorded.
    pub fn ends_at(&self, rules: &TokenRules) -> DateTime<Utc> {
        if self.session.is_some() {
            return self.expires_at;
        }
        let unused_since = self.last_used_at.unwrap_or(self.created_at);
        let idle_end = unused_since.checked_add_signed(rules.max_idle + USE_PRECISION).unwrap_or(unused_since);
        self.expires_at.min(idle_end)
    }

    /// Whether to record a use now.
    pub fn is_use_due(&self, now: DateTime<Utc>) -> bool {
        self.last_used_at.is_none_or(|last| now - last >= USE_PRECISION)
    }

    /// Whether `secret` is one of its earlier secrets; each comparison takes constant time.
    pub fn was(&self, secret: &TokenSecret) -> bool {
        self.rotated.iter().flatten().any(|hash| hash.matches(secret))
    }

    /// The hashes to remember when it gets a new secret; `None` if it comes from a list.
    pub fn rotated_with_current(&self) -> Option<Vec<SecretHash>> {
        let earlier = self.rotated.as_ref()?;
        let forgotten = (earlier.len() + 1).saturating_sub(MAX_ROTATED);
        Some(earlier.iter().chain([&self.hash]).skip(forgotten).cloned().collect())
    }

    /// The same token without its earlier secrets, as lists hold it.
    #[must_use]
    pub fn without_rotated(self) -> Self {
        Self { rotated: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::examples::{token, token_rules as rules};

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + minutes * 60, 0).unwrap()
    }

    #[test]
    fn token_ends_at_its_expiry_or_when_idle_whichever_is_first() {
        let rules = rules();
        let days = |days: i64| at(60 * 24 * days);
        let never_used = token();
        assert_eq!(never_used.ends_at(&rules), days(15) + USE_PRECISION);
        let used = AccessToken { last_used_at: Some(days(14)), ..token() };
        assert_eq!(used.ends_at(&rules), days(29) + USE_PRECISION);
        let used_late = AccessToken { last_used_at: Some(days(99)), ..token() };
        assert_eq!(used_late.ends_at(&rules), days(100));
        assert!(used_late.is_live(&rules, days(100) - TimeDelta::seconds(1)));
        assert!(!used_late.is_live(&rules, days(100)), "no grace period");
        assert_eq!(token().standing(&rules, at(1)), Standing::Live);
        assert_eq!(AccessToken { deleting: true, ..token() }.standing(&rules, at(1)), Standing::Ended);
        assert_eq!(AccessToken { ended: true, ..token() }.standing(&rules, at(1)), Standing::Ended);
    }

    #[test]
    fn lower_lifetime_limit_shortens_existing_tokens_and_a_higher_one_restores_them() {
        let days = |days: i64| at(60 * 24 * days);
        let life = |days| TokenRules { max_lifetime: TimeDelta::days(days), ..rules() };
        let end = |token: &AccessToken, rules: &TokenRules| token.clone().bounded(rules).expires_at;
        assert_eq!(end(&token(), &life(7)), days(7));
        assert_eq!(end(&token(), &life(100)), days(100));
        assert_eq!(end(&token(), &life(365)), days(100), "no later than requested");
        let rotated = AccessToken { rotated_at: Some(days(20)), ..token() };
        assert_eq!(end(&rotated, &life(7)), days(27), "counted from its present secret");
        assert!(!rotated.bounded(&life(7)).is_live(&life(7), days(27)));
        let eternal = TokenRules { max_lifetime: TimeDelta::MAX, ..rules() };
        assert_eq!(end(&token(), &eternal), days(100));
    }

    #[test]
    fn rotation_does_not_extend_a_users_token() {
        let days = |days: i64| at(60 * 24 * days);
        let groups = Groups { names: vec!["staff".into()], at: days(1) };
        let owner = Owner { username: "alice".into(), uid: None, subject: None, groups: Some(groups), extra: None };
        let token = AccessToken { owner, rotated_at: Some(days(9)), ..token() };
        let users = |most: Option<i64>| TokenRules { max_user_lifetime: most.map(TimeDelta::days), ..rules() };
        assert_eq!(token.clone().bounded(&users(Some(3))).expires_at, days(4));
        assert_eq!(token.clone().bounded(&users(Some(200))).expires_at, days(100));
        // With users' tokens disabled, the token is suspended, not shortened.
        assert_eq!(token.bounded(&users(None)).expires_at, days(100));
    }

    #[test]
    fn users_own_tokens_only_if_enabled_and_while_their_groups_are_fresh() {
        let groups = Groups { names: vec!["staff".into()], at: at(0) };
        let user = Owner {
            username: "alice".into(),
            uid: None,
            subject: None,
            groups: Some(groups),
            extra: Some(Extra::new()),
        };
        assert_eq!(rules().latest_end(&user, at(0)), None);
        let on = TokenRules { max_user_lifetime: Some(TimeDelta::days(3)), ..rules() };
        assert_eq!(
            on.latest_end(&user, at(5)),
            Some(at(0) + TimeDelta::days(3)),
            "counted from when the groups were read"
        );
        assert_eq!(on.latest_end(&token().owner, at(5)), Some(at(5) + TimeDelta::days(365)));
        assert_eq!(on.latest_end(&Owner { groups: None, ..user.clone() }, at(5)), None);
        assert_eq!(
            on.latest_end(&Owner { extra: None, ..user.clone() }, at(5)),
            None,
            "the attributes may restrict it"
        );
        let of_user = AccessToken { owner: user, ..token() };
        assert_eq!(of_user.standing(&on, at(1)), Standing::Live);
        assert_eq!(of_user.standing(&on, at(0) + TimeDelta::days(3)), Standing::Suspended);
        assert_eq!(of_user.standing(&rules(), at(1)), Standing::Suspended, "disabled: existing tokens stop working");
    }

    proptest! {
        #[test]
        fn ended_token_never_comes_back(
            used in proptest::option::of(0i64..200_000), a in 0i64..200_000, b in 0i64..200_000,
        ) {
            let token = AccessToken { last_used_at: used.map(at), ..token() };
            let (earlier, later) = (at(a.min(b)), at(a.max(b)));
            prop_assert!(!token.has_ended(&rules(), earlier) || token.has_ended(&rules(), later));
            prop_assert_eq!(token.is_live(&rules(), later), later < token.ends_at(&rules()));
            prop_assert!(token.ends_at(&rules()) <= token.expires_at);
        }

        #[test]
        fn bounded_token_never_outlasts_its_rules(limit in 1i64..500, rotated in proptest::option::of(0i64..100_000)) {
            let token = AccessToken { rotated_at: rotated.map(at), ..token() };
            let rules = TokenRules { max_lifetime: TimeDelta::days(limit), ..rules() };
            let end = token.clone().bounded(&rules).expires_at;
            prop_assert!(end <= token.expires_at && end <= at(rotated.unwrap_or(0)) + rules.max_lifetime);
        }
    }

    #[test]
    fn use_is_recorded_once_in_ten_minutes() {
        assert!(token().is_use_due(at(0)));
        let used = AccessToken { last_used_at: Some(at(0)), ..token() };
        assert!(!used.is_use_due(at(10) - TimeDelta::seconds(1)));
        assert!(used.is_use_due(at(10)));
    }

    #[test]
    fn last_hundred_secrets_are_remembered() {
        let secret = |n: u8| TokenSecret::new(token().id, &[n; 32]);
        let mut token = token();
        for n in 2..=120 {
            token = AccessToken { rotated: token.rotated_with_current(), hash: secret(n).hash(), ..token };
        }
        assert_eq!(token.rotated.as_ref().unwrap().len(), MAX_ROTATED);
        assert!(token.was(&secret(119)) && token.was(&secret(20)));
        assert!(!token.was(&secret(120)), "the current one");
        assert!(!token.was(&secret(19)));
        let listed = token.without_rotated();
        assert_eq!((listed.was(&secret(119)), listed.rotated_with_current()), (false, None));
    }
}
