//! Checks what a caller may do, with a SubjectAccessReview in each role's own namespace: an authorizer can deny in one
//! namespace what it allows in all others.

use std::fmt;
use std::future::Future;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::problem::{Code, Problem};
use super::request_context::RequestContext;
use crate::authn::{Caller, Count, Digest};
use crate::cluster::{Access, Error, Identity, Lookup, Privilege, Verb};
use crate::domain::access_token::{Scope, lasting};
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::{Role, RoleId};
use crate::feed::Feed;
use crate::observability::audit::{Event, Kind};

/// How many roles are checked at once.
pub(super) const FAN_OUT: usize = 8;

/// The scope that an access token needs for this access.
fn scope_of(access: Access) -> Scope {
    match access.verb {
        Verb::Get | Verb::List => Scope::MembersRead,
        Verb::Create | Verb::Update | Verb::Delete => Scope::MembersWrite,
    }
}

/// Whether a caller may do something in a role.
#[derive(Debug)]
pub(super) enum Authorization {
    /// The caller may.
    Granted(Role),
    /// The caller may not, or the role does not exist: a caller cannot tell these apart.
    Hidden,
}

impl RequestContext {
    /// Checks that the caller has this scope.
    ///
    /// # Errors
    /// 403 that names the scope; 429 after too many denials.
    pub(super) fn require(&self, caller: &Caller, scope: Scope) -> Result<(), Problem> {
        if caller.has_scope(scope) {
            return Ok(());
        }
        self.denied_throughout(caller, None, Code::InsufficientScope)?;
        Err(Problem::insufficient_scope(scope))
    }

    /// Checks whether the caller may do this in a role. `None` stands for an id that no role can have.
    ///
    /// # Errors
    /// 403 if the caller may do this in no role at all; 429 if it was denied too often.
    pub(super) async fn authorize_in_role(
        &self,
        caller: &Caller,
        access: Access,
        asked: Option<&RoleId>,
    ) -> Result<Authorization, Problem> {
        self.require(caller, scope_of(access))?;
        self.check_remembered(caller, access, asked)?;
        let cluster = &self.state.cluster;
        if let Some(id) = asked
            && let Some(role) = self.state.feed.role(cluster, id).await?
            && cluster.is_allowed(&caller.identity, access, Some(id)).await?
        {
            return Ok(Authorization::Granted(role));
        }
        if self.may_elsewhere(caller, access, asked).await? {
            self.denied(caller, asked, Code::Forbidden)?;
            return Ok(Authorization::Hidden);
        }
        Err(self.denied_everywhere(caller, access, asked))
    }

    /// All roles in which the caller may do this. The scope to read is enough to list them.
    ///
    /// # Errors
    /// 403 if there is none (in a cluster without roles: if the caller lacks the right in all namespaces); 429 if it
    /// was denied too often.
    pub(super) async fn allowed_roles(&self, caller: &Caller, access: Access) -> Result<Vec<Role>, Problem> {
        self.require(caller, Scope::MembersRead)?;
        self.check_remembered(caller, access, None)?;
        let cluster = &self.state.cluster;
        let roles = self.feed()?.roles.all();
        let ask = |role: Role| async move {
            let allowed = cluster.is_allowed(&caller.identity, access, Some(&role.id)).await?;
            Ok::<_, Problem>(allowed.then_some(role))
        };
        let is_empty = roles.is_empty();
        let asked = stream::iter(roles).map(ask).buffered(FAN_OUT);
        let allowed: Vec<Role> = asked.try_filter_map(|role| async { Ok(role) }).try_collect().await?;
        // Without roles there is no namespace to check, so check the right in all namespaces.
        if !allowed.is_empty() || (is_empty && cluster.is_allowed(&caller.identity, access, None).await?) {
            return Ok(allowed);
        }
        Err(self.denied_everywhere(caller, access, None))
    }

    /// The feed.
    ///
    /// # Errors
    /// 503 as long as it has not listed everything once.
    pub(super) fn feed(&self) -> Result<&Feed, Problem> {
        let feed = &self.state.feed;
        if feed.is_complete() { Ok(feed) } else { Err(Problem::new(Code::Unavailable)) }
    }

