//! Roles and their ids. A role is a namespace.

use std::fmt;

/// Label of a role namespace: the role's id.
pub const ROLE_LABEL: &str = "daypass.dev/role-id";
/// Annotation of a role namespace: the role's display name.
pub const NAME_ANNOTATION: &str = "daypass.dev/name";
/// Annotation of a role namespace: what the role is for.
pub const DESCRIPTION_ANNOTATION: &str = "daypass.dev/description";
/// A role namespace's name is this prefix and the role's id.
pub const NAMESPACE_PREFIX: &str = "daypass-";

/// The longest role id: a namespace name has at most 63 characters (RFC 1123 label).
const MAX_ROLE_ID: usize = 63 - NAMESPACE_PREFIX.len();

/// The id of a role: an RFC 1123 label of at most 55 characters, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleId(String);

impl RoleId {
    /// Parses a role id.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= MAX_ROLE_ID && is_dns_label(text)).then(|| Self(text.to_owned()))
    }

    /// The role of a namespace. Its name and its label must agree: a namespace with only one of them is not a role.
    pub fn of_namespace(name: &str, label: Option<&str>) -> Option<Self> {
        let id = name.strip_prefix(NAMESPACE_PREFIX)?;
        (label == Some(id)).then(|| Self::parse(id))?
    }

    /// The role's namespace.
    pub fn namespace(&self) -> String {
        format!("{NAMESPACE_PREFIX}{}", self.0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The id: the namespace's name without its prefix.
    pub id: RoleId,
    /// Display name; defaults to the id.
    pub name: String,
    /// What the role is for; may be empty.
    pub description: String,
}

/// Whether `text` is an RFC 1123 label of any length: lower-case letters and digits, and dashes except at the ends.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            alphanumeric(first) && alphanumeric(last) && bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_is_a_role_only_if_name_and_label_agree() {
        assert_eq!(RoleId::of_namespace("daypass-view", Some("view")), RoleId::parse("view"));
        for (name, label) in [
            ("daypass-view", None),
            ("daypass-view", Some("edit")),
            ("view", Some("view")),
            ("daypass-", Some("")),
            ("daypass--x", Some("-x")),
            ("daypassview", Some("view")),
        ] {
            assert_eq!(RoleId::of_namespace(name, label), None, "{name} {label:?}");
        }
    }

    #[test]
    fn role_id_fits_a_namespace_name() {
        assert!(RoleId::parse(&"a".repeat(55)).is_some());
        assert!(RoleId::parse(&"a".repeat(56)).is_none());
        for text in ["", "a.b", "A", "a_", "-a", "a-", "a b", "ä"] {
            assert!(RoleId::parse(text).is_none(), "{text}");
        }
    }
}
