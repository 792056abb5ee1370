//! Values of command line options: their types and parsers.

use crate::domain::access_token::{Scope, service_account};

/// The name of a service account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kubernetes' own terms")]
pub struct AccountName {
    pub namespace: String,
    pub name: String,
}

impl AccountName {
    /// The account's Kubernetes user name.
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// Parses NAMESPACE/NAME, or the Kubernetes user name of a service account.
pub(super) fn account_name(text: &str) -> Result<AccountName, String> {
    let parts = service_account(text).or_else(|| text.split_once('/'));
    let valid = |part: &str| !part.is_empty() && !part.contains([':', '/']);
    match parts {
        Some((namespace, name)) if valid(namespace) && valid(name) => {
            Ok(AccountName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("must be a service account as NAMESPACE/NAME".to_owned()),
    }
}

pub(super) fn scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| format!("must be one of {}", Scope::ALL.map(Scope::as_str).join(", ")))
}

/// Parses the id of a data plane. It becomes a path segment and a part of file names.
pub(super) fn data_plane_id(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let valid =
        bytes.len() <= 63 && outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|&byte| inner(byte));
    if !valid {
        let rule =
            "must be 1 to 63 letters, digits, dashes, dots and underscores, the first and last a letter or digit";
        return Err(rule.to_owned());
    }
    if ["processing", "openapi.json", "console"].contains(&text) {
        return Err("is reserved: it is a path of the API itself".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses a base URL.
pub(super) fn https_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "https" || url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err("must be an https URL without a user name or password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or fragment".to_owned());
    }
    Ok(url)
}

/// Parses the URL of a host that is the gateway's whole.
pub(super) fn https_host(text: &str) -> Result<url::Url, String> {
    let url = https_url(text)?;
    if url.path() != "/" {
        return Err("must not have a path: the host is the gateway's whole".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_account_is_accepted_by_both_names() {
        let account = AccountName { namespace: "a".into(), name: "b".into() };
        assert_eq!(account_name("a/b"), Ok(account.clone()));
        assert_eq!(account_name(&account.username()), Ok(account));
        for text in ["", "a", "/b", "a/", "a/b/c", "a:b/c", "system:serviceaccount:a"] {
            assert!(account_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn invalid_id_or_url_is_refused() {
        for id in ["", "-a", "a/b", "processing", "openapi.json", "console", &"a".repeat(64)] {
            assert!(data_plane_id(id).is_err(), "{id}");
        }
        for url in ["http://a", "https://", "a", "https://u:p@a", "https://a?b"] {
            assert!(https_url(url).is_err() && https_host(url).is_err(), "{url}");
        }
        assert!(https_host("https://a/b").is_err() && https_url("https://a/b").is_ok());
        assert!(https_host("https://a:1/").is_ok() && https_host("https://a").is_ok());
    }
}
