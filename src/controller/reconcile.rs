//! One member brought to what it should be.

use chrono::{DateTime, Utc};

use super::Controller;
use super::plan::{Observed, Step};
use crate::cluster::{Error, Lookup};
use crate::domain::id::MemberId;
use crate::membership::EndReason;
use crate::observability::audit::{Actor, Cause};

/// What the end of this member, or a change of it that no REST request reported, is put down to.
pub(super) fn actor(reason: EndReason) -> Actor {
    match reason {
        EndReason::Expired => Actor::Daypass,
        EndReason::Revoked => Actor::Kubernetes,
    }
}

/// Looks at a member live and does what is to be done; when to look again.
///
/// # Errors
/// The first call that failed; what could be done without it is done, and all of it can be repeated.
pub(super) async fn reconcile(controller: &Controller, id: &MemberId) -> Result<Option<DateTime<Utc>>, Error> {
    let cluster = &controller.cluster;
    // Not a role (any more): nothing in the namespace is Daypass's business.
    if cluster.role(&id.role).await?.is_none() {
        return Ok(None);
    }
    let secrets = cluster.list_kubeconfigs(id).await;
    let account = cluster.account(id).await;
    let member = cluster.member(id).await?;
    // What cannot be read beside the Member keeps no end waiting. But a living member is only provisioned by a whole
    // look.
    let (secrets, account, seen) = match (secrets, account) {
        (Ok(secrets), Ok(account)) => (secrets, account, Ok(())),
        (Err(error), account) => (Vec::new(), account.ok().flatten(), Err(error)),
        (Ok(secrets), Err(error)) => (secrets, None, Err(error)),
    };
    let observed = Observed { member, account, secrets, clock_skewed: controller.membership.clock_skewed() };
    if let Lookup::Unreadable(why) = &observed.member {
        tracing::warn!(member = %id, %why, "a Member cannot be read; it is treated as ended");
    }
    let plan = observed.plan(controller.clock.now());
    let is_whole = seen.is_ok();
    let mut done = seen.map(|()| plan.wake);
    for step in plan.steps.into_iter().filter(|step| is_whole || *step != Step::Provision) {
        tracing::debug!(member = %id, ?step, "reconciling");
        // One that is refused keeps none of the others from being done: a Member that somebody's admission policy holds on to
        // must not keep its service account alive.
        let outcome = run(controller, id, step, &observed.member).await;
        done = done.and_then(|wake| outcome.map(|()| wake));
    }
    done
}

async fn run(controller: &Controller, id: &MemberId, step: Step, member: &Lookup) -> Result<(), Error> {
    let Controller { cluster, membership, .. } = controller;
    match (step, member) {
        (Step::DeleteAccount(account), _) => cluster.delete_account(&id.role, &account).await,
        (Step::DeleteSecret(secret), _) => cluster.delete_secret(&id.role, &secret).await,
        (Step::End(reason), Lookup::Found(member)) => {
            membership.end(member, reason, Cause::internal(&actor(reason))).await
        }
        (Step::Provision, Lookup::Found(member)) => {
            membership.provision(member, None, Cause::internal(&Actor::Kubernetes)).await.map(drop)
        }
        (Step::End(_) | Step::Provision, _) => Ok(()),
    }
}
