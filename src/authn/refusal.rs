//! The reasons for not authenticating a request.

use std::time::Duration;

use crate::cluster::Error;

/// Why a request was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request has no credentials.
    #[error("no credentials")]
    NoCredentials,
    /// The Authorization header cannot be parsed.
    #[error("the Authorization header cannot be parsed")]
    Malformed,
    /// The credential is wrong, expired or not accepted here. The client is not told which.
    #[error("the credential was refused")]
    Refused,
    /// It is an access token, and those are disabled.
    #[error("access tokens are disabled")]
    AccessTokensDisabled,
    /// A page of another site made the browser send it.
    #[error("sent for a page of another site")]
    CrossSite,
    /// The address sent too many wrong credentials.
    #[error("too many refused credentials")]
    TooManyAttempts {
        /// How long to wait before the next attempt.
        wait: Duration,
    },
    /// The caller was denied too often.
    #[error("too many denied requests")]
    TooManyDenials {
        /// How long to wait before the next attempt.
        wait: Duration,
    },
    /// Too many credentials from flooding addresses wait to be checked.
    #[error("too many credentials wait to be checked")]
    Busy,
    /// The caller has too many requests in progress.
    #[error("too many requests in progress")]
    TooManyRequests,
    /// The issuer of the ID token does not answer, or was asked about an unknown key a moment ago.
    #[error("the issuer of the ID token does not answer")]
    IssuerUnavailable,
    /// The API server is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Error),
}

impl Refusal {
    /// The stable code for the audit trail; `None` if no decision was made.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoCredentials => "DP_ERR_NO_CREDENTIALS",
            Self::Malformed => "DP_ERR_MALFORMED_AUTHORIZATION",
            Self::Refused => "DP_ERR_CREDENTIAL_REFUSED",
            Self::AccessTokensDisabled => "DP_ERR_TOKEN_AUTHENTICATION_DISABLED",
            Self::CrossSite => "DP_ERR_CROSS_SITE",
            Self::TooManyAttempts { .. } => "DP_ERR_TOO_MANY_ATTEMPTS",
            Self::TooManyDenials { .. } => "DP_ERR_TOO_MANY_DENIALS",
            Self::Busy | Self::TooManyRequests | Self::IssuerUnavailable | Self::Unavailable(_) => return None,
        })
    }
}
