//! The controller: provisions members, no matter who created them, and ends them on time.
//!
//! It is level-triggered: events, expiries and the sweep all trigger the same comparison of actual and desired state.

mod background_checks;
mod default_accounts;
mod leader;
mod plan;
mod queue;
mod quota;
mod reconcile;
mod role_drift;
mod sweep;
mod token_sweep;
mod token_watch;

pub use leader::lead;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Interval, MissedTickBehavior};

use self::background_checks::{CheckInput, Checks};
use self::queue::Queue;
use self::reconcile::{actor, reconcile};
use self::sweep::{Found, sweep};
use self::token_watch::TokenWatch;
use crate::access_tokens::AccessTokens;
use crate::clock::{Clock, Entropy};
use crate::cluster::{Cluster, Lane};
use crate::domain::member::{Member, Phase};
use crate::feed::{Change, Feed};
use crate::membership::{EndReason, Membership};
use crate::observability::audit::Cause;
use crate::observability::metrics::Metrics;

/// How often the sweep runs, unless it has much to read.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long the sweep rests for each further page of a list, so that many members cost no more calls a second.
const SWEEP_REST: Duration = Duration::from_secs(2);
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
}

/// Runs the controller. The caller drops the future when this replica no longer leads.
async fn run(controller: &Controller) {
    let mut changes = controller.feed.members.changes();
    let mut token_events = controller.tokens.watch().boxed();
    let mut token_watch = TokenWatch::default();
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (clock, entropy) = (controller.clock.clone(), Entropy::default());
    let mut queue = Queue::new(move || clock.now(), move || entropy.fraction());
    // Unbounded, so that an end never waits behind a creation. The queue limits each member to one run at a time.
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
                let input = on_swept(&mut queue, &mut ticks, swept);
                if checking.is_empty() {
                    checking.push(std::mem::take(&mut checks).run(controller, input));
                }
            }
            Some(done) = checking.next(), if !checking.is_empty() => checks = done,
            id = queue.next() => {
                running.push(async move {
                    let outcome = reconcile(controller, &id).await;
                    (id, outcome)
                });
            }
            Some((id, outcome)) = running.next(), if !running.is_empty() => match outcome {
                Ok(wake) => queue.done(id, wake),
                Err(error) => {
                    tracing::warn!(member = %id, %error, "a member could not be reconciled; retrying");
                    controller.metrics.reconcile_failures.inc();
                    queue.failed(id);
                }
            },
        }
    }
}

/// Queues the members that the sweep found. Returns what the checks need.
fn on_swept(queue: &mut Queue, ticks: &mut Interval, found: Found) -> CheckInput {
    ticks.reset_after(SWEEP_INTERVAL.max(SWEEP_REST.saturating_mul(found.more_pages)));
    for error in &found.failures {
        tracing::error!(%error, "could not sweep a role; retrying");
        ticks.reset_after(SWEEP_RETRY);
    }
    found.due.into_iter().for_each(|id| queue.now(id));
    found.wakes.into_iter().for_each(|(id, at)| queue.at(id, at));
    CheckInput { roles: found.roles, living: found.living, defaults: found.defaults }
}

fn on_change(controller: &Controller, queue: &mut Queue, change: Change) {
    match change {
        // Nothing to do before its end. The sweep checks its account and Secrets.
        Change::Present(member)
            if member.is_live(controller.clock.now()) && member.is_recorded(controller.clock.is_skewed()) =>
        {
            queue.at(member.id.clone(), member.expires_at());
        }
        Change::Present(member) => queue.now(member.id.clone()),
        // Whoever deletes a member that is past its end reports that and removes the rest. If that was cut short, the
        // sweep removes it.
        Change::Deleted(_, Some(member)) if member.is_expired(controller.clock.now()) => {}
        Change::Deleted(id, last) => {
            if let Some(member) = last {
                report_deletion(controller, &member);
            }
            queue.now(id);
        }
        Change::Unreadable(id) | Change::Vanished(id) => queue.now(id),
    }
}

/// Reports an early deletion that Daypass did not make. Daypass marks a member before it ends it early, and reports it
/// then.
fn report_deletion(controller: &Controller, member: &Member) {
    if member.status.phase == Some(Phase::Terminating) {
        return;
    }
    let reason = EndReason::Revoked;
    controller.membership.report_end(member, reason, Cause::internal(&actor(reason)));
}
