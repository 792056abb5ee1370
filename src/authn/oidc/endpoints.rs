//! Where an issuer signs people in, as its discovery document says.

use serde_json::Value;
use url::Url;

/// The endpoints of the authorization code flow (OpenID Connect Discovery 1.0, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// Where a browser is sent.
    pub(super) authorization: Url,
    /// Where Daypass redeems a code.
    pub(super) token: Url,
    /// Whether the issuer names itself in each answer (RFC 9207, section 3). Then one without its name is refused.
    pub(super) names_itself: bool,
}

impl Endpoints {
    /// Reads the discovery document.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(document: &Value) -> Result<Self, &'static str> {
        let url = |name: &str| {
            let mut url = Url::parse(document.get(name)?.as_str()?).ok()?;
            url.set_fragment(None);
            let is_plain = url.username().is_empty() && url.password().is_none();
            (url.scheme() == "https" && url.has_host() && is_plain).then_some(url)
        };
        Ok(Self {
            authorization: url("authorization_endpoint").ok_or("authorization_endpoint is missing, or not https")?,
            token: url("token_endpoint").ok_or("token_endpoint is missing, or not https")?,
            // Anything but false: a text is no reason to be less strict.
            names_itself: document
                .get("authorization_response_iss_parameter_supported")
                .is_some_and(|it| *it != Value::Bool(false) && !it.is_null()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_https() {
        let document = |login: &str, token: &str| json!({"authorization_endpoint": login, "token_endpoint": token});
        let read = Endpoints::read(&document("https://a/x?tenant=1#y", "https://b/t")).unwrap();
        assert_eq!((read.authorization.as_str(), read.token.as_str()), ("https://a/x?tenant=1", "https://b/t"));
        assert!(!read.names_itself);
        for bad in ["", "/a", "http://a/x", "javascript:alert(1)", "https://u@a/x", "https://u:p@a/x"] {
            assert!(Endpoints::read(&document(bad, "https://b/t")).is_err(), "{bad}");
            assert!(Endpoints::read(&document("https://a/x", bad)).is_err(), "{bad}");
        }
        assert!(Endpoints::read(&json!({})).is_err());
        for (said, expected) in
            [(json!(true), true), (json!("yes"), true), (json!(false), false), (json!(null), false)]
        {
            let mut document = document("https://a", "https://b");
            document["authorization_response_iss_parameter_supported"] = said;
            assert_eq!(Endpoints::read(&document).unwrap().names_itself, expected);
        }
    }
}
