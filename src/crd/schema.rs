//! What the types share: their schemas' building blocks, and why one object cannot be read.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{Schema, SchemaGenerator, json_schema};

/// A field that stays as it was made. At the root and with `has()`: a rule on the field itself is dodged by removing the
/// field in one update and adding it again in the next.
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

/// With a pattern: the API server's own reading of that format takes more than RFC 3339 allows, and Daypass would not.
pub(super) fn date_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "format": "date-time", "maxLength": 40,
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$",
    })
}

pub(super) fn text_schema<const MAX: u32>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": MAX, "pattern": "^\\P{Cc}*$" })
}

/// Why an object could not be read. It is treated as ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not of the schema: an older version wrote it, or the CRD was changed.
    #[error("does not parse: {0}")]
    Schema(String),
    /// The namespace and the name make no member id.
    #[error("its namespace and name make no member id")]
    Id,
    /// A field does not hold what it must.
    #[error("{0} cannot be read")]
    Field(&'static str),
}

pub(super) fn date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|date| date.to_utc())
}

/// A Kubernetes time in the domain's type; `None` when the calendar cannot hold it.
pub(super) fn chrono_of(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), 0)
}
