//! Removes Daypass's secrets from a text before it is logged.

use std::borrow::Cow;

use super::member_id::MemberId;
use super::secret::{GATEWAY_PREFIX, SecretSubject as _};
use super::token_id::TokenId;

/// Replaces each secret in `text` by its prefix and `…`; leaves a redacted text as it is. People paste secrets into
/// paths, too.
///
/// Strangers choose the text, so this takes one pass and no recursion: neither time nor stack can be exhausted.
pub fn redacted(text: &str) -> Cow<'_, str> {
    const PREFIXES: [&str; 3] = [MemberId::PREFIX, TokenId::PREFIX, GATEWAY_PREFIX];
    const PREFIX_LEN: usize = MemberId::PREFIX.len();
    let mut kept = String::new();
    let mut rest = text;
    let is_prefix = |four: &[u8]| PREFIXES.iter().any(|prefix| prefix.as_bytes() == four);
    while let Some(start) = rest.as_bytes().windows(PREFIX_LEN).position(is_prefix) {
        let (before, secret) = rest.split_at(start + PREFIX_LEN);
        kept.push_str(before);
        kept.push('…');
        let secret = secret.strip_prefix('…').unwrap_or(secret);
        let end = secret.find(|c: char| !c.is_ascii_alphanumeric() && !"_-.%".contains(c)).unwrap_or(secret.len());
        rest = &secret[end..];
    }
    if kept.is_empty() {
        return Cow::Borrowed(text);
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Secret;
    use proptest::prelude::*;

    fn secret(random: [u8; 32]) -> String {
        Secret::new(MemberId::parse("projects-view.k7f3x9qm").unwrap(), &random).expose().to_owned()
    }

    #[test]
    fn secret_is_replaced_by_its_prefix() {
        let secret = secret([7; 32]);
        assert_eq!(redacted("GET /dp/members"), "GET /dp/members");
        assert_eq!(redacted(&format!("GET /dp/tokens/{secret}/rotate")), "GET /dp/tokens/dpm_…/rotate");
        assert_eq!(redacted(&format!("/{secret}/dpp_x/{secret}")), "/dpm_…/dpp_…/dpm_…");
        assert_eq!(redacted("/dpg_x/y"), "/dpg_…/y");
        assert_eq!(redacted("ädpm_"), "ädpm_…");
        assert_eq!(redacted("ddpp_ä/ädp"), "ddpp_…ä/ädp");
    }

    #[test]
    fn long_text_takes_one_pass_and_no_recursion() {
        // With a call per secret this overflows the stack; with a copy per secret it takes hours.
        let many = 300_000;
        let text = "/dpm_x/dpp_".repeat(many);
        let redact = move || redacted(&text).into_owned();
        let small = std::thread::Builder::new().stack_size(64 * 1024).spawn(redact).unwrap();
        assert_eq!(small.join().unwrap(), "/dpm_…/dpp_…".repeat(many));
    }

    proptest! {
        #[test]
        fn no_random_part_survives(before in "\\PC{0,20}", random: [u8; 32], after in "\\PC{0,20}") {
            let secret = secret(random);
            let text = format!("{before}{secret}{after}");
            let shown = redacted(&text);
            prop_assert!(!shown.contains(&secret[10..]), "{text}");
            prop_assert_eq!(redacted(&shown), shown.clone());
        }
    }
}
