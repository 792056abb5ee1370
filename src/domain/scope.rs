//! The scopes of access tokens.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
pub enum Scope {
    #[serde(rename = "members:read")]
    MembersRead,
    #[serde(rename = "members:write")]
    MembersWrite,
    #[serde(rename = "tokens:read")]
    TokensRead,
    #[serde(rename = "tokens:write")]
    TokensWrite,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::MembersRead, Self::MembersWrite, Self::TokensRead, Self::TokensWrite];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MembersRead => "members:read",
            Self::MembersWrite => "members:write",
            Self::TokensRead => "tokens:read",
            Self::TokensWrite => "tokens:write",
        }
    }

    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// Written by hand: for a value that is not a string, serde's derive reports invalid JSON instead of a wrong value.
impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("must be one of {}", names())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_has_the_same_name_everywhere() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(serde_json::from_value::<Scope>(scope.as_str().into()).unwrap(), scope);
        }
    }

    #[test]
    fn unknown_scope_is_a_data_error_that_does_not_repeat_the_text() {
        for text in ["null", "7", r#""secret""#, "[]"] {
            let error = serde_json::from_str::<Scope>(text).unwrap_err();
            assert!(error.is_data() && !error.to_string().contains("secret"), "{text}: {error}");
        }
    }
}
