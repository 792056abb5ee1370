//! What is open: each forwarded request, and the signal that cuts it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::request_info::StreamKind;
use super::trust::Trust;
use crate::domain::gateway_token::{Pass, Refusal, still_admits};
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;

/// How long a client may take nothing of its answer while others wait for its place.
const UNREAD: Duration = Duration::from_secs(15);
/// How far the clocks of replicas may be apart.
const SKEW: TimeDelta = TimeDelta::seconds(1);

/// Why an open request is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    /// Its kubeconfig is no longer admitted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This replica no longer hears from the API server.
    #[error("Daypass cannot tell whether this membership is still in force")]
    Stale,
    /// This replica stops.
    #[error("this replica of Daypass restarts")]
    Restarting,
    /// Its client takes nothing, and others need its place.
    #[error("Daypass needs the place of an answer that nobody reads")]
    Unread,
}

impl Why {
    /// All names.
    pub(super) const LABELS: [&'static str; 7] =
        ["EXPIRED", "REVOKED", "CREDENTIAL_REPLACED", "KUBECONFIG_REVOKED", "STALE", "RESTARTING", "UNREAD"];

    /// Whether nothing more may be passed on. A replica that stops takes no right from anybody.
    pub(super) fn is_at_once(self) -> bool {
        self != Self::Restarting
    }

    /// What the user should do.
    pub(super) fn advice(self) -> &'static str {
        if matches!(self, Self::Refused(_)) { "" } else { "; try again" }
    }

    /// Its name in metrics and in the audit trail.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Refused(Refusal::Ended(_)) => "EXPIRED",
            Self::Refused(Refusal::Revoked) => "REVOKED",
            Self::Refused(Refusal::Replaced) => "CREDENTIAL_REPLACED",
            Self::Refused(Refusal::KubeconfigRevoked | Refusal::Unknown) => "KUBECONFIG_REVOKED",
            Self::Stale => "STALE",
            Self::Restarting => "RESTARTING",
            Self::Unread => "UNREAD",
        }
    }
}

/// An open request.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) member: MemberId,
    pub(super) pass: Pass,
    pub(super) kind: StreamKind,
    trust: Trust,
    since: Instant,
    /// When its member ends, as last known.
    ends: Mutex<DateTime<Utc>>,
    /// Since when its client has taken nothing of what waits for it.
    unread: Mutex<Option<Instant>>,
    cut: CancellationToken,
    /// Why it was cut, and when.
    why: OnceLock<(Why, Instant)>,
    /// What is done when it is cut, if nobody waits for that.
    on_cut: Mutex<Option<OnCut>>,
}

/// Something to do when a request is cut, in the runtime.
pub(super) struct OnCut(pub(super) Box<dyn FnOnce(Why) + Send>);

impl fmt::Debug for OnCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnCut")
    }
}

impl Open {
    /// Waits until it must be cut.
    pub(super) async fn cut(&self) -> Why {
        self.cut_at().await.0
    }

    /// The same, and since when it must be.
    pub(super) async fn cut_at(&self) -> (Why, Instant) {
        self.cut.cancelled().await;
        self.why.get().copied().unwrap_or((Why::Stale, Instant::now()))
    }

    /// The same, for somebody else to wait for.
    pub(super) fn when_cut(&self) -> WaitForCancellationFutureOwned {
        self.cut.clone().cancelled_owned()
    }

    /// Why it was cut, if it was.
    pub(super) fn reason(&self) -> Option<Why> {
        self.why.get().map(|(why, _)| *why)
    }

    /// Why it must be cut; `None` while it may go on. Looks at the clock and at the age of the feed: this process may
    /// have been stopped for a while, and whoever passes something on may run before the task that cuts.
    pub(super) fn why(&self) -> Option<Why> {
        if self.why.get().is_none() {
            let ends = *self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            if self.trust.now() >= ends {
                self.end(Refusal::Ended(ends).into());
            } else if self.trust.is_stale_since(self.since) {
                self.end(Why::Stale);
            }
        }
        self.reason()
    }

    /// Notes that something waits for its client, until the returned guard is dropped.
    pub(super) fn waits_for_client(&self) -> Waiting<'_> {
        self.set_unread(Some(Instant::now()));
        Waiting(self)
    }

    /// Notes that all that is left is for the client to take, and what is done if it is cut before. This must not hold
    /// the request: it would keep it open.
    pub(super) fn leave_to_client(&self, on_cut: OnCut) {
        self.set_unread(Some(Instant::now()));
        let mut place = self.on_cut.lock().unwrap_or_else(PoisonError::into_inner);
        match self.reason() {
            Some(why) => (on_cut.0)(why),
            None => *place = Some(on_cut),
        }
    }

    fn set_unread(&self, since: Option<Instant>) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_unread(&self) -> bool {
        let unread = *self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.is_some_and(|since| since.elapsed() > UNREAD)
    }

    pub(super) fn end(&self, why: Why) {
        if self.why.set((why, Instant::now())).is_ok() {
            self.cut.cancel();
            if let Some(OnCut(then)) = self.on_cut.lock().unwrap_or_else(PoisonError::into_inner).take() {
                then(why);
            }
        }
    }
}

/// Something that waits for a client, until dropped.
#[must_use = "it waits until it is dropped"]
pub(super) struct Waiting<'a>(&'a Open);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set_unread(None);
    }
}

/// All open requests of this replica.
#[derive(Debug)]
pub(super) struct Registry {
    trust: Trust,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: HashMap<MemberId, HashMap<u64, Arc<Open>>>,
}

/// An open request, until dropped.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    number: u64,
    open: Arc<Open>,
}

