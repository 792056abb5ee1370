//! The controller: it provisions members however they were made, and ends them, exactly. Level-triggered: an event, an expiry and
//! the sweep all lead to the same look at what is there.

mod default_accounts;
mod leader;
mod plan;
mod queue;
mod quota_watch;
mod reconcile;
mod rights_watch;
mod sweep;
mod token_sweep;
mod token_watch;
mod watches;

pub use leader::lead;

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Interval, MissedTickBehavior};

use self::queue::Queue;
use self::reconcile::{actor, reconcile};
use self::sweep::{Found, sweep};
use self::token_watch::TokenWatch;
use self::watches::{Seen, Watches};
use crate::audit::Origin;
use crate::cluster::{AccessTokens, Cause, Cluster, Ending, Error, WatchEvent, WatchedMember};
use crate::domain::member::{Member, Phase};

/// How often everything is looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How soon after it could not be.
const SWEEP_RETRY: Duration = Duration::from_secs(5);

/// Runs for as long as this replica leads.
async fn run(tokens: &AccessTokens) {
    let cluster = &tokens.cluster;
    let mut events = cluster.watch_members().boxed();
    let mut token_events = tokens.watch().boxed();
    let mut token_watch = TokenWatch::default();
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut queue = Queue::new(cluster.clock.clone(), cluster.entropy.clone());
    // Unbounded, so that no end ever waits behind a creation; the queue runs one at a time for each member.
    let mut running = FuturesUnordered::new();
    let mut sweeping = FuturesUnordered::new();
    let mut looking = FuturesUnordered::new();
    let mut watches = Watches::default();
    loop {
        tokio::select! {
            Some(event) = events.next() => on_event(cluster, &mut queue, event),
            Some(event) = token_events.next() => token_watch.on_event(tokens, event),
            _ = ticks.tick(), if sweeping.is_empty() => sweeping.push(sweep(cluster)),
            Some(swept) = sweeping.next(), if !sweeping.is_empty() => {
                let seen = on_swept(&mut queue, &mut ticks, swept);
                if looking.is_empty() {
                    looking.push(std::mem::take(&mut watches).look(tokens, seen));
                }
            }
            Some(looked) = looking.next(), if !looking.is_empty() => watches = looked,
            id = queue.next() => {
                running.push(async move {
                    let outcome = reconcile(cluster, &id).await;
                    (id, outcome)
                });
            }
            Some((id, outcome)) = running.next(), if !running.is_empty() => match outcome {
                Ok(wake) => queue.done(id, wake),
                Err(error) => {
                    tracing::warn!(member = %id, %error, "a member could not be reconciled; it is tried again");
                    cluster.metrics.reconcile_failures.inc();
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

fn on_event(cluster: &Cluster, queue: &mut Queue, event: WatchEvent<WatchedMember>) {
    match event {
        WatchEvent::Restarted => {}
        WatchEvent::Present(WatchedMember { id, member }) => match member {
            // In order: only its end is still to come. Its account and Secrets are the sweep's business.
            Ok(member) if member.is_live(cluster.clock.now()) && member.is_recorded(cluster.clock_skewed()) => {
                queue.at(id, member.expires_at());
            }
            _ => queue.now(id),
        },
        WatchEvent::Deleted(WatchedMember { id, member }) => {
            if let Ok(member) = member {
                report_deletion(cluster, &member);
            }
            queue.now(id);
        }
    }
}

/// One that Daypass ended was marked, and reported then.
fn report_deletion(cluster: &Cluster, member: &Member) {
    if member.status.phase == Some(Phase::Terminating) {
        return;
    }
    let ending = Ending::of(member, cluster.clock.now());
    let origin = Origin::default();
    cluster.report_end(member, ending, Cause { actor: &actor(ending), owner: None, origin: &origin });
}
