//! The use cases of members: create, change, end, and issue and revoke kubeconfigs.
//!
//! Each writes in an order that leaves nothing half done behind: a process killed between two steps leaves only what
//! the controller finishes.

mod change;
mod create;
mod end;
mod kubeconfigs;
mod status;

pub use end::EndReason;
pub use kubeconfigs::{IssueError, IssuedKubeconfig};

use crate::clock::{Clock, SKEW_WARNING};
use crate::cluster::{Cluster, Error, Lane, Lookup};
use crate::domain::member::Credential;
use crate::domain::member::Member;
use crate::observability::audit::{Audit, Cause, Kind};

/// How often a write is repeated on a newer version after a conflict.
const CONFLICT_RETRIES: usize = 5;

/// The members of this data plane.
#[derive(Clone)]
pub struct Membership {
    cluster: Cluster,
    clock: Clock,
    audit: Audit,
}

impl Membership {
    /// The members that `cluster` holds.
    pub fn new(cluster: Cluster, clock: Clock, audit: Audit) -> Self {
        Self { cluster, clock, audit }
    }

    /// The same, with calls in this lane.
    pub fn in_lane(&self, lane: Lane) -> Self {
        Self { cluster: self.cluster.in_lane(lane), ..self.clone() }
    }

    /// The member that this credential belongs to, decided on a live read; `None` if the credential is wrong or was
    /// replaced, or the member has ended.
    pub async fn authenticate(&self, credential: &Credential) -> Result<Option<Member>, Error> {
        let Lookup::Found(member) = self.cluster.member(credential.subject()).await? else {
            return Ok(None);
        };
        let matches = member.status.credential.as_ref().is_some_and(|hash| hash.matches(credential));
        Ok((matches && member.is_live(self.clock.now())).then_some(*member))
    }

    /// Whether the clocks of Daypass and the API server differ by enough to warn about.
    pub fn clock_skewed(&self) -> bool {
        self.clock.offset().abs() > SKEW_WARNING
    }

    /// Writes an event about a member to the audit trail.
    fn report(&self, kind: Kind, member: &Member, cause: Cause<'_>, jti: Option<&str>) {
        self.audit.record(&cause.event(kind).about_member(member).with_jti(jti));
    }
}
