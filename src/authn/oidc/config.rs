//! The issuers that Daypass trusts, shaped like `jwt[]` of Kubernetes' AuthenticationConfiguration, without CEL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::ConsoleClient;
use crate::domain::access_token::{Subject, is_reserved};
use crate::domain::hex::hex;
use crate::domain::lifetime::MembershipDuration;

/// How old a token may be at most, by default.
const MAX_TOKEN_AGE: TimeDelta = TimeDelta::hours(1);
/// The hosts of issuers at which anybody can get a token. Without a claim that tells one's own people, all of them
/// would be let in.
const OPEN: [&str; 12] = [
    "accounts.google.com",
    "appleid.apple.com",
    "github.com",
    "gitlab.com",
    "id.heroku.com",
    "id.twitch.tv",
    "limited.facebook.com",
    "securetoken.google.com",
    "slack.com",
    "token.actions.githubusercontent.com",
    "www.facebook.com",
    "www.linkedin.com",
];
/// The tenant of everybody's private accounts at Microsoft.
const MICROSOFT_ACCOUNTS: &str = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/";
/// Claims that do not tell one's own people: each has a rule of its own.
const TELLING_NOTHING: [&str; 6] = ["iss", "aud", "azp", "sub", "email_verified", "typ"];
/// The host of Entra ID's old tokens, of which those of applications look like those of people.
const ENTRA_V1: &str = "sts.windows.net";

/// The trusted issuers, by their URL.
#[derive(Debug, Clone, Default)]
pub struct Issuers(BTreeMap<String, Issuer>);

/// A trusted issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name in logs, metrics and the audit trail.
    pub name: String,
    /// What the claim `iss` must be, byte for byte.
    pub url: String,
    /// Where its discovery document is.
    pub discovery_url: String,
    /// Whom its tokens may be for: one of them.
    pub audiences: BTreeSet<String>,
    /// Other clients that may have asked for a token (`azp`).
    pub authorized_parties: BTreeSet<String>,
    /// The claim that names the user.
    pub username_claim: String,
    /// What is put before it.
    pub username_prefix: String,
    /// The claim that names the groups.
    pub groups_claim: Option<String>,
    /// What is put before each.
    pub groups_prefix: String,
    /// The claim with the user's UID.
    pub uid_claim: Option<String>,
    /// Claims that must have these values.
    pub required_claims: BTreeMap<String, String>,
    /// What `email_verified` must be if the e-mail address names the user.
    pub email_verified: EmailVerified,
    /// How old a token may be.
    pub max_token_age: TimeDelta,
    /// The CAs that its certificate must come from, PEM; `None` for Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Daypass's client there, if people sign in to the web console with this issuer.
    pub console: Option<ConsoleClient>,
    /// Identifies all that decides whom its tokens name: 16 hex digits of SHA-256. Its CA, its clients and the ages of
    /// its tokens do not.
    pub mapping: String,
}

/// What `email_verified` must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EmailVerified {
    /// True.
    #[default]
    Required,
    /// True, or absent: the API server's rule.
    IfPresent,
}

/// Why the configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("oidc.issuers{of}: {why}")]
pub struct InvalidConfig {
    of: String,
    why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Settings {
    name: String,
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    audiences: Vec<String>,
    #[serde(default)]
    authorized_parties: Vec<String>,
    username_claim: String,
    username_prefix: Option<String>,
    groups_claim: Option<String>,
    groups_prefix: Option<String>,
    uid_claim: Option<String>,
    #[serde(default)]
    required_claims: BTreeMap<String, String>,
    #[serde(default)]
    email_verified: EmailVerified,
    max_token_age: Option<MembershipDuration>,
    #[serde(default)]
    unprefixed: bool,
    ca_file: Option<PathBuf>,
    console: Option<ConsoleClient>,
}

impl Issuer {
    /// The person with this `sub`.
    pub fn subject(&self, subject: &str) -> Subject {
        Subject { issuer: self.url.clone(), subject: subject.to_owned(), mapping: self.mapping.clone() }
    }

