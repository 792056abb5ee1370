//! The scopes of access tokens.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::MembersRead, Self::MembersWrite, Self::TokensRead, Self::TokensWrite];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MembersRead => "members:read",
            Self::MembersWrite => "members:write",
            Self::TokensRead => "tokens:read",
            Self::TokensWrite => "tokens:write",
        }
    }

    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// From a text alone: serde takes what else is in the place of a name for broken JSON.
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
    fn a_scope_has_one_name() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(serde_json::from_value::<Scope>(scope.as_str().into()).unwrap(), scope);
        }
    }

    #[test]
    fn what_is_no_scope_is_valid_json_all_the_same_and_is_not_repeated() {
        for text in ["null", "7", r#""secret""#, "[]"] {
            let error = serde_json::from_str::<Scope>(text).unwrap_err();
            assert!(error.is_data() && !error.to_string().contains("secret"), "{text}: {error}");
        }
    }
}
