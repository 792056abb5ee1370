//! What the identities behind tokens rest on: the API server's issuer and Daypass's audience.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::AccessTokens;
use crate::cluster::Error;

/// How long the API server's issuer is believed, so that many requests cost few questions: it changes only when the API server is restarted.
const BELIEVED: Duration = Duration::from_secs(1);

/// Daypass's part of the identity configuration.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// The data plane: a token that was restored into another is none there.
    pub data_plane_id: String,
    /// The audience of callers' tokens.
    pub token_audience: String,
    /// Whether those for the API server are accepted too.
    pub accept_api_server_audience: bool,
}

/// The issuer of the API server's tokens, as it was last seen.
#[derive(Debug, Default)]
pub(super) struct KnownIssuer(Option<(Instant, String)>);

impl IdentityConfig {
    /// Names the whole configuration.
    fn fingerprint(&self, issuer: &str) -> String {
        let mut hash = Sha256::new();
        let accepts = if self.accept_api_server_audience { "accepts the API server's" } else { "" };
        for part in [&self.data_plane_id, issuer, &self.token_audience, accepts] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl AccessTokens {
    /// Names the identity configuration in force. A token that was made under another is refused.
    ///
    /// # Errors
    /// When the API server does not say who issues its tokens: then no token can be decided on.
    pub async fn identity_now(&self) -> Result<String, Error> {
        // Not held while the API server is asked: where it hangs, no request waits for another's question.
        let known = || self.issuer.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known().0.clone().filter(|(seen, _)| seen.elapsed() < BELIEVED);
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
    fn each_part_of_the_configuration_counts() {
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
