//! Member ids.

use std::fmt;
use std::sync::Arc;

use super::role::{RoleId, is_dns_label};
use super::secret::SecretSubject;

/// The longest member name, in characters.
const MAX_NAME: usize = 40;

/// Letters and digits of generated names, without the ambiguous 0, 1, l and o.
const ALPHABET: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";

/// Encodes five bits of each byte as one character of a name.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

/// A member's id, `<roleId>.<name>`. Neither part contains a dot. Copies share the text: the feed and the queue hold
/// several of each member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// The role, which determines the namespace.
    pub role: RoleId,
    name: Arc<str>,
}

impl MemberId {
    /// The id of member `name` in `role`; `None` if no member may have that name.
    pub fn new(role: RoleId, name: &str) -> Option<Self> {
        // Kubernetes creates a service account `default` in every namespace; a member must not share it.
        let valid = name.len() <= MAX_NAME && is_dns_label(name) && name != "default";
        valid.then(|| Self { role, name: name.into() })
    }

    /// Parses `<roleId>.<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (role, name) = text.split_once('.')?;
        Self::new(RoleId::parse(role)?, name)
    }

    /// The name of the Member object and of its service account.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl SecretSubject for MemberId {
    const PREFIX: &'static str = "dpm_";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_is_role_dot_name() {
        let id = MemberId::parse("projects-view.k7f3x9qm").unwrap();
        assert_eq!((id.role.as_str(), id.name()), ("projects-view", "k7f3x9qm"));
        assert!(MemberId::parse(&format!("r.{}", "a".repeat(40))).is_some());
        for text in
            ["", ".", "a", "a.", ".a", "a.b.c", "a.default", "A.b", "a.B", "a.-b", &format!("r.{}", "a".repeat(41))]
        {
            assert!(MemberId::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsed_id_displays_as_its_text(text in "\\PC{0,20}|[a-z0-9.-]{1,20}") {
            if let Some(id) = MemberId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
