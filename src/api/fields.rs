//! Field types and helpers that request and response bodies share.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, OneOfBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::access_token::MAX_NAME;
use crate::domain::member::{MAX_DESCRIPTION, MAX_DISPLAY_NAME};
use crate::domain::text::check_text;
use crate::domain::time::parse_time;

/// For every answer that carries a secret.
pub(super) const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Writes a secret into the one answer that carries it.
pub(super) fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

/// An optional field that must not be null.
pub(super) fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A text of at most [`MAX_DISPLAY_NAME`] characters.
pub(super) fn username<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, MAX_DISPLAY_NAME)
}

/// A text of at most [`MAX_DESCRIPTION`] characters.
pub(super) fn description<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, MAX_DESCRIPTION)
}

fn text<'de, D: Deserializer<'de>>(deserializer: D, max: usize) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    if let Some(text) = &text {
        check_text(text, max).map_err(de::Error::custom)?;
    }
    Ok(text)
}

/// A display name: at most [`MAX_NAME`] characters, and not blank.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        check_text(&name, MAX_NAME).map_err(de::Error::custom)?;
        if name.trim().is_empty() {
            return Err(de::Error::custom("must not be empty"));
        }
        Ok(Self(name))
    }
}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        let visible = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";
        let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_NAME));
        name.pattern(Some(visible))
            .description(Some("A display name, without invisible characters."))
            .examples(["CI"])
            .into()
    }
}

impl ToSchema for Name {
    fn name() -> Cow<'static, str> {
        "Name".into()
    }
}

/// Reads a whole number that is not negative, as a number or as a string of digits. A larger one than `i64` holds
/// becomes `i64::MAX`. `expected` says in a refusal what it must be.
pub(super) fn whole_number<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<i64, D::Error> {
    deserializer.deserialize_any(WholeNumber(expected))
}

struct WholeNumber(&'static str);

impl Visitor<'_> for WholeNumber {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
        if number < 0 { Err(E::custom(format!("must be {}", self.0))) } else { Ok(number) }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
        Ok(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// JSON has one kind of number: 4.0 is 4.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<i64, E> {
        #[expect(clippy::cast_possible_truncation, reason = "a value outside i64 saturates")]
        self.visit_i64(if number.fract() == 0.0 { number as i64 } else { -1 })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i64, E> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        self.visit_i64(if digits { text.parse().unwrap_or(i64::MAX) } else { -1 })
    }
}

/// A number of days, as a number or as a string of digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Days(pub(super) u32);

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let days = whole_number(deserializer, "a whole number of days")?;
        Ok(Self(u32::try_from(days).unwrap_or(u32::MAX)))
    }
}

impl PartialSchema for Days {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[1-9][0-9]*$"));
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let either = OneOfBuilder::new().item(text).item(number);
        either.description(Some("Whole days, as a string or a number.")).into()
    }
}

impl ToSchema for Days {
    fn name() -> Cow<'static, str> {
        "Days".into()
    }
}

/// A time, or a date alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) DateTime<Utc>);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_time(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        let time = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        time.description(Some("A time (RFC 3339), or a date alone, which means its start in UTC.")).into()
    }
}

impl ToSchema for Time {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}
