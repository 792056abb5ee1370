//! What a caller may do, by SubjectAccessReview: for all roles at once first, for the role only where that is denied.

use futures::future::try_join_all;

use super::auth::Caller;
use super::context::Context;
use super::problem::{Code, Problem};
use crate::audit::{Actor, Event, Kind};
use crate::cluster::{Access, Lookup};
use crate::domain::id::MemberId;
use crate::domain::member::Member;
use crate::domain::role::{Role, RoleId};

impl Context {
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
        self.record_denied(caller, asked);
        if self.narrow_reach(caller, access).await?.is_empty() {
            return Err(Problem::new(Code::Forbidden));
        }
        Ok(None)
    }

    /// All roles that the caller may do this in.
    ///
    /// # Errors
    /// 403 when there is none, and no right to all of them either.
    pub(super) async fn reachable_roles(&self, caller: &Caller, access: Access) -> Result<Vec<Role>, Problem> {
        if self.state.cluster.is_allowed(&caller.identity, access, None).await? {
            return Ok(self.state.cluster.roles().await?);
        }
        let roles = self.narrow_reach(caller, access).await?;
        if roles.is_empty() {
            self.record_denied(caller, None);
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

    fn record_denied(&self, caller: &Caller, role: Option<&RoleId>) {
        self.state.cluster.audit.record(&Event {
            kind: Kind::Denied,
            actor: Actor::Caller { username: caller.identity.username.clone() },
            owner: Some(&caller.identity.username),
            origin: &self.origin,
            member: None,
            role_id: role.map(RoleId::as_str),
            jti: None,
            reason: Some(&Code::Forbidden.as_string()),
        });
    }
}
