//! Parts that the types share: schemas, dates, and the error of an object that cannot be decoded.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::domain::text::VISIBLE_PATTERN;

/// Makes a field immutable. The rule is at the root and compares `has()`: a rule on the field itself would not run
/// when one update removes the field and the next adds it again.
macro_rules! immutable {
    ($field:literal) => {
        Rule::new(concat!(
            "has(self.spec.",
            $field,
            ") == has(oldSelf.spec.",
            $field,
            ") && ",
            "(!has(self.spec.",
            $field,
            ") || self.spec.",
            $field,
            " == oldSelf.spec.",
            $field,
            ")"
        ))
        .message(concat!("spec.", $field, " is immutable"))
    };
}

pub(super) use immutable;

/// Has a pattern because the API server accepts more as `date-time` than RFC 3339 and Daypass do.
pub(super) fn date_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "format": "date-time", "maxLength": 40,
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$",
    })
}

/// A text that people are shown, with the characters that the REST API accepts.
///
/// A pattern, not a CEL rule: Kubernetes 1.30 runs the CEL rules of the spec at each change of the status, so it would
/// refuse to end an object that is older than the rule. It never checks a pattern of an unchanged field again.
pub(super) fn text_schema<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": MAX, "pattern": VISIBLE_PATTERN })
}

/// A text that only programs read.
pub(super) fn id_schema<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": MAX, "pattern": "^\\P{Cc}*$" })
}

/// Why an object could not be decoded. Treat it as ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It does not match the schema, for example because an older version wrote it.
    #[error("it does not match the schema: {0}")]
    Schema(String),
    /// Its namespace and name do not form a member id.
    #[error("its namespace and name do not form a member id")]
    Id,
    /// A field is missing or has an invalid value.
    #[error("{0} is missing or invalid")]
    Field(&'static str),
}

pub(super) fn date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|date| date.to_utc())
}

/// Converts a Kubernetes time; `None` if it is beyond the calendar.
pub(super) fn chrono_of(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), 0)
}
