//! Decides who is admitted, and keeps watch over what is open.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};

use super::registry::{Registry, ends_within, gone, is_final};
use super::tombstones::Tombstones;
use super::trust::Trust;
use crate::authn::RateLimit;
use crate::cluster::{Cluster, Lookup};
use crate::domain::gateway_token::{GatewayToken, Pass, Refusal, admit, still_admits};
use crate::domain::kubeconfig::Mode;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::network::network;
use crate::domain::secret::SecretHash;
use crate::feed::{Change, Feed};
use crate::observability::metrics::Metrics;

/// How often everything that is open is compared with the feed and the clock.
const TICK: Duration = Duration::from_millis(250);
/// How long before its end a member is read once more: it may have been extended a moment ago.
const LAST_LOOK: TimeDelta = TimeDelta::seconds(2);
/// How many tokens that the feed does not know a client address may have looked up in a minute.
const LOOKUPS: u32 = 30;

/// The decision, and what it rests on.
pub(super) struct Admission {
    cluster: Cluster,
    feed: Feed,
    trust: Trust,
    metrics: Metrics,
    lookups: RateLimit<Option<IpAddr>>,
    graves: Mutex<Graves>,
}

/// The refused tokens.
#[derive(Default)]
struct Graves {
    /// Of kubeconfigs that there were.
    known: Tombstones<Refusal>,
    /// Others, which strangers can make up. They take no room from those.
    unknown: Tombstones<Refusal>,
}

/// Why a request is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// The kubeconfig is refused.
    #[error(transparent)]
    Refused(Refusal),
    /// It cannot be decided.
    #[error("Daypass cannot tell whether this membership is still in force; try again")]
    Undecided,
}

impl Admission {
    pub(super) fn new(cluster: Cluster, feed: Feed, trust: Trust, metrics: Metrics) -> Self {
        let (lookups, graves) = (RateLimit::new(LOOKUPS), Mutex::default());
        Self { cluster, feed, trust, metrics, lookups, graves }
    }

    /// Decides on the feed while its age is known to be small, otherwise on one live read. A token that the feed does
    /// not know is confirmed by a live read, too: another replica may have issued it a moment ago.
    pub(super) async fn decide(&self, token: &GatewayToken, address: Option<IpAddr>) -> Result<Pass, Denied> {
        if let Some(refusal) = self.tombstone(token) {
            return Err(Denied::Refused(refusal));
        }
        if !self.feed.is_complete() || self.trust.is_stale() {
            return Err(Denied::Undecided);
        }
        let known = self.by_feed(token);
        let is_fresh = self.trust.is_fresh();
        match known {
            Ok(pass) if is_fresh => return Ok(self.admitted(pass)),
            // A time that is over does not come back: whoever extends a member does so before.
            Err(refusal @ Refusal::Ended(_)) if is_fresh => return Err(Denied::Refused(refusal)),
            Ok(_) => {}
            // Strangers must not make us read without limit.
            Err(_) if self.lookups.count(address.map(network)).wait.is_some() => return Err(Denied::Undecided),
            Err(_) => {}
        }
        self.read(&token.subject().member).await?;
        let pass = self.by_feed(token).map_err(|refusal| {
            // If it ended during the read, the watch has said why.
            let refusal = self.tombstone(token).unwrap_or(refusal);
            if is_final(refusal, self.trust.now()) {
                self.bury(&token.hash(), refusal);
            }
            Denied::Refused(refusal)
        })?;
        Ok(self.admitted(pass))
    }

    /// Whether the feed admits it, and is so old that only a live read decides.
    pub(super) fn must_ask(&self, token: &GatewayToken) -> bool {
        !self.trust.is_fresh() && self.by_feed(token).is_ok()
    }

    /// Keeps the beat going. No stranger can.
    fn admitted(&self, pass: Pass) -> Pass {
        self.trust.beat.touch();
        pass
    }

    fn by_feed(&self, token: &GatewayToken) -> Result<Pass, Refusal> {
        let member = self.feed.members.get(&token.subject().member).ok_or(Refusal::Unknown)?;
        let record = admit(&member, token, self.trust.now())?;
        Pass::of(&member, record).ok_or(Refusal::Unknown)
    }

