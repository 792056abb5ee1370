//! What a caller may do, by SubjectAccessReview: for all roles at once first, for the role only where that is denied.

use futures::future::try_join_all;

use super::auth::Caller;
use super::context::Context;
use super::problem::{Code, Problem};
use crate::audit::{Event, Kind};
use crate::cluster::{Access, Lookup, Verb};
use crate::domain::access_token::Scope;
use crate::domain::id::MemberId;
use crate::domain::member::Member;
use crate::domain::role::{Role, RoleId};

/// The scope that an access token needs for this.
fn scope_of(access: Access) -> Scope {
    match access.verb {
        Verb::Get | Verb::List => Scope::MembersRead,
        Verb::Create | Verb::Update | Verb::Delete => Scope::MembersWrite,
    }
}

impl Context {
    /// Checks that the caller's access token, if it came with one, is good for this.
    ///
    /// # Errors
    /// 403, which names the scope.
    pub(super) fn require(&self, caller: &Caller, scope: Scope) -> Result<(), Problem> {
        if caller.token.as_ref().is_none_or(|token| token.scopes.contains(&scope)) {
            return Ok(());
        }
        self.record_denied(caller, None, Code::InsufficientScope);
        Err(Problem::insufficient_scope(scope))
    }

    /// The role, if it exists and the caller may do this in it; `None` tells neither apart.
    ///
    /// # Errors
    /// 403 when the caller may do this in no role at all.
    pub(super) async fn reach(
        &self,
        caller: &Caller,
        access: Access,
        asked: Option<&RoleId>,
    ) -> Result<Option<Role>, Problem> {
        self.require(caller, scope_of(access))?;
        let cluster = &self.state.cluster;
        let role = match asked {
            Some(id) => cluster.role(id).await?,
            None => None,
        };
        if cluster.is_allowed(&caller.identity, access, None).await? {
            return Ok(role);
        }
        if let Some(role) = role
            && cluster.is_allowed(&caller.identity, access, Some(&role.id)).await?
        {
            return Ok(Some(role));
        }
        self.record_denied(caller, asked, Code::Forbidden);
        if self.narrow_reach(caller, access).await?.is_empty() {
            return Err(Problem::new(Code::Forbidden));
        }
        Ok(None)
    }

    /// All roles that the caller may do this in. To be told which is reading, whatever it is.
    ///
    /// # Errors
    /// 403 when there is none, and no right to all of them either.
    pub(super) async fn reachable_roles(&self, caller: &Caller, access: Access) -> Result<Vec<Role>, Problem> {
        self.require(caller, Scope::MembersRead)?;
        if self.state.cluster.is_allowed(&caller.identity, access, None).await? {
            return Ok(self.state.cluster.roles().await?);
        }
        let roles = self.narrow_reach(caller, access).await?;
        if roles.is_empty() {
            self.record_denied(caller, None, Code::Forbidden);
            return Err(Problem::new(Code::Forbidden));
        }
        Ok(roles)
    }

    async fn narrow_reach(&self, caller: &Caller, access: Access) -> Result<Vec<Role>, Problem> {
        let cluster = &self.state.cluster;
        let roles = cluster.roles().await?;
        let asked = roles.iter().map(|role| cluster.is_allowed(&caller.identity, access, Some(&role.id)));
        let allowed = try_join_all(asked).await?;
        Ok(roles.into_iter().zip(allowed).filter_map(|(role, allowed)| allowed.then_some(role)).collect())
    }

    /// The living member of this id in the caller's reach; 404 for any other.
    pub(super) async fn member(&self, caller: &Caller, access: Access, id: &str) -> Result<Member, Problem> {
        let id = MemberId::parse(id);
        let role = self.reach(caller, access, id.as_ref().map(|id| &id.role)).await?;
        let (Some(id), Some(_)) = (id, role) else {
            return Err(Problem::new(Code::NotFound));
        };
        self.live_member(&id).await?.ok_or_else(|| Problem::new(Code::NotFound))
    }

    /// The living member of this id.
    pub(super) async fn live_member(&self, id: &MemberId) -> Result<Option<Member>, Problem> {
        let cluster = &self.state.cluster;
        Ok(match cluster.member(id).await? {
            Lookup::Found(member) if member.is_live(cluster.clock.now()) => Some(*member),
            _ => None,
        })
    }

    pub(super) fn record_denied(&self, caller: &Caller, role: Option<&RoleId>, code: Code) {
        self.state.cluster.audit.record(&Event {
            owner: Some(&caller.identity.username),
            role_id: role.map(RoleId::as_str),
            reason: Some(&code.as_string()),
            ..Event::new(Kind::Denied, caller.actor.clone(), &self.origin)
        });
    }
}
