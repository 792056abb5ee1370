//! A member: who, with which role, from when to when.

use chrono::{DateTime, TimeDelta, Utc};

use super::id::MemberId;
use super::lifetime;
use super::secret::SecretHash;

/// The longest display name, in characters.
pub const MAX_USERNAME: usize = 255;
/// The longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1024;

/// The longest that a REST request may claim a member for; a later date in the annotation counts for nothing.
pub const MAX_CLAIM: TimeDelta = TimeDelta::seconds(15);

/// How far a member's life has got, as its status records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The service account exists.
    Active,
    /// The end is decided; what is left of the member is being removed.
    Terminating,
}

/// A Member as the rules see it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Role and name.
    pub id: MemberId,
    /// The object's UID: two members of one name are two members.
    pub uid: String,
    /// The object's version, for optimistic concurrency.
    pub resource_version: String,
    /// The generation of the spec.
    pub generation: i64,
    /// When it was created, by the API server.
    pub created_at: DateTime<Utc>,
    /// Whether it has a deletionTimestamp: then it is dead, whatever finalizer holds it.
    pub deleting: bool,
    /// Membership from `created_at`.
    pub duration: TimeDelta,
    /// A hard end.
    pub not_after: Option<DateTime<Utc>>,
    /// Display name.
    pub username: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The caller that created it.
    pub created_by: Option<String>,
    /// Until when a REST request is at work on it.
    pub claimed_until: Option<DateTime<Utc>>,
    /// What Daypass recorded.
    pub status: Status,
}

/// What Daypass recorded of a member. Empty for one that was just made, by whatever means.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The hash of the credential, once one was issued.
    pub credential: Option<SecretHash>,
    /// The end as last recorded; the end that counts is [`Member::expires_at`].
    pub expires_at: Option<DateTime<Utc>>,
    /// The recorded phase.
    pub phase: Option<Phase>,
    /// The generation it was recorded for.
    pub observed_generation: Option<i64>,
    /// Since when the member has been ready.
    pub ready_since: Option<DateTime<Utc>>,
    /// Whether the status says that the clocks disagree.
    pub clock_skewed: bool,
    /// The fingerprint of what the role could do.
    pub role_hash: Option<String>,
    /// When the role was found to have been given more rights.
    pub role_widened: Option<DateTime<Utc>>,
}

impl Member {
    /// When the membership ends, by the API server's clock.
    pub fn expires_at(&self) -> DateTime<Utc> {
        lifetime::expires_at(self.created_at, self.duration, self.not_after)
    }

    /// Whether it has ended by its time. There is no grace.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        now >= self.expires_at()
    }

    /// Whether a REST request is at work on it.
    pub fn is_claimed(&self, now: DateTime<Utc>) -> bool {
        self.claimed_until.is_some_and(|until| now < until && until - now <= MAX_CLAIM)
    }

    /// Whether the recorded status is that of the spec.
    pub fn is_recorded(&self, clock_skewed: bool) -> bool {
        self.status.phase == Some(Phase::Active)
            && self.status.expires_at == Some(self.expires_at())
            && self.status.observed_generation == Some(self.generation)
            && self.status.clock_skewed == clock_skewed
    }

    /// Whether it is a member at all: neither expired, nor deleted, nor being ended.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        !self.deleting && self.status.phase != Some(Phase::Terminating) && !self.is_expired(now)
    }
}

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Too long; the bound in characters.
    #[error("must be at most {0} characters")]
    TooLong(usize),
    /// Holds a control character (Unicode Cc), which could forge a line of a log or a terminal sequence.
    #[error("must not contain control characters")]
    Control,
}

/// Checks a text that is shown to people.
pub fn check_text(text: &str, max: usize) -> Result<(), InvalidText> {
    if text.chars().count() > max {
        return Err(InvalidText::TooLong(max));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidText::Control);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_in_characters_and_free_of_control_characters() {
        assert_eq!(check_text(&"ü".repeat(255), MAX_USERNAME), Ok(()));
        assert_eq!(check_text(&"ü".repeat(256), MAX_USERNAME), Err(InvalidText::TooLong(255)));
        for text in ["a\nb", "\u{1b}[2J", "a\0", "\u{85}"] {
            assert_eq!(check_text(text, 10), Err(InvalidText::Control));
        }
    }
}
