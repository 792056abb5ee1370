//! Roles and their ids. A role is a namespace.

use std::fmt;
use std::sync::Arc;

use super::kubeconfig::Mode;
use super::lifetime::{InvalidDuration, MembershipDuration};

/// Label of a role namespace: the role's id.
pub const ROLE_LABEL: &str = "daypass.dev/role-id";
/// Annotation of a role namespace: the role's display name.
pub const NAME_ANNOTATION: &str = "daypass.dev/name";
/// Annotation of a role namespace: what the role is for.
pub const DESCRIPTION_ANNOTATION: &str = "daypass.dev/description";
/// Annotation of a role namespace: which kubeconfigs its members get, if the installation leaves that to its roles.
pub const KUBECONFIG_MODE_ANNOTATION: &str = "daypass.dev/kubeconfig-mode";
/// Annotation of a role namespace: the longest duration of its members, like `4h`. The wall `daypass-members` enforces
/// it, too.
pub const MAX_DURATION_ANNOTATION: &str = "daypass.dev/max-duration";
/// A role namespace's name is this prefix and the role's id.
pub const NAMESPACE_PREFIX: &str = "daypass-";

/// The longest role id: a namespace name has at most 63 characters (RFC 1123 label).
const MAX_ROLE_ID: usize = 63 - NAMESPACE_PREFIX.len();

/// The id of a role: an RFC 1123 label of at most 55 characters, valid by construction. Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleId(Arc<str>);

impl RoleId {
    /// Parses a role id.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= MAX_ROLE_ID && is_dns_label(text)).then(|| Self(text.into()))
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
    /// Which kubeconfigs its members get, if the installation leaves that to its roles.
    pub kubeconfig_mode: Mode,
    /// The longest duration of its members, if it has a limit of its own.
    pub max_duration: Option<Result<MembershipDuration, InvalidDuration>>,
}

/// Why a role refuses a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationRefused {
    /// It is longer than the role allows.
    #[error("must be at most {0} from the creation, which is the longest that this role allows")]
    TooLong(MembershipDuration),
    /// The role's limit cannot be read, so it may not be ignored.
    #[error("cannot be checked: the role's annotation {MAX_DURATION_ANNOTATION} {0}")]
    Unreadable(InvalidDuration),
}

impl Role {
    /// Whether a member may last this long. `current` is how long it lasts already: a limit that is lowered later
    /// shortens nobody.
    ///
    /// # Errors
    /// [`DurationRefused`].
    pub fn admits(
        &self,
        asked: MembershipDuration,
        current: Option<MembershipDuration>,
    ) -> Result<(), DurationRefused> {
        match self.max_duration {
            None => Ok(()),
            Some(_) if current.is_some_and(|current| asked <= current) => Ok(()),
            Some(Ok(max)) if asked <= max => Ok(()),
            Some(Ok(max)) => Err(DurationRefused::TooLong(max)),
            Some(Err(why)) => Err(DurationRefused::Unreadable(why)),
        }
    }
}

/// The mode that an annotation names. Anything but `direct` is the gateway.
pub fn kubeconfig_mode(annotation: Option<&str>) -> Mode {
    if annotation == Some("direct") { Mode::Direct } else { Mode::Gateway }
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
    fn role_gets_the_gateway_unless_it_says_direct() {
        assert_eq!(kubeconfig_mode(Some("direct")), Mode::Direct);
        for other in [None, Some(""), Some("gateway"), Some("Direct"), Some("both")] {
            assert_eq!(kubeconfig_mode(other), Mode::Gateway, "{other:?}");
        }
    }

    #[test]
    fn role_admits_up_to_its_limit_and_shortens_nobody() {
        let role = |limit: Option<&str>| Role {
            id: RoleId::parse("view").unwrap(),
            name: String::new(),
            description: String::new(),
            kubeconfig_mode: Mode::Gateway,
            max_duration: limit.map(str::parse),
        };
        let hours = |hours| MembershipDuration::hours(hours).unwrap();
        assert_eq!(role(None).admits(hours(48), None), Ok(()));
        let limited = role(Some("4h"));
        assert_eq!(limited.admits(hours(4), None), Ok(()));
        assert_eq!(limited.admits(hours(5), None), Err(DurationRefused::TooLong(hours(4))));
        assert_eq!(limited.admits(hours(5), Some(hours(4))), Err(DurationRefused::TooLong(hours(4))));
        for asked in [5, 6] {
            assert_eq!(limited.admits(hours(asked), Some(hours(6))), Ok(()), "no longer than before");
        }
        for bad in ["", "4", "0h", "49h", "-1h", "4 h", "four"] {
            let refused = role(Some(bad)).admits(hours(1), None);
            assert!(matches!(refused, Err(DurationRefused::Unreadable(_))), "{bad:?}");
            assert_eq!(role(Some(bad)).admits(hours(1), Some(hours(2))), Ok(()), "{bad:?}");
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
