//! Redeems an authorization code (RFC 6749, section 4.1.3) for an ID token.

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::fetch::{roots, send};
use super::{Attempt, ConsoleClient, Issuer};

/// How long the issuer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much of the issuer's own error code the log repeats, in characters.
const MAX_ERROR: usize = 40;

/// An answer of the token endpoint. The access token in it is of no use to Daypass, and not even read.
#[derive(Deserialize)]
struct Tokens {
    id_token: Option<SecretString>,
}

/// A refusal (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// Asks the issuer's token endpoint for the ID token of this code; `None` if it refuses the code.
///
/// # Errors
/// If it does not answer, or refuses Daypass itself.
pub(super) async fn redeem(
    issuer: &Issuer,
    client: &ConsoleClient,
    endpoint: &Url,
    attempt: &Attempt,
    code: &SecretString,
) -> anyhow::Result<Option<SecretString>> {
    let secret = client.secret()?;
    let mut request = Request::post("/").header(ACCEPT, "application/json");
    request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(secret) = &secret {
        request = request.header(AUTHORIZATION, basic(&client.client_id, secret)?);
    }
    let public = secret.is_none().then_some(client.client_id.as_str());
    let roots = roots(issuer)?;
    let asked = send(endpoint, &roots, request, form(attempt, code, public));
    let (status, body) = tokio::time::timeout(TIMEOUT, asked).await.context("it took too long to answer")??;
    if status == StatusCode::OK {
        // Not the parser's own words, which can quote a value.
        let Ok(tokens) = serde_json::from_slice::<Tokens>(&body) else { bail!("its answer cannot be read") };
        return Ok(Some(tokens.id_token.context("its answer has no id_token")?));
    }
    match serde_json::from_slice::<ErrorAnswer>(&body) {
        Ok(ErrorAnswer { error }) if error == "invalid_grant" => Ok(None),
        Ok(ErrorAnswer { error }) => bail!("it answered {status}: {}", shown(&error)),
        Err(_) => bail!("it answered {status}"),
    }
}

/// The request's body. A public client names itself in it.
fn form(attempt: &Attempt, code: &SecretString, client: Option<&str>) -> Vec<u8> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code");
    form.append_pair("code", code.expose_secret());
    form.append_pair("redirect_uri", &attempt.redirect_uri);
    form.append_pair("code_verifier", attempt.verifier.expose_secret());
    form.extend_pairs(client.map(|id| ("client_id", id)));
    form.finish().into_bytes()
}

/// An error code for the log: those of the RFCs are lowercase words. Anything else is not repeated.
pub(super) fn shown(error: &str) -> &str {
    let is_code = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if error.len() <= MAX_ERROR && is_code(error) { error } else { "an error of its own" }
}

/// The client's own credentials, encoded twice, as RFC 6749, section 2.3.1, has it.
fn basic(id: &str, secret: &SecretString) -> anyhow::Result<HeaderValue> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = SecretString::from(format!("{}:{}", encoded(id), encoded(secret.expose_secret())));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.expose_secret())))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_encoded_as_a_form_is() {
        let value = basic("day pass:1", &"ü+%/".to_owned().into()).unwrap();
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"day+pass%3A1:%C3%BC%2B%25%2F");
    }

    #[test]
    fn only_plain_error_codes_are_repeated() {
        assert_eq!(shown("invalid_client"), "invalid_client");
        for text in ["Invalid", "a b", "x=1", "<b>", &"a".repeat(41)] {
            assert_eq!(shown(text), "an error of its own", "{text}");
        }
    }
}
