//! Times that clients send.

use chrono::{DateTime, SubsecRound as _, Timelike as _, Utc};

/// Why a time was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTime {
    /// Neither RFC 3339 nor a date.
    #[error("must be a time such as 2026-12-01T18:00:00Z, or a date such as 2026-12-01, which means its start in UTC")]
    Form,
    /// A second 60, which the API server does not accept.
    #[error("must not be a leap second (:60)")]
    LeapSecond,
}

/// Parses a time (RFC 3339), or a date alone, which means its start in UTC. Cuts off fractions of a second.
///
/// chrono's own parsers accept more: a space instead of `T`, years of five digits, other minus signs.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, InvalidTime> {
    let time = match text.len() {
        10 => &*format!("{text}T00:00:00Z"),
        _ => text,
    };
    if !time.is_ascii() || !matches!(time.as_bytes().get(10), Some(b'T' | b't')) {
        return Err(InvalidTime::Form);
    }
    let time = DateTime::parse_from_rfc3339(time).map_err(|_| InvalidTime::Form)?.to_utc();
    if time.nanosecond() >= 1_000_000_000 {
        return Err(InvalidTime::LeapSecond);
    }
    Ok(time.trunc_subsecs(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::lifetime::rfc3339;

    #[test]
    fn every_rfc_3339_time_is_read_as_whole_seconds_in_utc() {
        for (text, time) in [
            ("2026-12-01T18:00:00Z", "2026-12-01T18:00:00Z"),
            ("2026-12-01t18:00:00z", "2026-12-01T18:00:00Z"),
            ("2026-12-01T18:00:00.999999999999Z", "2026-12-01T18:00:00Z"),
            ("2026-12-01T23:59:59.999Z", "2026-12-01T23:59:59Z"),
            ("2026-12-01T00:30:00+05:45", "2026-11-30T18:45:00Z"),
            ("2026-12-01T18:00:00-00:00", "2026-12-01T18:00:00Z"),
            ("2028-02-29T00:00:00-23:59", "2028-02-29T23:59:00Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("2026-12-01", "2026-12-01T00:00:00Z"),
        ] {
            assert_eq!(parse_time(text).map(rfc3339).as_deref(), Ok(time), "{text}");
        }
    }

    #[test]
    fn leap_second_is_refused() {
        for text in ["2026-12-31T23:59:60Z", "2026-12-31T23:59:60.5Z", "2027-01-01T01:59:60+02:00"] {
            assert_eq!(parse_time(text), Err(InvalidTime::LeapSecond), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "tomorrow",
            "2026-12-01T18:00:00",
            "2026-12-01T18:00Z",
            "2026-12-01T18Z",
            "2026-12-01 18:00:00Z",
            "2026-12-01_18:00:00Z",
            " 2026-12-01T18:00:00Z",
            "2026-12-01T18:00:00Z ",
            "2026-12-01T18:00:00 Z",
            "2026-12-01T18:00:00.Z",
            "2026-12-01T18:00:00,5Z",
            "2026-12-01T18:00:00+02",
            "2026-12-01T18:00:00+0200",
            "2026-12-01T18:00:00+24:00",
            "2026-12-01T18:00:00\u{2212}02:00",
            "2026-12-01T18:00:00UTC",
            "2026-12-01T18:00:00Z[Europe/Berlin]",
            "2026-12-01T24:00:00Z",
            "2026-12-01T18:60:00Z",
            "2026-12-01T18:00:61Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-12-00",
            "2026-02-29",
            "2026-12-1",
            "2026-12",
            "2026-335",
            "2026-W49-2",
            "20261201",
            "20261201T180000Z",
            "12/01/2026",
            "01.12.2026",
            "+2026-12-01T18:00:00Z",
            "-0001-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "2026-12-01T\u{661}8:00:00Z",
            "1796148000",
        ] {
            assert_eq!(parse_time(text), Err(InvalidTime::Form), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_its_result_parses_to_itself(
            text in "\\PC{0,40}|[0-9]{4}-[01][0-9]-[0-3][0-9]([Tt ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,12})?\
                ([Zz]|[+-][0-2][0-9]:[0-5][0-9]))?",
        ) {
            if let Ok(time) = parse_time(&text)
                && (0..=9999).contains(&chrono::Datelike::year(&time))
            {
                prop_assert_eq!(parse_time(&rfc3339(time)), Ok(time));
            }
        }
    }
}
