//! How long a membership may last and when it ends. Arithmetic is checked: an overflow is refused, never wrapped.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest membership, counted from creation (48 hours). A CEL rule in the CRD enforces the same limit.
pub const MAX_LIFETIME: TimeDelta = TimeDelta::hours(48);

/// Why a duration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not of the form `48h`, `1h30m` or `90s`.
    #[error("must be hours, minutes and seconds in that order, for example 4h, 1h30m or 90s")]
    Form,
    /// Zero or negative.
    #[error("must be longer than zero")]
    Zero,
    /// Over [`MAX_LIFETIME`].
    #[error("must be at most 48 hours")]
    TooLong,
}

/// How long a membership lasts from its creation: whole seconds, more than zero, at most [`MAX_LIFETIME`].
///
/// As text it has the form that the CRD admits, `^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`, for example `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MembershipDuration(TimeDelta);

impl MembershipDuration {
    /// The longest.
    pub const MAX: Self = Self(MAX_LIFETIME);

    /// This many whole seconds; a fraction is cut off.
    pub fn new(duration: TimeDelta) -> Result<Self, InvalidDuration> {
        let seconds = duration.num_seconds();
        match seconds {
            ..=0 => Err(InvalidDuration::Zero),
            _ if seconds > MAX_LIFETIME.num_seconds() => Err(InvalidDuration::TooLong),
            _ => Ok(Self(TimeDelta::seconds(seconds))),
        }
    }

    /// This many hours.
    pub fn hours(hours: i64) -> Result<Self, InvalidDuration> {
        let overflow = if hours < 0 { InvalidDuration::Zero } else { InvalidDuration::TooLong };
        Self::new(TimeDelta::try_hours(hours).ok_or(overflow)?)
    }

    /// The duration as a number.
    pub fn get(self) -> TimeDelta {
        self.0
    }
}

impl FromStr for MembershipDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let mut rest = text;
        // `None` after an overflow. The rest is still read, so that a wrong form is reported as such.
        let mut seconds = Some(0i64);
        for (unit, unit_seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || !rest[digits..].starts_with(unit) {
                continue;
            }
            // Digits alone fail to parse only on overflow.
            let part = rest[..digits].parse().ok().and_then(|count: i64| count.checked_mul(unit_seconds));
            seconds = seconds.zip(part).and_then(|(sum, part)| sum.checked_add(part));
            rest = &rest[digits + 1..];
        }
        if text.is_empty() || !rest.is_empty() {
            return Err(InvalidDuration::Form);
        }
        Self::new(seconds.and_then(TimeDelta::try_seconds).ok_or(InvalidDuration::TooLong)?)
    }
}

impl fmt::Display for MembershipDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.num_seconds();
        for (count, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for MembershipDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MembershipDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Formats a time the way Daypass shows and stores it: RFC 3339, UTC, whole seconds.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// When a membership ends: `min(created + duration, not_after)`.
///
/// If `created + duration` overflows, the membership ends at `created`: refuse what cannot be computed.
pub fn expires_at(created: DateTime<Utc>, duration: TimeDelta, not_after: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let end = created.checked_add_signed(duration).unwrap_or(created);
    not_after.map_or(end, |bound| end.min(bound))
}

/// The `notAfter` of a member that is created now: the latest end it could ever be given. It keeps a restored backup
/// from starting the membership's time again.
///
/// One second more than [`MAX_LIFETIME`], because `creationTimestamp` may be stamped in the next second.
pub fn not_after_of_new(now: DateTime<Utc>) -> DateTime<Utc> {
    now + MAX_LIFETIME + TimeDelta::seconds(1)
}

/// A new end for a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewEnd {
    /// This long after creation.
    After(MembershipDuration),
    /// At this time. Fractions of a second are cut off.
    At(DateTime<Utc>),
}

/// Why a membership cannot be given a new end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnd {
    /// Not later than now.
    #[error("is in the past")]
    Past,
    /// Later than this, the member's `notAfter`.
    #[error("is later than the membership may last: {}", rfc3339(*.0))]
    AfterHardEnd(DateTime<Utc>),
    /// Over [`MAX_LIFETIME`] from creation.
    #[error("must be at most 48 hours from the creation")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<TimeDelta, InvalidDuration> {
        text.parse().map(MembershipDuration::get)
    }

    #[test]
    fn duration_has_the_form_of_the_crd() {
        for (text, seconds) in
            [("1h", 3600), ("48h", 172_800), ("30s", 30), ("1h30m", 5400), ("1h1m1s", 3661), ("090s", 90)]
        {
            assert_eq!(parse(text), Ok(TimeDelta::seconds(seconds)), "{text}");
        }
        let malformed = [
            "",
            "1",
            "h",
            "1d",
            "P1D",
            "-1h",
            "--1h",
            "+1h",
            "1.5h",
            "1s1h",
            "1h1h",
            "30000 weeks",
            "1h ",
            " 1h",
            "1H",
            "１h",
        ];
        for text in malformed {
            assert_eq!(parse(text), Err(InvalidDuration::Form), "{text:?}");
        }
    }

    #[test]
    fn duration_over_48_hours_is_too_long() {
        for text in ["48h1s", "49h", "2881m", "172801s", "99999999999999999999h", "9223372036854775807h"] {
            assert_eq!(parse(text), Err(InvalidDuration::TooLong), "{text}");
        }
        assert_eq!(MembershipDuration::hours(49), Err(InvalidDuration::TooLong));
        assert_eq!(MembershipDuration::hours(i64::MAX), Err(InvalidDuration::TooLong));
    }

    #[test]
    fn units_out_of_order_are_malformed_even_if_they_overflow() {
        assert_eq!(parse("9223372036854775807s1h"), Err(InvalidDuration::Form));
        assert_eq!(parse("99999999999999999999h1h"), Err(InvalidDuration::Form));
    }

    #[test]
    fn duration_of_zero_or_less_is_refused() {
        assert_eq!(parse("0h0m0s"), Err(InvalidDuration::Zero));
        for hours in [0, -1, i64::MIN] {
            assert_eq!(MembershipDuration::hours(hours), Err(InvalidDuration::Zero), "{hours}");
        }
        assert_eq!(MembershipDuration::new(TimeDelta::milliseconds(999)), Err(InvalidDuration::Zero));
    }

    proptest! {
        #[test]
        fn parsed_duration_is_positive_and_at_most_48_hours(text in "\\PC{0,30}|[0-9hms]{0,40}") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration > TimeDelta::zero() && duration <= MAX_LIFETIME);
            }
        }

        #[test]
        fn formatted_duration_parses_to_itself(seconds in 1i64..=172_800) {
            let duration = MembershipDuration::new(TimeDelta::seconds(seconds)).unwrap();
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            let json = serde_json::to_string(&duration).unwrap();
            prop_assert_eq!(serde_json::from_str::<MembershipDuration>(&json).unwrap(), duration);
        }

        #[test]
        fn end_is_the_earlier_of_duration_and_hard_end(
            created in 0i64..4_000_000_000,
            seconds in 1i64..=172_800,
            bound in proptest::option::of(0i64..4_000_000_000),
        ) {
            let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
            let end = expires_at(at(created), TimeDelta::seconds(seconds), bound.map(at));
            prop_assert_eq!(end, at(bound.map_or(created + seconds, |bound| bound.min(created + seconds))));
        }
    }

    #[test]
    fn overflowing_end_is_the_creation() {
        assert_eq!(expires_at(DateTime::<Utc>::MAX_UTC, MAX_LIFETIME, None), DateTime::<Utc>::MAX_UTC);
    }
}
