//! Access token ids.

use std::fmt;

use sha2::{Digest, Sha256};

use super::member_id::encode;
use super::role::is_dns_label;
use super::secret::SecretSubject;

/// Characters of an owner's key: 80 bits of a hash, too many to find a second user name with the same key.
const OWNER_KEY_LEN: usize = 16;
/// Characters of the nonce, which distinguishes successive tokens under the same object name.
pub const NONCE_LEN: usize = 6;

/// An access token's or session's id, `<object name>-<nonce>`.
///
/// There are as many numbers in the names of the objects as an owner may have tokens, or tokens, owners and members
/// sessions. The API server creates a name only once, which enforces the limit without a lock. Earlier versions know
/// only the first two forms, and refuse the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenId(String);

/// What an id is of, as its form tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdForm {
    /// An access token: `<owner key>-<number>`.
    Token,
    /// A session of an access token: `<token's object name>-s<number>`.
    SessionOfToken,
    /// A session of a caller with another token: `<owner key>-o<number>`.
    SessionOfOwner,
    /// A session of a member: `<key of its service account>-m<number>`.
    SessionOfMember,
}

impl TokenId {
    /// What it is of.
    pub fn form(&self) -> IdForm {
        let mut parts = self.0.split('-').skip(1);
        let number = parts.next().unwrap_or_default();
        match number.bytes().next() {
            Some(b'o') => IdForm::SessionOfOwner,
            Some(b'm') => IdForm::SessionOfMember,
            // The object's name has a third part, before the nonce.
            _ if parts.count() > 1 => IdForm::SessionOfToken,
            _ => IdForm::Token,
        }
    }

    /// The id of the token stored in this object.
    pub fn new(object_name: &str, nonce: &[u8; NONCE_LEN]) -> Self {
        Self(format!("{object_name}-{}", encode(nonce)))
    }

    /// Whether the token belongs to the owner with this key (see [`owner_key`]).
    pub fn is_of(&self, owner_key: &str) -> bool {
        self.0.split('-').next() == Some(owner_key)
    }

    /// The name of the object that stores the token.
    pub fn object_name(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(name, _)| name)
    }
}

impl SecretSubject for TokenId {
    const PREFIX: &'static str = "dpp_";

    fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts = text.split('-');
        let (key, number, mut nonce) = (parts.next()?, parts.next()?, parts.next()?);
        let session = number.strip_prefix(['o', 'm']);
        if session.is_none() && nonce.strip_prefix('s').is_some_and(digits) {
            nonce = parts.next()?;
        }
        let lengths = key.len() == OWNER_KEY_LEN && nonce.len() == NONCE_LEN && digits(session.unwrap_or(number));
        (lengths && parts.next().is_none() && is_dns_label(text)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The start of the names of an owner's token objects. It is also their label, to list them by.
pub fn owner_key(username: &str) -> String {
    encode(&Sha256::digest(username.as_bytes())[..OWNER_KEY_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_contains_its_object_name_and_parses() {
        let id = TokenId::new(&format!("{}-7", owner_key("system:serviceaccount:a:b")), b"abcdef");
        assert_eq!(TokenId::parse(&id.to_string()), Some(id.clone()));
        assert_eq!(id.object_name(), format!("{}-7", owner_key("system:serviceaccount:a:b")));
        let session = TokenId::new(&format!("{}-s15", id.object_name()), b"ghijkl");
        assert_eq!(TokenId::parse(&session.to_string()), Some(session.clone()));
        assert_eq!(session.object_name(), format!("{}-s15", id.object_name()));
        let key = owner_key("x");
        for (name, form) in [
            (format!("{key}-7"), IdForm::Token),
            (format!("{key}-7-s15"), IdForm::SessionOfToken),
            (format!("{key}-o15"), IdForm::SessionOfOwner),
            (format!("{key}-m3"), IdForm::SessionOfMember),
        ] {
            // Nonces that begin like the number of a session.
            for nonce in ["abcdef", "s23456", "o23456", "m23456"] {
                let id = TokenId::parse(&format!("{name}-{nonce}")).unwrap();
                assert_eq!((id.form(), id.object_name()), (form, &*name));
                assert!(id.is_of(&key));
            }
        }
        for text in [
            "",
            "a",
            &key,
            &format!("{key}-1"),
            &format!("{key}-1-abc"),
            &format!("{key}-x-abcdef"),
            &format!("{key}-12345-abcdef"),
            &format!("{key}-1-abcde_"),
            &format!("{key}-1-ABCDEF"),
            &format!("{key}-1-s1"),
            &format!("{key}-1-s1-abcdef-x"),
            &format!("{key}-o-abcdef"),
            &format!("{key}-o1-s1-abcdef"),
            &format!("{key}-m1-s1-abcdef"),
            &format!("{key}-om1-abcdef"),
            &format!("{key}-s1-abcdef"),
            &format!("{key}-m12345-abcdef"),
            &format!("{key}-1-o1-abcdef"),
            &format!("../{key}-1-abcdef"),
        ] {
            assert_eq!(TokenId::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsed_id_displays_as_its_text(
            text in "\\PC{0,40}|[a-z0-9]{16}-[om]?[0-9]{1,4}-(s[0-9]{1,3}-)?[a-z0-9]{6}",
        ) {
            if let Some(id) = TokenId::parse(&text) {
                prop_assert_eq!(id.to_string(), &*text);
                // Its name alone has the form.
                let renamed = TokenId::new(id.object_name(), b"234567");
                prop_assert_eq!((id.form(), renamed.object_name()), (renamed.form(), id.object_name()));
            }
        }
    }
}
