//! The controller: provisions members, no matter who created them, and ends them on time.
//!
//! It is level-triggered: events, expiries and the sweep all trigger the same comparison of actual and desired state.

mod background_checks;
mod comparison;
mod default_accounts;
mod leader;
mod looks;
mod plan;
mod queue;
mod quota;
mod reconcile;
mod role_drift;
mod schedule;
mod sweep;
mod token_sweep;
mod token_watch;

pub use leader::lead;
#[doc(hidden)]
pub use plan::steps_for;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Interval, MissedTickBehavior};

use self::background_checks::Checks;
use self::looks::{Looks, looks};
use self::queue::Queue;
use self::reconcile::{actor, reconcile};
use self::sweep::{Found, sweep};
use self::token_watch::TokenWatch;
use crate::access_tokens::AccessTokens;
use crate::clock::{Clock, Entropy};
use crate::cluster::{Account, Cluster, Error, Lane};
use crate::domain::member::{Member, Phase};
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;
use crate::feed::{Change, Feed};
use crate::membership::{EndReason, Membership};
use crate::observability::audit::Cause;
use crate::observability::metrics::Metrics;

/// How often the sweep runs, unless it has much to read.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long the sweep rests for each call that it has made, so that many roles and members cost no more calls a
/// second.
const SWEEP_REST: Duration = Duration::from_secs(3);
/// How often the checks run, however long the sweep rests.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// The delay after a sweep that failed.
const SWEEP_RETRY: Duration = Duration::from_secs(5);

/// The parts that the controller uses.
#[derive(Clone)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Controller {
    pub cluster: Cluster,
    pub feed: Feed,
    pub membership: Membership,
    pub tokens: AccessTokens,
    pub clock: Clock,
    pub metrics: Metrics,
    /// The longest time from one sweep to the next.
    pub max_sweep_interval: Duration,
}

impl Controller {
    /// A copy that sends its calls in this lane.
    fn in_lane(&self, lane: Lane) -> Self {
        Self {
            cluster: self.cluster.in_lane(lane),
            membership: self.membership.in_lane(lane),
            tokens: self.tokens.in_lane(lane),
            ..self.clone()
        }
    }

    /// The live member of this id, as far as the feed knows.
    fn living(&self, id: &MemberId) -> Option<Arc<Member>> {
        self.feed.members.get(id).filter(|member| member.is_live(self.clock.now()))
    }
}

/// Runs the controller. The caller drops the future when this replica no longer leads.
async fn run(controller: &Controller) {
    let mut changes = controller.feed.members.changes();
    let mut token_events = controller.tokens.watch().boxed();
    let mut token_watch = TokenWatch::default();
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut check_ticks = tokio::time::interval(CHECK_INTERVAL);
    check_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (clock, entropy) = (controller.clock.clone(), Entropy::default());
    let known = controller.clone();
    let mut queue = Queue::new(move || clock.now(), move || entropy.fraction(), move |id| known.living(id).is_none());
    let mut running = FuturesUnordered::new();
    let mut sweeping = FuturesUnordered::new();
    let mut checking = FuturesUnordered::new();
    let mut checks = Checks::default();
    loop {
        tokio::select! {
            Some(change) = changes.recv() => on_change(controller, &mut queue, change),
            Some(event) = token_events.next() => token_watch.on_event(controller, event),
            _ = ticks.tick(), if sweeping.is_empty() => sweeping.push(sweep(controller)),
            Some(swept) = sweeping.next(), if !sweeping.is_empty() => {
                checks.found_defaults(on_swept(controller, &mut queue, &mut ticks, swept));
            }
            _ = check_ticks.tick(), if checking.is_empty() => {
                checking.push(std::mem::take(&mut checks).run(controller));
            }
            Some(done) = checking.next(), if !checking.is_empty() => checks.resume(done),
            id = queue.next() => {
                running.push(async move {
                    let outcome = reconcile(controller, &id).await;
                    (id, outcome)
                });
            }
            Some((id, outcome)) = running.next(), if !running.is_empty() => {
                on_reconciled(controller, &mut queue, id, outcome);
            }
        }
    }
}

/// Queues the members that the sweep found. Returns the roles' `default` accounts.
fn on_swept(controller: &Controller, queue: &mut Queue, ticks: &mut Interval, found: Found) -> Vec<(RoleId, Account)> {
    let rest = SWEEP_REST.saturating_mul(found.calls).min(controller.max_sweep_interval);
    ticks.reset_after(if found.failures.is_empty() { SWEEP_INTERVAL.max(rest) } else { SWEEP_RETRY.max(rest / 4) });
    for error in &found.failures {
        tracing::error!(%error, "could not sweep a role; retrying");
    }
    found.due.into_iter().for_each(|id| queue.now(id));
    found.defaults
}

fn on_reconciled(controller: &Controller, queue: &mut Queue, id: MemberId, outcome: Result<(), Error>) {
    if controller.living(&id).is_some() {
        // It may have been queued for something else than its end.
        queue_at(controller, queue, &id);
    }
    match outcome {
        Ok(()) => queue.done(id),
        Err(error) => {
            tracing::warn!(member = %id, %error, "a member could not be reconciled; retrying");
            controller.metrics.reconcile_failures.inc();
            queue.failed(id);
        }
    }
}

fn on_change(controller: &Controller, queue: &mut Queue, change: Change) {
    match change {
        Change::Present(member) => {
            if queue_at(controller, queue, &member.id).now {
                queue.now(member.id.clone());
            }
        }
        Change::Deleted(id, last) => {
            queue_at(controller, queue, &id);
            if let Some(member) = last {
                // Whoever ends a member reports that and removes the rest; the sweep, if that was cut short.
                if member.is_expired(controller.clock.now()) || member.status.phase == Some(Phase::Terminating) {
                    return;
                }
                report_deletion(controller, &member);
            }
            queue.now(id);
        }
        Change::Unreadable(id) | Change::Vanished(id) => {
            queue_at(controller, queue, &id);
            queue.now(id);
        }
    }
}

/// Queues a member for the time when it needs the controller, by the latest that the feed knows of it.
fn queue_at(controller: &Controller, queue: &mut Queue, id: &MemberId) -> Looks {
    let Controller { feed, clock, .. } = controller;
    let looks = feed.members.get(id).map_or_else(Looks::default, |it| looks(&it, clock.is_skewed(), clock.now()));
    match looks.at {
        Some(when) => queue.at(id.clone(), when),
        None => queue.not_at(id),
    }
    looks
}

/// Reports an early deletion that Daypass did not make: it marks a member before it ends it early, and reports that.
fn report_deletion(controller: &Controller, member: &Member) {
    let reason = EndReason::Revoked;
    controller.membership.report_end(member, reason, Cause::internal(&actor(reason)));
}
