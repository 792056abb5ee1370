//! Daypass as a client of an issuer: what it needs so that people can sign in to the web console.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

/// The longest name of an issuer with a console client: its name is in the redirect URI.
const MAX_NAME: usize = 63;
/// The longest file with a client's secret, in bytes.
const MAX_SECRET: usize = 4096;

/// Daypass's client at an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsoleClient {
    /// Its id, which is the audience of the ID tokens that it gets.
    pub client_id: String,
    /// The file with its secret; `None` for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// What it asks for beside `openid`.
    #[serde(default)]
    pub scopes: Vec<String>,
}

impl ConsoleClient {
    /// Checks the settings of an issuer's client. `name` is the issuer's, `audiences` are whom its tokens may be for.
    ///
    /// # Errors
    /// The first rule that they break.
    pub(super) fn check(&self, name: &str, audiences: &[String]) -> Result<(), String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.len() > MAX_NAME || name.starts_with('-') || name.ends_with('-') || !name.bytes().all(is_plain) {
            return Err("console: the name is part of the redirect URI: at most 63 of a-z, 0-9 and -".to_owned());
        }
        if !audiences.contains(&self.client_id) {
            return Err("console.clientId must be one of audiences, or its ID tokens would be refused".to_owned());
        }
        // RFC 6749, section 3.3.
        let is_scope_byte = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        let is_scope = |scope: &String| !scope.is_empty() && scope.bytes().all(is_scope_byte);
        if !self.scopes.iter().all(is_scope) {
            return Err("console.scopes: each is one scope, without spaces and quotes".to_owned());
        }
        if self.scopes.iter().any(|scope| scope == "offline_access") {
            return Err("console.scopes: no offline_access, since Daypass keeps no refresh token".to_owned());
        }
        Ok(())
    }

    /// The parameter `scope` of a sign-in.
    pub(super) fn scope(&self) -> String {
        let more = self.scopes.iter().filter(|scope| *scope != "openid");
        more.fold("openid".to_owned(), |all, scope| format!("{all} {scope}"))
    }

    /// The client's secret; `None` for a public client. The file is read each time: a new secret needs no restart. A
    /// newline at its end is no part of it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no secret.
    pub fn secret(&self) -> anyhow::Result<Option<SecretString>> {
        let Some(file) = &self.client_secret_file else { return Ok(None) };
        let of = || format!("the client secret in {}", file.display());
        let text = SecretString::from(fs::read_to_string(file).with_context(of)?);
        let secret = secret(text.expose_secret()).with_context(|| format!("{}: it is empty, or too long", of()))?;
        Ok(Some(secret))
    }
}

/// The secret in a file's text.
fn secret(text: &str) -> Option<SecretString> {
    let secret = text.trim_end_matches(['\r', '\n']);
    (1..=MAX_SECRET).contains(&secret.len()).then(|| secret.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Issuers;
    use super::*;

    fn read(name: &str, console: &Value) -> Result<Issuers, String> {
        let settings = json!({
            "name": name, "url": "https://id.example.com", "audiences": ["daypass", "other"], "usernameClaim": "sub",
            "usernamePrefix": "corp:", "console": console,
        });
        Issuers::read(&json!([settings])).map_err(|error| error.to_string())
    }

    #[test]
    fn client_has_defaults() {
        let issuers = read("corp", &json!({"clientId": "daypass"})).unwrap();
        let client = issuers.iter().next().unwrap().console.clone().unwrap();
        assert_eq!((client.scope().as_str(), client.secret().unwrap().is_none()), ("openid", true));
        let issuers = read("corp", &json!({"clientId": "other", "scopes": ["email", "openid", "a:b/c"]})).unwrap();
        assert_eq!(issuers.iter().next().unwrap().console.clone().unwrap().scope(), "openid email a:b/c");
    }

    #[test]
    fn client_that_could_not_sign_anybody_in_is_refused() {
        for (console, reason) in [
            (json!({}), "missing field"),
            (json!({"clientId": "cli"}), "console.clientId must be one of audiences"),
            (json!({"clientId": ""}), "console.clientId must be one of audiences"),
            (json!({"clientId": "daypass", "clientSecret": "s"}), "unknown field"),
            (json!({"clientId": "daypass", "scopes": ["a b"]}), "console.scopes"),
            (json!({"clientId": "daypass", "scopes": [""]}), "console.scopes"),
            (json!({"clientId": "daypass", "scopes": ["ä"]}), "console.scopes"),
            (json!({"clientId": "daypass", "scopes": "email"}), "invalid type"),
            (json!({"clientId": "daypass", "scopes": ["offline_access"]}), "no offline_access"),
        ] {
            let said = read("corp", &console).unwrap_err();
            assert!(said.starts_with("oidc.issuers[0]: ") && said.contains(reason), "{console}: {said}");
        }
        for name in ["Corp", "a/b", "a.b", "-a", "a-", "a b", &"a".repeat(64)] {
            let said = read(name, &json!({"clientId": "daypass"})).unwrap_err();
            assert!(said.contains("redirect URI"), "{name}: {said}");
        }
    }

    #[test]
    fn mapping_of_people_does_not_depend_on_the_client() {
        let mapping = |console: &Value| read("corp", console).unwrap().iter().next().unwrap().mapping.clone();
        let one = mapping(&json!({"clientId": "daypass"}));
        assert_eq!(one, mapping(&json!({"clientId": "other", "scopes": ["email"], "clientSecretFile": "/x"})));
        assert_eq!(one, mapping(&Value::Null));
    }

    #[test]
    fn secret_is_the_text_of_a_file() {
        for (text, expected) in [("s3cret\n", "s3cret"), (" a b \r\n", " a b "), ("s", "s")] {
            assert_eq!(secret(text).unwrap().expose_secret(), expected);
        }
        for text in ["", "\n", &"s".repeat(MAX_SECRET + 1)] {
            assert!(secret(text).is_none(), "{}", text.len());
        }
        let client =
            ConsoleClient { client_id: "a".to_owned(), client_secret_file: Some("/none".into()), scopes: Vec::new() };
        assert_eq!(client.secret().unwrap_err().to_string(), "the client secret in /none");
    }
}