    fn mapping(&self) -> String {
        let parts = serde_json::json!([
            self.url,
            self.username_claim,
            self.username_prefix,
            self.groups_claim,
            self.groups_prefix,
            self.uid_claim,
            self.required_claims,
            self.email_verified == EmailVerified::Required,
        ]);
        hex(&Sha256::digest(parts.to_string())[..8])
    }
}

impl InvalidConfig {
    fn new(index: usize, why: impl Into<String>) -> Self {
        Self { of: format!("[{index}]"), why: why.into() }
    }
}

impl Issuers {
    /// Reads a list of issuers.
    ///
    /// # Errors
    /// The first rule that it breaks, with the issuer's place in the list.
    pub fn read(list: &Value) -> Result<Self, InvalidConfig> {
        let all = |why: &str| InvalidConfig { of: String::new(), why: why.to_owned() };
        let list = list.as_array().ok_or_else(|| all("must be a list"))?;
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, settings) in list.iter().enumerate() {
            let issuer = read(settings, list.len()).map_err(|why| InvalidConfig::new(index, why))?;
            for other in &issuers {
                check_apart(&issuer, other).map_err(|why| InvalidConfig::new(index, why))?;
            }
            issuers.push(issuer);
        }
        Ok(Self(issuers.into_iter().map(|issuer| (issuer.url.clone(), issuer)).collect()))
    }

    /// The issuer of this URL.
    pub fn get(&self, url: &str) -> Option<&Issuer> {
        self.0.get(url)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Issuer> {
        self.0.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn read(settings: &Value, count: usize) -> Result<Issuer, String> {
    if mentions_expression(settings) {
        return Err("expressions (CEL) are not supported: name a claim".to_owned());
    }
    let it: Settings = serde_json::from_value(settings.clone()).map_err(|error| error.to_string())?;
    let url = check_url("url", &it.url)?;
    if url.host_str() == Some(ENTRA_V1) {
        return Err("Entra ID's v1.0 tokens do not say whether they are ID tokens: use the v2.0 endpoint".to_owned());
    }
    if let Some(name) = it.required_claims.keys().find(|name| TELLING_NOTHING.contains(&name.as_str())) {
        return Err(format!("requiredClaims: {name} has a rule of its own"));
    }
    let discovery_url = match it.discovery_url {
        Some(url) => url,
        None => format!("{}/.well-known/openid-configuration", it.url.trim_end_matches('/')),
    };
    check_url("discoveryURL", &discovery_url)?;
    let filled = |name: &str, text: &str| if text.is_empty() { Err(format!("{name} is empty")) } else { Ok(()) };
    filled("name", &it.name)?;
    filled("usernameClaim", &it.username_claim)?;
    if it.audiences.is_empty() || it.audiences.iter().chain(&it.authorized_parties).any(String::is_empty) {
        return Err("audiences names at least one client, and no entry is empty".to_owned());
    }
    it.console.iter().try_for_each(|client| client.check(&it.name, &it.audiences))?;
    let username_prefix = it.username_prefix.ok_or("usernamePrefix is required; it is the API server's")?;
    let groups_prefix = match (&it.groups_claim, it.groups_prefix) {
        (Some(_), None) => return Err("groupsPrefix is required with groupsClaim; it is the API server's".to_owned()),
        (_, prefix) => prefix.unwrap_or_default(),
    };
    let has_empty = username_prefix.is_empty() || it.groups_claim.is_some() && groups_prefix.is_empty();
    if has_empty && !(it.unprefixed && count == 1) {
        return Err("an empty prefix needs `unprefixed: true` and no other issuer".to_owned());
    }
    if [&username_prefix, &groups_prefix].iter().any(|prefix| is_reserved(prefix)) {
        return Err("a prefix must not begin with system:, which is Kubernetes' own".to_owned());
    }
    let is_open = url.host_str().is_some_and(|host| OPEN.contains(&host)) || it.url.starts_with(MICROSOFT_ACCOUNTS);
    if is_open && it.required_claims.is_empty() {
        return Err("anybody can get a token of this issuer: requiredClaims must tell your own people".to_owned());
    }
    let mut issuer = Issuer {
        name: it.name,
        url: it.url,
        discovery_url,
        audiences: it.audiences.into_iter().collect(),
        authorized_parties: it.authorized_parties.into_iter().collect(),
        username_claim: it.username_claim,
        username_prefix,
        groups_claim: it.groups_claim,
        groups_prefix,
        uid_claim: it.uid_claim,
        required_claims: it.required_claims,
        email_verified: it.email_verified,
        max_token_age: it.max_token_age.map_or(MAX_TOKEN_AGE, MembershipDuration::get),
        ca_file: it.ca_file,
        console: it.console,
        mapping: String::new(),
    };
    issuer.mapping = issuer.mapping();
    Ok(issuer)
}

/// Whether a field is one of Kubernetes' CEL expressions.
fn mentions_expression(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let name = name.to_ascii_lowercase();
            name.ends_with("expression") || name == "claimvalidationrules" || mentions_expression(value)
        }),
        Value::Array(items) => items.iter().any(mentions_expression),
        _ => false,
    }
}