    /// Reads a Member, so that the feed is at least as new as this call.
    async fn read(&self, id: &MemberId) -> Result<(), Denied> {
        self.metrics.gateway.live_reads.inc();
        let known = self.feed.members.get(id);
        match self.cluster.member(id).await {
            Ok(Lookup::Found(member)) => self.feed.members.observe(&member),
            Ok(Lookup::Missing) => known.iter().for_each(|known| self.feed.members.forget(known)),
            Ok(Lookup::Unreadable(_)) | Err(_) => return Err(Denied::Undecided),
        }
        Ok(())
    }

    /// Cuts what may no longer be open: when a Member changes, when its time is over, and when the feed is too old.
    /// Never returns.
    pub(super) async fn keep_watch(&self, registry: &Registry) -> ! {
        let mut changes = self.feed.members.changes();
        let mut seen = HashMap::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reads, mut last_looks) = (FuturesUnordered::new(), HashSet::new());
        loop {
            tokio::select! {
                Some(change) = changes.recv() => {
                    let id = self.on_change(&mut seen, change);
                    registry.review(&id, self.feed.members.get(&id).as_deref(), self.trust.now());
                }
                Some(()) = reads.next(), if !reads.is_empty() => {}
                _ = ticks.tick() => {
                    if registry.is_empty() {
                        last_looks.clear();
                        self.measure(Duration::ZERO, Duration::ZERO);
                        continue;
                    }
                    let (now, open) = (self.trust.now(), registry.members());
                    last_looks.retain(|(id, _)| open.contains(id));
                    for id in open {
                        let member = self.feed.members.get(&id);
                        registry.review(&id, member.as_deref(), now);
                        let ending = member.filter(|member| ends_within(member, LAST_LOOK, now));
                        let Some(member) = ending else { continue };
                        if last_looks.insert((id.clone(), member.expires_at())) {
                            reads.push(async move { self.read(&id).await.unwrap_or_default() });
                        }
                    }
                    // Before the beat goes on: after a long stop of this process, it would begin anew.
                    registry.look();
                    self.trust.beat.touch();
                    self.measure(self.trust.age(), registry.overdue());
                }
            }
        }
    }

    fn measure(&self, age: Duration, overdue: Duration) {
        self.metrics.gateway.feed_age.set(age.as_secs_f64());
        self.metrics.gateway.overdue.set(overdue.as_secs_f64());
    }

    /// Notes why the kubeconfigs that this change ends are refused from now on. Returns whose change it is.
    fn on_change(&self, seen: &mut HashMap<MemberId, Arc<Member>>, change: Change) -> MemberId {
        // Its name may have been given again since, and this replica may have seen that first.
        if let Change::Deleted(id, Some(last)) = &change
            && seen.get(id).is_some_and(|newer| newer.uid != last.uid)
        {
            return id.clone();
        }
        let (id, member) = match change {
            Change::Present(member) => (member.id.clone(), Some(member)),
            Change::Deleted(id, _) | Change::Vanished(id) => (id, None),
            // It may become readable again.
            Change::Unreadable(id) => return id,
        };
        let former = seen.remove(&id);
        // The others have nothing to bury.
        let has_gateway = |member: &&Arc<Member>| {
            member.status.kubeconfigs.iter().flatten().any(|record| record.mode() == Mode::Gateway)
        };
        if let Some(member) = member.as_ref().filter(has_gateway) {
            seen.insert(id.clone(), Arc::clone(member));
        }
        let (Some(former), now) = (former, self.trust.now()) else { return id };
        let gone = gone(former.expires_at(), now);
        for pass in former.status.kubeconfigs.iter().flatten().filter_map(|record| Pass::of(&former, record)) {
            let verdict = member.as_ref().map_or(Err(gone), |member| still_admits(member, &pass, now));
            if let Err(refusal) = verdict
                && (member.is_none() || is_final(refusal, now))
            {
                self.bury(&pass.hash, refusal);
            }
        }
        id
    }

    fn tombstone(&self, token: &GatewayToken) -> Option<Refusal> {
        let (hash, now, mut graves) = (token.hash(), Instant::now(), self.graves());
        graves.known.get(&hash, now).or_else(|| graves.unknown.get(&hash, now))
    }

    fn bury(&self, hash: &SecretHash, refusal: Refusal) {
        let mut graves = self.graves();
        let graves = if refusal == Refusal::Unknown { &mut graves.unknown } else { &mut graves.known };
        graves.add(hash, refusal, Instant::now());
    }

    fn graves(&self) -> MutexGuard<'_, Graves> {
        self.graves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
