//! `POST /tokens`.

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::access::NO_USERS;
use super::types::{AskedEnd, IssuedToken};
use crate::access_tokens::NewToken;
use crate::api::body::Json;
use crate::api::fields::{Days, NO_STORE, Name, Time};
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::authn::Caller;
use crate::cluster::{Identity, Privilege};
use crate::domain::access_token::{Owner, Scope, Subject};
use crate::domain::lifetime::rfc3339;
use crate::domain::text::{escape_hidden, is_bounded};

/// The longest `sub`, in characters.
const MAX_SUBJECT: usize = 1024;

/// A token to create, with exactly one of `expiresAt` and `expiresInDays`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateToken {
    /// Display name.
    name: Name,
    /// When it expires.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false)]
    expires_at: Option<Time>,
    /// In how many days it expires; at most 365 unless the operator sets another limit.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false, example = 90)]
    expires_in_days: Option<Days>,
    /// What it may be used for.
    #[schema(
        value_type = Vec<crate::api::schemas::ScopeSchema>,
        min_items = 1, max_items = 4, example = json!(["members:read", "members:write"])
    )]
    scopes: Vec<Scope>,
    /// The Kubernetes user name that it acts as, if not the caller's own.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false, max_length = 1024)]
    owner: Option<String>,
    /// The claim `sub` of the owner, if it is a person who signs in with ID tokens: names may be given to others.
    #[serde(default, deserialize_with = "crate::api::fields::not_null")]
    #[schema(required = false, nullable = false, min_length = 1, max_length = 1024)]
    owner_subject: Option<String>,
}

/// Create an access token
///
/// Only this answer shows the token. A token that is created with another access token has no more scopes, no later
/// end and no other owner than that one.
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "tokens",
    request_body = CreateToken,
    responses((status = 201, description = "The token, with its secret", body = IssuedToken,
        headers(("Location" = String, description = "The token's URL")))),
    security(("kubernetesToken" = []), ("accessToken" = ["tokens:write"]), ("accessTokenBasic" = ["tokens:write"]))
)]
pub(super) async fn create_token(
    context: RequestContext,
    caller: Caller,
    Json(body): Json<CreateToken>,
) -> Result<Response, Problem> {
    let issued = context.create_token(&caller, None, body).await?;
    let location = context.state.settings.url(&format!("tokens/{}", issued.view.id));
    Ok((StatusCode::CREATED, [NO_STORE], [(LOCATION, location)], axum::Json(issued)).into_response())
}

impl RequestContext {
    /// Creates an access token. A request with the same key creates none.
    pub(crate) async fn create_token(
        &self,
        caller: &Caller,
        key: Option<&str>,
        body: CreateToken,
    ) -> Result<IssuedToken, Problem> {
        let scopes = distinct(body.scopes)?;
        self.require_tokens(caller)?;
        self.require_no_session(caller)?;
        self.require(caller, Scope::TokensWrite)?;
        // Read the clock before the owner's groups are dated. Otherwise the longest lifetime could be a second too
        // long.
        let now = self.state.clock.now();
        let owner = self.owner_for(caller, body.owner.as_deref(), body.owner_subject.as_deref()).await?;

        let tokens = &self.state.tokens;
        let latest = tokens.rules.latest_end(&owner, now).ok_or_else(|| self.forbid(caller, NO_USERS))?;
        let end =
            AskedEnd { expires_at: body.expires_at, expires_in_days: body.expires_in_days }.resolve(now, latest)?;
        let expires_at =
            end.ok_or_else(|| Problem::field("expiresAt", "is required unless expiresInDays is given"))?;
        self.require_no_more(caller, &scopes, expires_at)?;

        let created_by = escape_hidden(&caller.identity.username);
        let nonce = key.and_then(|key| Sha256::digest(key).first_chunk().copied());
        let new = NewToken { name: body.name.0, owner, created_by, scopes, expires_at, nonce };
        let made = tokens.create(new, caller.cause(&self.origin)).await;
        let (token, secret) = made.map_err(|error| Problem::not_created(error, tokens.rules.max_per_owner))?;
        Ok(IssuedToken::new(&token, false, &secret))
    }
}

fn distinct(mut scopes: Vec<Scope>) -> Result<Vec<Scope>, Problem> {
    let given = scopes.len();
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(Problem::field("scopes", "must name at least one"));
    }
    if scopes.len() < given {
        return Err(Problem::field("scopes", "names a scope twice"));
    }
    Ok(scopes)
}

impl RequestContext {
    /// The owner of a new token, if the caller may create one for it.
    async fn owner_for(&self, caller: &Caller, asked: Option<&str>, subject: Option<&str>) -> Result<Owner, Problem> {
        let tokens = &self.state.tokens;
        let Identity { username, subject: own, .. } = &caller.identity;
        let is_own = asked.is_none_or(|name| name == username)
            && subject.is_none_or(|subject| own.as_ref().is_some_and(|own| own.subject == subject));
        let Some(other) = asked.filter(|_| !is_own) else {
            if !is_own {
                return Err(Problem::field("ownerSubject", "needs `owner`, the person's user name"));
            }
            self.require_privilege(caller, Privilege::Generate).await?;
            // A token made with a token keeps its owner: a user with the groups that it had when the first one was
            // made.
            let owner =
                caller.token.as_ref().map(|token| token.owner.clone()).or_else(|| tokens.owner_of(&caller.identity));
            return owner.ok_or_else(|| self.forbid(caller, NO_USERS));
        };
        if caller.token.is_some() {
            return Err(self.forbid(caller, "an access token cannot create a token for another owner"));
        }
        self.require_privilege(caller, Privilege::Manage).await?;
        let owner = tokens.owner_named(other, self.named_person(other, subject)?).await?;
        owner.ok_or_else(|| Problem::field("owner", "is not the name of a user that can own access tokens"))
    }

    /// The person of this user name and `sub`; `None` if no person has such a name.
    fn named_person(&self, username: &str, subject: Option<&str>) -> Result<Option<Subject>, Problem> {
        let is_id = |id: &str| !id.is_empty() && is_bounded(id, MAX_SUBJECT);
        let of = self.state.authn.people().subject(username, subject.unwrap_or_default());
        match (of, subject) {
            (None, None) => Ok(None),
            (Some(person), Some(id)) if is_id(id) => Ok(Some(person)),
            (Some(_), Some(_)) => Err(Problem::field("ownerSubject", "is not the claim `sub` of an ID token")),
            (Some(person), None) => {
                let why = format!("is required: this is a person of {}; give the claim `sub`", person.issuer);
                Err(Problem::field("ownerSubject", why))
            }
            (None, Some(_)) => Err(Problem::field("ownerSubject", "is for people: no issuer's prefix begins `owner`")),
        }
    }

    /// Checks that a token made with an access token has none but its scopes and no later end.
    pub(super) fn require_no_more(
        &self,
        caller: &Caller,
        scopes: &[Scope],
        expires_at: DateTime<Utc>,
    ) -> Result<(), Problem> {
        let Some(token) = &caller.token else { return Ok(()) };
        if let Some(scope) = scopes.iter().find(|scope| !caller.has_scope(**scope)) {
            self.denied(caller, None, Code::InsufficientScope)?;
            return Err(Problem::insufficient_scope(*scope));
        }
        if expires_at > token.expires_at {
            let end = rfc3339(token.expires_at);
            return Err(self.forbid(
                caller,
                format!("an access token cannot create or rotate one that ends later than itself: {end}"),
            ));
        }
        Ok(())
    }
}
