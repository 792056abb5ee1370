//! The use cases of members: creating, changing and ending them, and issuing and revoking their kubeconfigs.
//!
//! The order of the writes makes a crash harmless: if the process dies between two steps, the controller finishes the
//! rest. Every function returns the [`Error`] of a failed call; only further reasons are documented.

mod change;
mod create;
mod end;
mod kubeconfigs;
mod status;

pub use end::EndReason;
pub use kubeconfigs::{IssueError, IssuedGatewayKubeconfig, IssuedKubeconfig};

use crate::clock::{Clock, Entropy};
use crate::cluster::{Cluster, Error, Lane, Lookup};
use crate::domain::member::{Credential, Member};
use crate::domain::member_id::MemberId;
use crate::feed::Feed;
use crate::observability::audit::{Audit, Cause, Kind};

/// How often to retry a write on the newer version after a conflict. Ten kubeconfigs may be issued at the same time.
const CONFLICT_RETRIES: usize = 20;

/// The members of this data plane.
#[derive(Clone)]
pub struct Membership {
    cluster: Cluster,
    feed: Feed,
    clock: Clock,
    entropy: Entropy,
    audit: Audit,
}

impl Membership {
    /// The members in `cluster`.
    pub fn new(cluster: Cluster, feed: Feed, clock: Clock, audit: Audit) -> Self {
        Self { cluster, feed, clock, entropy: Entropy::default(), audit }
    }

    /// The same members, with calls in this lane.
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { cluster: self.cluster.in_lane(lane), ..self.clone() }
    }

    /// Authenticates a member by a live read; `None` if the credential is wrong or replaced, or the member has ended.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Option<Member>, Error> {
        let found = self.living(credential.subject()).await?;
        Ok(found.filter(|member| member.status.credential.as_ref().is_some_and(|hash| hash.matches(credential))))
    }

    /// The member of this id by a live read; `None` if it has ended.
    pub async fn living(&self, id: &MemberId) -> Result<Option<Member>, Error> {
        // Without its role, a member has ended: the namespace may be gone, or have lost its label.
        if self.feed.role(&self.cluster, &id.role).await?.is_none() {
            return Ok(None);
        }
        let Lookup::Found(member) = self.cluster.member(id).await? else { return Ok(None) };
        Ok(member.is_live(self.clock.now()).then_some(*member))
    }

    /// Notes what a write has returned, so that this replica's next list has it.
    fn seen(&self, member: Member) -> Member {
        self.feed.members.observe(&member);
        member
    }

    /// Writes an event about a member to the audit trail.
    fn report(&self, kind: Kind, member: &Member, cause: Cause<'_>, jti: Option<&str>) {
        self.audit.record(&cause.event(kind).about_member(member).with_jti(jti));
    }
}
