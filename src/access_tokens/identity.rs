//! The identity configuration that a token is valid for: data plane, issuer and accepted audiences.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::AccessTokens;
use crate::cluster::Error;
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
}

/// The cached issuer of the API server's tokens, and when it was read.
#[derive(Debug, Default)]
pub(super) struct KnownIssuer(Option<(Instant, String)>);

impl IdentityConfig {
    /// A hash of the whole configuration: 16 hex digits of SHA-256.
    fn fingerprint(&self, issuer: &str) -> String {
        let mut hash = Sha256::new();
        let accepts = if self.accept_api_server_audience { "accepts the API server's" } else { "" };
        for part in [&self.data_plane_id, issuer, &self.token_audience, accepts] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex(&hash.finalize()[..8])
    }
}

impl AccessTokens {
    /// The fingerprint of the current identity configuration. Daypass refuses tokens created under another one.
    ///
    /// # Errors
    /// If the API server's issuer is unknown; then Daypass can neither accept nor refuse a token.
    pub async fn identity_now(&self) -> Result<String, Error> {
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
        Ok(self.identity.fingerprint(&issuer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_covers_the_whole_configuration() {
        let config = IdentityConfig {
            data_plane_id: "a".into(),
            token_audience: "daypass".into(),
            accept_api_server_audience: false,
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
}
