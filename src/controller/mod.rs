//! The controller: it provisions members however they were created, and ends them on time.
//!
//! It is level-triggered: an event, an expiry and the sweep all lead to the same comparison of what is with what should
//! be.

mod checks;
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

use self::checks::{Checks, Seen};
use self::queue::Queue;
use self::reconcile::{actor, reconcile};
use self::sweep::{Found, sweep};
use self::token_watch::TokenWatch;
use crate::access_tokens::AccessTokens;
use crate::clock::{Clock, Entropy};
use crate::cluster::{Cluster, Error, Lane, WatchEvent, WatchedMember};
use crate::domain::member::{Member, Phase};
use crate::membership::{EndReason, Membership};
use crate::observability::audit::Cause;
use crate::observability::metrics::Metrics;

/// How often everything is looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How soon after it could not be.
const SWEEP_RETRY: Duration = Duration::from_secs(5);

/// What the controller works with.
#[derive(Clone)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Controller {
    pub cluster: Cluster,
    pub membership: Membership,
    pub tokens: AccessTokens,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl Controller {
    /// The same, with calls in this lane.
    fn in_lane(&self, lane: Lane) -> Self {
        Self {
            cluster: self.cluster.in_lane(lane),
            membership: self.membership.in_lane(lane),
            tokens: self.tokens.in_lane(lane),
            ..self.clone()
        }
    }
}

/// Runs for as long as this replica leads.
async fn run(controller: &Controller) {
    let mut events = controller.cluster.watch_members().boxed();
    let mut token_events = controller.tokens.watch().boxed();
    let mut token_watch = TokenWatch::default();
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut queue = Queue::new(controller.clock.clone(), Entropy::default());
    // Unbounded, so that no end ever waits behind a creation; the queue runs one at a time for each member.
    let mut running = FuturesUnordered::new();
    let mut sweeping = FuturesUnordered::new();
    let mut checking = FuturesUnordered::new();
    let mut checks = Checks::default();
    loop {
        tokio::select! {
            Some(event) = events.next() => on_event(controller, &mut queue, event),
            Some(event) = token_events.next() => token_watch.on_event(controller, event),
            _ = ticks.tick(), if sweeping.is_empty() => sweeping.push(sweep(controller)),
            Some(swept) = sweeping.next(), if !sweeping.is_empty() => {
                let seen = on_swept(&mut queue, &mut ticks, swept);
                if checking.is_empty() {
                    checking.push(std::mem::take(&mut checks).run(controller, seen));
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
                    tracing::warn!(member = %id, %error, "a member could not be reconciled; it is tried again");
                    controller.metrics.reconcile_failures.inc();
                    queue.failed(id);
                }
            },
        }
    }
}

/// Queues what was found; the rest is for the looks beside it.
fn on_swept(queue: &mut Queue, ticks: &mut Interval, swept: Result<Found, Error>) -> Seen {
    match swept {
        Ok(found) => {
            for error in &found.failures {
                tracing::error!(%error, "a role could not be swept; it is swept again");
                ticks.reset_after(SWEEP_RETRY);
            }
            found.due.into_iter().for_each(|id| queue.now(id));
            found.wakes.into_iter().for_each(|(id, at)| queue.at(id, at));
            Seen { roles: found.roles, living: found.living, defaults: found.defaults }
        }
        Err(error) => {
            tracing::error!(%error, "nothing could be swept; it is tried again");
            ticks.reset_after(SWEEP_RETRY);
            Default::default()
        }
    }
}

fn on_event(controller: &Controller, queue: &mut Queue, event: WatchEvent<WatchedMember>) {
    match event {
        WatchEvent::Restarted => {}
        WatchEvent::Present(WatchedMember { id, member }) => match member {
            // In order: only its end is still to come. Its account and Secrets are the sweep's business.
            Ok(member)
                if member.is_live(controller.clock.now())
                    && member.is_recorded(controller.membership.clock_skewed()) =>
            {
                queue.at(id, member.expires_at());
            }
            _ => queue.now(id),
        },
        WatchEvent::Deleted(WatchedMember { id, member }) => {
            if let Ok(member) = member {
                report_deletion(controller, &member);
            }
            queue.now(id);
        }
    }
}

/// One that Daypass ended was marked, and reported then.
fn report_deletion(controller: &Controller, member: &Member) {
    if member.status.phase == Some(Phase::Terminating) {
        return;
    }
    let reason = EndReason::of(member, controller.clock.now());
    controller.membership.report_end(member, reason, Cause::internal(&actor(reason)));
}
