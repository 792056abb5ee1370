//! What the decisions of this replica rest on: the API server's time, and how old its feed is.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::feed::Beat;

/// Up to this age, the feed alone decides.
const FRESH: Duration = Duration::from_secs(2);

/// What the decisions rest on. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) clock: Clock,
    pub(super) beat: Beat,
    /// How old the feed may be at most.
    pub(super) max_staleness: Duration,
}

impl Trust {
    /// The API server's time.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Whether the feed alone decides.
    pub(super) fn is_fresh(&self) -> bool {
        self.beat.age().is_some_and(|age| age <= FRESH)
    }

    /// Whether the feed is so old that nothing may begin.
    pub(super) fn is_stale(&self) -> bool {
        self.age() > self.max_staleness
    }

    /// How old the feed is; before the first beat, how long it has been waited for; zero while nobody asks.
    pub(super) fn age(&self) -> Duration {
        let since_use = || self.beat.active_since().map(|since| since.elapsed());
        self.beat.age().or_else(since_use).unwrap_or_default()
    }

    /// Whether the feed is so old that what is open since then may not go on. What is open keeps the beat going, so a
    /// beat that has begun again since means that this process was stopped for a while.
    pub(super) fn is_stale_since(&self, opened: Instant) -> bool {
        self.beat.last_known(opened).is_none_or(|known| known.elapsed() > self.max_staleness)
    }
}
