//! Checks which access tokens a caller may see, create and change.

use std::fmt;

use crate::access_tokens::{CreateTokenError, CurrentIdentity};
use crate::api::problem::{Code, Problem};
use crate::api::request_context::RequestContext;
use crate::api::tokens::types::TokenView;
use crate::authn::Caller;
use crate::cluster::{Identity, Privilege};
use crate::domain::access_token::{AccessToken, Extra, Scope, TokenId, lasting, owner_key};
use crate::domain::secret::SecretSubject as _;

/// The detail for a user that may not own tokens.
pub(super) const NO_USERS: &str = "only service accounts may own access tokens here; the operator can allow users to";

/// Whether this is the token's owner. A recreated service account is another one, and so is another person who got the
/// name, or a person whose claims are mapped in another way now.
pub(super) fn is_own(token: &AccessToken, identity: &Identity) -> bool {
    let owner = &token.owner;
    let is_same = owner.username == identity.username && owner.subject == identity.subject;
    is_same && (owner.uid.is_none() || owner.uid == identity.uid)
}

/// Whether the token has just the attributes of this identity. One without them could do more: think of a user whom
/// the scopes of an OAuth token restrict.
pub(super) fn acts_alike(token: &AccessToken, identity: &Identity) -> bool {
    token.owner.extra.as_ref().unwrap_or(&Extra::new()) == &lasting(&identity.extra)
}

impl RequestContext {
    /// Checks that access tokens are enabled. If not, none is created or rotated.
    pub(super) fn require_tokens(&self, caller: &Caller) -> Result<(), Problem> {
        if self.state.authn.methods().access_tokens {
            return Ok(());
        }
        self.denied(caller, None, Code::TokensDisabled)?;
        Err(Problem::new(Code::TokensDisabled))
    }

    /// Checks that the caller uses no session: a token made with a session of half an hour could last for a year.
    pub(super) fn require_no_session(&self, caller: &Caller) -> Result<(), Problem> {
        match caller.session {
            None => Ok(()),
            Some(_) => {
                Err(self.forbid(caller, "a session cannot create or rotate access tokens: use the token itself"))
            }
        }
    }

    /// Records a denial and returns its error.
    pub(in crate::api) fn forbid(&self, caller: &Caller, why: impl fmt::Display) -> Problem {
        self.denied(caller, None, Code::Forbidden).err().unwrap_or(Problem::detailed(Code::Forbidden, why))
    }

    /// Checks that the caller has this right on access tokens.
    ///
    /// # Errors
    /// 403 that names it.
    pub(super) async fn require_privilege(&self, caller: &Caller, privilege: Privilege) -> Result<(), Problem> {
        if self.has_privilege(caller, privilege).await? {
            return Ok(());
        }
        let (verb, name) = match privilege {
            Privilege::Generate => ("generate", "Generate Personal Access Tokens"),
            Privilege::Manage => ("manage", "Manage All Access Tokens"),
        };
        Err(self.forbid(caller, format!("this needs the right to {verb} personalaccesstokens.daypass.dev ({name})")))
    }

    /// The token with this id, if it has not ended and the caller may see it; 404 otherwise.
    pub(super) async fn token(&self, caller: &Caller, scope: Scope, id: &str) -> Result<AccessToken, Problem> {
        self.require(caller, scope)?;
        let tokens = &self.state.tokens;
        // The caller's own token as it was authenticated: a secret that was rotated meanwhile cannot rotate again.
        if let Some(token) = caller.own_token(id) {
            return Ok(token.clone());
        }
        // An id names its owner. Do not reveal which ids of other owners exist.
        let id = TokenId::parse(id);
        let key = owner_key(&caller.identity.username);
        if !id.as_ref().is_some_and(|id| id.is_of(&key)) {
            self.require_manager(caller).await?;
        }
        let found = match id {
            Some(id) => tokens.find(&id).await?,
            None => None,
        };
        let token = found.filter(|token| token.session.is_none() && tokens.has_not_ended(token));
        let token = token.ok_or_else(|| Problem::new(Code::NotFound))?;
        if !is_own(&token, &caller.identity) {
            self.require_manager(caller).await?;
        }
        Ok(token)
    }

    /// The token with this id, if the caller may revoke it. A token may always revoke itself, whatever its scopes; its
    /// sessions may not.
    pub(super) async fn token_to_revoke(&self, caller: &Caller, id: &str) -> Result<AccessToken, Problem> {
        let own = caller.own_token(id).filter(|_| caller.session.is_none());
        if let Some(token) = own {
            return Ok(token.clone());
        }
        if !caller.has_scope(Scope::TokensWrite) {
            // Not for the whole operation: that would refuse a token which then revokes itself.
            self.denied(caller, None, Code::InsufficientScope)?;
            return Err(Problem::insufficient_scope(Scope::TokensWrite));
        }
        self.token(caller, Scope::TokensWrite, id).await
    }

    /// Checks that the caller may see tokens of others; 404 if not.
    async fn require_manager(&self, caller: &Caller) -> Result<(), Problem> {
        if self.has_privilege(caller, Privilege::Manage).await? {
            return Ok(());
        }
        self.denied(caller, None, Code::Forbidden)?;
        Err(Problem::new(Code::NotFound))
    }

    /// Whether a token that has not ended is suspended.
    pub(super) fn is_suspended(&self, token: &AccessToken, identity: &CurrentIdentity<'_>) -> bool {
        !identity.is_of(token) || !token.is_live(&self.state.tokens.rules, self.state.clock.now())
    }

    /// A token as answers show it.
    pub(super) async fn token_view(&self, token: &AccessToken) -> Result<TokenView, Problem> {
        let identity = self.state.tokens.identity_now().await?;
        Ok(TokenView::new(token, self.is_suspended(token, &identity)))
    }
}

impl Caller {
    /// Its own token, if this is the token's id or `self`.
    fn own_token(&self, id: &str) -> Option<&AccessToken> {
        self.token.as_ref().filter(|token| id == "self" || token.id.to_string() == id)
    }
}

impl Problem {
    /// The error for a token that was not created. `most` is the number of live ones allowed.
    pub(super) fn not_created(error: CreateTokenError, most: usize) -> Self {
        match error {
            CreateTokenError::TooMany => {
                Self::detailed(Code::TooManyTokens, format!("at most {most} may be live at a time"))
            }
            CreateTokenError::DoneBefore => Self::detailed(
                Code::Conflict,
                "this request has created a token before; its secret is shown only once",
            ),
            CreateTokenError::Cluster(error) => error.into(),
        }
    }
}