impl std::ops::Deref for Registered {
    type Target = Open;

    fn deref(&self) -> &Open {
        &self.open
    }
}

impl Registry {
    /// Nothing is open.
    pub(super) fn new(trust: Trust) -> Arc<Self> {
        Arc::new(Self { trust, state: Mutex::default() })
    }

    /// Registers a request that `pass` admits.
    pub(super) fn register(self: &Arc<Self>, member: &Member, pass: Pass, kind: StreamKind) -> Registered {
        let open = Arc::new(Open {
            member: member.id.clone(),
            pass,
            kind,
            trust: self.trust.clone(),
            since: Instant::now(),
            ends: Mutex::new(member.expires_at()),
            unread: Mutex::default(),
            cut: CancellationToken::new(),
            why: OnceLock::new(),
            on_cut: Mutex::default(),
        });
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.open.entry(open.member.clone()).or_default().insert(number, Arc::clone(&open));
        Registered { registry: Arc::clone(self), number, open }
    }

    /// Whether nothing is open.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().open.is_empty()
    }

    /// The members that have something open.
    pub(super) fn members(&self) -> Vec<MemberId> {
        self.lock().open.keys().cloned().collect()
    }

    /// Cuts what this member may no longer have. `member` is the Member as it is now, if there is one.
    pub(super) fn review(&self, id: &MemberId, member: Option<&Member>, now: DateTime<Utc>) {
        let state = self.lock();
        for open in state.open.get(id).into_iter().flat_map(HashMap::values) {
            let mut ends = open.ends.lock().unwrap_or_else(PoisonError::into_inner);
            *ends = member.map_or(*ends, Member::expires_at);
            let verdict = member.map_or(Err(gone(*ends, now)), |member| still_admits(member, &open.pass, now));
            if let Err(refusal) = verdict {
                open.end(refusal.into());
            }
        }
    }

    /// Cuts what the clock or the age of the feed no longer allows.
    pub(super) fn look(&self) {
        for open in self.lock().open.values().flat_map(HashMap::values) {
            // It ends itself.
            let _ = open.why();
        }
    }

    /// Cuts what nobody reads: others need the places.
    pub(super) fn make_room(&self) {
        let state = self.lock();
        let open = state.open.values().flat_map(HashMap::values);
        open.filter(|open| open.is_unread()).for_each(|open| open.end(Why::Unread));
    }

    /// The open watches.
    pub(super) fn watches(&self) -> Vec<Arc<Open>> {
        let state = self.lock();
        let open = state.open.values().flat_map(HashMap::values);
        open.filter(|open| open.kind == StreamKind::Watch).cloned().collect()
    }

    /// How long ago the first of those that are still open was cut.
    pub(super) fn overdue(&self) -> Duration {
        let state = self.lock();
        let cuts = state.open.values().flat_map(HashMap::values).filter_map(|open| open.why.get());
        cuts.map(|(_, at)| at.elapsed()).max().unwrap_or_default()
    }

    /// Cuts everything.
    pub(super) fn end_all(&self, why: Why) {
        self.lock().open.values().flat_map(HashMap::values).for_each(|open| open.end(why));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic under the lock leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if let Some(of_member) = state.open.get_mut(&self.open.member) {
            of_member.remove(&self.number);
            if of_member.is_empty() {
                state.open.remove(&self.open.member);
            }
        }
    }
}

/// Why a member is gone that would have ended then.
pub(super) fn gone(ends: DateTime<Utc>, now: DateTime<Utc>) -> Refusal {
    // The replica that ends it has another clock.
    if now + SKEW >= ends { Refusal::Ended(ends) } else { Refusal::Revoked }
}

/// Whether nobody can take this refusal back. Until all clocks are past an end, another replica may still move it.
pub(super) fn is_final(refusal: Refusal, now: DateTime<Utc>) -> bool {
    !matches!(refusal, Refusal::Ended(ends) if now < ends + SKEW)
}

/// Whether the member ends within `within` from now.
pub(super) fn ends_within(member: &Member, within: TimeDelta, now: DateTime<Utc>) -> bool {
    !member.is_expired(now) && member.is_expired(now + within)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::domain::examples::{gateway_kubeconfig, member};
    use crate::feed::Beat;

    #[test]
    fn what_is_left_to_a_client_is_discarded_once_and_only_at_a_cut() {
        let trust = Trust { clock: Clock::default(), beat: Beat::default(), max_staleness: Duration::MAX };
        let (registry, member) = (Registry::new(trust), member());
        let pass = Pass::of(&member, &gateway_kubeconfig(0)).unwrap();
        let register = || registry.register(&member, pass.clone(), StreamKind::Ordinary);
        let times = Arc::new(AtomicUsize::new(0));
        let count = || {
            let times = Arc::clone(&times);
            OnCut(Box::new(move |why| {
                assert_eq!(why, Why::Stale);
                times.fetch_add(1, Ordering::Relaxed);
            }))
        };
        let (taken, later, before) = (register(), register(), register());
        taken.leave_to_client(count());
        drop(taken);
        later.leave_to_client(count());
        assert_eq!(times.load(Ordering::Relaxed), 0);
        registry.end_all(Why::Stale);
        assert_eq!(times.load(Ordering::Relaxed), 1);
        before.leave_to_client(count());
        assert_eq!(times.load(Ordering::Relaxed), 2);
        registry.end_all(Why::Restarting);
        drop([later, before]);
        assert_eq!((times.load(Ordering::Relaxed), Arc::strong_count(&times)), (2, 1), "nothing is kept");
    }
}
