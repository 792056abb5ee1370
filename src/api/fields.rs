//! Field types and helpers that request and response bodies share.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{CACHE_CONTROL, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serializer};
use utoipa::openapi::schema::{Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::access_token::MAX_NAME;
use crate::domain::member::{MAX_DESCRIPTION, MAX_DISPLAY_NAME};
use crate::domain::text::check_text;

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