fn check_url(field: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{field}: {error}"))?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    let is_bare = url.query().is_none() && url.fragment().is_none();
    if url.scheme() == "https" && url.has_host() && is_plain && (is_bare || field == "discoveryURL") {
        return Ok(url);
    }
    Err(format!("{field} must be https, without user and query"))
}

/// Nobody of one issuer may be taken for somebody of another.
fn check_apart(issuer: &Issuer, other: &Issuer) -> Result<(), String> {
    if issuer.name == other.name || issuer.url == other.url {
        return Err(format!("another issuer has the same name or url: {}", other.name));
    }
    let begins = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
    if begins(&issuer.username_prefix, &other.username_prefix) {
        return Err(format!("usernamePrefix: one of it and that of {} begins with the other", other.name));
    }
    let both = issuer.groups_claim.is_some() && other.groups_claim.is_some();
    if both && begins(&issuer.groups_prefix, &other.groups_prefix) {
        return Err(format!("groupsPrefix: one of it and that of {} begins with the other", other.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(changes: &Value) -> Value {
        let mut settings = json!({
            "name": "corp", "url": "https://id.example.com/", "audiences": ["daypass"], "usernameClaim": "email",
            "usernamePrefix": "corp:", "groupsClaim": "groups", "groupsPrefix": "corp:",
        });
        for (name, value) in changes.as_object().unwrap() {
            settings[name] = value.clone();
        }
        settings
    }

    fn refused(changes: &Value) -> String {
        Issuers::read(&json!([settings(changes)])).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn issuer_has_defaults() {
        let issuers = Issuers::read(&json!([settings(&json!({}))])).unwrap();
        let issuer = issuers.get("https://id.example.com/").unwrap();
        assert_eq!(issuer.discovery_url, "https://id.example.com/.well-known/openid-configuration");
        assert_eq!((issuer.max_token_age, issuer.email_verified), (TimeDelta::hours(1), EmailVerified::Required));
        assert!(issuers.get("https://id.example.com").is_none(), "byte for byte");
        let other = settings(&json!({"maxTokenAge": "10m", "emailVerified": "ifPresent"}));
        let issuers = Issuers::read(&json!([other])).unwrap();
        let issuer = issuers.iter().next().unwrap();
        assert_eq!((issuer.max_token_age, issuer.email_verified), (TimeDelta::minutes(10), EmailVerified::IfPresent));
    }

    #[test]
    fn what_would_weaken_it_is_refused() {
        for (changes, reason) in [
            (json!({"url": "http://id.example.com"}), "must be https"),
            (json!({"url": "https://a@id.example.com"}), "must be https"),
            (json!({"url": "https://id.example.com?a=b"}), "must be https"),
            (json!({"discoveryURL": "http://id.example.com/a"}), "discoveryURL must be https"),
            (json!({"audiences": []}), "at least one client"),
            (json!({"audiences": [""]}), "at least one client"),
            (json!({"authorizedParties": [""]}), "no entry is empty"),
            (json!({"usernamePrefix": null}), "usernamePrefix is required"),
            (json!({"groupsPrefix": null}), "groupsPrefix is required"),
            (json!({"usernamePrefix": ""}), "unprefixed: true"),
            (json!({"groupsPrefix": ""}), "unprefixed: true"),
            (json!({"usernamePrefix": "system:"}), "Kubernetes' own"),
            (json!({"groupsPrefix": "system:a"}), "Kubernetes' own"),
            (json!({"usernameClaim": ""}), "usernameClaim is empty"),
            (json!({"usernameExpression": "claims.sub"}), "expressions (CEL)"),
            (json!({"claimMappings": {"username": {"expression": "claims.sub"}}}), "expressions (CEL)"),
            (json!({"claimValidationRules": []}), "expressions (CEL)"),
            (json!({"usernamClaim": "sub"}), "unknown field"),
            (json!({"emailVerified": "never"}), "unknown variant"),
            (json!({"maxTokenAge": "0s"}), "longer than zero"),
            (json!({"url": "https://accounts.google.com"}), "requiredClaims must tell"),
            (json!({"url": "https://securetoken.google.com/project"}), "requiredClaims must tell"),
            (json!({"url": format!("{MICROSOFT_ACCOUNTS}v2.0")}), "requiredClaims must tell"),
            (json!({"requiredClaims": {"iss": "https://id.example.com/"}}), "iss has a rule of its own"),
            (json!({"url": "https://sts.windows.net/tenant/"}), "v2.0 endpoint"),
        ] {
            let said = refused(&changes);
            assert!(said.starts_with("oidc.issuers[0]: ") && said.contains(reason), "{changes}: {said}");
        }
        assert_eq!(
            refused(&json!({"url": "https://accounts.google.com", "requiredClaims": {"hd": "example.com"}})),
            ""
        );
        assert_eq!(refused(&json!({"usernamePrefix": "", "unprefixed": true})), "");
        assert_eq!(refused(&json!({"groupsClaim": null, "groupsPrefix": null})), "");
    }

    #[test]
    fn issuers_are_kept_apart() {
        let second = |changes: Value| {
            let mut other = settings(&json!({
                "name": "two", "url": "https://two.example.com", "usernamePrefix": "two:", "groupsPrefix": "two:",
            }));
            for (name, value) in changes.as_object().unwrap() {
                other[name] = value.clone();
            }
            let read = Issuers::read(&json!([settings(&json!({})), other]));
            read.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(second(json!({})), "");
        for (changes, reason) in [
            (json!({"name": "corp"}), "the same name or url"),
            (json!({"url": "https://id.example.com/"}), "the same name or url"),
            (json!({"usernamePrefix": "corp:"}), "usernamePrefix"),
            (json!({"usernamePrefix": "corp:a:"}), "usernamePrefix"),
            (json!({"usernamePrefix": "co"}), "usernamePrefix"),
            (json!({"groupsPrefix": "corp:x"}), "groupsPrefix"),
            (json!({"usernamePrefix": "", "unprefixed": true}), "unprefixed: true"),
        ] {
            let said = second(changes.clone());
            assert!(said.starts_with("oidc.issuers[1]: ") && said.contains(reason), "{changes}: {said}");
        }
        assert!(Issuers::read(&json!({})).unwrap_err().to_string().contains("must be a list"));
        assert!(Issuers::read(&json!([])).unwrap().is_empty());
    }
}
