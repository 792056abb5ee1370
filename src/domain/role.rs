//! Roles: a role is a namespace.

use std::fmt;

/// Label of a role namespace; its value is the role's id.
pub const ROLE_LABEL: &str = "daypass.dev/role-id";
/// Annotation of a role namespace: the name shown to people.
pub const NAME_ANNOTATION: &str = "daypass.dev/name";
/// Annotation of a role namespace: what the role is for.
pub const DESCRIPTION_ANNOTATION: &str = "daypass.dev/description";
/// Every role namespace's name is this prefix and the role's id.
pub const NAMESPACE_PREFIX: &str = "daypass-";

/// The longest role id: a namespace's name has at most 63 characters (RFC 1123 label).
const MAX_ROLE_ID: usize = 63 - NAMESPACE_PREFIX.len();

/// The id of a role, valid by construction: an RFC 1123 label of at most 55 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleId(String);

impl RoleId {
    /// The role id in `text`, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= MAX_ROLE_ID && is_dns_label(text)).then(|| Self(text.to_owned()))
    }

    /// The role of a namespace: its name and its label must say the same; one without the other is no role.
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
    /// Name for people; the id where none is given.
    pub name: String,
    /// What the role is for; empty where none is given.
    pub description: String,
}

/// Whether `text` is an RFC 1123 label of any length: lower-case letters, digits, and dashes inside.
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
    fn a_namespace_is_a_role_only_by_name_and_label_together() {
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
    fn an_id_fits_a_namespace_name() {
        assert!(RoleId::parse(&"a".repeat(55)).is_some());
        assert!(RoleId::parse(&"a".repeat(56)).is_none());
        for text in ["", "a.b", "A", "a_", "-a", "a-", "a b", "ä"] {
            assert!(RoleId::parse(text).is_none(), "{text}");
        }
    }
}
