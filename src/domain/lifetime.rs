//! When a member begins and ends. All arithmetic is checked: a duration that overflows is refused, never wrapped.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// The longest life of a member, from its creation (48 hours). The CRD enforces the same cap by a CEL rule.
pub const MAX_LIFETIME: TimeDelta = TimeDelta::hours(48);

/// A refused duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not of the form `48h`, `1h30m`, `90s`.
    #[error("must be hours, minutes and seconds, in that order, like 4h, 1h30m or 90s")]
    Form,
    /// Zero.
    #[error("must be longer than zero")]
    Zero,
    /// Over [`MAX_LIFETIME`].
    #[error("must be at most 48 hours")]
    TooLong,
}

/// Parses `^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`, over zero and at most 48 hours: what the CRD admits, no more.
pub fn parse_duration(text: &str) -> Result<TimeDelta, InvalidDuration> {
    let mut rest = text;
    let mut seconds: i64 = 0;
    for (unit, unit_seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || !rest[digits..].starts_with(unit) {
            continue;
        }
        // Digits alone can only fail to parse by overflow.
        let count: i64 = rest[..digits].parse().map_err(|_| InvalidDuration::TooLong)?;
        seconds = count
            .checked_mul(unit_seconds)
            .and_then(|part| seconds.checked_add(part))
            .ok_or(InvalidDuration::TooLong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() || !rest.is_empty() {
        return Err(InvalidDuration::Form);
    }
    check_seconds(seconds)
}

/// A duration of so many seconds, if a member may have it.
pub fn check_seconds(seconds: i64) -> Result<TimeDelta, InvalidDuration> {
    match seconds {
        ..=0 => Err(InvalidDuration::Zero),
        _ if seconds > MAX_LIFETIME.num_seconds() => Err(InvalidDuration::TooLong),
        _ => Ok(TimeDelta::seconds(seconds)),
    }
}

/// The form that [`parse_duration`] reads: `4h`, `1h30m`, `90s` is `1m30s`.
pub fn format_duration(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds();
    [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

/// A time as it is shown and stored: RFC 3339, UTC, whole seconds.
pub fn seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The end of a membership: `min(created + duration, not_after)`.
///
/// A date that cannot be represented counts as over (`created` itself): what cannot be decided is refused.
pub fn expires_at(created: DateTime<Utc>, duration: TimeDelta, not_after: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let end = created.checked_add_signed(duration).unwrap_or(created);
    not_after.map_or(end, |bound| end.min(bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_forms_of_the_crd_and_nothing_else() {
        for (text, seconds) in
            [("1h", 3600), ("48h", 172_800), ("30s", 30), ("1h30m", 5400), ("1h1m1s", 3661), ("090s", 90)]
        {
            assert_eq!(parse_duration(text), Ok(TimeDelta::seconds(seconds)), "{text}");
        }
        for text in [
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
        ] {
            assert_eq!(parse_duration(text), Err(InvalidDuration::Form), "{text:?}");
        }
        for text in ["48h1s", "49h", "2881m", "99999999999999999999h", "9223372036854775807h", "9223372036854775807s1h"]
        {
            assert!(matches!(parse_duration(text), Err(InvalidDuration::TooLong | InvalidDuration::Form)), "{text}");
        }
        assert_eq!(parse_duration("0h0m0s"), Err(InvalidDuration::Zero));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_exceeds_the_cap(text in "\\PC{0,30}|[0-9hms]{0,40}") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert!(duration > TimeDelta::zero() && duration <= MAX_LIFETIME);
            }
        }

        #[test]
        fn format_is_the_inverse_of_parse(seconds in 1i64..=172_800) {
            let duration = TimeDelta::seconds(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_end_is_later_than_the_cap_or_the_hard_end(created in 0i64..4_000_000_000, seconds in 1i64..=172_800, bound in proptest::option::of(0i64..4_000_000_000)) {
            let created = DateTime::from_timestamp(created, 0).unwrap();
            let bound = bound.map(|b| DateTime::from_timestamp(b, 0).unwrap());
            let end = expires_at(created, TimeDelta::seconds(seconds), bound);
            prop_assert!(end <= created + MAX_LIFETIME);
            prop_assert!(bound.is_none_or(|b| end <= b));
        }
    }

    #[test]
    fn a_date_beyond_the_calendar_is_over_at_once() {
        assert_eq!(expires_at(DateTime::<Utc>::MAX_UTC, MAX_LIFETIME, None), DateTime::<Utc>::MAX_UTC);
    }
}
