//! The form of Daypass's secrets, and their hashes.
//!
//! `<prefix><id>_<43 base62><6 base62 CRC-32>`: a prefix for secret scanners, a checksum that catches a typo without a
//! lookup, and 256 random bits. Daypass stores only the SHA-256 of the whole text. A fast hash is enough: no
//! dictionary contains a secret of 256 random bits.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::hex::hex;

/// The id that a secret belongs to. It is part of the secret's text, so that Daypass can look the secret up.
pub trait SecretSubject: fmt::Display + Sized {
    /// The first characters of its secrets, for example `dpm_`.
    const PREFIX: &'static str;

    /// Parses an id. Ids contain no underscore.
    fn parse(text: &str) -> Option<Self>;
}

/// How the tokens of gateway kubeconfigs begin. No other secret of Daypass does.
pub const GATEWAY_PREFIX: &str = "dpg_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256, so all random bits fit.
const RANDOM_LEN: usize = 43;
/// 62^6 > 2^32, so the CRC-32 fits.
const CHECKSUM_LEN: usize = 6;

/// A secret in plain text: shown once, never stored, never printed. `Debug` hides it, and its memory is zeroed on
/// drop.
#[derive(Debug, Clone)]
pub struct Secret<S> {
    subject: S,
    text: SecretString,
}

impl<S: SecretSubject> Secret<S> {
    /// Creates the secret of `subject` from these random bits.
    pub fn new(subject: S, random: &[u8; 32]) -> Self {
        let body = format!("{}{subject}_{}", S::PREFIX, base62(random, RANDOM_LEN));
        let text = format!("{body}{}", checksum(&body));
        Self { subject, text: text.into() }
    }

    /// Whether `text` is meant to be such a secret, right or wrong.
    pub fn has_prefix(text: &str) -> bool {
        text.starts_with(S::PREFIX)
    }

    /// Parses a secret; `None` if its form or checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, random) = text.strip_prefix(S::PREFIX)?.rsplit_once('_')?;
        if random.len() != RANDOM_LEN + CHECKSUM_LEN || !random.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let (body, given) = text.split_at(text.len() - CHECKSUM_LEN);
        if checksum(body) != given {
            return None;
        }
        Some(Self { subject: S::parse(id)?, text: text.into() })
    }

    /// The id that the secret claims to belong to. Only [`SecretHash::matches`] proves it.
    pub fn subject(&self) -> &S {
        &self.subject
    }

    /// The plain text, for the one response that shows it.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The hash to store.
    pub fn hash(&self) -> SecretHash {
        let digest = Sha256::digest(self.expose().as_bytes());
        let mut digits = [0; 64];
        digits.copy_from_slice(hex(&digest).as_bytes());
        SecretHash(digits)
    }
}

/// The hex SHA-256 of a secret. It does not reveal the secret (nobody can search 256 bits); Daypass hides it anyway.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 64]);

impl SecretHash {
    /// Parses the stored form; `None` unless it is 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits: [u8; 64] = hex.as_bytes().try_into().ok()?;
        digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)).then_some(Self(digits))
    }

    /// The stored form, in hex.
    pub fn as_hex(&self) -> &str {
        // Never empty: they are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The first 16 digits. They mark what was issued for the secret, for example a credential's kubeconfigs. Short,
    /// because a label value has at most 63 characters.
    pub fn fingerprint(&self) -> &str {
        &self.as_hex()[..16]
    }

    /// Whether this is the hash of `secret`, in constant time.
    pub fn matches<S: SecretSubject>(&self, secret: &Secret<S>) -> bool {
        self.0.ct_eq(&secret.hash().0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// Writes a big-endian number in base 62, left-padded to `len` digits.
fn base62(number: &[u8], len: usize) -> String {
    let mut number = number.to_vec();
    let mut digits = vec![ALPHABET[0]; len];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}

fn checksum(body: &str) -> String {
    base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::member_id::MemberId;
    use proptest::prelude::*;

    type Credential = Secret<MemberId>;

    fn id() -> MemberId {
        MemberId::parse("projects-view.k7f3x9qm").unwrap()
    }

    #[test]
    fn base62_loses_no_bit() {
        assert_eq!(base62(&[0; 32], RANDOM_LEN), "0".repeat(43));
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[1, 0], 2), "48"); // 256 = 4 * 62 + 8
        // The largest number needs the 43rd digit.
        assert_ne!(&base62(&[255; 32], RANDOM_LEN)[..1], "0");
    }

    #[test]
    fn debug_hides_secret_and_hash() {
        let credential = Credential::new(id(), &[7; 32]);
        let shown = format!("{credential:?} {:?}", credential.hash());
        assert!(!shown.contains(credential.expose()), "{shown}");
        assert!(!shown.contains(credential.hash().as_hex()), "{shown}");
    }

    #[test]
    fn secret_with_a_typo_does_not_parse() {
        let text = Credential::new(id(), &[42; 32]).expose().to_owned();
        for at in 0..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(Credential::parse(std::str::from_utf8(&typo).unwrap()).is_none(), "changed at {at}");
        }
        assert!(Credential::parse(&text[..text.len() - 1]).is_none());
        assert!(Credential::parse("dpm__").is_none());
    }

    proptest! {
        #[test]
        fn new_secret_parses_and_matches_only_itself(a: [u8; 32], b: [u8; 32]) {
            let new = Credential::new(id(), &a);
            let parsed = Credential::parse(new.expose()).unwrap();
            prop_assert_eq!(parsed.subject(), &id());
            prop_assert!(new.hash().matches(&parsed));
            prop_assert_eq!(new.hash().matches(&Credential::new(id(), &b)), a == b);
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,80}|dpm_[a-z.]{0,9}_[0-9a-zA-Z]{40,50}") {
            let _ = Credential::parse(&text);
        }
    }
}