    /// Whether the caller may do this in another role. That costs a call per role, so a recent answer is reused: it
    /// only decides between two refusals.
    async fn may_elsewhere(&self, caller: &Caller, access: Access, asked: Option<&RoleId>) -> Result<bool, Problem> {
        let (cluster, denials) = (&self.state.cluster, &self.state.authn.denials);
        let elsewhere = question(&caller.identity, access).and("elsewhere");
        if denials.remembers(&elsewhere) {
            return Ok(true);
        }
        let others = self.feed()?.roles.all().into_iter().map(|role| role.id).filter(|id| Some(id) != asked);
        let ask = |id: RoleId| async move { cluster.is_allowed(&caller.identity, access, Some(&id)).await };
        let mut answers = stream::iter(others).map(ask).buffer_unordered(FAN_OUT);
        while let Some(allowed) = answers.try_next().await? {
            if allowed {
                denials.remember(elsewhere);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The live member of this id, if the caller may do this in its role; 404 otherwise.
    pub(crate) async fn member(&self, caller: &Caller, access: Access, id: &str) -> Result<Member, Problem> {
        let id = MemberId::parse(id);
        let role = self.authorize_in_role(caller, access, id.as_ref().map(|id| &id.role)).await?;
        let (Some(id), Authorization::Granted(_)) = (id, role) else {
            return Err(Problem::new(Code::NotFound));
        };
        self.live_member(&id).await?.ok_or_else(|| Problem::new(Code::NotFound))
    }

    /// The live member of this id.
    pub(super) async fn live_member(&self, id: &MemberId) -> Result<Option<Member>, Problem> {
        Ok(match self.state.cluster.member(id).await? {
            Lookup::Found(member) if member.is_live(self.state.clock.now()) => Some(*member),
            _ => None,
        })
    }

    /// Whether the caller has this right on access tokens.
    pub(super) async fn has_privilege(&self, caller: &Caller, privilege: Privilege) -> Result<bool, Problem> {
        let ask = self.state.cluster.has_privilege(&caller.identity, privilege);
        self.unless_denied(question(&caller.identity, privilege), ask).await
    }

    /// Whether the caller may do this in a role, which need not exist.
    pub(super) async fn has_right(&self, caller: &Caller, access: Access, role: &RoleId) -> Result<bool, Problem> {
        let ask = self.state.cluster.is_allowed(&caller.identity, access, Some(role));
        self.unless_denied(question(&caller.identity, (access, role)), ask).await
    }

    /// Asks, unless the answer was no a moment ago.
    async fn unless_denied(
        &self,
        question: Digest,
        ask: impl Future<Output = Result<bool, Error>>,
    ) -> Result<bool, Problem> {
        let denials = &self.state.authn.denials;
        if denials.remembers(&question) {
            return Ok(false);
        }
        let allowed = ask.await?;
        if !allowed {
            denials.remember(question);
        }
        Ok(allowed)
    }

    /// Refuses at once what the caller could do in no role a moment ago.
    fn check_remembered(&self, caller: &Caller, access: Access, role: Option<&RoleId>) -> Result<(), Problem> {
        if !self.state.authn.denials.remembers(&question(&caller.identity, access)) {
            return Ok(());
        }
        Err(self.denied_throughout(caller, role, Code::Forbidden).err().unwrap_or(Problem::new(Code::Forbidden)))
    }

    fn denied_everywhere(&self, caller: &Caller, access: Access, role: Option<&RoleId>) -> Problem {
        self.state.authn.denials.remember(question(&caller.identity, access));
        self.denied_throughout(caller, role, Code::Forbidden).err().unwrap_or(Problem::new(Code::Forbidden))
    }

    /// Counts and records a denial.
    ///
    /// # Errors
    /// 429 if it is one too many.
    pub(super) fn denied(&self, caller: &Caller, role: Option<&RoleId>, code: Code) -> Result<(), Problem> {
        let Count { wait, record } = self.state.authn.denials.count(caller.digest());
        if record {
            let code = if wait.is_some() { Code::TooManyDenials } else { code };
            self.state.audit.record(&Event {
                owner: Some(&caller.identity.username),
                role_id: role.map(RoleId::as_str),
                reason: Some(code.as_str()),
                ..Event::new(Kind::Denied, caller.actor.clone(), &self.origin)
            });
        }
        wait.map_or(Ok(()), |wait| Err(Problem::too_many(Code::TooManyDenials, wait)))
    }

    /// Counts and records a denial that depends on nothing but the caller and the operation. After too many, further
    /// requests for this operation are refused before they are authenticated.
    fn denied_throughout(&self, caller: &Caller, role: Option<&RoleId>, code: Code) -> Result<(), Problem> {
        self.denied(caller, role, code).inspect_err(|problem| {
            if let Some(wait) = problem.wait() {
                self.state.authn.denials.block(caller.request, wait);
            }
        })
    }
}

/// Identifies the question whether this identity may do this. The whole identity counts: an access token has the
/// groups of its creation, and two tokens of one user can differ in their attributes, other than the ids of the
/// tokens.
fn question(identity: &Identity, what: impl fmt::Debug) -> Digest {
    // Every field, so that a new one cannot be forgotten.
    let Identity { username, uid, subject, groups, extra } = identity;
    let identity = (username, uid, subject, groups, lasting(extra));
    Digest::of([format!("{identity:?}").as_bytes(), format!("{what:?}").as_bytes()])
}
