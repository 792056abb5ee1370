//! The identity configuration that a token is valid for: the data plane, the API server's issuer, and the accepted
//! audience, or how the ID tokens of a person's issuer are mapped to names.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::AccessTokens;
use crate::cluster::Error;
use crate::domain::access_token::{AccessToken, Owner};
use crate::domain::hex::hex;

/// How long to cache the API server's issuer, which changes only when the API server restarts.
const ISSUER_CACHE_TTL: Duration = Duration::from_secs(1);

/// Daypass's part of the identity configuration.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// The data plane's id. A token restored from a backup into another data plane is refused there.
    pub data_plane_id: String,
    /// The audience of callers' tokens.
    pub token_audience: String,
    /// Whether callers' tokens for the API server's own audience are accepted too.
    pub accept_api_server_audience: bool,
    /// The trusted issuers of people's ID tokens by URL, each with what identifies its mapping.
    pub issuers: BTreeMap<String, String>,
}

/// The identity configuration in force.
pub struct CurrentIdentity<'a> {
    config: &'a IdentityConfig,
    issuer: String,
}

/// The cached issuer of the API server's tokens, and when it was read.
#[derive(Debug, Default)]
pub(super) struct KnownIssuer(Option<(Instant, String)>);

impl IdentityConfig {
    /// A hash of the configuration of identities that Kubernetes authenticates. `issuer` is the API server's.
    fn fingerprint(&self, issuer: &str) -> String {
        let accepts = if self.accept_api_server_audience { "accepts the API server's" } else { "" };
        fingerprint([&self.data_plane_id, issuer, &self.token_audience, accepts])
    }
}

/// 16 hex digits of SHA-256.
fn fingerprint<const N: usize>(parts: [&str; N]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..8])
}

impl CurrentIdentity<'_> {
    /// What identifies the configuration for this owner; `None` if its issuer is not trusted, or maps claims in
    /// another way than when the owner signed in. Other issuers make no difference.
    pub fn of(&self, owner: &Owner) -> Option<String> {
        let Some(subject) = &owner.subject else { return Some(self.config.fingerprint(&self.issuer)) };
        let mapping = self.config.issuers.get(&subject.issuer).filter(|mapping| **mapping == subject.mapping)?;
        // A version that knows nothing of people's tokens refuses this one: none of its fingerprints has five parts.
        Some(fingerprint([&self.config.data_plane_id, &self.issuer, "oidc", &subject.issuer, mapping]))
    }

    /// Whether the token was created under it.
    pub fn is_of(&self, token: &AccessToken) -> bool {
        self.of(&token.owner).is_some_and(|identity| identity == token.identity)
    }
}

impl AccessTokens {
    /// The current identity configuration. Daypass refuses tokens created under another one.
    ///
    /// # Errors
    /// If the API server's issuer is unknown; then Daypass can neither accept nor refuse a token.
    pub async fn identity_now(&self) -> Result<CurrentIdentity<'_>, Error> {
        // Do not hold the lock during the call: if the API server hangs, requests must not wait for each other.
        let known = || self.issuer.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known().0.clone().filter(|(seen, _)| seen.elapsed() < ISSUER_CACHE_TTL);
        let issuer = match fresh {
            Some((_, issuer)) => issuer,
            None => {
                let issuer = self.cluster.issuer().await?;
                known().0 = Some((Instant::now(), issuer.clone()));
                issuer
            }
        };
        Ok(CurrentIdentity { config: &self.identity, issuer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access_token::Subject;
    use crate::domain::examples::token;

    #[test]
    fn fingerprint_covers_the_whole_configuration() {
        let config = IdentityConfig {
            data_plane_id: "a".into(),
            token_audience: "daypass".into(),
            accept_api_server_audience: false,
            issuers: BTreeMap::new(),
        };
        let here = config.fingerprint("https://issuer");
        assert_eq!(here, config.clone().fingerprint("https://issuer"));
        assert_ne!(here, config.fingerprint("https://issuer2"));
        for other in [
            IdentityConfig { data_plane_id: "b".into(), ..config.clone() },
            IdentityConfig { token_audience: "daypass2".into(), ..config.clone() },
            IdentityConfig { accept_api_server_audience: true, ..config.clone() },
        ] {
            assert_ne!(here, other.fingerprint("https://issuer"));
        }
    }

    #[test]
    fn fingerprint_of_service_accounts_never_changes() {
        let config = IdentityConfig {
            data_plane_id: "dp-1".into(),
            token_audience: "daypass".into(),
            accept_api_server_audience: false,
            issuers: [("https://id".to_owned(), "m".to_owned())].into(),
        };
        // As version 0.1.0 wrote it: with another one, every token in every installation would stop working.
        assert_eq!(config.fingerprint("https://kubernetes.default.svc"), "a48fae78554fa441");
    }

    #[test]
    fn person_depends_on_their_own_issuer_alone() {
        let config = |issuers: &[(&str, &str)]| IdentityConfig {
            data_plane_id: "a".into(),
            token_audience: "daypass".into(),
            accept_api_server_audience: false,
            issuers: issuers.iter().map(|(url, mapping)| ((*url).to_owned(), (*mapping).to_owned())).collect(),
        };
        let person = |issuer: &str, mapping: &str| {
            let subject = Subject { issuer: issuer.into(), subject: "s".into(), mapping: mapping.into() };
            Owner { subject: Some(subject), ..token().owner }
        };
        let of = |config: &IdentityConfig, owner: &Owner| {
            CurrentIdentity { config, issuer: "https://kubernetes".into() }.of(owner)
        };
        let (alice, bob, account) = (person("https://one", "m"), person("https://two", "n"), token().owner);
        let both = config(&[("https://one", "m"), ("https://two", "n")]);
        let before = of(&both, &alice).unwrap();
        assert_ne!(Some(&before), of(&both, &bob).as_ref());
        for changed in [config(&[("https://two", "n")]), config(&[("https://one", "other"), ("https://two", "n")])] {
            assert_eq!(of(&changed, &alice), None);
            assert_eq!(of(&changed, &bob), of(&both, &bob));
            assert_eq!(of(&changed, &account), of(&both, &account));
        }
        let elsewhere = IdentityConfig { data_plane_id: "b".into(), ..both.clone() };
        assert_ne!(of(&elsewhere, &alice), Some(before));
    }
}
