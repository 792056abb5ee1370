//! Reconciles one member.

use super::Controller;
use super::plan::{Observed, Step};
use crate::cluster::{Error, Lookup};
use crate::domain::member_id::MemberId;
use crate::membership::EndReason;
use crate::observability::audit::{Actor, Cause};

/// The audit actor for an end that no REST request caused.
pub(super) fn actor(reason: EndReason) -> Actor {
    match reason {
        EndReason::Expired => Actor::Daypass,
        EndReason::Revoked => Actor::Kubernetes,
    }
}

/// Reads a member's objects and carries out its plan.
///
/// # Errors
/// The first call that failed. The steps that do not depend on it are still carried out, and all can be repeated.
pub(super) async fn reconcile(controller: &Controller, id: &MemberId) -> Result<(), Error> {
    let cluster = &controller.cluster;
    let feed = &controller.feed;
    // Not a role, or no longer one: Daypass leaves the namespace alone.
    if feed.role(cluster, &id.role).await?.is_none() {
        return Ok(());
    }
    let ended = end_if_due(controller, id).await;
    match &ended {
        Ok(true) => return Ok(()),
        // It was extended at this moment, and keeps its objects.
        Err(error) if error.is_conflict() => return ended.map(drop),
        _ => {}
    }
    let known = feed.members.get(id);
    let secrets = cluster.list_kubeconfigs(id).await;
    let account = cluster.account(id).await;
    let member = cluster.member(id).await?;
    // An end does not wait for an account or Secrets that cannot be read. Provisioning does: it needs to know both.
    let (secrets, account, read) = match (secrets, account) {
        (Ok(secrets), Ok(account)) => (secrets, account, Ok(())),
        (Err(error), account) => (Vec::new(), account.ok().flatten(), Err(error)),
        (Ok(secrets), Err(error)) => (secrets, None, Err(error)),
    };
    match (&member, known) {
        (Lookup::Found(member), _) => feed.members.observe(member),
        (Lookup::Missing, Some(known)) => feed.members.forget(&known),
        _ => {}
    }
    let observed = Observed { member, account, secrets, clock_skewed: controller.clock.is_skewed() };
    if let Lookup::Unreadable(why) = &observed.member {
        tracing::warn!(member = %id, %why, "a Member cannot be read; treating it as ended");
    }
    let steps = observed.plan(controller.clock.now());
    let (has_tried, is_complete) = (ended.is_err(), read.is_ok());
    let is_possible = |step: &Step| match step {
        Step::End(_) => !has_tried,
        Step::Provision | Step::Record(_) => is_complete,
        Step::DeleteAccount(_) | Step::DeleteSecret(_) | Step::Mark(_) => true,
    };
    let mut done = ended.and(read);
    for step in steps.into_iter().filter(is_possible) {
        tracing::debug!(member = %id, ?step, "reconciling");
        // Continue after a failure: if somebody's admission policy refuses to delete the Member, its service account
        // must still go.
        let is_end = matches!(step, Step::End(_));
        let outcome = run(controller, id, step, &observed.member).await;
        if is_end && outcome.as_ref().is_err_and(Error::is_conflict) {
            return outcome;
        }
        done = done.and(outcome);
    }
    done
}

/// Ends a member whose time is over, as the feed knows it: the deletion names that version. The Member's status names
/// its objects; the sweep finds others. Returns whether it has ended.
///
/// # Errors
/// A conflict if the member was extended at this moment.
async fn end_if_due(controller: &Controller, id: &MemberId) -> Result<bool, Error> {
    let Some(member) = controller.feed.members.get(id) else { return Ok(false) };
    if member.deleting || !member.is_expired(controller.clock.now()) {
        return Ok(false);
    }
    let actor = actor(EndReason::Expired);
    controller.membership.end(&member, EndReason::Expired, Cause::internal(&actor)).await.map(|()| true)
}

async fn run(controller: &Controller, id: &MemberId, step: Step, member: &Lookup) -> Result<(), Error> {
    let Controller { cluster, membership, .. } = controller;
    match (step, member) {
        (Step::DeleteAccount(account), _) => cluster.delete_account(&id.role, &account).await,
        (Step::DeleteSecret(secret), _) => cluster.delete_secret(&id.role, &secret.name, &secret.uid).await,
        (Step::Mark(secret), _) => cluster.mark_secret(&id.role, &secret).await,
        (Step::End(reason), Lookup::Found(member)) => {
            membership.end(member, reason, Cause::internal(&actor(reason))).await
        }
        (Step::Provision, Lookup::Found(member)) => {
            membership.repair(member, Cause::internal(&Actor::Kubernetes)).await
        }
        (Step::Record(records), Lookup::Found(member)) => membership.record_kubeconfigs(member, &records).await,
        (Step::End(_) | Step::Provision | Step::Record(_), _) => Ok(()),
    }
}
