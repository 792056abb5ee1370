//! Secrets: a member's credential and a caller's access token.
//!
//! `<prefix><id>_<43 base62><6 base62 CRC-32>`: a prefix that secret scanners can match, a checksum that refuses a typo
//! without a look-up, 256 random bits. Only the SHA-256 of the whole text is ever stored; a fast hash is right
//! for a secret of 256 random bits, which no dictionary holds.

use std::borrow::Cow;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::access_token::TokenId;
use super::id::MemberId;

/// What a secret is of: its id is in the secret's text, to find it by.
pub trait Subject: fmt::Display + Sized {
    /// What its secrets begin with.
    const PREFIX: &'static str;

    /// Reads an id, which has no underscore.
    fn parse(text: &str) -> Option<Self>;
}

impl Subject for MemberId {
    const PREFIX: &'static str = "dpm_";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// A member's credential.
pub type Credential = Secret<MemberId>;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256: all random bits fit.
const RANDOM_LEN: usize = 43;
/// 62^6 > 2^32.
const CHECKSUM_LEN: usize = 6;

/// A secret in clear: shown once, never stored, never printed (`Debug` shows nothing, dropped memory is zeroed).
#[derive(Debug, Clone)]
pub struct Secret<S> {
    subject: S,
    text: SecretString,
}

impl<S: Subject> Secret<S> {
    /// The secret of `subject` that carries these random bits.
    pub fn new(subject: S, random: &[u8; 32]) -> Self {
        let body = format!("{}{subject}_{}", S::PREFIX, base62(random, RANDOM_LEN));
        let text = format!("{body}{}", checksum(&body));
        Self { subject, text: text.into() }
    }

    /// Whether `text` is meant to be such a secret, right or wrong.
    pub fn has_prefix(text: &str) -> bool {
        text.starts_with(S::PREFIX)
    }

    /// Reads a secret; `None` when the form or the checksum is wrong.
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

    /// What the secret claims to be of; proven only by [`SecretHash::matches`].
    pub fn subject(&self) -> &S {
        &self.subject
    }

    /// The text, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// What is stored.
    pub fn hash(&self) -> SecretHash {
        let digest = Sha256::digest(self.expose().as_bytes());
        SecretHash(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The hex SHA-256 of a secret. Not a secret (256 random bits cannot be searched), but shown to nobody either.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(String);

impl SecretHash {
    /// The stored form back; `None` unless it is 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let valid = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| Self(hex.to_owned()))
    }

    /// Hex, as stored.
    pub fn as_hex(&self) -> &str {
        &self.0
    }

    /// Names the secret on what was had in exchange for it, a credential on the Secrets of its kubeconfigs; as a label value it must be
    /// short (63).
    pub fn fingerprint(&self) -> &str {
        &self.0[..16]
    }

    /// Whether `secret` is the one that was hashed, in constant time.
    pub fn matches<S: Subject>(&self, secret: &Secret<S>) -> bool {
        self.0.as_bytes().ct_eq(secret.hash().0.as_bytes()).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// The text without the secrets in it: people paste them into paths too. Strangers choose the text, so this reads it
/// once, from front to back, and does not recurse.
pub fn redacted(text: &str) -> Cow<'_, str> {
    const PREFIXES: [&str; 2] = [MemberId::PREFIX, TokenId::PREFIX];
    const PREFIX_LEN: usize = MemberId::PREFIX.len();
    let mut kept = String::new();
    let mut rest = text;
    let is_prefix = |four: &[u8]| PREFIXES.iter().any(|prefix| prefix.as_bytes() == four);
    while let Some(start) = rest.as_bytes().windows(PREFIX_LEN).position(is_prefix) {
        let (before, secret) = rest.split_at(start + PREFIX_LEN);
        kept.push_str(before);
        kept.push('…');
        let end = secret.find(|c: char| !c.is_ascii_alphanumeric() && !"_-.%".contains(c)).unwrap_or(secret.len());
        rest = &secret[end..];
    }
    if kept.is_empty() {
        return Cow::Borrowed(text);
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// The base-62 digits of a big-endian number, left-padded to `len`.
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
    use proptest::prelude::*;

    fn id() -> MemberId {
        MemberId::parse("projects-view.k7f3x9qm").unwrap()
    }

    #[test]
    fn base62_keeps_every_bit() {
        assert_eq!(base62(&[0; 32], RANDOM_LEN), "0".repeat(43));
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[1, 0], 2), "48"); // 256 = 4 * 62 + 8
        // The largest number needs the 43rd digit, so none is lost.
        assert_ne!(&base62(&[255; 32], RANDOM_LEN)[..1], "0");
    }

    #[test]
    fn a_secret_is_cut_out_of_a_text() {
        let secret = Credential::new(id(), &[7; 32]);
        assert_eq!(redacted("GET /dp/members"), "GET /dp/members");
        assert_eq!(redacted(&format!("GET /dp/tokens/{}/rotate", secret.expose())), "GET /dp/tokens/dpm_…/rotate");
        assert_eq!(redacted(&format!("/{0}/dpp_x/{0}", secret.expose())), "/dpm_…/dpp_…/dpm_…");
        assert_eq!(redacted("ädpm_"), "ädpm_…");
        assert_eq!(redacted("ddpp_ä/ädp"), "ddpp_…ä/ädp");
    }

    #[test]
    fn a_text_full_of_secrets_takes_no_stack_and_one_pass() {
        // By one call for each secret this would overflow the stack; by one copy for each it would not end today.
        let many = 300_000;
        let text = "/dpm_x/dpp_".repeat(many);
        let redact = move || redacted(&text).into_owned();
        let small = std::thread::Builder::new().stack_size(64 * 1024).spawn(redact).unwrap();
        assert_eq!(small.join().unwrap(), "/dpm_…/dpp_…".repeat(many));
    }

    #[test]
    fn debug_shows_nothing() {
        let credential = Credential::new(id(), &[7; 32]);
        let shown = format!("{credential:?} {:?}", credential.hash());
        assert!(!shown.contains(credential.expose()), "{shown}");
        assert!(!shown.contains(credential.hash().as_hex()), "{shown}");
    }

    #[test]
    fn a_typo_is_refused_without_a_look_up() {
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
        fn what_is_made_can_be_read_and_matches_only_itself(a: [u8; 32], b: [u8; 32]) {
            let made = Credential::new(id(), &a);
            let read = Credential::parse(made.expose()).unwrap();
            prop_assert_eq!(read.subject(), &id());
            prop_assert!(made.hash().matches(&read));
            prop_assert_eq!(made.hash().matches(&Credential::new(id(), &b)), a == b);
        }

        #[test]
        fn no_random_part_is_left_in_a_text(before in "\\PC{0,20}", random: [u8; 32], after in "\\PC{0,20}") {
            let secret = Credential::new(id(), &random);
            let text = format!("{before}{}{after}", secret.expose());
            prop_assert!(!redacted(&text).contains(&secret.expose()[10..]), "{text}");
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,80}|dpm_[a-z.]{0,9}_[0-9a-zA-Z]{40,50}") {
            let _ = Credential::parse(&text);
        }
    }
}
