//! Access tokens in JSON.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::fields::{Days, Time};
use crate::api::problem::Problem;
use crate::domain::access_token::{AccessToken, Scope, TokenSecret};
use crate::domain::lifetime::rfc3339;

/// The identity that a token acts as.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = TokenOwner)]
pub struct OwnerView {
    /// The Kubernetes user name.
    #[schema(example = "system:serviceaccount:default:data-plane-owner")]
    pub username: String,
    /// The issuer of its ID tokens, if it is a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub issuer: Option<String>,
    /// Who it is at that issuer: the claim `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub subject: Option<String>,
}

impl OwnerView {
    pub(in crate::api) fn new(token: &AccessToken) -> Self {
        let person = token.owner.subject.as_ref();
        Self {
            username: token.owner.username.clone(),
            issuer: person.map(|person| person.issuer.clone()),
            subject: person.map(|person| person.subject.clone()),
        }
    }
}

/// Whether a token that has not ended is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenStatus {
    /// It is accepted.
    Active,
    /// It is refused: it was created under another identity configuration, or its owner may no longer own tokens.
    Suspended,
}

impl TokenStatus {
    /// The status as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
        }
    }
}

/// An access token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AccessToken)]
pub struct TokenView {
    /// The token's id, which is part of the token.
    #[schema(example = "9x4kq2mfx7abcd3e-17-k7f3x9")]
    pub id: String,
    /// Display name.
    pub name: String,
    /// The identity that it acts as.
    pub owner: OwnerView,
    /// The caller that created it.
    pub created_by: String,
    /// What it may be used for.
    #[schema(value_type = Vec<crate::api::schemas::ScopeSchema>)]
    pub scopes: Vec<Scope>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it expires. An unused token expires earlier.
    pub expires_at: DateTime<Utc>,
    /// When it was last used, to within ten minutes; absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub last_used_at: Option<DateTime<Utc>>,
    /// Whether it is accepted.
    pub status: TokenStatus,
    /// Tells the secrets of the token apart; not part of answers.
    #[serde(skip)]
    pub(crate) digits: String,
}

impl TokenView {
    pub(super) fn new(token: &AccessToken, suspended: bool) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.clone(),
            owner: OwnerView::new(token),
            created_by: token.created_by.clone(),
            scopes: token.scopes.clone(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            status: if suspended { TokenStatus::Suspended } else { TokenStatus::Active },
            digits: token.hash.fingerprint().to_owned(),
        }
    }
}

/// A token with its secret, which is shown once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedToken {
    #[expect(missing_docs, reason = "a description would stand beside the schema's reference")]
    #[serde(flatten)]
    pub view: TokenView,
    /// The secret. It is not stored and cannot be shown again.
    #[serde(serialize_with = "crate::api::fields::expose")]
    #[schema(value_type = String)]
    pub token: SecretString,
}

impl IssuedToken {
    pub(super) fn new(token: &AccessToken, suspended: bool, secret: &TokenSecret) -> Self {
        Self { view: TokenView::new(token, suspended), token: secret.expose().to_owned().into() }
    }
}

/// A requested expiry.
#[derive(Debug)]
pub(super) struct AskedEnd {
    pub(super) expires_at: Option<Time>,
    pub(super) expires_in_days: Option<Days>,
}

impl AskedEnd {
    /// The expiry in whole seconds; `None` if none is requested.
    ///
    /// # Errors
    /// 400 that names the field, if both are given or the expiry is past or later than `latest`.
    pub(super) fn resolve(&self, now: DateTime<Utc>, latest: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Problem> {
        let (field, end) = match (self.expires_at, self.expires_in_days) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(Problem::field("expiresInDays", "cannot be given together with expiresAt"));
            }
            (Some(Time(end)), None) => ("expiresAt", Some(end)),
            (None, Some(Days(days))) => ("expiresInDays", now.checked_add_signed(TimeDelta::days(days.into()))),
        };
        let Some(end) = end.map(|end| end.trunc_subsecs(0)).filter(|end| *end <= latest) else {
            return Err(Problem::field(
                field,
                format!("is too late: an access token may last until {}", rfc3339(latest)),
            ));
        };
        if end <= now {
            return Err(Problem::field(field, "must be in the future"));
        }
        Ok(Some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_token_decodes_as_it_was_encoded_and_hides_its_secret() {
        let json = serde_json::json!({
            "id": "9x4kq2mfx7abcd3e-17-k7f3x9", "name": "CI", "owner": { "username": "alice" }, "createdBy": "bob",
            "scopes": ["members:read"], "createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-04-01T00:00:00Z",
            "status": TokenStatus::Suspended.as_str(), "token": "dpp_secret",
        });
        let issued: IssuedToken = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(issued.view.status, TokenStatus::Suspended);
        assert!(!format!("{issued:?}").contains("secret"));
        assert_eq!(serde_json::to_value(issued).unwrap(), json);
    }

    #[test]
    fn expiry_is_in_the_future_and_bounded() {
        let at = |seconds: i64| DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let (now, latest) = (at(0), at(86_400 * 365));
        let ask = |end: Option<_>, days: Option<_>| {
            AskedEnd { expires_at: end.map(Time), expires_in_days: days.map(Days) }.resolve(now, latest)
        };
        assert_eq!(ask(None, Some(365)).unwrap(), Some(latest));
        assert_eq!(ask(Some(at(1)), None).unwrap(), Some(at(1)));
        assert_eq!(ask(None, None).unwrap(), None);
        for (end, days) in [
            (None, Some(366)),
            (None, Some(0)),
            (None, Some(u32::MAX)),
            (Some(at(0)), None),
            (Some(at(-5)), None),
            (Some(at(86_400 * 365 + 1)), None),
            (Some(DateTime::<Utc>::MAX_UTC), None),
            (Some(at(1)), Some(1)),
        ] {
            let field = if days.is_some() { "expiresInDays" } else { "expiresAt" };
            assert_eq!(ask(end, days).unwrap_err().errors[0].field, field, "{end:?} {days:?}");
        }
    }
}
