//! People sign in with a browser: the authorization code flow (OpenID Connect Core 1.0, section 3.1) with PKCE (RFC
//! 7636).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::redeem::{redeem, shown};
use super::{ConsoleClient, IdToken, Issuer, People, Refused, Trusted, claims};
use crate::authn::{Authenticator, Digest, Refusal};
use crate::observability::audit::Origin;
use crate::observability::oidc_metrics::Redemption;

/// A sign-in that a browser has begun.
pub struct Attempt {
    /// The issuer's name.
    pub issuer: String,
    /// Where the issuer sends the browser back to.
    pub redirect_uri: String,
    /// Ties the answer to this browser.
    pub state: SecretString,
    /// Ties the ID token to this attempt.
    pub nonce: SecretString,
    /// Ties the code to this attempt (RFC 7636, section 4.1).
    pub verifier: SecretString,
    /// When it began, if the person has to sign in anew, even if the issuer still knows the browser.
    pub anew_since: Option<DateTime<Utc>>,
}

impl People {
    /// The names of the issuers with which people can sign in to the console.
    pub fn console_issuers(&self) -> impl Iterator<Item = &str> {
        let names = self.trusted.values().filter(|trusted| trusted.issuer.console.is_some());
        names.map(|trusted| trusted.issuer.name.as_str())
    }

    /// The issuer of this name, if people can sign in to the console with it.
    pub fn console_issuer(&self, name: &str) -> Option<&Issuer> {
        self.of_console(name).map(|(trusted, _)| &*trusted.issuer)
    }

    /// Where to send the browser (OpenID Connect Core 1.0, section 3.1.2.1); `None` if the issuer has not said so for
    /// an hour.
    pub fn authorization_url(&self, attempt: &Attempt) -> Option<Url> {
        let (trusted, client) = self.of_console(&attempt.issuer)?;
        let mut url = trusted.keys.endpoints()?.authorization;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(attempt.verifier.expose_secret()));
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &client.client_id),
            ("redirect_uri", &attempt.redirect_uri),
            ("scope", &client.scope()),
            ("state", attempt.state.expose_secret()),
            ("nonce", attempt.nonce.expose_secret()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        if attempt.anew_since.is_some() {
            url.query_pairs_mut().append_pair("prompt", "login").append_pair("max_age", "0");
        }
        Some(url)
    }

    /// Whether an answer with this `iss` (RFC 9207, section 2.4) can be the issuer's; `None` is one without.
    pub fn is_answer_of(&self, name: &str, named: Option<&str>) -> bool {
        let Some((trusted, _)) = self.of_console(name) else { return false };
        match named {
            Some(named) => named == trusted.issuer.url,
            None => trusted.keys.endpoints().is_none_or(|endpoints| !endpoints.names_itself),
        }
    }

    fn of_console(&self, name: &str) -> Option<(&Trusted, &ConsoleClient)> {
        let trusted = self.trusted.values().find(|trusted| trusted.issuer.name == name)?;
        Some((trusted, trusted.issuer.console.as_ref()?))
    }

    /// The ID token of this code, if it is the answer to this attempt. Its signature and whom it names are not
    /// verified yet: it is for whoever authenticates by it.
    async fn redeem(&self, attempt: &Attempt, code: &SecretString) -> Result<Option<SecretString>, Refusal> {
        let Some((Trusted { issuer, keys, redeeming }, client)) = self.of_console(&attempt.issuer) else {
            return Ok(None);
        };
        let endpoints = keys.endpoints().ok_or(Refusal::IssuerUnavailable)?;
        let _place = redeeming.try_acquire().map_err(|_| Refusal::IssuerUnavailable)?;
        let redeemed = redeem(issuer, client, &endpoints.token, attempt, code).await;
        let checked = redeemed.map(|token| {
            let token = token.ok_or(Refused::Code)?;
            let read = IdToken::read(token.expose_secret());
            let (nonce, since) = (attempt.nonce.expose_secret(), attempt.anew_since);
            read.and_then(|it| claims::check_login(&it, issuer, &client.client_id, nonce, since)).map(|()| token)
        });
        self.metrics.redeemed(
            &issuer.name,
            match &checked {
                Ok(Ok(_)) => Redemption::Redeemed,
                Ok(Err(_)) => Redemption::Refused,
                Err(_) => Redemption::Failed,
            },
        );
        match checked {
            Ok(Ok(token)) => Ok(Some(token)),
            Ok(Err(why)) => {
                tracing::info!(issuer = issuer.name, reason = %why, "a sign-in with the console was refused");
                Ok(None)
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(issuer = issuer.name, error, "the code of a sign-in could not be redeemed");
                Err(Refusal::IssuerUnavailable)
            }
        }
    }
}

impl Authenticator {
    /// Redeems the code of a sign-in for its ID token, whose signature is not verified yet.
    ///
    /// # Errors
    /// The reason for the refusal. A refused code is counted and recorded, like any other credential.
    pub async fn redeem(
        &self,
        attempt: &Attempt,
        code: &SecretString,
        origin: &Origin,
    ) -> Result<SecretString, Refusal> {
        let digest = Digest::of([b"code", attempt.issuer.as_bytes(), code.expose_secret().as_bytes()]);
        let redeemed = self.check(digest, origin, self.people.redeem(attempt, code)).await?;
        redeemed.ok_or_else(|| self.refuse(Refusal::Refused, origin))
    }
}

/// Writes an issuer's own error (OpenID Connect Core 1.0, section 3.1.2.6) to the log, if it is one of a known form.
pub fn log_error(issuer: &str, error: &str) {
    tracing::info!(issuer, error = shown(error), "an issuer did not sign somebody in");
}
