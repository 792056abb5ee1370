//! The ids of members.

use std::fmt;

use super::role::{RoleId, is_dns_label};

/// The longest member name.
const MAX_NAME: usize = 40;

/// Letters and digits of names that Daypass makes, without those that are read as another.
const ALPHABET: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";

/// A part of a name, with five bits of each byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

/// A member's id, `<roleId>.<name>`; neither part has a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// The role, which is the namespace.
    pub role: RoleId,
    name: String,
}

impl MemberId {
    /// The id of the member `name` of `role`, if that is a member's name.
    pub fn new(role: RoleId, name: &str) -> Option<Self> {
        // Kubernetes makes a `default` service account in every namespace: no member may stand beside it.
        let valid = name.len() <= MAX_NAME && is_dns_label(name) && name != "default";
        valid.then(|| Self { role, name: name.to_owned() })
    }

    /// Reads `<roleId>.<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (role, name) = text.split_once('.')?;
        Self::new(RoleId::parse(role)?, name)
    }

    /// The name in the role: of the Member and of its service account.
    pub fn name(&self) -> &str {
        &self.name
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
    fn an_id_has_one_dot_and_two_names() {
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
        fn what_parses_prints_the_same(text in "\\PC{0,20}|[a-z0-9.-]{1,20}") {
            if let Some(id) = MemberId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
