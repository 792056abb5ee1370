//! OpenAPI schemas of domain types. The domain does not depend on utoipa.

use std::borrow::Cow;

use utoipa::openapi::schema::{Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::access_token::Scope;
use crate::domain::rights::Escape;

/// The schema of [`Scope`].
pub(super) enum ScopeSchema {}

impl PartialSchema for ScopeSchema {
    fn schema() -> RefOr<Schema> {
        names(Scope::ALL.map(Scope::as_str), "What a token may be used for.")
    }
}

impl ToSchema for ScopeSchema {
    fn name() -> Cow<'static, str> {
        "Scope".into()
    }
}

/// The schema of [`Escape`].
pub(super) enum EscapeSchema {}

impl PartialSchema for EscapeSchema {
    fn schema() -> RefOr<Schema> {
        let description = "A right with which a role's members could leave the role, outlast their membership, or \
                           keep Daypass from ending it.\n\nThe walls block some of these as well. They count \
                           anyway, because walls can be removed.";
        names(Escape::ALL.map(|escape| escape.to_string()), description)
    }
}

impl ToSchema for EscapeSchema {
    fn name() -> Cow<'static, str> {
        "Escape".into()
    }
}

fn names<const N: usize, T: Into<serde_json::Value>>(names: [T; N], description: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).description(Some(description)).into()
}
